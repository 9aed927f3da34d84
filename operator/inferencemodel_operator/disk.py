"""How large a replica's own volume has to be; pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from model_poller.status import VersionState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferencemodel_operator.spec import InferenceModel
    from model_poller.status import PollerStatus

_BESIDE: Final = 2
"""A version that comes, and the archive that it comes out of."""
RESERVE_BYTES: Final = 32 << 20
"""Which a poller leaves free."""
_MEBIBYTE: Final = 1 << 20
_GIBIBYTE: Final = 1 << 30


def needed(model: InferenceModel, reports: Iterable[PollerStatus], before: str) -> str:
    """A size as Kubernetes writes it, for all versions that are kept to be as large as the largest.

    It is what pods report now, so a hint: what is uploaded next may be larger. ``before`` while
    nothing is known.
    """
    largest = max(
        (
            max(version.bytes_total, version.weight_bytes)
            for report in reports
            for version in report.versions
            if version.state is not VersionState.INCOMPLETE
        ),
        default=0,
    )
    if not largest:
        return before
    size = largest * (model.spec.model.retain_versions + _BESIDE) + RESERVE_BYTES
    if size >= 10 * _GIBIBYTE:
        return f"{math.ceil(size / _GIBIBYTE)}Gi"
    return f"{math.ceil(size / _MEBIBYTE)}Mi"
