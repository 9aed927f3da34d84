"""When a SavedModel is whole.

TensorFlow loads a SavedModel whose ``variables/variables.index`` is missing without complaint and
then answers every request with an error, so completeness is decided here, never by a trial load.
"""

from __future__ import annotations

import mmap
import re
from typing import IO, TYPE_CHECKING

from model_poller.checks.variables import MAX_INDEX_BYTES, shard_sizes
from model_poller.checks.wire import fields
from model_poller.errors import IncompleteVersionError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")
_INDEX = "variables/variables.index"
_SHARD = re.compile(r"variables/variables\.data-(\d{5,})-of-(\d{5,})")

# Field numbers of tensorflow/core/protobuf/saved_model.proto and meta_graph.proto.
_META_GRAPHS = 2
_SAVER_DEF = 3
_ASSET_FILE_DEF = 6
_ASSET_FILENAME = 2

_LINE_BYTES = 64 << 10
_TEXT_BLOCK = re.compile(rb"  (\w+)\s*:?\s*\{")
_TEXT_FILENAME = re.compile(rb'    filename:\s*"([^"]+)"')


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
    if needs_variables:
        _check_shards(folder, may_grow=may_grow)
    for asset in sorted(assets):
        if f"assets/{asset}" not in names:
            raise IncompleteVersionError(
                VersionReason.MISSING_ASSETS,
                f"assets/{asset[:200]} is missing and the graph names it; upload it, or remove"
                " the version",
            )


def _check_shards(folder: Path, *, may_grow: bool) -> None:
    path = folder / _INDEX
    if path.stat().st_size > MAX_INDEX_BYTES:
        return
    try:
        sizes = shard_sizes(path.read_bytes())
    except ValueError as error:
        if not may_grow:
            return
        raise IncompleteVersionError(
            VersionReason.MISSING_VARIABLES,
            f"{_INDEX} can't be read ({error}); upload it whole, or remove the version",
        ) from error
    for shard, least in enumerate(sizes):
        name = f"variables/variables.data-{shard:05d}-of-{len(sizes):05d}"
        held = (folder / name).stat().st_size if (folder / name).is_file() else None
        if held is None or held < least:
            lack = "is missing" if held is None else f"has {held} of {least} bytes"
            raise IncompleteVersionError(
                VersionReason.MISSING_VARIABLES,
                f"{name} {lack}, by what {_INDEX} says; upload it whole, or remove the version",
            )


def _demands(folder: Path) -> tuple[bool, set[str]]:
    graph = folder / GRAPH_FILES[0]
    if not graph.exists():
        with (folder / GRAPH_FILES[1]).open("rb") as file:
            return _parse_text(file)
    # An empty file can't be mapped, which is a ValueError too.
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _parse(data)


def _parse_text(file: IO[bytes]) -> tuple[bool, set[str]]:
    """A graph as TensorFlow prints it: one field a line, each block indented by two."""
    needs_variables, in_asset = False, False
    assets = set()
    while line := file.readline(_LINE_BYTES):
        if match := _TEXT_BLOCK.match(line):
            needs_variables |= match[1] == b"saver_def"
            in_asset = match[1] == b"asset_file_def"
        elif line.startswith(b"  }"):
            in_asset = False
        elif in_asset and (match := _TEXT_FILENAME.match(line)):
            # What isn't ASCII is printed as the octal digits of its bytes.
            assets.add(match[1].decode("unicode_escape").encode("latin-1").decode())
    return needs_variables, assets


def _parse(data: mmap.mmap) -> tuple[bool, set[str]]:
    needs_variables, graphs = False, 0
    assets = set()
    for number, graph in fields(data, 0, len(data)):
        if number != _META_GRAPHS or isinstance(graph, int):
            continue
        graphs += 1
        for inner, content in fields(data, graph.start, graph.stop):
            needs_variables |= inner == _SAVER_DEF
            if inner != _ASSET_FILE_DEF or isinstance(content, int):
                continue
            for field, name in fields(data, content.start, content.stop):
                if field == _ASSET_FILENAME and isinstance(name, range):
                    assets.add(data[name.start : min(name.stop, name.start + _LINE_BYTES)].decode())
    if not graphs:
        raise ValueError("it holds no graph")
    return needs_variables, assets - {""}
