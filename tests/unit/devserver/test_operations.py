"""Operations of other packages, where these are installed."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from development_model_server import operations, tensorflow_c

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the package tensorflow_text has its libraries."""
    folder = tmp_path / "tensorflow_text/python/ops"
    folder.mkdir(parents=True)
    (tmp_path / "tensorflow_text/__init__.py").write_text("raise AssertionError")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    return folder


def test_a_library_that_can_not_be_loaded_is_told_and_left(
    package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (package / "_broken_ops.so").write_bytes(b"no library")
    operations.load()
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "1 of the 1 libraries of tensorflow_text can't be loaded" in told
    assert "_broken_ops.so" in told


def test_all_libraries_of_a_package_are_loaded_without_its_python(
    package: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("_a.so", "_b.so", "other.so"):
        (package / name).touch()
    loaded: list[str] = []
    monkeypatch.setattr(tensorflow_c, "load_operations", lambda path: loaded.append(path.name))
    caplog.set_level("INFO", operations.__name__)
    operations.load()
    assert loaded == ["_a.so", "_b.so"]
    assert "The operations of tensorflow_text are there" in caplog.text


def test_where_nothing_is_installed_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    operations.load()
    assert not caplog.records
