"""How long what others wrote may be, before it goes into a status, an Event or a ConfigMap.

The API server refuses an object that is too large, or that holds a number or a text that it can't
take, as a whole: one pod's word would then keep everybody's true ones out. So everything that comes
from a poller, a model server or an API server's refusal passes through here first.

All lengths are in bytes of UTF-8: that is what etcd and an Event's note are limited by, and no
limit in characters is broken by a text that keeps to as many bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MESSAGE: Final = 1024
"""Bytes of a condition's or a quarantined version's message, and of an Event's note, for which it
is the API server's own limit."""
URI: Final = 1024
"""Bytes of a source's address; no longer one can be in a spec."""
NAME: Final = 256
"""Bytes of a fingerprint, a reason, a state, or a model's name."""
ASSIGNMENT: Final = 8192
"""Bytes of one text of an assignment: 50 quarantined versions with their fingerprints fit."""
VERSIONS: Final = 64
"""Versions of one pod, or of one resource, that are remembered."""
LARGEST_NUMBER: Final = 2**63 - 1
"""TensorFlow Serving's versions and Kubernetes' integers are int64."""

_CUT: Final = "…"
_BREAKS: Final = re.compile(r"[\t-\r\x1c-\x1f\x85\u2028\u2029]+")
_INVISIBLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # what terminals obey
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of a text
    "\ud800-\udfff]"  # halves of surrogate pairs, which are no UTF-8
)


def text(value: str, limit: int = MESSAGE) -> str:
    """A text as one line that everybody can store and show.

    Line breaks become blanks, control characters and lone surrogates go, and what is longer than
    ``limit`` bytes is cut between two characters and ends with an ellipsis.
    """
    if len(value) <= limit and value.isascii() and value.isprintable():
        return value
    # Not all of a text of megabytes is looked at.
    line = _INVISIBLE.sub("", _BREAKS.sub(" ", value[: 4 * limit]))
    encoded = line.encode()
    if len(encoded) <= limit and len(value) <= 4 * limit:
        return line
    return encoded[: limit - len(_CUT.encode())].decode(errors="ignore") + _CUT


def number(digits: str) -> int | None:
    """A version number that was written as text; None for anything else."""
    # Python itself refuses more than 4,300 digits, with an error of its own.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(LARGEST_NUMBER))):
        return None
    value = int(digits)
    return value if value <= LARGEST_NUMBER else None


def newest(
    numbers: Iterable[int], limit: int = VERSIONS, *, wanted: Collection[int] = ()
) -> list[int]:
    """So many version numbers, newest first: those that are wanted, then the highest of the others.

    Args:
        numbers: in any order, and with repetitions.
        limit: how many at most.
        wanted: those that must not be left out; of too many, the highest stay.
    """
    ordered = sorted(set(numbers), key=lambda known: (known in wanted, known), reverse=True)
    return sorted(ordered[:limit], reverse=True)
