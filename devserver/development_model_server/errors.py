"""The tree of errors.

::

    ServingError          carries a status code; what a client, a status or a log is told
    └── CancelledLoadError   a load that ended well but whose version is no longer wanted

Codes and their numbers are those of ``google.rpc.Code``, which gRPC, absl and TensorFlow share.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """A canonical status code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """A failure with a status code; ``str()`` is the message without the code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def text(self) -> str:
        """Code and message, as absl prints a status: ``NOT_FOUND: no such file``."""
        return f"{self.code.name}: {self.message}"


class CancelledLoadError(ServingError):
    """A version finished loading after it had stopped being wanted, and was unloaded again."""

    def __init__(self) -> None:
        super().__init__(Code.CANCELLED, "Loading of servable cancelled")


def invalid_argument(message: str) -> ServingError:
    """The caller's request is wrong, whatever the state of the server."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def failed_precondition(message: str) -> ServingError:
    """The request may be right, but not in the present state."""
    return ServingError(Code.FAILED_PRECONDITION, message)


def not_found(message: str) -> ServingError:
    """What was asked for isn't there."""
    return ServingError(Code.NOT_FOUND, message)
