"""When a SavedModel is whole.

TensorFlow loads a SavedModel whose ``variables/variables.index`` is missing without complaint and
then answers every request with an error, so completeness is decided here, never by a trial load.

What is missing may still be uploaded (`IncompleteVersionError`). What is there and can't be read
will not get better, for a store shows an object whole or not at all (`BrokenVersionError`); a
version is judged anew when its objects change.
"""

from __future__ import annotations

import mmap
import re
from typing import TYPE_CHECKING

from model_poller.checks.text_graph import GAP, MANY, MAX_DEPTH, STRING, unquoted
from model_poller.checks.variables import MAX_INDEX_BYTES, shard_sizes
from model_poller.checks.wire import ZeroFieldError, fields
from model_poller.errors import BrokenVersionError, IncompleteVersionError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")
_INDEX = "variables/variables.index"
_SHARD = re.compile(r"variables/variables\.data-([0-9]{5,10})-of-([0-9]{5,10})")

# Field numbers of tensorflow/core/protobuf/saved_model.proto and meta_graph.proto.
_META_GRAPHS = 2
_GRAPH_DEF = 2
_SAVER_DEF = 3
_ASSET_FILE_DEF = 6
_ASSET_FILENAME = 2

_MAX_NAME_BYTES = 64 << 10
# https://protobuf.dev/reference/protobuf/textformat-spec: strings and comments, which may hold
# braces, and the blocks; all other tokens are passed over.
_TOKEN = re.compile(
    rb"(?:" + GAP + rb"|(?!filename(?!\w))\w++(?!\s*+:?+\s*+[{<]))" + MANY + rb"(?:"
    rb"(?P<skip>#[^\n]*+|" + STRING + rb")"
    rb"|filename\s*+:?+\s*+(?P<filename>(?:(?:" + STRING + rb")\s*+)++)"
    rb"|(?P<name>[A-Za-z_]\w*+)\s*+:?+\s*+[{<]"
    rb"|(?P<opening>[{<])|(?P<closing>[}>])|(?P<quote>[\"'])"
    rb"|(?P<rest>" + GAP + rb"|\w++|\Z))"
)
_TAIL = re.compile(rb"(?:[\s,;]++|#[^\n]*+|(?<!\w)\w++\s*+:\s*+[^\s\"'{}<>,;\0]++)" + MANY)


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


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Tell from the bytes of each file whether one that can't be empty still is.

    A mounted bucket shows a file as empty until it is closed.

    Raises:
        IncompleteVersionError: naming the first empty file.
    """
    for name in (*GRAPH_FILES, _INDEX):
        if sizes.get(name) == 0:
            graph = name in GRAPH_FILES
            raise IncompleteVersionError(
                VersionReason.MISSING_SAVED_MODEL if graph else VersionReason.MISSING_VARIABLES,
                f"{name} is empty; upload it whole, or remove the version",
            )


def check_folder(folder: Path) -> None:
    """Check a version's files on disk against what its own graph asks for.

    A graph with a saver restores variables, so it needs the ``variables`` folder; a graph without
    one needs none. Every asset file that the graph names has to be in ``assets``.

    Raises:
        IncompleteVersionError: a file is missing.
        BrokenVersionError: a file is there and is not what it has to be.
    """
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    check_names(names)
    parts = names.intersection((*GRAPH_FILES, _INDEX))
    try:
        check_sizes({name: (folder / name).stat().st_size for name in parts})
    except IncompleteVersionError as error:
        # As in a listing, but it was stored so.
        raise BrokenVersionError(error.reason, str(error)) from None
    graph = next(name for name in GRAPH_FILES if name in names)
    try:
        needs_variables, assets = _demands(folder / graph)
    except ValueError as error:
        raise BrokenVersionError(
            VersionReason.MISSING_SAVED_MODEL,
            f"{graph} can't be read ({error}); upload it whole, or remove the version",
        ) from error
    if needs_variables and _INDEX not in names:
        raise IncompleteVersionError(
            VersionReason.MISSING_VARIABLES,
            f"{_INDEX} is missing and the graph restores variables; upload it, or remove the"
            " version",
        )
    if needs_variables:
        _check_shards(folder)
    for asset in sorted(assets):
        if f"assets/{asset}" not in names:
            raise IncompleteVersionError(
                VersionReason.MISSING_ASSETS,
                f"assets/{asset[:200]} is missing and the graph names it; upload it, or remove"
                " the version",
            )


def _check_shards(folder: Path) -> None:
    path = folder / _INDEX
    if path.stat().st_size > MAX_INDEX_BYTES:
        return
    try:
        sizes = shard_sizes(path.read_bytes())
    except ValueError as error:
        raise BrokenVersionError(
            VersionReason.MISSING_VARIABLES,
            f"{_INDEX} can't be read ({error}); upload it whole, or remove the version",
        ) from error
    for shard, least in enumerate(sizes):
        name = f"variables/variables.data-{shard:05d}-of-{len(sizes):05d}"
        if not (folder / name).is_file():
            raise IncompleteVersionError(
                VersionReason.MISSING_VARIABLES,
                f"{name} is missing, by what {_INDEX} says; upload it, or remove the version",
            )
        held = (folder / name).stat().st_size
        if held < least:
            raise BrokenVersionError(
                VersionReason.MISSING_VARIABLES,
                f"{name} has {held} of {least} bytes, by what {_INDEX} says; upload it whole, or"
                " remove the version",
            )


def _demands(graph: Path) -> tuple[bool, set[str]]:
    """Whether a graph restores variables, and the assets that it names.

    Raises:
        ValueError: it can't be read; says why.
    """
    # An empty file can't be mapped, which is a ValueError too.
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _parse(data) if graph.name == GRAPH_FILES[0] else _parse_text(data)


def _parse_text(data: mmap.mmap) -> tuple[bool, set[str]]:
    """A graph in Protocol Buffers' text format."""
    needs_variables, graphs, end = False, 0, 0
    assets = set()
    inside: list[bytes] = []
    for token in _TOKEN.finditer(data):
        if token["quote"]:
            raise ValueError(f"the text at byte {token.start('quote')} has no end")
        if token["skip"] or token["rest"] is not None:
            continue
        end = token.end()
        if token["filename"]:
            if inside == [b"meta_graphs", b"asset_file_def"]:
                assets.add(unquoted(token["filename"][:_MAX_NAME_BYTES]))
        elif token["closing"]:
            if not inside:
                at = token.start("closing")
                raise ValueError(f"a block ends at byte {at} that never began")
            inside.pop()
        else:
            name = token["name"] or b""
            graphs += not inside and name == b"meta_graphs"
            needs_variables |= inside == [b"meta_graphs"] and name == b"saver_def"
            if len(inside) == MAX_DEPTH:
                raise ValueError(f"it has blocks in more than {MAX_DEPTH} others")
            inside.append(name)
    if inside:
        raise ValueError(f"it ends inside a block: {inside[-1].decode()}")
    if not graphs:
        raise ValueError("it holds no graph")
    while end < len(data):
        behind = _TAIL.match(data, end)
        if not behind or behind.end() == end:
            raise ValueError("it ends inside a field")
        end = behind.end()
    return needs_variables, assets - {""}


def _parse(data: mmap.mmap) -> tuple[bool, set[str]]:
    needs_variables, graphs = False, 0
    assets = set()
    for number, graph in fields(data, 0, len(data)):
        if number != _META_GRAPHS or isinstance(graph, int):
            continue
        graphs += 1
        for inner, content in fields(data, graph.start, graph.stop):
            needs_variables |= inner == _SAVER_DEF
            if isinstance(content, int):
                continue
            if inner == _GRAPH_DEF:
                _check_nodes(data, content)
            elif inner == _ASSET_FILE_DEF:
                for field, name in fields(data, content.start, content.stop):
                    if field == _ASSET_FILENAME and isinstance(name, range):
                        end = min(name.stop, name.start + _MAX_NAME_BYTES)
                        assets.add(data[name.start : end].decode())
    if not graphs:
        raise ValueError("it holds no graph")
    return needs_variables, assets - {""}


def _check_nodes(data: mmap.mmap, graph: range) -> None:
    """Look for zeros where a node should begin: what a copy that was cut off leaves on a disk."""
    try:
        for _ in fields(data, graph.start, graph.stop):
            pass
    except ZeroFieldError:
        raise
    except ValueError:
        # Anything else in it is the model server's to judge.
        return
