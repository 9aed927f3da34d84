"""What a model server will find in an export's graph: what it loads by, and what it answers to."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_poller.checks.integrity import GRAPH_FILES
from model_poller.checks.interface import INTERNAL, TAG, TEXT_BYTES
from model_poller.checks.text_graph import read_text
from model_poller.checks.wire import fields
from model_poller.errors import BrokenVersionError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from pathlib import Path

# Field numbers of tensorflow/core/protobuf/saved_model.proto and meta_graph.proto.
_META_GRAPHS = 2
_META_INFO, _TAGS = 1, 4
_SIGNATURES, _KEY = 5, 1
_NAME_BYTES = 1 << 10


@dataclass(slots=True)
class _MetaGraph:
    tags: set[str] = field(default_factory=set)
    signatures: set[str] = field(default_factory=set)


def check(folder: Path) -> str | None:
    """See whether TF Serving finds a graph in a SavedModel, and something to ask it.

    What can't be read is left to others. Returns what a person should know, if anything.

    Raises:
        BrokenVersionError: it would be refused, or each of its requests.
        OSError
    """
    try:
        graphs = _read(folder)
    except ValueError:
        return None
    for_serving = [graph for graph in graphs if TAG in graph.tags]
    if not for_serving:
        there = " and ".join(_shown(graph.tags) for graph in graphs[:5]) or "no graph"
        raise BrokenVersionError(
            VersionReason.LOAD_FAILED,
            f"could not find meta graph def matching supplied tags: {_shown({TAG})}, which TF"
            f" Serving loads, but {there}; export it for serving, as tf.saved_model.save does",
        )
    if not any(graph.signatures for graph in for_serving):
        raise BrokenVersionError(
            VersionReason.LOAD_FAILED,
            "it has no signatures, so that every request would be refused; export it with"
            " signatures, such as serving_default",
        )
    if not any(graph.tags == {TAG} for graph in for_serving):
        return (
            f"its graph has the tags {_shown(for_serving[0].tags)}: TF Serving needs them as"
            " --saved_model_tags"
        )
    return None


def _shown(tags: set[str]) -> str:
    return "{ " + " ".join(sorted(tag[:50] for tag in tags)) + " }"


def _read(folder: Path) -> list[_MetaGraph]:
    path = folder / GRAPH_FILES[0]
    if is_text := not path.exists():
        path = folder / GRAPH_FILES[1]
    # An empty file can't be mapped, which is a ValueError too.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if is_text:
            return _read_text(data)
        return [
            _meta_graph(data, graph)
            for number, graph in fields(data, 0, len(data))
            if number == _META_GRAPHS and isinstance(graph, range)
        ]


def _meta_graph(data: mmap.mmap, place: range) -> _MetaGraph:
    found = _MetaGraph()
    for number, content in fields(data, place.start, place.stop):
        if not isinstance(content, range):
            continue
        wanted = {_META_INFO: _TAGS, _SIGNATURES: _KEY}.get(number)
        words = {
            data[word.start : min(word.stop, word.start + _NAME_BYTES)].decode(errors="replace")
            for inner, word in (fields(data, content.start, content.stop) if wanted else ())
            if inner == wanted and isinstance(word, range)
        }
        if number == _META_INFO:
            found.tags |= words
        else:
            found.signatures |= {word for word in words if not word.startswith(INTERNAL)}
    return found


def _read_text(data: mmap.mmap) -> list[_MetaGraph]:
    if len(data) > TEXT_BYTES:
        raise ValueError(f"it has more than {TEXT_BYTES} bytes of text")
    return [
        _MetaGraph(
            {tag for info in graph.all(1, "meta_info_def") for tag in info.texts(4, "tags")},
            {
                name
                for entry in graph.all(5, "signature_def")
                if not (name := entry.text(1, "key")).startswith(INTERNAL)
            },
        )
        for graph in read_text(data).all(2, "meta_graphs")
    ]
