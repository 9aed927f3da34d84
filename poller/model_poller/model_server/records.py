"""Recorded requests: a TFRecord of PredictionLog, as TensorFlow Serving replays it at a load.

A record is its length, a masked CRC-32C of that, the content, and a masked CRC-32C of it
(https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details"). The content
is a PredictionLog (apis/prediction_log.proto), whose fields but one are each a kind of request; TF
Serving passes over one without a request, such as a tf.Example, in silence.

Where one carries a response beside its request, the response is the golden answer.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Final

import google_crc32c

from model_poller.checks.crc32c import masked
from model_poller.checks.wire import fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER: Final = "assets.extra"
FILE: Final = "tf_serving_warmup_requests"
MAX_BYTES: Final = 100 << 20
"""The file is copied into every version, and replayed at every load."""
MAX_RECORDS: Final = 1000
"""TF Serving's kMaxNumRecords (servables/tensorflow/saved_model_warmup_util.h)."""
_HEADER: Final = struct.Struct("<QL")
_CHECKSUM: Final = struct.Struct("<L")
_REQUESTS: Final = range(2, 8)
"""Numbers of a PredictionLog's fields; 1 is log_metadata."""
COMPARED: Final = (2, 3, 4, 6)
"""Those whose answers are compared: classify_log, regress_log, multi_inference_log, predict_log."""
_REQUEST: Final = 1
_RESPONSE: Final = 2
"""Numbers of the fields of each of them."""
_MULTI: Final = 4
_TASKS: Final = 1
"""Of a MultiInferenceRequest."""
_MODEL_SPEC: Final = 1
"""Of each other request, and of such a task."""
_SIGNATURE_NAME: Final = 3
"""Of a ModelSpec."""


def records(data: bytes | mmap.mmap) -> Iterator[range]:
    """Where the content of each record lies.

    Raises:
        ValueError: it is no TFRecord, or one of too many records; the message says where.
    """
    position = number = 0
    size = len(data)
    while position < size:
        number += 1
        if number > MAX_RECORDS:
            raise ValueError(f"it has more than {MAX_RECORDS} records")
        start = position + _HEADER.size
        if start > size:
            raise ValueError(f"record {number} is cut")
        length, told = _HEADER.unpack(data[position:start])
        if told != masked(google_crc32c.value(data[position : position + 8])):
            raise ValueError(f"record {number} does not begin like one of a TFRecord")
        end = start + length
        position = end + _CHECKSUM.size
        if position > size:
            raise ValueError(f"record {number} is cut")
        if data[end:position] != _CHECKSUM.pack(masked(google_crc32c.value(data[start:end]))):
            raise ValueError(f"the checksum of record {number} is wrong")
        yield range(start, end)


def framed(content: bytes) -> bytes:
    """One record with this content; records stand one behind the other."""
    length = len(content).to_bytes(8, "little")
    return b"".join(
        (
            length,
            _CHECKSUM.pack(masked(google_crc32c.value(length))),
            content,
            _CHECKSUM.pack(masked(google_crc32c.value(content))),
        )
    )


def check(path: Path) -> int:
    """See whether a file is a TFRecord of requests that TF Serving can replay.

    Returns:
        How many of them carry an answer: golden records.

    Raises:
        ValueError: it is not; the message says where.
    """
    if not path.stat().st_size:
        raise ValueError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return sum(_is_golden(data, place, number) for number, place in enumerate(records(data), 1))


def signatures(path: Path) -> frozenset[str]:
    """By which signatures the requests of a file ask; it has been checked.

    Raises:
        ValueError: as `check`.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return frozenset(
            name
            for place in records(data)
            for kind in COMPARED
            for log in _parts(data, place, kind)
            for request in _parts(data, log, _REQUEST)
            # Each task of a MultiInferenceRequest has its own.
            for asked in ([*_parts(data, request, _TASKS)] if kind == _MULTI else [request])
            for name in _signature(data, asked)
        )


def _signature(data: mmap.mmap, request: range) -> Iterator[str]:
    name = b""
    for spec in _parts(data, request, _MODEL_SPEC):
        for part in _parts(data, spec, _SIGNATURE_NAME):
            name = data[part.start : part.stop]
    yield name.decode(errors="replace") or "serving_default"


def _parts(data: mmap.mmap, message: range, wanted: int) -> Iterator[range]:
    for number, part in fields(data, message.start, message.stop):
        if number == wanted and isinstance(part, range):
            yield part


def _is_golden(data: mmap.mmap, place: range, number: int) -> bool:
    """Whether a record carries an answer beside its request.

    Raises:
        ValueError: it is no PredictionLog with a request.
    """
    try:
        found = dict(fields(data, place.start, place.stop))
        golden = any(_has_answer(data, found.get(kind)) for kind in COMPARED)
    except ValueError as error:
        raise ValueError(f"record {number} is no PredictionLog: {error}") from error
    if found.keys().isdisjoint(_REQUESTS):
        raise ValueError(f"record {number} is no PredictionLog with a request")
    return golden


def _has_answer(data: mmap.mmap, log: int | range | None) -> bool:
    if not isinstance(log, range):
        return False
    # An empty answer is what a program writes that sets none.
    parts = {number for number, part in fields(data, log.start, log.stop) if part}
    return parts.issuperset((_REQUEST, _RESPONSE))
