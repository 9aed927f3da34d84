"""A long run: many models, a new version of each every minute, requests all the time.

What is looked at: requests that failed, versions that did not arrive, containers that started
again, and whether the memory of operator, pollers and model servers grows.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import msgspec
from matplotlib.figure import Figure

from bench import record
from bench.namespace import NAME, Namespace, namespace
from bench.trend import trend
from demo import setup
from demo.cluster import VERSION
from demo.console import say, table
from demo.errors import ClusterError, OutcomeError
from demo.load import Exchange, Load, Traffic, rest
from demo.setup import BUCKET, Options
from tests.support import savedmodels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from demo.load import Failure

_JUDGED = ("operator", "poller")
"""A model server is TensorFlow's or a stand-in's: its memory is told."""
_KINDS = {"operator": "operator", "poller": "poller", "model-server": "model server"}
"""What is sampled, by the container's name."""
_SAMPLE_SECONDS = 15.0
_EVERY_SECONDS = 60.0
"""Between two versions of one model."""
_WARM_SHARE = 0.25
"""Of the time, at its beginning, in which memory may grow: caches fill, arenas are laid out."""
_KEPT = 6
"""Versions of a model in the bucket; older ones are deleted, as a bucket's lifecycle would."""
_RATE = 1.0
"""Requests a second to each model."""
_TRAFFIC_SECONDS = 1500.0
"""After which the connections are made anew."""
_START_SECONDS = 900.0
_ARRIVAL_SECONDS = 60.0
_PICTURE = Path(__file__).parent.parent / "docs/plots/soak.svg"


class _Memory(msgspec.Struct):
    rssBytes: int = 0  # noqa: N815  the kubelet's


class _Container(msgspec.Struct):
    name: str
    memory: _Memory = msgspec.field(default_factory=_Memory)


class _PodRef(msgspec.Struct):
    name: str
    namespace: str


class _Pod(msgspec.Struct):
    podRef: _PodRef  # noqa: N815  the kubelet's
    containers: list[_Container] = []


class _Summary(msgspec.Struct):
    """What is read of a kubelet's /stats/summary
    (https://kubernetes.io/docs/reference/instrumentation/node-metrics/)."""

    pods: list[_Pod] = []


@dataclass
class _Samples:
    """Megabytes of a container, on average over those of its kind, at times since the beginning."""

    seconds: list[float] = field(default_factory=list)
    megabytes: dict[str, list[float]] = field(
        default_factory=lambda: {kind: [] for kind in _KINDS.values()}
    )

    def add(self, at: float, summaries: Sequence[_Summary]) -> None:
        """Take one look at all nodes; one that misses a kind is left out."""
        found: dict[str, list[int]] = {}
        for summary in summaries:
            for pod in summary.pods:
                if pod.podRef.namespace not in (NAME, "inferencemodel-system"):
                    continue
                for container in pod.containers:
                    if container.name in _KINDS and container.memory.rssBytes:
                        kind = _KINDS[container.name]
                        found.setdefault(kind, []).append(container.memory.rssBytes)
        if found.keys() == self.megabytes.keys():
            self.seconds.append(at)
            for kind, values in found.items():
                self.megabytes[kind].append(sum(values) / len(values) / 1e6)


def run(minutes: float, models: int) -> None:
    """Run for so long, print, and keep the figures.

    Raises:
        OutcomeError: a request failed, a version did not arrive, a container started again, or
            memory grows.
        ClusterError: a part does not run.
    """
    cluster = setup.prepare(Options())
    with ExitStack() as stack:
        space = stack.enter_context(namespace(cluster, setup.bucket(cluster)))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        built = savedmodels.contents(scratch, 1, 2)
        uploads = _Uploads(space, [f"soak-{number:02}" for number in range(models)], built)
        uploads.begin()
        samples, sent, failures = _soak(space, uploads, minutes * 60)
        late = uploads.late()
        restarts = _restarts(space)
    _report(samples, minutes, models, uploads.count, sent, failures, late, restarts)


class _Uploads:
    """New versions, of one model after the other, so that each gets one a minute."""

    def __init__(
        self, space: Namespace, models: list[str], built: dict[int, dict[str, bytes]]
    ) -> None:
        self._space = space
        self.models = models
        self._files = built
        self._newest = dict.fromkeys(models, 0)
        self.count = 0

    def begin(self) -> None:
        """Serve version 1 of all."""
        for model in self.models:
            self._upload(model)
            _apply(self._space, model)
        for number, model in enumerate(self.models):
            self._space.wait(model, 1, seconds=_START_SECONDS)
            _until_routed(self._space, model)
            say(f"{number + 1} of {len(self.models)} models serve")

    def upload(self, number: int) -> None:
        """A new version of the model whose turn it is."""
        self._upload(self.models[number % len(self.models)])

    def late(self) -> list[str]:
        """The models that don't come to their newest version any more."""
        late = []
        for model, version in self._newest.items():
            try:
                self._space.wait(model, version, seconds=_ARRIVAL_SECONDS)
            except OutcomeError as error:
                late.append(f"{model}: version {version} did not arrive: {error}")
        return late

    def _upload(self, model: str) -> None:
        version = self._newest[model] = self._newest[model] + 1
        files = self._files[version % 2 + 1]
        content = savedmodels.archive(files, folder=f"{version:04}")
        self._space.bucket.upload(self._space.path(model, version), content)
        self.count += 1
        if version > _KEPT:
            self._space.bucket.delete(self._space.path(model, version - _KEPT))


def _apply(space: Namespace, model: str) -> None:
    spec: dict[str, Any] = {
        "model": {"storageUri": f"gs://{BUCKET}/{NAME}/{model}"},
        "source": {
            "endpoint": "http://bucket.development-bucket:4443",
            "anonymous": True,
            "pollInterval": "5s",
        },
        "server": {
            "image": f"inferencemodel/development-model-server:{VERSION}",
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        },
        "ingress": {"host": _host(model)},
    }
    if model.endswith("00"):
        # Notifications of one subscription go to one of those who listen.
        spec["source"]["notifications"] = {
            "pubsub": {
                "subscription": "projects/development/subscriptions/bench",
                "endpoint": "pubsub.development-bucket:8085",
            }
        }
    space.create(model, spec)


def _host(model: str) -> str:
    return f"{model}.example.com"


def _soak(
    space: Namespace, uploads: _Uploads, seconds: float
) -> tuple[_Samples, int, list[Failure]]:
    samples, sent = _Samples(), 0
    failures: list[Failure] = []
    nodes = space.cluster.kubectl("get", "nodes", "--output=jsonpath={.items[*].metadata.name}")
    began = time.monotonic()
    due = _turns(began, seconds, len(uploads.models))
    upload = next(due)
    look = began
    while time.monotonic() < began + seconds:
        until = min(began + seconds, time.monotonic() + _TRAFFIC_SECONDS)
        with Traffic(*(_load(space, model) for model in uploads.models)) as traffic:
            while (now := time.monotonic()) < until:
                if now >= upload[0]:
                    uploads.upload(upload[1])
                    upload = next(due)
                if now >= look:
                    samples.add(now - began, [_summary(space, node) for node in nodes.split()])
                    look += _SAMPLE_SECONDS
                    _tell(samples, traffic, uploads, now - began)
                time.sleep(max(0.0, min(upload[0], look, until) - time.monotonic()))
                traffic.check()
        sent += traffic.sent
        failures += traffic.failures
    return samples, sent, failures


def _turns(began: float, seconds: float, models: int) -> Iterator[tuple[float, int]]:
    """When which upload is due; none in the last half minute, for the last has to arrive."""
    pause = _EVERY_SECONDS / models
    number = 0
    while number * pause < seconds - _EVERY_SECONDS / 2:
        yield began + number * pause, number
        number += 1
    while True:
        yield float("inf"), 0


def _until_routed(space: Namespace, model: str) -> None:
    """Wait until the ingress controller knows the way: it hears of it when the resource does."""
    end = time.monotonic() + _ARRIVAL_SECONDS
    while True:
        connection = http.client.HTTPConnection(space.cluster.ingress, timeout=10)
        try:
            connection.request("GET", f"/v1/models/{model}", headers={"Host": _host(model)})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(f"the Ingress can't be asked: {error}") from error
        finally:
            connection.close()
        if status == HTTPStatus.OK:
            return
        if time.monotonic() > end:
            raise OutcomeError(f"the Ingress still answers {status} for {model}")
        time.sleep(0.2)


def _load(space: Namespace, model: str) -> Load:
    def read(answer: bytes) -> str:
        value = json.loads(answer)["predictions"][0]
        if value not in (1.0, 2.0):
            raise ValueError(f"{value} is no version's answer")
        return f"offset {value:.0f}"

    body = json.dumps({"instances": [0.0]}).encode()
    url = f"http://{space.cluster.ingress}/v1/models/{model}:predict"
    return Load(model, rest(url, [Exchange(body, read)], host=_host(model)), _RATE)


def _summary(space: Namespace, node: str) -> _Summary:
    raw = space.cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary")
    return msgspec.json.decode(raw, type=_Summary)


def _tell(samples: _Samples, traffic: Traffic, uploads: _Uploads, seconds: float) -> None:
    if len(samples.seconds) % 20 != 1:
        return
    memory = ", ".join(
        f"{kind} {values[-1]:.1f} MB" for kind, values in samples.megabytes.items() if values
    )
    say(
        f"{seconds / 60:.0f} min: {memory}; {uploads.count} versions, {traffic.sent} requests"
        f" since the connections were made, {len(traffic.failures)} failed"
    )


def _restarts(space: Namespace) -> list[str]:
    """The containers that are not the first of their pods."""
    found = []
    for where in (NAME, "inferencemodel-system"):
        for pod in space.cluster.read(f"--namespace={where}", "pods")["items"]:
            found += [
                f"{pod['metadata']['name']}/{status['name']}: {status['restartCount']} times"
                for status in pod["status"].get("containerStatuses", [])
                if status["restartCount"]
            ]
    return found


def _report(
    samples: _Samples,
    minutes: float,
    models: int,
    versions: int,
    sent: int,
    failures: Sequence[Failure],
    late: Sequence[str],
    restarts: Sequence[str],
) -> None:
    faults = [*late, *(f"started again: {text}" for text in restarts)]
    if failures:
        reasons = sorted({failure.reason for failure in failures})[:5]
        faults.append(f"{len(failures)} of {sent} requests failed: {'; '.join(reasons)}")
    warm = next(
        (i for i, at in enumerate(samples.seconds) if at >= _WARM_SHARE * minutes * 60),
        len(samples.seconds),
    )
    rows = [("MEMORY OF A CONTAINER", "AT THE END", "PER HOUR", "VARIES BY")]
    trends: dict[str, Any] = {}
    for kind, values in samples.megabytes.items():
        try:
            found = trend(samples.seconds[warm:], values[warm:])
        except ValueError as error:
            raise ClusterError(f"the kubelets told too little: {error}") from error
        rows.append(
            (kind, f"{values[-1]:.1f} MB", f"{found.hourly:+.2f} MB", f"{found.spread:.2f} MB")
        )
        trends[kind] = {
            "end_mb": round(values[-1], 2),
            "hourly_mb": round(found.hourly, 3),
            "spread_mb": round(found.spread, 3),
        }
        if kind in _JUDGED and found.is_growing:
            faults.append(f"the memory of the {kind} grows by {found.hourly:.1f} MB an hour")
    table(rows)
    say(f"{versions} versions of {models} models, {sent} requests, {len(failures)} failed")
    say(f"drawn in {_draw(samples)}")
    path = record.write(
        "soak",
        {
            "minutes": minutes,
            "models": models,
            "versions": versions,
            "requests": sent,
            "failed": len(failures),
            "memory": trends,
        },
    )
    say(f"written to bench/results/{path.name}")
    if faults:
        raise OutcomeError("\n".join(faults[:20]))


def _draw(samples: _Samples) -> str:
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "soak"})
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for kind, values in samples.megabytes.items():
        axes.plot([at / 60 for at in samples.seconds], values, label=kind)
    axes.set_xlabel("minutes")
    axes.set_ylabel("resident memory of a container, MB")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    _PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(_PICTURE, metadata={"Date": None})
    return f"docs/plots/{_PICTURE.name}"
