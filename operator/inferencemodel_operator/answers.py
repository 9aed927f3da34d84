"""What an error answer of the API server means: does waiting help, and if not, what does."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import bounds, refusals
from inferencemodel_operator.errors import (
    ApiUnavailableError,
    ConflictError,
    ExpiredError,
    NamespaceTerminatingError,
    NoRightError,
    NotFoundError,
    OperatorError,
    RefusedError,
    StatusRefusedError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_RETRY_AFTER: Final = 60.0
MESSAGE_LIMIT: Final = 600
"""Bytes of a message that are handed on, so that what to do about it is told as well."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a request was about."""

    verb: str
    kind: str
    name: str
    """NAMESPACE/NAME of an object, the namespace of a list, or nothing."""
    subresource: str = ""

    def __str__(self) -> str:
        about = f"{self.verb} {self.kind} {self.name}".rstrip()
        return f"{about} ({self.subresource})" if self.subresource else about

    @property
    def namespace(self) -> str:
        """Of the object."""
        return self.name.partition("/")[0]

    @property
    def way_out(self) -> str:
        """What to do about an object that can't be changed to what is wanted."""
        namespace, _, name = self.name.rpartition("/")
        return (
            "delete it, and the operator creates it as it is wanted now: "
            f"`kubectl --namespace={namespace} delete {self.kind.lower()} {name}`"
        )


class Cause(msgspec.Struct, frozen=True):
    """One ``StatusCause``; a policy's denial has no field."""

    reason: str = ""
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct, frozen=True):
    causes: tuple[Cause, ...] | None = None


class Status(msgspec.Struct, frozen=True):
    """``metav1.Status``, as far as it decides something."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What is wrong in particular."""
        return (self.details and self.details.causes) or ()


def status(code: int, answer: bytes) -> Status:
    """Read an error answer; one that is no Status, of a proxy say, is a message."""
    try:
        found = msgspec.json.decode(answer, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = Status(message=answer[:MESSAGE_LIMIT].decode(errors="replace"))
    message = bounds.text(found.message, MESSAGE_LIMIT)
    return msgspec.structs.replace(found, code=code, message=message)


def error(target: Target, found: Status, retry_after: str = "") -> OperatorError:
    """The error that a refused request is."""
    if found.code == HTTPStatus.GONE or found.reason == "Expired":
        return ExpiredError(f"{target}: {found.message}; listing anew")
    if _is_denial(found):
        return _refused(target, found)
    passing = _passing(found)
    if passing is not None:
        return passing(f"{target}: {found.message}; looking again")
    if found.code in _REFUSALS or _is_unreadable(found):
        return _refused(target, found)
    return ApiUnavailableError(
        f"{target}: {found.code} {found.message}; {_help(found)}",
        retry_after=_seconds(retry_after),
    )


READING: Final = frozenset({"list", "watch", "discover"})
"""What is done for all InferenceModels at once, by somebody who says what is waited for."""
_REFUSALS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


def lacks_right(found: Status) -> bool:
    """Whether it is the operator's account that may not do it."""
    return refusals.lacks_right(found.message)


def _passing(found: Status) -> Callable[[str], TransientError] | None:
    """What waiting heals, although its code alone would not say so."""
    if any(cause.reason == "NamespaceTerminating" for cause in found.causes):
        return NamespaceTerminatingError
    if any(cause.field == "metadata.uid" for cause in found.causes):
        # An apply that names another object than the one that is there.
        return ConflictError
    if found.code == HTTPStatus.NOT_FOUND:
        return NotFoundError
    if found.code == HTTPStatus.CONFLICT:
        return ConflictError
    if found.code == HTTPStatus.METHOD_NOT_ALLOWED:
        # A CustomResourceDefinition that is going away takes no new objects.
        return TransientError
    if found.code == HTTPStatus.FORBIDDEN and refusals.passes(found.message):
        return TransientError
    return None


def _is_denial(found: Status) -> bool:
    """Whether a webhook or a policy has denied the request, with whatever code it likes."""
    return refusals.fix(found.message) == refusals.SATISFY_POLICY


def _is_unreadable(found: Status) -> bool:
    """Whether what was applied doesn't fit the kind's schema.

    The API server takes that for a fault of its own: 500, without a reason
    (k8s.io/apimachinery/pkg/util/managedfields/internal/structuredmerge.go).
    """
    return found.message.startswith("failed to create typed patch object")


def _refused(target: Target, found: Status) -> OperatorError:
    fix = refusals.fix(found.message)
    if target.verb in READING or (target.subresource == "status" and lacks_right(found)):
        return NoRightError(f"{target}: {found.message}; {fix or 'trying again'}")
    if target.subresource == "status":
        return StatusRefusedError(target.name, found.message, fix)
    return RefusedError(
        target.kind,
        target.name,
        found.message,
        fix or _correction(target, found),
        invalid=fix is None and found.code != HTTPStatus.FORBIDDEN,
    )


_FIXED: Final = (
    "field is immutable",
    "may not change once set",
    # Of an address that was given out before, pkg/apis/core/validation.
    "value as indicated by `ipFamilies",
)
"""How the API server says that a field can't be changed; it is what admission says as well."""
_SERVICE: Final[Mapping[str, str]] = {
    **{
        name: name
        for name in (
            *("type", "loadBalancerClass", "externalTrafficPolicy", "trafficDistribution"),
            *("sessionAffinity", "sessionAffinityConfig", "ipFamilyPolicy", "ipFamilies"),
        )
    },
    # Addresses are of those families.
    "clusterIPs": "ipFamilies",
}
"""Fields of a Service, and which of `spec.service` they come from."""
_NAME: Final = re.compile(r"spec\.(\w+)")


def _correction(target: Target, found: Status) -> str:
    asked = dict.fromkeys(f for cause in found.causes if (f := _asked_by(target, cause)))
    fixed = any(words in cause.message for cause in found.causes for words in _FIXED)
    if fixed and asked:
        return f"take the change of {' and '.join(asked)} back, or {target.way_out}"
    if fixed:
        return target.way_out
    if asked:
        return f"correct {' and '.join(asked)} of the InferenceModel"
    return "correct the field of the InferenceModel that this comes from"


def _asked_by(target: Target, cause: Cause) -> str | None:
    """The field of the InferenceModel that a field of a child comes from, where it is known."""
    named = _NAME.match(cause.field)
    if target.kind != "Service" or named is None or named[1] not in _SERVICE:
        return None
    return f"spec.service.{_SERVICE[named[1]]}"


def _help(found: Status) -> str:
    fix = refusals.fix(found.message)
    return "trying again" if fix is None else f"trying again; if it lasts, {fix}"


def _seconds(retry_after: str) -> float:
    """What a server asks for, within reason; it may name a date, too, but none of these does."""
    return min(LONGEST_RETRY_AFTER, float(retry_after)) if retry_after.isdecimal() else 0.0
