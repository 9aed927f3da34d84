"""Everything that can go wrong, as one tree.

    PollerError
    ├── TransientError              heals by waiting; the poller tries again by itself
    │   ├── UnreachableError        the store did not answer, or not with an answer to build on
    │   │   └── OddAnswerError      it did, but said nothing of the store as a whole
    │   ├── ObjectChangedError      a stored object was replaced or deleted while it was read
    │   ├── InsufficientDiskError   the model volume has no room for the version
    │   ├── CorruptDownloadError    the bytes that came are not the bytes that are stored
    │   ├── WarmupUnavailableError  the warm-up requests that every version is to get can't be read
    │   ├── IncompleteVersionError  parts of a version are missing; the upload may still go on
    │   └── StoppedError            the poller gave up the work itself
    └── PermanentError            stays until somebody changes something
        ├── BucketNotFoundError
        ├── AccessDeniedError
        ├── InvalidSourceError      what the store shows can't be read as versions
        ├── BrokenVersionError      the stored objects of a version can't be served as they are
        ├── VersionExistsError      something is stored already where a version was to be published
        ├── CorruptUploadError      a store keeps something else than was sent to it
        └── InvalidSettingsError

A message names the object, what was wrong, and what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from model_poller.status import VersionReason


EXIT_USAGE: Final = 2
"""The program's exit code after an InvalidSettingsError: starting it again changes nothing."""


class PollerError(Exception):
    """Root of the tree."""


class TransientError(PollerError):
    """Heals by waiting."""


class UnreachableError(TransientError):
    """The store did not answer, or not with an answer to build on.

    ``retry_after`` is how many seconds the store asked to be left alone.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OddAnswerError(UnreachableError):
    """The store answered about one object as nobody expects; of others it may well tell."""


class ObjectChangedError(TransientError):
    """A stored object was replaced or deleted while it was read; a new look shows what is there."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url} was replaced or deleted while it was read; the next look shows what is there"
            " now"
        )


class InsufficientDiskError(TransientError):
    """The model volume has no room for a version.

    ``needed`` is how many bytes have to be free for the next try; 0: inodes are what lacks.
    """

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


class CorruptDownloadError(TransientError):
    """The bytes that came are not the bytes that are stored."""


class IncompleteVersionError(TransientError):
    """Parts of a version are missing; its upload may still go on."""

    def __init__(self, reason: VersionReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WarmupUnavailableError(TransientError):
    """The warm-up requests that every version is to get can't be read; versions wait for them."""


class StoppedError(TransientError):
    """The poller gave up the work itself: it ends, or something else became more urgent."""


class PermanentError(PollerError):
    """Stays until somebody changes something."""


class BucketNotFoundError(PermanentError):
    """There is no such bucket."""


class AccessDeniedError(PermanentError):
    """The store knows or wants to know who asks, and refuses."""


class InvalidSourceError(PermanentError):
    """What the store shows can't be read as versions."""


class BrokenVersionError(PermanentError):
    """The stored objects of a version can't be served as they are; other objects might be."""

    def __init__(self, reason: VersionReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class VersionExistsError(PermanentError):
    """Something is stored already where a version was to be published."""


class CorruptUploadError(PermanentError):
    """A store keeps something else than was sent to it."""


class InvalidSettingsError(PermanentError):
    """The command line or the environment asks for something that can't be."""
