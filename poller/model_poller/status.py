"""What a poller tells about its pod: the answer of ``GET /status``.

These types are the only thing that other parts may import from this package; they need
nothing but msgspec. Names are camelCase in JSON. A reader ignores fields it does not know,
so that pollers and operators of neighbouring releases understand each other.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A version or a number of bytes: an int64, as TensorFlow Serving and Kubernetes have them."""

SCHEMA_VERSION: Final = 1
"""Raised when a field changes its meaning or goes away; not when one is added."""


class VersionState(StrEnum):
    """How far one version has come on this pod, in the order of its life."""

    INCOMPLETE = "Incomplete"
    """In the bucket, but parts are missing or its listing is not yet stable."""
    DISCOVERED = "Discovered"
    """Complete in the bucket, nothing of it on this pod's disk."""
    FETCHING = "Fetching"
    FETCHED = "Fetched"
    """Complete and verified on disk, not served and never was since the poller's start."""
    PUBLISHED = "Published"
    """In the model server's base path; the server has not yet said AVAILABLE."""
    AVAILABLE = "Available"
    """The model server answers requests with it."""
    RETIRED = "Retired"
    """Was served, is kept on disk for a rollback without a download."""
    QUARANTINED = "Quarantined"
    """Failed in a way that the same objects will not heal; not tried again until they change."""

    @classmethod
    def _missing_(cls, _value: object) -> VersionState:
        # Of a newer release: nothing is built on a state that can't be judged.
        return cls.INCOMPLETE


class SourceState(StrEnum):
    """What the last look into the bucket gave."""

    PENDING = "Pending"
    """Not looked yet."""
    READY = "Ready"
    FAILED = "Failed"

    @classmethod
    def _missing_(cls, _value: object) -> SourceState:
        return cls.PENDING


class SourceReason(StrEnum):
    """Why a source is not ready, or what is wrong beside it. Part of the published interface."""

    LISTED = "Listed"
    NOT_LISTED_YET = "NotListedYet"
    NO_VERSION_FOUND = "NoVersionFound"
    BUCKET_NOT_FOUND = "BucketNotFound"
    ACCESS_DENIED = "AccessDenied"
    UNREACHABLE = "Unreachable"
    INVALID_SOURCE = "InvalidSource"
    OTHER = "Other"
    """One that only a newer release knows."""

    @classmethod
    def _missing_(cls, _value: object) -> SourceReason:
        return cls.OTHER


class VersionReason(StrEnum):
    """Why a version is incomplete, quarantined or not progressing."""

    MISSING_SAVED_MODEL = "MissingSavedModel"
    MISSING_VARIABLES = "MissingVariables"
    MISSING_ASSETS = "MissingAssets"
    MISSING_MARKER = "MissingMarker"
    """The file that ends an upload is not there yet."""
    MISSING_MANIFEST = "MissingManifest"
    """SHA256SUMS or its signature is required and not there."""
    MANIFEST_MISMATCH = "ManifestMismatch"
    """The files are not those that SHA256SUMS lists."""
    SIGNATURE_MISMATCH = "SignatureMismatch"
    """SHA256SUMS is not signed with the configured key, or was signed for another version."""
    UNSTABLE_LISTING = "UnstableListing"
    DUPLICATE_VERSION = "DuplicateVersion"
    """Two folders or archives of one number, such as ``1/`` and ``0001.zip``."""
    TOO_MANY_FILES = "TooManyFiles"
    """A folder of more files than a version may have."""
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    BAD_ARCHIVE = "BadArchive"
    UNSAFE_ARCHIVE = "UnsafeArchive"
    ARCHIVE_TOO_LARGE = "ArchiveTooLarge"
    INSUFFICIENT_DISK = "InsufficientDisk"
    FETCH_FAILED = "FetchFailed"
    ACCESS_DENIED = "AccessDenied"
    """The store refuses its objects to the poller."""
    LOAD_FAILED = "LoadFailed"
    LOAD_TIMEOUT = "LoadTimeout"
    WARMUP_UNAVAILABLE = "WarmupUnavailable"
    """The configured warm-up requests can't be read; versions wait for them."""
    CHANGED_AFTER_PUBLISH = "ChangedAfterPublish"
    ANOTHER_SOURCE = "AnotherSource"
    """What lies on the volume under this number came from another storage URI."""
    QUARANTINED_ELSEWHERE = "QuarantinedElsewhere"
    """It failed on another pod, and is neither fetched nor served on this one."""
    OTHER = "Other"
    """One that only a newer release knows."""

    @classmethod
    def _missing_(cls, _value: object) -> VersionReason:
        return cls.OTHER


class _Message(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    pass


class TensorSpec(_Message, frozen=True, kw_only=True):
    """An input or output of a signature."""

    dtype: str
    """TensorFlow's name of it, such as ``float32``."""
    shape: tuple[int, ...] | None = None
    """-1 for a dimension of any size; None where even their number is open."""
    optional: bool = False
    """Whether the signature has a default for this input."""


class SignatureSpec(_Message, frozen=True, kw_only=True):
    """One SignatureDef, as clients see it."""

    method: str = ""
    """Its ``method_name``, such as ``tensorflow/serving/predict``."""
    inputs: dict[str, TensorSpec] = {}
    outputs: dict[str, TensorSpec] = {}


class Interface(_Message, frozen=True, kw_only=True):
    """What a version offers to clients: the SignatureDefs of its graph tagged ``serve``."""

    signatures: dict[str, SignatureSpec] = {}
    message: str = ""
    """Why it could not be read, or not be told whole; ``signatures`` is empty then."""


class CheckResult(StrEnum):
    """How a check of a version ended."""

    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    """It could not be told."""
    SKIPPED = "Skipped"
    """There was nothing to check by."""

    @classmethod
    def _missing_(cls, _value: object) -> CheckResult:
        return cls.INCONCLUSIVE


class GoldenStatus(_Message, frozen=True, kw_only=True):
    """What came of a version's golden requests on this pod."""

    task: str
    """`RolloutTask.key` of the task that asked for it."""
    result: CheckResult
    records: Count = 0
    """How many requests with an answer the version came with."""
    message: str = ""
    """The worst record: its number, the output, the index and both values."""


class LiveStatus(_Message, frozen=True, kw_only=True):
    """What the model server counted since a window began: of predictions alone, no status calls."""

    task: str
    """`RolloutTask.key` of the task that asked for it."""
    version: Count | None = None
    """What the server answered with for the whole window."""
    requests: Count = 0
    """Those that were answered, well or not."""
    errors: Count = 0
    """Those of them that ended with another status than OK."""
    ok_seconds: float = 0.0
    """The time that the good ones took altogether."""
    window_seconds: float = 0.0
    """How long the window is by now. Refreshed with the counts, never a reason for a revision."""


class GoldenTask(_Message, frozen=True, kw_only=True):
    """How golden answers are compared: ``|a - b| <= absolute + relative * |b|``."""

    absolute: float = 1e-4
    relative: float = 1e-3
    min_agreement: float = 0.99
    """The part of the records, 0 to 1, whose highest score has to stand in the same place."""


class RolloutTask(_Message, frozen=True, kw_only=True):
    """What the operator asks of a pod while a rollout runs; JSON in an annotation of the pod."""

    version: Count
    """The candidate, whether or not this pod is to serve it yet."""
    key: str = ""
    """Names the rollout and its step: counts begin anew when it changes."""
    golden: GoldenTask | None = None
    """Send the candidate's golden requests, once it is AVAILABLE here."""
    live: bool = False
    """Count requests, errors and latencies from now on."""
    drain: bool = False
    """Leave the Services before another version is given to the model server, until it answers."""
    fetch: bool = False
    """Bring the candidate here, and keep it, as the newest version is without being asked for."""
    stable: Count | None = None
    """The version to go back to: it stays here although it is deleted from the source."""
    keep: Count | None = None
    """The same, where it is not to make room for another one either."""
    retry: str = ""
    """``NUMBER@FINGERPRINT#TOKEN``: not quarantined here any more, once for a token."""


class VersionStatus(_Message, frozen=True, kw_only=True):
    """One version, as this pod knows it."""

    version: Count
    state: VersionState
    in_source: bool = False
    """Whether the last successful listing had it, complete or not."""
    fingerprint: str = ""
    """Identifies the stored objects (names, generations, sizes); changes when any of them does."""
    disk_fingerprint: str = ""
    """That of what this pod has fetched, where the stored objects have changed since."""
    bytes_done: Count = 0
    bytes_total: Count = 0
    """Bytes to fetch from the store; 0 while unknown."""
    seconds_left: Count | None = None
    """Until the fetch ends, at the rate so far; None when no fetch runs or nothing came yet."""
    failures: Count = 0
    """How often in a row fetching these objects failed; ``reason`` tells why."""
    proven: bool = False
    """Whether the model server has ever answered with it on this pod."""
    reason: VersionReason | None = None
    message: str = ""
    weight_bytes: Count = 0
    """Of its variables' values, which a model server holds in memory; 0 while unknown."""
    interface: Interface | None = None
    """None as long as its graph has not been read here."""
    golden: GoldenStatus | None = None

    @property
    def tried(self) -> str:
        """The fingerprint of what the model server gets to load here."""
        return self.disk_fingerprint or self.fingerprint


class ServedVersion(_Message, frozen=True, kw_only=True):
    """One entry of the model server's own answer to GetModelStatus."""

    version: Count
    state: str
    """START, LOADING, AVAILABLE, UNLOADING or END."""
    error_code: str = "OK"
    error_message: str = ""


class NotificationsStatus(_Message, frozen=True, kw_only=True):
    """The subscription's health; a fault here only delays versions by up to a poll interval."""

    connected: bool = False
    message: str = ""


class SourceStatus(_Message, frozen=True, kw_only=True):
    """The bucket, as this pod sees it."""

    uri: str
    state: SourceState = SourceState.PENDING
    reason: SourceReason = SourceReason.NOT_LISTED_YET
    message: str = ""
    notifications: NotificationsStatus | None = None
    """None when no notifications are configured."""


class CacheState(StrEnum):
    """Whether the cache that pods share is of use."""

    PENDING = "Pending"
    """Not looked at yet."""
    READY = "Ready"
    READ_ONLY = "ReadOnly"
    """What is in it can be used, and nothing can be put there."""
    FULL = "Full"
    """The same, for it has no room."""
    UNUSABLE = "Unusable"
    """Versions are fetched from the source."""

    @classmethod
    def _missing_(cls, _value: object) -> CacheState:
        return cls.PENDING


class CacheStatus(_Message, frozen=True, kw_only=True):
    """The cache; a fault here only makes this pod fetch for itself."""

    state: CacheState = CacheState.PENDING
    message: str = ""
    storing: bool = False
    """Whether what this pod has fetched is on its way there."""


class DiskStatus(_Message, frozen=True, kw_only=True):
    """The model volume. Refreshed with every status, but never a reason for a new revision."""

    free_bytes: Count
    total_bytes: Count


class AssignmentStatus(_Message, frozen=True, kw_only=True):
    """What the operator has written for this pod, text by text as it was read."""

    target: str = ""
    served: str = ""
    """Version numbers with commas between them."""
    quarantined: str = ""
    """``NUMBER@FINGERPRINT`` with commas between them."""
    rollout: str = ""
    """A `RolloutTask` as JSON; empty while no rollout asks anything of the pod."""


class PollerStatus(_Message, frozen=True, kw_only=True, omit_defaults=False):
    """The whole answer of ``GET /status``."""

    schema_version: int = SCHEMA_VERSION
    revision: str
    """Opaque; differs whenever anything below but ``disk`` differs, and after a restart."""
    model: str
    target: Count | None = None
    """The version this pod was told to serve; None when it has not been told."""
    assigned: AssignmentStatus | None = None
    """All that this pod was told; None when it has not been told, and from an older poller."""
    source: SourceStatus
    versions: tuple[VersionStatus, ...] = ()
    """Newest first."""
    server_reachable: bool = False
    """Whether the model server answered the last GetModelStatus; ``served`` is empty when not."""
    served: tuple[ServedVersion, ...] = ()
    """The model server's own words, newest first."""
    disk: DiskStatus | None = None
    cache: CacheStatus | None = None
    """None when there is none."""
    live: LiveStatus | None = None
    """None while no rollout asks for it, and as long as the server's metrics can't be read."""
    draining: bool = False
    """Whether the pod keeps itself out of its Services while its model server loads."""

    @property
    def active_version(self) -> int | None:
        """The version that answers a request which names none: the highest AVAILABLE one."""
        return max((s.version for s in self.served if s.state == "AVAILABLE"), default=None)


def decode(body: bytes) -> PollerStatus:
    """Read an answer of ``GET /status``.

    Raises:
        msgspec.ValidationError: the body is JSON of another shape.
        msgspec.DecodeError: the body is not JSON.
    """
    return msgspec.json.decode(body, type=PollerStatus)


def encode(status: PollerStatus) -> bytes:
    """Write an answer of ``GET /status``."""
    return msgspec.json.encode(status)


def encode_task(task: RolloutTask) -> str:
    """A task as the text of an annotation."""
    return msgspec.json.encode(task).decode()


def decode_task(text: str) -> RolloutTask | None:
    """Read the text of an annotation; None for an empty one, and for one of another shape."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=RolloutTask)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return None
