"""What Prometheus can read at ``/metrics``."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from model_poller.status import SourceReason, VersionReason

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)

_FAILURES: Final = {
    *(reason.value for reason in VersionReason if reason is not VersionReason.OTHER),
    SourceReason.BUCKET_NOT_FOUND.value,
    SourceReason.ACCESS_DENIED.value,
    SourceReason.UNREACHABLE.value,
    SourceReason.INVALID_SOURCE.value,
}


class Metrics:
    """All series of one poller, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix = "model_poller"
        self.fetched_bytes = Counter(
            f"{prefix}_fetched_bytes", "Bytes read from the source.", registry=self.registry
        )
        self.step_seconds = Histogram(
            f"{prefix}_step_seconds",
            "Time of each step: list, download, unpack, verify, sync, load.",
            ["step"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.source_requests = Counter(
            f"{prefix}_source_requests",
            "Calls to the source by kind: list (one a page), get (one a range), head (an object).",
            ["kind"],
            registry=self.registry,
        )
        self.failures = Counter(
            f"{prefix}_failures",
            "Failed looks, fetches and loads by reason.",
            ["reason"],
            registry=self.registry,
        )
        # A series that begins with its first failure hides that from `increase()`.
        for reason in _FAILURES:
            self.failures.labels(reason)
        self.notifications = Counter(
            f"{prefix}_notifications",
            "Notifications by kind: object, or unknown (acknowledged and ignored).",
            ["kind"],
            registry=self.registry,
        )
        self.notification_lag = Histogram(
            f"{prefix}_notification_lag_seconds",
            "From the publication of a notification to its arrival here.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.versions = Gauge(
            f"{prefix}_versions", "Known versions by state.", ["state"], registry=self.registry
        )
        self.served_version = Gauge(
            f"{prefix}_served_version",
            "The highest version that the model server reports AVAILABLE; absent without one.",
            ["model"],
            registry=self.registry,
        )
        self.cache = Counter(
            f"{prefix}_cache",
            "Versions by what the cache did: hit, miss, waited, stored, damaged.",
            ["result"],
            registry=self.registry,
        )
        self.disk_free_bytes = Gauge(
            f"{prefix}_disk_free_bytes", "Free bytes on the model volume.", registry=self.registry
        )

    def render(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self.registry)


METRICS = Metrics()
