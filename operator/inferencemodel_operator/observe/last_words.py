"""What a container said before it ended, as its status shows it.

The kubelet keeps the last 80 lines or 2,048 bytes of the log of a container that failed, where its
`terminationMessagePolicy` asks for them ("Determine the Reason for Pod Failure" in Kubernetes'
documentation).
"""

from __future__ import annotations

import re
from typing import Final

from inferencemodel_operator import bounds

LENGTH: Final = 300
"""Bytes of what is shown."""

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TIME: Final = re.compile(
    r"^\[?("
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,\d]*(Z|[+-]\d\d:?\d\d)?"  # ISO 8601, TensorFlow
    r"|[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+"  # glog, absl
    r")\]?:?\s*"
)
_CHANGING: Final = re.compile(r"\b0x[0-9a-fA-F]{4,}\b")
_TELLING: Final = re.compile(
    r"\b(error|fatal|fail(ed|ure)?|couldn't|can't|cannot|unknown|invalid|unable|not found|"
    r"no such|denied|exception|abort(ed)?|terminate called|out of memory)\b|^[EF] ",
    re.IGNORECASE,
)
_FLAG: Final = re.compile(r"^\s+--[a-z0-9_]+=")


def telling(log: str) -> str:
    """The line that says most of why it ended, without what is another at each start; "" if none.

    Of several that name an error the last one: what comes first is often a warning.
    """
    lines = [line for line in map(_clean, log.splitlines()) if line]
    if not lines:
        return ""
    errors = [line for line in lines if _TELLING.search(line)]
    return bounds.text((errors or lines)[-1], LENGTH)


def is_usage(log: str) -> bool:
    """Whether it is a list of flags, which TensorFlow's programs print after what they can't read.

    It is longer than what the kubelet keeps: why it was printed came before it.
    """
    lines = [line for line in log.splitlines() if line.strip()]
    return sum(_FLAG.match(line) is not None for line in lines) * 2 > len(lines)


def _clean(line: str) -> str:
    line = _TIME.sub("", _ESCAPES.sub("", line).strip())
    return _CHANGING.sub("0x…", line).strip()
