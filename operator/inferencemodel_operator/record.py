"""What the operator remembers about versions, in the ConfigMap ``NAME-versions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator.errors import InvalidRecordError

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGET_KEY: Final = "target"
QUARANTINED_KEY: Final = "quarantined.json"


class QuarantinedVersion(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A version that failed for a reason which the same stored objects will not heal."""

    version: int
    fingerprint: str
    """Of the stored objects that failed; the quarantine ends when they change."""
    reason: str
    message: str = ""


class VersionsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The memory that outlives pods and operator."""

    target: int | None = None
    """The version that a new pod starts with; None while none is known."""
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
        if target is not None and not (target.isascii() and target.isdecimal()):
            raise InvalidRecordError(name, TARGET_KEY, f"{target!r} is no version number")
        try:
            quarantined = msgspec.json.decode(
                data.get(QUARANTINED_KEY, "[]"), type=tuple[QuarantinedVersion, ...]
            )
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InvalidRecordError(name, QUARANTINED_KEY, str(error)) from None
        return cls(target=None if target is None else int(target), quarantined=quarantined)

    def to_data(self) -> dict[str, str]:
        """The ``data`` of the ConfigMap."""
        ordered = sorted(self.quarantined, key=lambda entry: entry.version, reverse=True)
        data = {QUARANTINED_KEY: msgspec.json.encode(ordered).decode()}
        if self.target is not None:
            data[TARGET_KEY] = str(self.target)
        return data
