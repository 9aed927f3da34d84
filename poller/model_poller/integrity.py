"""When a SavedModel is whole.

TensorFlow loads a SavedModel whose ``variables/variables.index`` is missing without complaint and
then answers every request with an error, so completeness is decided here, never by a trial load.
"""

from __future__ import annotations

import mmap
import re
from typing import TYPE_CHECKING

from model_poller.errors import IncompleteVersionError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")
_INDEX = "variables/variables.index"
_SHARD = re.compile(r"variables/variables\.data-(\d{5,})-of-(\d{5,})")

# Field numbers of tensorflow/core/protobuf/saved_model.proto and meta_graph.proto.
_META_GRAPHS = 2
_SAVER_DEF = 3
_ASSET_FILE_DEF = 6
_ASSET_FILENAME = 2


def check_names(names: Collection[str]) -> None:
    """Tell from the file names of one version whether anything is missing.

    ``names`` are relative to the version's folder. A version without a ``variables`` folder
    passes: whether its graph needs one is only known from the graph (``check_folder``).

    Raises:
        IncompleteVersionError: naming the first missing file.
    """
    if not any(graph in names for graph in GRAPH_FILES):
        raise IncompleteVersionError(
            VersionReason.MISSING_SAVED_MODEL,
            "saved_model.pb is missing; upload it, or remove the version",
        )
    variables = [name for name in names if name.startswith("variables/")]
    if not variables:
        return
    shards = {(int(m[1]), int(m[2])) for name in variables if (m := _SHARD.fullmatch(name))}
    missing = None
    if _INDEX not in names:
        missing = _INDEX
    elif not shards:
        missing = "variables/variables.data-00000-of-00001"
    else:
        # Shards of another count are left from an earlier export into the same folder, or the
        # first of a later one: the higher count can't be told to be wrong.
        count = max(count for _, count in shards)
        for shard in range(count):
            if (shard, count) not in shards:
                missing = f"variables/variables.data-{shard:05d}-of-{count:05d}"
                break
    if missing:
        raise IncompleteVersionError(
            VersionReason.MISSING_VARIABLES,
            f"{missing} is missing; upload it, or remove the version",
        )


def check_folder(folder: Path, *, may_grow: bool) -> None:
    """Check a version's files on disk against what its own graph asks for.

    A graph with a saver restores variables, so it needs the ``variables`` folder; a graph without
    one needs none. Every asset file that the graph names has to be in ``assets``. A graph that
    can't be read is incomplete where the upload may go on (``may_grow``): a mounted bucket shows
    a file as empty until it is closed. Else it is left to the model server, whose error says more.

    Raises:
        IncompleteVersionError: something is missing.
    """
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    check_names(names)
    try:
        needs_variables, assets = _demands(folder)
    except ValueError as error:
        if not may_grow:
            return
        raise IncompleteVersionError(
            VersionReason.MISSING_SAVED_MODEL,
            f"saved_model.pb can't be read ({error}); upload it whole, or remove the version",
        ) from error
    if needs_variables and _INDEX not in names:
        raise IncompleteVersionError(
            VersionReason.MISSING_VARIABLES,
            f"{_INDEX} is missing and the graph restores variables; upload it, or remove the"
            " version",
        )
    for asset in assets:
        if f"assets/{asset}" not in names:
            raise IncompleteVersionError(
                VersionReason.MISSING_ASSETS,
                f"assets/{asset[:200]} is missing and the graph names it; upload it, or remove"
                " the version",
            )


def _demands(folder: Path) -> tuple[bool, list[str]]:
    graph = folder / GRAPH_FILES[0]
    if not graph.exists():
        text = (folder / GRAPH_FILES[1]).read_text(errors="replace")
        blocks = re.findall(r"\basset_file_def\s*:?\s*\{(.*?)\n  \}", text, re.DOTALL)
        names = [m[1] for block in blocks if (m := re.search(r'\bfilename:\s*"([^"]+)"', block))]
        return bool(re.search(r"^\s*saver_def\s*:?\s*\{", text, re.MULTILINE)), names
    # An empty file can't be mapped, which is a ValueError too.
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _parse(data)


def _parse(data: mmap.mmap) -> tuple[bool, list[str]]:
    needs_variables, graphs = False, 0
    assets: list[str] = []
    for number, start, end in _fields(data, 0, len(data)):
        if number != _META_GRAPHS:
            continue
        graphs += 1
        for inner, inner_start, inner_end in _fields(data, start, end):
            if inner == _SAVER_DEF:
                needs_variables = True
            elif inner == _ASSET_FILE_DEF:
                assets += [
                    data[a:b].decode()
                    for n, a, b in _fields(data, inner_start, inner_end)
                    if n == _ASSET_FILENAME and b > a
                ]
    if not graphs:
        raise ValueError("it holds no graph")
    return needs_variables, assets


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields of one protobuf message: number, first byte, end.

    Steps over the contents, so that a graph of any size costs a few reads.
    """
    position = start
    while position < end:
        tag, position = _varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _, position = _varint(data, position, end)
            continue
        if wire_type == 2:
            length, position = _varint(data, position, end)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position + length > end:
            raise ValueError(f"it ends at byte {end} inside a field")
        if wire_type == 2:
            yield number, position, position + length
        position += length


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"a number at byte {position} has no end")
