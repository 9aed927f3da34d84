"""A release without its images, which ``make test-release`` builds: all else is made twice here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from release import images, oci
from tests.support import trial
from tests.unit.release import made

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.rendering import Programs

pytestmark = pytest.mark.api


@pytest.fixture(scope="module")
def releases(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two, made by people whose machines are set up in different ways."""
    folder = tmp_path_factory.mktemp("images")
    for name in images.NAMES:
        index = oci.Index((made.image(made.layer({"etc/hostname": name.encode()}, 0)),))
        (folder / f"{name}-amd64.tar").write_bytes(index.archive(name))
    return (
        trial.make(tmp_path_factory.mktemp("one") / "dist", f"--images={folder}"),
        trial.make(
            tmp_path_factory.mktemp("two") / "dist",
            f"--images={folder}",
            umask=0o077,
            TZ="Asia/Kathmandu",
            LC_ALL="C",
            PYTHONHASHSEED="7",
        ),
    )


def test_each_file_of_a_release_is_made_again_with_the_same_bytes(
    releases: tuple[Path, Path],
) -> None:
    one, two = releases
    assert trial.digests(one) == trial.digests(two)
    assert {trial.WHEEL, trial.CHART, trial.PLUGIN, "install.yaml"} <= set(trial.digests(one))


def test_the_sums_are_those_of_all_files(releases: tuple[Path, Path]) -> None:
    trial.check_sums(releases[0])


def test_chart_and_manifest_run_the_images_of_the_release(
    programs: Programs, releases: tuple[Path, Path]
) -> None:
    folder, _ = releases
    found = trial.images(trial.manifest(folder))
    assert found == trial.images(trial.rendered(programs.helm, folder / trial.CHART))
    for name in images.NAMES:
        (image,) = oci.read_archive(folder / f"{name}-{trial.VERSION}.oci.tar")
        assert f"{trial.REGISTRY}/{name}@{oci.Index((image,)).digest}" in found
