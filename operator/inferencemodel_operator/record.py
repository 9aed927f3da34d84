"""What the operator remembers about versions, in the ConfigMap ``NAME-versions``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator.errors import InvalidRecordError

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGET_KEY: Final = "target"
SERVED_KEY: Final = "served"
QUARANTINED_KEY: Final = "quarantined"
"""What pods have to know of `QUARANTINED_JSON_KEY`, which is read back instead."""
QUARANTINED_JSON_KEY: Final = "quarantined.json"

MAX_VERSION: Final = 2**63 - 1
"""TF Serving reads version numbers as int64."""
LISTED: Final = 50
"""Of the quarantined versions, pods are told the newest so many."""

TEMPLATE: Final = "+template:"
"""In a fingerprint, between that of the stored objects and that of the pod template."""

_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_FINGERPRINT: Final = re.compile(r"[0-9A-Za-z._-]{0,64}")


class QuarantinedVersion(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A version that failed for a reason which the same stored objects will not heal."""

    version: int
    fingerprint: str
    """Of the stored objects that failed; the quarantine ends when they change."""
    reason: str
    message: str = ""

    @property
    def stored(self) -> str:
        """The fingerprint of the stored objects alone."""
        return self.fingerprint.partition(TEMPLATE)[0]


class VersionsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The memory that outlives pods and operator."""

    target: int | None = None
    """The version that a new pod starts with; None while none is known."""
    served: tuple[int, ...] = ()
    """All versions that every pod is to serve, highest first: the target and those beside it."""
    quarantined: tuple[QuarantinedVersion, ...] = ()
    """Newest first."""

    @classmethod
    def from_config_map(
        cls, data: Mapping[str, str] | None, *, name: str = "NAME-versions"
    ) -> VersionsRecord:
        """Read the ``data`` of the ConfigMap; ``name`` is for the error alone.

        Raises:
            InvalidRecordError: somebody else has written there.
        """
        data = data or {}
        target = data.get(TARGET_KEY)
        served = [part for part in data.get(SERVED_KEY, "").split(",") if part]
        try:
            quarantined = msgspec.json.decode(
                data.get(QUARANTINED_JSON_KEY, "[]"), type=tuple[QuarantinedVersion, ...]
            )
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InvalidRecordError(name, QUARANTINED_JSON_KEY, str(error)) from None
        return cls(
            target=None if target is None else _number(target, name, TARGET_KEY),
            served=tuple(_number(part, name, SERVED_KEY) for part in served),
            quarantined=quarantined,
        )

    def to_data(self) -> dict[str, str]:
        """The ``data`` of the ConfigMap."""
        ordered = sorted(self.quarantined, key=lambda entry: entry.version, reverse=True)
        data = {QUARANTINED_JSON_KEY: msgspec.json.encode(ordered).decode()}
        if self.target is not None:
            data[TARGET_KEY] = str(self.target)
        if self.served:
            data[SERVED_KEY] = ",".join(map(str, self.served))
        if ordered:
            data[QUARANTINED_KEY] = _compact(ordered)
        return data


def _number(text: str, name: str, key: str) -> int:
    number = int(text) if _NUMBER.fullmatch(text) else -1
    if not 0 <= number <= MAX_VERSION:
        raise InvalidRecordError(name, key, f"{text[:50]!r} is no version number")
    return number


def _compact(entries: list[QuarantinedVersion]) -> str:
    """``NUMBER@FINGERPRINT`` of each, as pollers read it."""
    known = dict.fromkeys(
        (entry.version, entry.stored) for entry in entries if _FINGERPRINT.fullmatch(entry.stored)
    )
    return ",".join(f"{version}@{stored}" for version, stored in list(known)[:LISTED])
