"""Golden requests of the models ``y = 0.5 x + offset``, as a version brings them."""

from __future__ import annotations

from model_poller.model_server.records import FILE, FOLDER, framed
from tests.unit.poller.golden import predict_log


def recorded(*answers: float, x: float = 1.0) -> dict[str, bytes]:
    """The file of a version, with a request for ``x`` for each of the answers."""
    logs = (predict_log([x], [answer]) for answer in answers)
    return {f"{FOLDER}/{FILE}": b"".join(framed(log.SerializeToString()) for log in logs)}
