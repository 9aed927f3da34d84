"""Conditions and their reasons: a closed set, part of the interface (docs/conditions.md)."""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """The conditions of an InferenceModel. The last three are abnormal when True."""

    READY = "Ready"
    """All wanted replicas serve, and which version each of them serves is known."""
    SOURCE_READY = "SourceReady"
    """The bucket can be listed and holds a version."""
    MODEL_LOADED = "ModelLoaded"
    """The wanted version is reached: it answers on all wanted replicas, and no other one does."""
    VERSION_SKEW = "VersionSkew"
    """Clients get answers of more than one version."""
    RECONCILING = "Reconciling"
    """Something is still on its way to what is wanted."""
    STALLED = "Stalled"
    """Somebody has to change something before it can go on."""
    ROLLOUT_PAUSED = "RolloutPaused"
    """A rollout waits for somebody."""


class Reason(StrEnum):
    """Every reason that a condition can have."""

    # Ready
    SERVING = "Serving"
    SCALED_TO_ZERO = "ScaledToZero"
    REPLICAS_NOT_READY = "ReplicasNotReady"
    WAITING_FOR_VERSION = "WaitingForVersion"
    POLLER_UNREACHABLE = "PollerUnreachable"
    PODS_REFUSED = "PodsRefused"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_FAILED = "ContainerConfigFailed"
    POLLER_CRASHED = "PollerCrashed"
    SERVER_CRASHED = "ServerCrashed"
    CONTAINER_CRASHED = "ContainerCrashed"
    EVICTED = "Evicted"

    # SourceReady; those of model_poller.status.SourceReason are among them
    LISTED = "Listed"
    NOTIFICATIONS_DOWN = "NotificationsDown"
    CACHE_UNUSABLE = "CacheUnusable"
    INCOMPLETE_UPLOAD = "IncompleteUpload"
    NOT_LISTED_YET = "NotListedYet"
    NO_VERSION_FOUND = "NoVersionFound"
    BUCKET_NOT_FOUND = "BucketNotFound"
    ACCESS_DENIED = "AccessDenied"  # of a version, too
    UNREACHABLE = "Unreachable"
    INVALID_SOURCE = "InvalidSource"
    NO_REPORT = "NoReport"

    # ModelLoaded; those of model_poller.status.VersionReason are among them
    LOADED = "Loaded"
    NO_TARGET = "NoTarget"
    BELOW_MIN_VERSION = "BelowMinVersion"
    VERSION_NOT_FOUND = "VersionNotFound"
    FETCHING = "Fetching"
    LOADING = "Loading"
    MISSING_SAVED_MODEL = "MissingSavedModel"
    MISSING_VARIABLES = "MissingVariables"
    MISSING_ASSETS = "MissingAssets"
    MISSING_MARKER = "MissingMarker"
    MISSING_MANIFEST = "MissingManifest"
    MANIFEST_MISMATCH = "ManifestMismatch"
    SIGNATURE_MISMATCH = "SignatureMismatch"
    UNSTABLE_LISTING = "UnstableListing"
    DUPLICATE_VERSION = "DuplicateVersion"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    BAD_ARCHIVE = "BadArchive"
    UNSAFE_ARCHIVE = "UnsafeArchive"
    ARCHIVE_TOO_LARGE = "ArchiveTooLarge"
    INSUFFICIENT_DISK = "InsufficientDisk"
    FETCH_FAILED = "FetchFailed"
    LOAD_FAILED = "LoadFailed"
    LOAD_TIMEOUT = "LoadTimeout"
    WARMUP_UNAVAILABLE = "WarmupUnavailable"
    CHANGED_AFTER_PUBLISH = "ChangedAfterPublish"
    QUARANTINED_ELSEWHERE = "QuarantinedElsewhere"
    ANOTHER_SOURCE = "AnotherSource"
    TOO_MANY_FILES = "TooManyFiles"
    # Of a version that a rollout took back
    ABORTED = "Aborted"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    SIGNATURE_INCOMPATIBLE = "SignatureIncompatible"
    REHEARSAL_FAILED = "RehearsalFailed"
    GOLDEN_MISMATCH = "GoldenMismatch"
    ERROR_RATE = "ErrorRate"
    LATENCY = "Latency"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CRASHED_SERVING = "CrashedServing"
    OBJECTS_CHANGED = "ObjectsChanged"

    # RolloutPaused, and ModelLoaded while it is
    ROLLOUT_PAUSED = "RolloutPaused"
    NOT_PAUSED = "NotPaused"

    # VersionSkew
    SAME_VERSION = "SameVersion"
    VERSIONS_DIFFER = "VersionsDiffer"
    NOT_SERVING = "NotServing"

    # Reconciling
    SETTLED = "Settled"
    BLOCKED = "Blocked"
    SUSPENDED = "Suspended"
    TERMINATING = "Terminating"
    APPLYING = "Applying"
    APPLY_FAILED = "ApplyFailed"
    AWAITING_TURN = "AwaitingTurn"
    UPDATE_STOPPED = "UpdateStopped"
    ROLLING_OUT = "RollingOut"
    CHANGING_VERSION = "ChangingVersion"

    # Stalled
    NOT_STALLED = "NotStalled"
    INVALID_SPEC = "InvalidSpec"
    INVALID_RECORD = "InvalidRecord"
    NAME_CONFLICT = "NameConflict"
    ADDRESS_CONFLICT = "AddressConflict"
    KIND_MISSING = "KindMissing"
    REFUSED = "Refused"
    CONTESTED = "Contested"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"

    # Any condition
    OTHER = "Other"


def reason_of(text: str) -> Reason:
    """The reason of that name; OTHER for one that only a newer release knows."""
    try:
        return Reason(text)
    except ValueError:
        return Reason.OTHER
