"""What a shared cache is worth: how long new replicas take, and how often the store is read.

Side by side in each round: one replica becomes three without a cache, with a warm one, and where
the version is baked into the node's disk (a claim whose versions are published by links). The
store's bytes come from memory; a pod's way to it is as fast as `--bandwidth` lets it be, as
between machines. The version is a small model with a large file beside it, so that loading it takes
no time that would hide the rest.
"""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import record
from bench.namespace import NAME, Namespace, namespace
from bench.patterned import Patterned
from demo import setup
from demo.cluster import VERSION
from demo.console import say, table
from demo.errors import OutcomeError
from demo.setup import Options
from devcluster.network import NODE_ADDRESS
from tests.support import savedmodels, volumes

if TYPE_CHECKING:
    from collections.abc import Iterator

_GOAL_PLAIN = 0.3
"""Of the time without a cache."""
_GOAL_BAKED = 1.3
"""Of the time with the version on the node's disk."""
_REPLICAS = 3
_CASES = ("without", "cached", "baked")
_SECONDS = 600.0
_STEPS = {
    "the poller runs": "listening on port",
    "the version is found": "fetching version",
    "it is on the pod's disk": "published version",
    "the model server answers": "is AVAILABLE",
}
"""What a new pod comes to, one after the other, and the words of its poller about it."""

Phases = dict[str, float]
"""Seconds since the replicas were asked for."""


def run(rounds: int, megabytes: int, bandwidth: str, pods: int) -> None:
    """Measure, print, and keep the figures.

    Raises:
        OutcomeError: a figure was not reached.
        ClusterError: a part does not run.
    """
    cluster = setup.prepare(Options())
    size = megabytes * 10**6
    with ExitStack() as stack:
        space = stack.enter_context(namespace(cluster, setup.bucket(cluster)))
        # Below the folders that the kubelet may look into.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        scratch.chmod(0o755)
        model = savedmodels.files(savedmodels.build(scratch / "export", 2)[2])
        files: dict[str, bytes | int] = {**model, "assets.extra/ballast": size}
        store = stack.enter_context(
            Patterned({f"m/1/{name}": content for name, content in files.items()}, NODE_ADDRESS)
        )
        for claim in ("warm", "cold", "baked"):
            stack.enter_context(_volume(space, scratch, claim, size))
        _bake(scratch / "baked", model, size)
        times, steps = _scale(space, store, rounds, bandwidth)
        sent, took = _cold(space, store, pods, bandwidth)
    whole = sum(
        len(content) if isinstance(content, bytes) else content for content in files.values()
    )
    _report(times, steps, megabytes, bandwidth, pods, sent / whole, took)


def _scale(
    space: Namespace, store: Patterned, rounds: int, bandwidth: str
) -> tuple[dict[str, list[float]], dict[str, list[Phases]]]:
    times: dict[str, list[float]] = {case: [] for case in _CASES}
    steps: dict[str, list[Phases]] = {case: [] for case in _CASES}
    for case in _CASES:
        _apply(space, store, case, 1, bandwidth)
    for case in _CASES:
        space.wait(case, 1, seconds=_SECONDS)
    for _ in range(rounds):
        for case in _CASES:
            began, moment = time.monotonic(), time.time()
            space.kubectl("scale", f"inferencemodel/{case}", f"--replicas={_REPLICAS}")
            _ready(space, case, _REPLICAS)
            times[case].append(time.monotonic() - began)
            steps[case].append(_slowest(space, case, moment))
            space.kubectl("scale", f"inferencemodel/{case}", "--replicas=1")
            _gone(space, case)
        say(", ".join(f"{case} {values[-1]:.2f} s" for case, values in times.items()))
    for case in _CASES:
        space.kubectl("delete", "inferencemodel", case)
        _gone(space, case, left=0)
    return times, steps


def _slowest(space: Namespace, case: str, moment: float) -> Phases:
    """The steps of the pod that came last, of those that began after a moment (Unix time)."""
    pods = space.kubectl(
        *("get", "pods", f"--selector=inferencemodel.dev/name={case}"),
        "--output=jsonpath={.items[*].metadata.name}",
    )
    logs = [space.kubectl("logs", pod, "--container=poller") for pod in pods.split()]
    new = [taken for taken in (phases(log, moment) for log in logs) if taken]
    return max(new, key=lambda taken: max(taken.values()), default={})


def phases(log: str, moment: float) -> Phases:
    """When a poller came to each step, by its log in JSON; empty for one that ran before."""
    found: Phases = {}
    for line in log.splitlines():
        if not line.startswith("{"):
            continue
        entry = json.loads(line)
        seconds = datetime.fromisoformat(entry["time"]).timestamp() - moment
        for step, words in _STEPS.items():
            if words in entry["message"]:
                found.setdefault(step, seconds)
    return found if min(found.values(), default=-1.0) >= 0 else {}


def _cold(space: Namespace, store: Patterned, pods: int, bandwidth: str) -> tuple[int, float]:
    """Bytes that the store sent for so many pods at once, and how long they took."""
    before, began = store.sent, time.monotonic()
    _apply(space, store, "cold", pods, bandwidth)
    _ready(space, "cold", pods)
    return store.sent - before, time.monotonic() - began


def _ready(space: Namespace, model: str, replicas: int) -> None:
    space.kubectl(
        *("wait", f"inferencemodel/{model}", f"--timeout={_SECONDS:.0f}s"),
        f"--for=jsonpath={{.status.readyReplicas}}={replicas}",
        timeout=_SECONDS + 30,
    )


def _gone(space: Namespace, model: str, left: int = 1) -> None:
    """Wait until pods that are not wanted any more have left."""
    end = time.monotonic() + _SECONDS
    while len(space.addresses(model)) > left:
        if time.monotonic() > end:
            raise OutcomeError(f"pods of {model} don't leave")
        time.sleep(0.5)


def _apply(space: Namespace, store: Patterned, case: str, replicas: int, bandwidth: str) -> None:
    spec: dict[str, Any] = {
        "model": {"storageUri": "pvc://baked/m" if case == "baked" else "s3://models/m"},
        "source": {"pollInterval": "5s"},
        "server": {
            "image": f"inferencemodel/development-model-server:{VERSION}",
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        },
        "replicas": replicas,
    }
    if case != "baked":
        spec["source"] |= {
            "endpoint": store.url,
            "anonymous": True,
            "fetch": {"maxBandwidth": bandwidth},
        }
    if case in ("cached", "cold"):
        claim = "warm" if case == "cached" else "cold"
        spec["storage"] = {"cache": {"claimName": claim}}
    space.create(case, spec)


def _create(space: Namespace, manifest: dict[str, Any]) -> None:
    space.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


@contextmanager
def _volume(space: Namespace, scratch: Path, claim: str, size: int) -> Iterator[None]:
    """A claim on a folder of this node."""
    (scratch / claim).mkdir()
    node = space.cluster.kubectl("get", "nodes", "--output=jsonpath={.items[0].metadata.name}")
    name = f"{NAME}-{claim}"
    for made in volumes.claim(
        claim, scratch / claim, volume=name, namespace=NAME, size=str(4 * size), node=node
    ):
        _create(space, made)
    try:
        yield
    finally:
        space.cluster.kubectl("delete", "persistentvolume", name, "--wait=false")


def _bake(claim: Path, model: dict[str, bytes], size: int) -> None:
    for name, content in model.items():
        path = claim / "m" / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    ballast = claim / "m" / "1" / "assets.extra" / "ballast"
    ballast.parent.mkdir()
    with ballast.open("wb") as file:
        for _ in range(size // 10**6):
            file.write(bytes(10**6))
    for path in (claim / "m").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _shown(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"


def _medians(rounds: list[Phases]) -> Phases:
    """Each step's median; without those that no round has come to."""
    return {
        step: median(values)
        for step in _STEPS
        if (values := [taken[step] for taken in rounds if step in taken])
    }


def _report(
    times: dict[str, list[float]],
    steps: dict[str, list[Phases]],
    megabytes: int,
    bandwidth: str,
    pods: int,
    fetches: float,
    took: float,
) -> None:
    middle = {case: median(values) for case, values in times.items()}
    plain, baked = middle["cached"] / middle["without"], middle["cached"] / middle["baked"]
    say(f"one replica becomes {_REPLICAS}, a version of {megabytes} MB, {bandwidth} bytes/s a pod")
    rows = [(case, record.summary(values)) for case, values in times.items()]
    table([("case", "until all are ready"), *rows])
    taken = {case: _medians(rounds) for case, rounds in steps.items()}
    lines = [(step, *(_shown(taken[case].get(step)) for case in _CASES)) for step in _STEPS]
    table([("of the pod that came last, until", *_CASES), *lines])
    say(f"a warm cache takes {plain:.2f}x of none, {baked:.2f}x of the node's disk")
    say(f"{pods} pods at once on a cold cache: {fetches:.3f} fetches, ready after {took:.1f} s")
    record.write(
        "cache",
        {
            "megabytes": megabytes,
            "bandwidth": bandwidth,
            "seconds": times,
            "steps": taken,
            "of_none": plain,
            "of_baked": baked,
            "pods_at_once": pods,
            "fetches": fetches,
            "cold_seconds": took,
        },
    )
    missed = [
        text
        for text, is_reached in (
            (f"{plain:.2f}x of the time without a cache", plain <= _GOAL_PLAIN),
            (f"{baked:.2f}x of the node's disk", baked <= _GOAL_BAKED),
            (f"{fetches:.3f} fetches", 0.99 <= fetches <= 1.01),
        )
        if not is_reached
    ]
    if missed:
        raise OutcomeError(f"not reached: {'; '.join(missed)}")
