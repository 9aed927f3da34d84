"""Whoever makes a release gets the same bytes, and can check those that he got."""

from __future__ import annotations

from typing import TYPE_CHECKING

from release import images, oci
from tests.support import trial

if TYPE_CHECKING:
    from pathlib import Path


def test_two_releases_are_the_same_files_with_the_same_bytes(releases: tuple[Path, Path]) -> None:
    one, two = (trial.digests(folder) for folder in releases)
    differing = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    assert differing == []


def test_the_sums_are_those_of_all_files(release: Path) -> None:
    trial.check_sums(release)


def test_the_manifest_runs_the_very_images_of_the_release(release: Path) -> None:
    expected = set()
    for name in images.NAMES:
        found = tuple(oci.read_archive(release / f"{name}-{trial.VERSION}.oci.tar"))
        expected.add(f"{trial.REGISTRY}/{name}@{oci.Index(found).digest}")
    assert trial.images(trial.manifest(release)) == expected
