"""When a SavedModel is whole."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_poller.checks.integrity import check_folder, check_names
from model_poller.errors import IncompleteVersionError
from model_poller.status import VersionReason
from tests.unit.poller.doubles import graph, model, variables_index

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize("shards", [1, 2, 11])
def test_a_whole_savedmodel_passes(tmp_path: Path, shards: int) -> None:
    files = model(shards=shards)
    check_names(files.keys())
    check_folder(write(tmp_path, files), may_grow=True)


@given(data=st.data())
def test_without_any_one_of_its_needed_files_it_is_incomplete_by_name(data: st.DataObject) -> None:
    files = model(shards=3)
    lost = data.draw(st.sampled_from(sorted(files)))
    with pytest.raises(IncompleteVersionError, match=lost.replace(".", r"\.")):
        check_names(files.keys() - {lost})


def test_a_graph_that_restores_variables_needs_the_variables_folder(tmp_path: Path) -> None:
    write(tmp_path, {"saved_model.pb": graph(saver=True)})
    check_names({"saved_model.pb"})
    with pytest.raises(IncompleteVersionError, match=r"variables\.index") as caught:
        check_folder(tmp_path, may_grow=True)
    assert caught.value.reason is VersionReason.MISSING_VARIABLES


def test_a_graph_without_a_saver_needs_no_variables(tmp_path: Path) -> None:
    check_folder(write(tmp_path, {"saved_model.pb": graph(saver=False)}), may_grow=True)


def test_assets_that_the_graph_names_have_to_be_there(tmp_path: Path) -> None:
    files = {"saved_model.pb": graph(saver=False, assets=("vocab.txt",))}
    with pytest.raises(IncompleteVersionError, match=r"assets/vocab\.txt"):
        check_folder(write(tmp_path, files), may_grow=True)
    check_folder(write(tmp_path, {"assets/vocab.txt": b"a"}), may_grow=True)


def test_a_text_graph_is_judged_alike(tmp_path: Path) -> None:
    text = 'meta_graphs {\n  saver_def {\n  }\n  asset_file_def {\n    filename: "v.txt"\n  }\n}\n'
    write(tmp_path, {"saved_model.pbtxt": text.encode()})
    with pytest.raises(IncompleteVersionError, match=r"variables\.index"):
        check_folder(tmp_path, may_grow=True)
    whole = {name: body for name, body in model().items() if name != "saved_model.pb"}
    write(tmp_path, whole)
    with pytest.raises(IncompleteVersionError, match=r"assets/v\.txt"):
        check_folder(tmp_path, may_grow=True)


@pytest.mark.parametrize("content", [b"", b"junk that is no message", b"\x08\x01", graph()[:-20]])
def test_a_graph_that_can_not_be_read_may_still_be_written_or_is_the_servers_to_refuse(
    tmp_path: Path, content: bytes
) -> None:
    write(tmp_path, {**model(), "saved_model.pb": content})
    with pytest.raises(IncompleteVersionError, match=r"saved_model\.pb can't be read"):
        check_folder(tmp_path, may_grow=True)
    check_folder(tmp_path, may_grow=False)


@given(content=st.binary(max_size=200))
def test_no_bytes_make_the_graph_check_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = write(tmp_path_factory.mktemp("g"), {**model(), "saved_model.pb": content})
    with contextlib.suppress(IncompleteVersionError):
        check_folder(folder, may_grow=True)


def test_a_text_graph_names_assets_beyond_ascii_by_their_bytes(tmp_path: Path) -> None:
    text = 'meta_graphs {\n  asset_file_def {\n    filename: "caf\\303\\251"\n  }\n}\n'
    write(tmp_path, {"saved_model.pbtxt": text.encode(), "assets/caf\u00e9": b"a"})
    check_folder(tmp_path, may_grow=True)
    (tmp_path / "assets/caf\u00e9").unlink()
    with pytest.raises(IncompleteVersionError, match="assets/caf\u00e9"):
        check_folder(tmp_path, may_grow=True)


@pytest.mark.parametrize("may_grow", [True, False])
def test_a_shard_that_is_shorter_than_the_index_says_is_incomplete(
    tmp_path: Path, may_grow: bool
) -> None:
    files = model(b"weights" * 9, shards=2)
    lost = "variables/variables.data-00001-of-00002"
    write(tmp_path, {**files, lost: files[lost][:-1]})
    with pytest.raises(IncompleteVersionError, match=f"{lost} has 63 of 64 bytes") as caught:
        check_folder(tmp_path, may_grow=may_grow)
    assert caught.value.reason is VersionReason.MISSING_VARIABLES


def test_shards_that_the_index_names_have_to_be_there(tmp_path: Path) -> None:
    files = model(shards=1)
    write(tmp_path, {**files, "variables/variables.index": variables_index([1, 1])})
    with pytest.raises(
        IncompleteVersionError, match=r"variables\.data-00000-of-00002 is missing, by what"
    ):
        check_folder(tmp_path, may_grow=False)


@pytest.mark.parametrize(
    "content", [b"", b"junk", variables_index([8])[:-1], variables_index([8])[1:]]
)
def test_an_index_that_can_not_be_read_may_still_be_written_or_is_the_servers_to_refuse(
    tmp_path: Path, content: bytes
) -> None:
    write(tmp_path, {**model(), "variables/variables.index": content})
    with pytest.raises(IncompleteVersionError, match=r"variables\.index can't be read"):
        check_folder(tmp_path, may_grow=True)
    check_folder(tmp_path, may_grow=False)


def test_a_graph_with_more_fields_than_any_has_is_not_read_to_its_end(tmp_path: Path) -> None:
    write(tmp_path, {**model(), "saved_model.pb": b"\x08\x01" * 1_100_000})
    with pytest.raises(IncompleteVersionError, match="more than 1000000 fields"):
        check_folder(tmp_path, may_grow=True)


@given(content=st.binary(max_size=200))
def test_no_bytes_make_the_text_graph_check_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    whole = {name: body for name, body in model().items() if name != "saved_model.pb"}
    folder = write(tmp_path_factory.mktemp("g"), {**whole, "saved_model.pbtxt": content})
    with contextlib.suppress(IncompleteVersionError):
        check_folder(folder, may_grow=True)


def test_shards_of_different_counts_are_incomplete() -> None:
    names = {*model(shards=2), "variables/variables.data-00000-of-00003"}
    with pytest.raises(IncompleteVersionError):
        check_names(names)
