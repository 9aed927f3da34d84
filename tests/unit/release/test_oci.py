"""Images of a release depend on nothing but their contents, and tell these."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from devcluster.images import names_in
from release import oci
from release.errors import ReleaseError
from tests.unit.release.made import TREE, image, layer

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = TREE.epoch


def test_two_builds_of_the_same_files_are_the_same_image() -> None:
    first = image(layer({"a": b"1", "b": b"2"}, EPOCH + 5), created="today")
    second = image(layer({"b": b"2", "a": b"1"}, EPOCH + 9.5, level=1), created="tomorrow")
    assert first.digest != second.digest
    assert oci.timeless(first, EPOCH) == oci.timeless(second, EPOCH)


def test_other_contents_are_another_image() -> None:
    first = oci.timeless(image(layer({"a": b"1"}, EPOCH)), EPOCH)
    assert oci.timeless(image(layer({"a": b"2"}, EPOCH)), EPOCH).digest != first.digest


def test_a_timeless_image_is_still_whole_and_runs_as_before() -> None:
    made = oci.timeless(image(layer({"a": b"1"}, EPOCH + 5)), EPOCH)
    assert all(
        f"sha256:{hashlib.sha256(blob).hexdigest()}" == name for name, blob in made.blobs.items()
    )
    (packed,) = made.manifest["layers"]
    content = gzip.decompress(made.blobs[packed["digest"]])
    assert made.config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]
    assert made.config["config"] == {"User": "65532:65532"}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert [entry.mtime for entry in archive] == [EPOCH]


def test_files_older_than_the_commit_keep_their_time() -> None:
    made = oci.timeless(image(layer({"a": b"1"}, 12)), EPOCH)
    content = gzip.decompress(made.blobs[made.manifest["layers"][0]["digest"]])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert [entry.mtime for entry in archive] == [12]


def test_files_are_those_of_the_upper_layers() -> None:
    made = image(
        layer({"a": b"1", "b/c": b"2", "d/e": b"3", "f/g": b"4"}, 0),
        layer({"./a": b"5", ".wh.b": b"", "d/.wh.e": b"", "f/.wh..wh..opq": b"", "f/h": b"6"}, 0),
    )
    assert oci.files(made, lambda _: True) == {"a": b"5", "f/h": b"6"}
    assert oci.files(made, lambda path: path == "a") == {"a": b"5"}


def test_an_archive_of_two_architectures_has_both_below_one_name(tmp_path: Path) -> None:
    images = [
        image(layer({"a": name.encode()}, 0), architecture=name) for name in ("arm64", "amd64")
    ]
    index = oci.Index(tuple(images))
    assert index == oci.Index(tuple(images))
    assert index.digest == oci.Index((images[1], images[0])).digest
    path = tmp_path / "image.tar"
    path.write_bytes(index.archive("registry.example.com/x/operator:1.2.3"))
    assert names_in(path) == ["registry.example.com/x/operator:1.2.3"]
    read = oci.read_archive(path)
    assert [each.architecture for each in read] == ["amd64", "arm64"]
    assert {each.digest for each in read} == {each.digest for each in images}


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"no archive")
    with pytest.raises(ReleaseError, match=r"image\.tar is no archive of an image"):
        oci.read_archive(path)
