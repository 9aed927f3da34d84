"""The recorded requests of one version, as they are sent to it."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model_poller.checks.wire import delimited, fields, written
from model_poller.golden.answers import KINDS, OTHER_KINDS
from model_poller.golden.tensors import UnsupportedError
from model_poller.model_server.records import FILE, FOLDER, records

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.golden.answers import Kind

MAX_FILE_BYTES: Final = 1 << 30
"""A larger file is not looked into; all of it is read for its checksums."""
MAX_MESSAGE: Final = 16 << 20
"""Bytes of a request or an answer that is sent and compared."""
_REQUEST, _RESPONSE = 1, 2
_LOG_METADATA: Final = 1
_MODEL_SPEC, _TASKS = 1, 1
_NAME, _VERSION = 1, 2
_MULTI_INFERENCE: Final = 4


@dataclass(frozen=True, slots=True)
class Record:
    """Where a request and the answer to it stand in the file."""

    number: int
    """Among those with an answer, from 1."""
    kind: int
    """The number of its field in a PredictionLog."""
    request: range
    response: range

    @property
    def obstacle(self) -> str:
        """Why its kind can't be sent; empty for one that can."""
        if self.kind in KINDS:
            return ""
        name = OTHER_KINDS.get(self.kind, f"field {self.kind} of a PredictionLog")
        return f"{name} is a kind that isn't compared"


def find(folder: Path) -> tuple[Path, list[Record]]:
    """The file of a version's recorded requests, and those in it that come with an answer.

    There are none where there is no file.

    Raises:
        ValueError: it isn't what TensorFlow Serving replays; says what is wrong.
        OSError
    """
    path = folder / FOLDER / FILE
    if not path.exists():
        return path, []
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
    found: list[Record] = []
    # An empty file can't be mapped, which is a ValueError too.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for place in records(data):
            for kind, log in fields(data, place.start, place.stop):
                if kind == _LOG_METADATA or not isinstance(log, range):
                    continue
                parts = {
                    number: part
                    for number, part in fields(data, log.start, log.stop)
                    if isinstance(part, range)
                }
                # An empty answer is what a program writes that sets none.
                if parts.get(_REQUEST) and parts.get(_RESPONSE):
                    record = Record(len(found) + 1, kind, parts[_REQUEST], parts[_RESPONSE])
                    found.append(record)
    return path, found


def load(path: Path, record: Record) -> tuple[Kind, bytes, bytes]:
    """The kind of a record, its request and its answer.

    Raises:
        UnsupportedError: it can't be sent or compared; says why.
        OSError
    """
    if record.obstacle:
        raise UnsupportedError(record.obstacle)
    if max(len(record.request), len(record.response)) > MAX_MESSAGE:
        raise UnsupportedError(f"a message has more than {MAX_MESSAGE} bytes")
    # Read, not mapped: of a file that is cut meanwhile on a mount, a mapping ends the process.
    with path.open("rb", buffering=0) as file:
        request, response = (
            os.pread(file.fileno(), len(part), part.start)
            for part in (record.request, record.response)
        )
    if (len(request), len(response)) != (len(record.request), len(record.response)):
        raise OSError(5, f"{path} was cut")
    return KINDS[record.kind], request, response


def addressed(kind: int, request: bytes, model: str, version: int) -> bytes:
    """The request to this version of the model, whatever it was recorded from.

    A second ``model_spec`` is merged into the first one, field by field: the signature stays.
    """
    spec = delimited(_NAME, model.encode()) + delimited(_VERSION, b"\x08" + written(version))
    addition = delimited(_MODEL_SPEC, spec)
    if kind != _MULTI_INFERENCE:
        return request + addition
    changed = b""
    for number, value in fields(request, 0, len(request)):
        if not isinstance(value, range):
            continue
        content = request[value.start : value.stop]
        changed += delimited(number, content + addition if number == _TASKS else content)
    return changed
