"""The version stands in many files, and is the same in all of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from release import version
from release.errors import TreeError
from tests.support.crd import ROOT

if TYPE_CHECKING:
    from pathlib import Path

CURRENT = version.current()
#: Say versions of other things, or of the project's past.
OTHERS = re.compile(
    r"(^CHANGELOG\.md|\.lock|(^|/)go\.(mod|sum)|package-lock\.json)$"
    r"|^(bench/results|tests/support/releases)/"
    # The version of a package that it downloads.
    r"|^demo/model/__main__\.py$"
)


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    names = [name for name in listed.stdout.splitlines() if not OTHERS.search(name)]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_all_files_that_say_the_version_agree() -> None:
    assert {(path, said) for path, said in version.written() if said != CURRENT} == set()


@pytest.mark.parametrize("place", version.PLACES, ids=lambda place: f"{place.files} {place.before}")
def test_every_place_is_there(place: version.Place) -> None:
    assert any(place.find(path.read_text()) for path in ROOT.glob(place.files))


def test_no_file_says_it_where_it_would_not_be_written() -> None:
    alone = re.compile(rf"(?<![\d.]){re.escape(CURRENT)}(?![\d.]\d)")
    missed = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for place in version.PLACES:
            if path in set(ROOT.glob(place.files)):
                text = place.replace(text, "")
        missed += [str(path.relative_to(ROOT))] * bool(alone.search(text))
    assert missed == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for path in {path for path, _ in version.written()}:
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    return tmp_path


def test_another_version_is_written_everywhere_and_back_again(copy: Path) -> None:
    changed = version.write("12.0.34", copy)
    assert {path for path, _ in version.written(copy)} == set(changed)
    assert {said for _, said in version.written(copy)} == {"12.0.34"}
    assert version.current(copy) == "12.0.34"
    assert version.write(CURRENT, copy) == changed
    assert all((ROOT / path.relative_to(copy)).read_text() == path.read_text() for path in changed)


def test_nothing_is_written_twice(copy: Path) -> None:
    assert version.write(CURRENT, copy) == []


@pytest.mark.parametrize("bad", ["v1.2.3", "1.2", "1.2.3-rc.1", "01.2.3", "1.2.3.4", ""])
def test_what_is_no_version_is_refused_before_anything_is_written(copy: Path, bad: str) -> None:
    with pytest.raises(TreeError, match=r"write X\.Y\.Z"):
        version.write(bad, copy)
    assert version.current(copy) == CURRENT
