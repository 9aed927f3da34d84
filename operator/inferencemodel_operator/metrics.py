"""Prometheus metrics of the operator, in a registry of their own."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from inferencemodel_operator.rollouts.metrics import RolloutMetrics

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientResponse
    from aiohttp.client_middlewares import ClientHandlerType

_API: Final = re.compile(r"(?:^|/)(apis?)/")
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All metrics; also an aiohttp client middleware that counts API requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        prefix = "inferencemodel_operator"
        self.reconciles = Counter(
            f"{prefix}_reconciles_total",
            "Reconciles by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            f"{prefix}_reconcile_seconds",
            "Duration of a reconcile, requests included",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            f"{prefix}_queue_depth", "InferenceModels due to be reconciled", registry=self.registry
        )
        self.queue_waiting = Gauge(
            f"{prefix}_queue_waiting",
            "InferenceModels that wait for a retry or a delay",
            registry=self.registry,
        )
        self.queue_working = Gauge(
            f"{prefix}_queue_working",
            "InferenceModels that are being reconciled now",
            registry=self.registry,
        )
        self.leading = Gauge(
            f"{prefix}_leading", "1 while this replica leads, 0 on standby", registry=self.registry
        )
        self.requests = Counter(
            f"{prefix}_api_requests_total",
            "Requests to the API server by verb, resource and outcome",
            ["verb", "resource", "outcome"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            f"{prefix}_api_request_seconds",
            "Time to an answer's headers, by verb",
            ["verb"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.long_polls = Gauge(
            f"{prefix}_long_polls", "Pods that are being asked now", registry=self.registry
        )
        self.poll_limit = Gauge(
            f"{prefix}_long_polls_limit",
            "Pods that the limit of open files allows to ask at the same time; more take turns",
            registry=self.registry,
        )
        self.polls = Counter(
            f"{prefix}_polls_total",
            "Answers of pollers by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self.assignments_repeated = Counter(
            f"{prefix}_assignments_repeated_total",
            "How often a pod was told again what to serve, because its poller had not heard it",
            registry=self.registry,
        )
        self.template_updates = Gauge(
            f"{prefix}_template_updates",
            "InferenceModels whose pods do not have the operator's newest template yet",
            ["state"],
            registry=self.registry,
        )
        self.watch_age = Gauge(
            f"{prefix}_watch_age_seconds",
            "Time since a watch last gave a sign of life",
            ["resource"],
            registry=self.registry,
        )
        self.models = Gauge(
            f"{prefix}_inferencemodels",
            "InferenceModels by the status of their condition Ready",
            ["ready"],
            registry=self.registry,
        )
        self.overlapping = Gauge(
            f"{prefix}_overlapping_inferencemodels",
            "InferenceModels that another operator would serve, too, and which of the two does",
            ["outcome"],
            registry=self.registry,
        )
        self.rollouts = RolloutMetrics(self.registry, prefix)

    async def __call__(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Send a request and count it by its outcome."""
        verb, resource = classify(request.method, request.url.path, dict(request.url.query))
        started = time.monotonic()
        outcome = "unreachable"
        try:
            response = await send(request)
            outcome = str(response.status)
        finally:
            self.requests.labels(verb, resource, outcome).inc()
            self.request_seconds.labels(verb).observe(time.monotonic() - started)
        return response

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


def classify(method: str, path: str, query: dict[str, str]) -> tuple[str, str]:
    """Kubernetes' verb and the resource (with its subresource) of a request."""
    root, parts = _API.search(path), path.strip("/").split("/")
    if root is not None:
        rest = path[root.end() :].strip("/").split("/")
        parts = rest[1:] if root[1] == "api" else rest[2:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    if root is None or not parts:
        return "discovery", ""
    resource = parts[0] if len(parts) < 3 else f"{parts[0]}/{parts[2]}"
    if method == "GET":
        one = "get" if len(parts) > 1 else "list"
        return "watch" if query.get("watch") == "true" else one, resource
    return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(
        method, method
    ), resource
