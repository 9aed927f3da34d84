"""Metrics under TensorFlow Serving's names, printed as its Prometheus exporter prints them.

That form is older than Prometheus clients: names begin with a colon, there is no HELP, counters
have no ``_total``; so no client library is used.
"""

from __future__ import annotations

import bisect
import itertools
import re
import threading
from dataclasses import dataclass, field


@dataclass
class _Distribution:
    counts: list[int]
    total: float = 0.0


@dataclass
class Counter:
    """A number for each combination of labels that only grows (or, as a gauge, is set once)."""

    name: str
    labels: tuple[str, ...]
    kind: str = "counter"
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _values: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, *labels: str, amount: int = 1) -> None:
        """Count ``amount`` more."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def first_value(self) -> int:
        """The value of the first combination of labels, 0 if there is none."""
        with self._lock:
            return next(iter(self._values.values()), 0)

    def lines(self) -> list[str]:
        """The metric's lines in the page."""
        name = _exported(self.name)
        with self._lock:
            values = sorted(self._values.items())
        return [
            f"# TYPE {name} {self.kind}",
            *(f"{name}{{{_pairs(self.labels, labels)}}} {value}" for labels, value in values),
        ]


@dataclass
class Sampler:
    """A distribution for each combination of labels, in exponential buckets."""

    name: str
    labels: tuple[str, ...]
    scale: float
    growth: float
    buckets: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _values: dict[tuple[str, ...], _Distribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._limits = [self.scale * self.growth**index for index in range(self.buckets)]

    def add(self, value: float, *labels: str) -> None:
        """Count one sample."""
        with self._lock:
            known = self._values.get(labels)
            if known is None:
                known = self._values[labels] = _Distribution([0] * (self.buckets + 1))
            known.counts[bisect.bisect_right(self._limits, value)] += 1
            known.total += value

    def first_value(self) -> int:
        """Distributions have no single value: 0."""
        return 0

    def lines(self) -> list[str]:
        """The metric's lines in the page."""
        name = _exported(self.name)
        lines = [f"# TYPE {name} histogram"]
        with self._lock:
            for labels, distribution in sorted(self._values.items()):
                pairs = _pairs(self.labels, labels)
                before = f"{pairs}," if pairs else ""
                limits = [*(f"{limit:g}" for limit in self._limits), "+Inf"]
                for limit, count in zip(
                    limits, itertools.accumulate(distribution.counts), strict=True
                ):
                    lines.append(f'{name}_bucket{{{before}le="{limit}"}} {count}')
                lines.append(f"{name}_sum{{{pairs}}} {distribution.total:g}")
                lines.append(f"{name}_count{{{pairs}}} {sum(distribution.counts)}")
        return lines


def _exported(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", ":", name)


def _pairs(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"'))
        for name, value in zip(names, values, strict=True)
    )


def _microseconds(name: str, *labels: str) -> Sampler:
    return Sampler(name, labels, scale=10, growth=1.8, buckets=33)


def _powers_of_two(name: str, *labels: str) -> Sampler:
    # batching_util.h: from 1 to 2^13.
    return Sampler(f"/tensorflow/serving/batching_session/{name}", labels, 1, 2, 14)


class Metrics:
    """Every metric of a server."""

    def __init__(self, server_version: str) -> None:
        self.request_count = Counter("/tensorflow/serving/request_count", ("model_name", "status"))
        self.request_latency = _microseconds(
            "/tensorflow/serving/request_latency", "model_name", "API", "entrypoint"
        )
        self.runtime_latency = _microseconds(
            "/tensorflow/serving/runtime_latency", "model_name", "API", "runtime"
        )
        self.example_counts = Sampler(
            "/tensorflow/serving/request_example_counts", ("model",), 1, 2, 15
        )
        self.example_count_total = Counter(
            "/tensorflow/serving/request_example_count_total", ("model",)
        )
        self.warmup_latency = _microseconds(
            "/tensorflow/serving/model_warmup_latency", "model_path", "status"
        )
        self.warmup_records_read = Counter(
            "/tensorflow/serving/model_warmup_records_read", ("model_path", "status")
        )
        self.queuing_latency = Sampler(
            "/tensorflow/serving/batching_session/queuing_latency",
            ("thread_pool_name",),
            100,
            1.2,
            52,
        )
        self.input_batch_size = _powers_of_two("input_batch_size")
        self.processed_batch_size = _powers_of_two("processed_batch_size")
        self.padding_size = _powers_of_two("padding_size", "execution_batch_size")
        self.wrapped_run_count = Counter(
            "/tensorflow/serving/batching_session/wrapped_run_count", ()
        )
        self.load_attempt_count = Counter(
            "/tensorflow/cc/saved_model/load_attempt_count", ("model_path", "status")
        )
        self.load_latency = Counter("/tensorflow/cc/saved_model/load_latency", ("model_path",))
        info = Counter("/development_model_server/info", ("version",), "gauge")
        info.add(server_version)
        self._all: dict[str, Counter | Sampler] = {
            metric.name: metric
            for metric in (*vars(self).values(), info)
            if isinstance(metric, Counter | Sampler)
        }

    def value(self, name: str) -> int:
        """A counter by its own name (``/tensorflow/serving/request_count``); 0 if unknown."""
        metric = self._all.get(name)
        return metric.first_value() if metric else 0

    def page(self) -> str:
        """The Prometheus page."""
        lines = [line for name in sorted(self._all) for line in self._all[name].lines()]
        return "\n".join(lines) + "\n"
