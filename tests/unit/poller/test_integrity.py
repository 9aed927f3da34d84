"""When a SavedModel is whole."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_poller.checks import integrity, text_graph
from model_poller.checks.integrity import check_folder, check_names, check_sizes
from model_poller.errors import BrokenVersionError, IncompleteVersionError
from model_poller.status import VersionReason
from tests.unit.poller.doubles import field, graph, model, variables_index

if TYPE_CHECKING:
    import re
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
    check_folder(write(tmp_path, files))


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
        check_folder(tmp_path)
    assert caught.value.reason is VersionReason.MISSING_VARIABLES


def test_a_graph_without_a_saver_needs_no_variables(tmp_path: Path) -> None:
    check_folder(write(tmp_path, {"saved_model.pb": graph(saver=False)}))


def test_assets_that_the_graph_names_have_to_be_there(tmp_path: Path) -> None:
    files = {"saved_model.pb": graph(saver=False, assets=("vocab.txt",))}
    with pytest.raises(IncompleteVersionError, match=r"assets/vocab\.txt"):
        check_folder(write(tmp_path, files))
    check_folder(write(tmp_path, {"assets/vocab.txt": b"a"}))


def test_a_text_graph_is_judged_alike(tmp_path: Path) -> None:
    text = 'meta_graphs {\n  saver_def {\n  }\n  asset_file_def {\n    filename: "v.txt"\n  }\n}\n'
    write(tmp_path, {"saved_model.pbtxt": text.encode()})
    with pytest.raises(IncompleteVersionError, match=r"variables\.index"):
        check_folder(tmp_path)
    whole = {name: body for name, body in model().items() if name != "saved_model.pb"}
    write(tmp_path, whole)
    with pytest.raises(IncompleteVersionError, match=r"assets/v\.txt"):
        check_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk that is no message", b"\x08\x01", graph()[:-20]])
def test_a_graph_that_can_not_be_read_is_broken(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {**model(), "saved_model.pb": content})
    with pytest.raises(
        BrokenVersionError, match=r"saved_model\.pb (can't be read|is empty)"
    ) as caught:
        check_folder(tmp_path)
    assert caught.value.reason is VersionReason.MISSING_SAVED_MODEL


def test_no_cut_of_a_graph_passes(tmp_path: Path) -> None:
    content = graph(assets=("a.txt",))
    write(tmp_path, {**model(), "assets/a.txt": b"a"})
    for length in range(len(content)):
        write(tmp_path, {"saved_model.pb": content[:length]})
        with pytest.raises(BrokenVersionError):
            check_folder(tmp_path)


NODE = field(1, field(1, b"x") + field(2, b"Placeholder"))


@pytest.mark.parametrize("nodes", [0, 1, 8])
def test_a_graph_whose_end_is_zeros_is_broken(tmp_path: Path, nodes: int) -> None:
    """A copy that was cut off on a disk where the file had its length already."""
    whole = field(2, field(1, b"\x0a\x05serve") + field(2, NODE * 9))
    check_folder(write(tmp_path, {**model(), "saved_model.pb": whole}))
    lost = len(NODE) * (9 - nodes)
    write(tmp_path, {"saved_model.pb": whole[:-lost] + bytes(lost)})
    with pytest.raises(BrokenVersionError, match="number 0"):
        check_folder(tmp_path)


@given(content=st.binary(max_size=200))
def test_no_bytes_make_the_graph_check_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = write(tmp_path_factory.mktemp("g"), {**model(), "saved_model.pb": content})
    with contextlib.suppress(IncompleteVersionError, BrokenVersionError):
        check_folder(folder)


def test_a_text_graph_names_assets_beyond_ascii_by_their_bytes(tmp_path: Path) -> None:
    text = 'meta_graphs {\n  asset_file_def {\n    filename: "caf\\303\\251"\n  }\n}\n'
    write(tmp_path, {"saved_model.pbtxt": text.encode(), "assets/caf\u00e9": b"a"})
    check_folder(tmp_path)
    (tmp_path / "assets/caf\u00e9").unlink()
    with pytest.raises(IncompleteVersionError, match="assets/caf\u00e9"):
        check_folder(tmp_path)


def test_a_shard_that_is_shorter_than_the_index_says_is_broken(tmp_path: Path) -> None:
    files = model(b"weights" * 9, shards=2)
    lost = "variables/variables.data-00001-of-00002"
    write(tmp_path, {**files, lost: files[lost][:-1]})
    with pytest.raises(BrokenVersionError, match=f"{lost} has 63 of 64 bytes") as caught:
        check_folder(tmp_path)
    assert caught.value.reason is VersionReason.MISSING_VARIABLES


def test_shards_that_the_index_names_have_to_be_there(tmp_path: Path) -> None:
    files = model(shards=1)
    write(tmp_path, {**files, "variables/variables.index": variables_index([1, 1])})
    with pytest.raises(
        IncompleteVersionError, match=r"variables\.data-00000-of-00002 is missing, by what"
    ):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"junk", variables_index([8])[:-1], variables_index([8])[1:]]
)
def test_an_index_that_can_not_be_read_is_broken(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {**model(), "variables/variables.index": content})
    with pytest.raises(BrokenVersionError, match=r"variables\.index (can't be read|is empty)"):
        check_folder(tmp_path)


def test_a_graph_with_more_fields_than_any_has_is_not_read_to_its_end(tmp_path: Path) -> None:
    write(tmp_path, {**model(), "saved_model.pb": b"\x08\x01" * 1_100_000})
    with pytest.raises(BrokenVersionError, match="more than 1000000 fields"):
        check_folder(tmp_path)


@given(content=st.binary(max_size=200))
def test_no_bytes_make_the_text_graph_check_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    whole = {name: body for name, body in model().items() if name != "saved_model.pb"}
    folder = write(tmp_path_factory.mktemp("g"), {**whole, "saved_model.pbtxt": content})
    with contextlib.suppress(IncompleteVersionError, BrokenVersionError):
        check_folder(folder)


TEXT = """\
saved_model_schema_version: 1
meta_graphs {
  meta_info_def { tags: "serve" }  # not { closed
  graph_def < node { name: "a\\"}" op: 'Const' } node: [{name: "b"}, {name: "c"}] >
  asset_file_def {
    tensor_info { name: "file" }
    filename: "v"
              '.txt'
  }
  signature_def { key: "filename" value { method_name: "saver_def {" } }
}
"""


def write_text(folder: Path, text: str) -> Path:
    whole = {name: body for name, body in model().items() if name != "saved_model.pb"}
    return write(folder, {**whole, "assets/v.txt": b"v", "saved_model.pbtxt": text.encode()})


def test_a_text_graph_may_be_written_in_any_layout(tmp_path: Path) -> None:
    check_folder(write_text(tmp_path, TEXT))
    check_folder(write_text(tmp_path, " ".join(TEXT.replace("# not { closed", "").split())))
    (tmp_path / "assets/v.txt").unlink()
    with pytest.raises(IncompleteVersionError, match=r"assets/v\.txt"):
        check_folder(tmp_path)


def test_no_cut_of_a_text_graph_passes(tmp_path: Path) -> None:
    for length in range(len(TEXT.rstrip())):
        write_text(tmp_path, TEXT[:length])
        with pytest.raises(
            BrokenVersionError, match=r"saved_model\.pbtxt (can't be read|is empty)"
        ):
            check_folder(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "<html><body>404</body></html>",
        "meta_graphs {}\0\0",
        "meta_graphs {}}",
        "meta_graphs {} meta_gr",
        "{" * 1000,
        "meta_graphs { 'a }",
    ],
)
def test_text_that_is_no_whole_graph_is_broken(tmp_path: Path, text: str) -> None:
    with pytest.raises(BrokenVersionError, match=r"saved_model\.pbtxt (can't be read|is empty)"):
        check_folder(write_text(tmp_path, text))


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt"])
def test_an_empty_graph_is_told_by_its_size_alone(name: str) -> None:
    sizes = {file.replace("saved_model.pb", name): len(body) for file, body in model().items()}
    check_sizes(sizes)
    with pytest.raises(IncompleteVersionError, match=f"{name} is empty"):
        check_sizes({**sizes, name: 0})
    with pytest.raises(IncompleteVersionError, match=r"variables\.index is empty"):
        check_sizes({**sizes, "variables/variables.index": 0})


def test_shards_of_different_counts_are_incomplete() -> None:
    names = {*model(shards=2), "variables/variables.data-00000-of-00003"}
    with pytest.raises(IncompleteVersionError):
        check_names(names)


WORDS = (b"filename", b"meta_graphs", b"a", b"1", b" ", b":", b"{", b">", b"#", b"\n", b'"', b"\\")


@pytest.mark.parametrize(
    "token", [integrity._TOKEN, text_graph._TOKEN], ids=["integrity", "text_graph"]
)
@given(st.lists(st.sampled_from([*WORDS, *(word * 11_000 for word in WORDS)])).map(b"".join))
def test_no_byte_of_a_text_graph_is_searched_through(
    token: re.Pattern[bytes], content: bytes
) -> None:
    """While one expression is searched for, no other thread runs, however long a gap is."""
    end = 0
    for found in token.finditer(content):
        assert found.start() == end
        end = found.end()
    assert end == len(content)


def test_fields_behind_the_last_block_are_as_many_as_may_be(tmp_path: Path) -> None:
    text = b"meta_graphs { saver_def {} }" + b" a: 1" * 50_000
    whole = {name: content for name, content in model().items() if name != "saved_model.pb"}
    check_folder(write(tmp_path, {**whole, "saved_model.pbtxt": text}))
    (tmp_path / "saved_model.pbtxt").write_bytes(text + b" b")
    with pytest.raises(BrokenVersionError, match="ends inside a field"):
        check_folder(tmp_path)
