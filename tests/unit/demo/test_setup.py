"""What the demo prepares: its artifacts once, its images from where they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from demo import artifacts, cluster
from demo.errors import ModelError
from demo.model import wheels

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "inferencemodel-demo"


def test_artifacts_that_were_built_before_are_taken_from_the_cache(cache: Path) -> None:
    kept = cache / artifacts.key()
    kept.mkdir(parents=True)
    told: list[str] = []

    made = artifacts.ensure(told.append)

    assert made.archive(2) == kept / "0002.zip"
    assert told == [f"found in {kept}"]


def test_a_build_that_fails_leaves_nothing_in_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises((ModelError, FileNotFoundError)):
        artifacts.ensure(lambda _: None)
    assert list(cache.iterdir()) == []


def test_every_wheel_of_the_lock_file_is_pinned_by_a_hash() -> None:
    lines = [line for line in wheels.LOCK.read_text().splitlines() if not line.startswith("#")]
    pins, hashes = lines[::2], lines[1::2]
    assert all("==" in pin and pin.endswith("\\") for pin in pins)
    assert all(line.strip().startswith("--hash=sha256:") for line in hashes)
    assert len(pins) == len(hashes) == 4


def test_a_wheel_must_hold_just_one_file_of_a_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="0 wheels of skimage"):
        wheels.extract(tmp_path, "skimage", "/chelsea.png")


def test_a_registry_replaces_the_name_of_every_image_the_pollers_too(tmp_path: Path) -> None:
    overlay = cluster.registry_overlay("registry.example.com/ml", tmp_path)

    written = json.loads((overlay / "kustomization.yaml").read_text())
    assert {image["newName"] for image in written["images"]} == {
        f"registry.example.com/ml/{name}" for name in cluster.IMAGES
    }
    (operator,) = written["patches"]
    assert f"--poller-image=registry.example.com/ml/poller:{cluster.VERSION}" in operator["patch"]
    assert (tmp_path / written["resources"][0] / "kustomization.yaml").is_file()
