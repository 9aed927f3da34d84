"""What is known from a pod's poller."""

from __future__ import annotations

import msgspec

from model_poller.status import PollerStatus


class Unreachable(msgspec.Struct, frozen=True):
    """The last attempt to ask the poller failed: nothing is known about this pod's versions."""

    problem: str


Report = PollerStatus | Unreachable
"""Absent altogether until the first attempt has ended."""
