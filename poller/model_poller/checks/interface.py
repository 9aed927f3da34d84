"""What a version offers to clients, read from its graph without TensorFlow.

A SavedModel holds MetaGraphDefs, and TensorFlow Serving loads the one tagged ``serve``; its
SignatureDefs (tensorflow/core/protobuf/meta_graph.proto) name the inputs and outputs that requests
are made of. All else in the graph is passed over.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from model_poller.checks import dtypes
from model_poller.checks.integrity import GRAPH_FILES
from model_poller.checks.text_graph import read_text
from model_poller.checks.wire import fields
from model_poller.status import Interface, SignatureSpec, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

TAG: Final = "serve"
"""TensorFlow Serving's --saved_model_tags, unless it is told otherwise."""
INTERNAL: Final = "__saved_model_"
"""TensorFlow keeps operations of its own under such signatures."""
MAX_SIGNATURES: Final = 64
MAX_TENSORS: Final = 2000
"""Inputs and outputs of all signatures. Models of tables have some hundred columns."""
MAX_NAME: Final = 256
"""Characters."""
MAX_DIMENSIONS: Final = 32
MAX_BYTES: Final = 64 << 10
"""Of all that is told of one version, about as JSON has it."""
_TENSOR_BYTES: Final = 40
"""Of an input or output beside its name: quotes, ``dtype``, ``shape``."""
_DIMENSION_BYTES: Final = 4
TEXT_BYTES: Final = 64 << 20
"""A larger text graph is not read for its interface."""


class Node(Protocol):
    """One message: of the wire, where its fields have numbers, or of a text, where names."""

    def all(self, number: int, name: str) -> Sequence[Node]:
        """The messages in a field."""

    def text(self, number: int, name: str) -> str:
        """What a field of text says; empty where it is missing."""

    def texts(self, number: int, name: str) -> list[str]:
        """All that a repeated field of text says."""

    def number(self, number: int, name: str) -> int:
        """What a field of a number or a type says; 0 where it is missing."""


class _TooMuchError(ValueError):
    """There is more than is told."""


def read(folder: Path) -> Interface:
    """The interface of the version in a folder; where it can't be told, its message says why.

    Raises:
        OSError: the graph can't be read at the moment.
    """
    path = graph_file(folder)
    try:
        with opened(path) as model:
            return _interface(model)
    except _TooMuchError as error:
        return Interface(message=f"the interface of {path.name} is not told: {error}")
    except ValueError as error:
        return Interface(message=f"the signatures of {path.name} can't be read: {error}")


def graph_file(folder: Path) -> Path:
    """Where the graph of the version in a folder is, if it is there."""
    path = folder / GRAPH_FILES[0]
    return path if path.exists() else folder / GRAPH_FILES[1]


@contextmanager
def opened(path: Path) -> Iterator[Node]:
    """The SavedModel in a file, as long as that is open.

    Raises:
        ValueError: the file is empty, or a text that is too long or no graph.
        OSError
    """
    # An empty file can't be mapped, which is a ValueError too.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if path.name == GRAPH_FILES[0]:
            yield _WireNode(data, range(len(data)))
            return
        if len(data) > TEXT_BYTES:
            raise _TooMuchError(f"it has more than {TEXT_BYTES} bytes of text")
        yield read_text(data)


def tags(graph: Node) -> set[str]:
    """The tags of a MetaGraphDef, by which a server finds it: by all of them, or not at all."""
    return {tag for info in graph.all(1, "meta_info_def") for tag in info.texts(4, "tags")}


def signatures(graph: Node) -> Iterator[tuple[str, Node]]:
    """The signatures of a MetaGraphDef, by name, without TensorFlow's own."""
    for entry in graph.all(5, "signature_def"):
        name = entry.text(1, "key")
        if not name.startswith(INTERNAL):
            yield name, entry


def _interface(model: Node) -> Interface:
    graph = _graph(model.all(2, "meta_graphs"))
    budget = _Budget()
    found = {}
    for name, entry in signatures(graph):
        budget.name(name)
        for signature in entry.all(2, "value")[-1:]:
            found[name] = _signature(signature, budget)
        if len(found) > MAX_SIGNATURES:
            raise _TooMuchError(f"it has more than {MAX_SIGNATURES} signatures")
    return Interface(signatures=dict(sorted(found.items())))


def _graph(graphs: Iterable[Node]) -> Node:
    tagged: dict[bool, Node] = {}
    for graph in graphs:
        found = tags(graph)
        if TAG in found:
            # The one that a server finds by this tag alone, before such as are for GPUs or TPUs.
            tagged.setdefault(found == {TAG}, graph)
    if not tagged:
        raise ValueError(f"no graph has the tag {TAG}; export it for serving")
    return tagged.get(True) or tagged[False]


def _signature(signature: Node, budget: _Budget) -> SignatureSpec:
    method = signature.text(3, "method_name")
    budget.name(method)
    optional = {entry.text(1, "key") for entry in signature.all(4, "defaults")}
    return SignatureSpec(
        method=method,
        inputs=_tensors(signature.all(1, "inputs"), budget, optional),
        outputs=_tensors(signature.all(2, "outputs"), budget),
    )


def _tensors(
    entries: Iterable[Node], budget: _Budget, optional: Iterable[str] = ()
) -> dict[str, TensorSpec]:
    tensors = {}
    for entry in entries:
        name = entry.text(1, "key")
        budget.tensor(name)
        for info in entry.all(2, "value")[-1:]:
            tensors[name] = TensorSpec(
                dtype=dtypes.name(info.number(2, "dtype")),
                shape=_shape(info.all(3, "tensor_shape"), budget),
                optional=name in optional,
            )
    return dict(sorted(tensors.items()))


def _shape(shapes: Sequence[Node], budget: _Budget) -> tuple[int, ...] | None:
    shape: list[int] = []
    for part in shapes:
        if part.number(3, "unknown_rank"):
            return None
        shape += [signed(dim.number(1, "size")) for dim in part.all(2, "dim")]
    budget.shape(shape)
    return tuple(max(size, -1) for size in shape)


def signed(number: int) -> int:
    """An int64 of what stands on the wire for it.

    Raises:
        ValueError: it has more bits.
    """
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError(f"a size of {number}")
    return number - (1 << 64) if number >= 1 << 63 else number


class _Budget:
    """Counts what is told."""

    def __init__(self) -> None:
        self._tensors = self._bytes = 0

    def name(self, text: str) -> None:
        """Take in a name.

        Raises:
            _TooMuchError
        """
        if len(text) > MAX_NAME:
            raise _TooMuchError(f"the name {text[:40]}… has more than {MAX_NAME} characters")
        self._add(len(text.encode()) + _TENSOR_BYTES)

    def tensor(self, name: str) -> None:
        """Take in an input or output; raises as `name`."""
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise _TooMuchError(f"it has more than {MAX_TENSORS} inputs and outputs")
        self.name(name)

    def shape(self, shape: Sequence[int]) -> None:
        """Take in a shape; raises as `name`."""
        if len(shape) > MAX_DIMENSIONS:
            raise _TooMuchError(f"a tensor has more than {MAX_DIMENSIONS} dimensions")
        self._add(_DIMENSION_BYTES * len(shape))

    def _add(self, count: int) -> None:
        self._bytes += count
        if self._bytes > MAX_BYTES:
            raise _TooMuchError(f"its inputs and outputs take more than {MAX_BYTES} bytes")


class _WireNode:
    """A message in Protocol Buffers' wire format."""

    def __init__(self, data: mmap.mmap, place: range) -> None:
        self._data = data
        self._place = place

    def all(self, number: int, name: str) -> list[_WireNode]:  # noqa: ARG002
        return [_WireNode(self._data, place) for place in self._places(number)]

    def text(self, number: int, name: str) -> str:
        return (self.texts(number, name) or [""])[-1]

    def texts(self, number: int, name: str) -> list[str]:  # noqa: ARG002
        # One character more than is told, of four bytes at the most.
        ends = ((p.start, min(p.stop, p.start + 4 * MAX_NAME + 4)) for p in self._places(number))
        return [self._data[start:end].decode(errors="replace") for start, end in ends]

    def number(self, number: int, name: str) -> int:  # noqa: ARG002
        value = 0
        for field, content in self._fields():
            if field == number and isinstance(content, int):
                value = content
        return value

    def _places(self, number: int) -> list[range]:
        return [
            content
            for field, content in self._fields()
            if field == number and isinstance(content, range)
        ]

    def _fields(self) -> Iterable[tuple[int, int | range]]:
        return fields(self._data, self._place.start, self._place.stop)
