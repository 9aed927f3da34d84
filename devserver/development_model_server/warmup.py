"""Warm-up: requests stored with a version are replayed before it is available.

They lie in ``assets.extra/tf_serving_warmup_requests``, a TFRecord file of PredictionLog messages.
A request that fails, or a file that can't be read, fails the load.
"""

from __future__ import annotations

import logging
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from development_model_server.errors import Code, ServingError, invalid_argument
from development_model_server.protos import PredictionLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from development_model_server.inference import Inference, Model
    from development_model_server.metrics import Metrics

_logger = logging.getLogger(__name__)

REQUESTS_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000


def replay(
    path: str, model: Model, inference: Inference, metrics: Metrics, iterations: int
) -> None:
    """Run every warm-up request of the version below ``path``.

    Args:
        path: the version's folder.
        model: the version, loaded.
        inference: runs the requests.
        metrics: where the time is counted.
        iterations: how often to run each request.

    Raises:
        ServingError: as soon as one fails, or there are more than a thousand.
    """
    file = Path(path, REQUESTS_FILE)
    if not file.exists():
        _logger.info("No warmup data file found at %s", file)
        return
    _logger.info("Starting to read warmup data for model at %s", file)
    started = time.monotonic()
    count = 0

    def record(status: str) -> int:
        elapsed = int((time.monotonic() - started) * 1e6)
        metrics.warmup_latency.add(elapsed, path, status)
        metrics.warmup_records_read.add(path, status, amount=count)
        return elapsed

    try:
        for log in _logs(file):
            for _ in range(iterations):
                _run(log, model, inference)
            count += 1
            if count > MAX_RECORDS:
                raise invalid_argument(
                    f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}"
                )
    except ServingError as error:
        if error.code is not Code.DATA_LOSS:
            raise
        record(error.text)
        raise ServingError(
            Code.DATA_LOSS,
            f"{error.message}. Please verify your warmup data is in TFRecord format.",
        ) from error
    _logger.info(
        "Finished reading warmup data for model at %s. Number of warmup records read: %d."
        " Elapsed time (microseconds): %d.",
        file,
        count,
        record("OK"),
    )


def _logs(file: Path) -> Iterator[PredictionLog]:
    for record in read_records(file):
        try:
            yield PredictionLog.FromString(record)
        except DecodeError as error:
            raise invalid_argument(
                f"Failed to parse warmup record: {record.decode(errors='replace')} from {file}"
            ) from error


def _run(log: PredictionLog, model: Model, inference: Inference) -> None:
    match log.WhichOneof("log_type"):
        case "predict_log":
            inference.predict(model, None, log.predict_log.request)
        case "classify_log":
            inference.classify(model, None, log.classify_log.request)
        case "regress_log":
            inference.regress(model, None, log.regress_log.request)
        case "multi_inference_log":
            inference.multi_inference(model, None, log.multi_inference_log.request)
        case None:
            pass
        case other:
            number = PredictionLog.DESCRIPTOR.fields_by_name[other].number
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")


def read_records(file: Path) -> Iterator[bytes]:
    """Read a TFRecord file.

    Raises:
        ServingError: DATA_LOSS for a record that is cut off or damaged.
    """
    offset = 0
    with file.open("rb") as stream:
        while header := stream.read(12):
            if len(header) < 12:
                raise _data_loss(f"truncated record at {offset}")
            length, crc = struct.unpack("<QI", header)
            if masked_crc32c(header[:8]) != crc:
                raise _data_loss(f"corrupted record at {offset}")
            body = stream.read(length + 4)
            if len(body) < length + 4:
                raise _data_loss(f"truncated record at {offset}")
            record = body[:length]
            if masked_crc32c(record) != struct.unpack("<I", body[length:])[0]:
                raise _data_loss(f"corrupted record at {offset}")
            yield record
            offset += 16 + length


def _data_loss(message: str) -> ServingError:
    return ServingError(Code.DATA_LOSS, message)


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecord files: CRC-32C, rotated and offset."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC_TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
