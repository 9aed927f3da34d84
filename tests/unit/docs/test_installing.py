"""The package is installed from its source or from a wheel, as no package index has it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.crd import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGE = (ROOT / "docs" / "install.md").read_text()
SHOWN = (".md", ".sh", ".yaml", ".py", ".txt", ".toml")


def files() -> list[Path]:
    """Everything that a person reads of the project."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return [ROOT / name for name in listed.stdout.splitlines() if name.endswith(SHOWN)]


def test_nobody_is_told_to_install_it_by_its_name_alone() -> None:
    by_name = re.compile(rf"pip3? install (?:-\S+ )*['\"]?{PROJECT['name']}\b(?![/.])")
    assert by_name.search("pip install --quiet 'inferencemodel[plugin]'")
    found = [path for path in files() if path.exists() and by_name.search(path.read_text())]
    assert [
        str(path.relative_to(ROOT)) for path in found if path.name != "test_installing.py"
    ] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built as the page says, but with the tools that are here already."""
    directory = tmp_path_factory.mktemp("wheel")
    assert "pip wheel --no-deps --wheel-dir=dist ." in PAGE
    command = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet")
    subprocess.run(
        [sys.executable, *command, f"--wheel-dir={directory}", str(ROOT)], check=True, timeout=120
    )
    (built,) = directory.glob("*.whl")
    return built


def test_the_page_names_the_wheel_that_is_built(wheel: Path) -> None:
    assert f"dist/{wheel.name}[plugin]'" in PAGE


def test_the_wheel_has_every_program_and_what_it_runs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        programs = archive.read(entry_points).decode()
    for program, target in PROJECT["scripts"].items():
        assert f"{program} = {target}" in programs
        module = target.partition(":")[0].replace(".", "/")
        assert f"{module}.py" in names


def test_the_locks_that_the_page_names_are_there_and_agree_with_each_other() -> None:
    locks = re.findall(r"-r (requirements/\S+\.lock)", PAGE)
    assert len(locks) == 2
    pinned = [
        dict(re.findall(r"^(\S+)==(\S+)", (ROOT / x).read_text(), re.MULTILINE)) for x in locks
    ]
    both = pinned[0].keys() & pinned[1].keys()
    assert both
    assert {name: pinned[0][name] for name in both} == {name: pinned[1][name] for name in both}
    for lock in locks:
        asked = re.findall(r"^tensorflow==\S+ ; (.*) \\$", (ROOT / lock).read_text(), re.MULTILINE)
        assert asked in ([], ["sys_platform == 'never'"])
