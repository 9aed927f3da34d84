"""What one InferenceModel costs the API server: at its creation, at rest and at a version change.

Writes are counted in the audit log of the embedded cluster, by who made them; what the operator
reads, in its own metrics.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.namespace import NAME, Namespace, namespace, renumbered
from demo import artifacts, setup
from demo.cluster import exported
from demo.console import say
from demo.errors import ClusterError, OutcomeError
from demo.setup import Options
from devcluster import Cluster as EmbeddedCluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_REPLICAS = (1, 3)
_QUIET_SECONDS = 10.0
_QUIET_LIMIT = 180.0
_METRICS = (
    "/api/v1/namespaces/inferencemodel-system/services/inferencemodel-operator:8080/proxy/metrics"
)
_READS = re.compile(r"^inferencemodel_operator_api_requests_total\{([^}]*)\} (\S+)$", re.MULTILINE)
_CHILDREN = (
    "configmaps,deployments,replicasets,pods,services,endpointslices,ingresses,"
    "poddisruptionbudgets,horizontalpodautoscalers,networkpolicies"
)


def run(seconds: float) -> dict[str, Any]:
    """Figures by the number of replicas.

    Args:
        seconds: for how long each resource is looked at in which nothing changes.

    Raises:
        ClusterError: a part does not run, or the cluster has no audit log.
        OutcomeError: a version did not arrive.
    """
    if exported() is not None:
        raise ClusterError(
            "writes are counted by the embedded cluster's audit log: unset KUBECONFIG"
        )
    cluster = setup.prepare(Options())
    log = EmbeddedCluster().api().audit_log
    assert log
    made = artifacts.ensure(say)
    figures = {}
    with (
        namespace(cluster, setup.bucket(cluster)) as space,
        tempfile.TemporaryDirectory() as scratch,
    ):
        for replicas in _REPLICAS:
            model = f"cost-{replicas}"
            space.bucket.upload(space.path(model, 1), made.archive(1).read_bytes())
            second = renumbered(made.archive(2), 2, Path(scratch)).read_bytes()
            _until_quiet(log)
            counts = _Counts(space, log)
            space.apply(model, subscription="bench", poll_interval="10m", replicas=replicas)
            _arrive(space, log, model, 1)
            creation = counts.since()
            time.sleep(seconds)
            rest = counts.since()
            space.bucket.upload(space.path(model, 2), second)
            _arrive(space, log, model, 2)
            change = counts.since()
            found = {
                "objects": _objects(space, model),
                "creation": creation,
                "rest": {"seconds": seconds, **rest},
                "version_change": change,
            }
            say(f"{replicas} replicas: {json.dumps(found)}")
            figures[str(replicas)] = found
            _remove(space, model)
    return figures


class _Counts:
    """Counts what happens between two calls."""

    def __init__(self, space: Namespace, log: Path) -> None:
        self._space = space
        self._log = log
        self._offset = log.stat().st_size
        self._reads = self._operator_reads()

    def since(self) -> dict[str, Mapping[str, int]]:
        """Writes by who made them, and the operator's reads, since the last call."""
        writes: dict[str, Counter[str]] = {}
        end = self._log.stat().st_size
        for event in _events(self._log, self._offset, end):
            writes.setdefault(_who(event), Counter())[_what(event)] += 1
        self._offset = end
        reads, self._reads = self._reads, self._operator_reads()
        return {
            **{f"writes of {who}": dict(sorted(counts.items())) for who, counts in writes.items()},
            "reads of the operator": dict(sorted((self._reads - reads).items())),
        }

    def _operator_reads(self) -> Counter[str]:
        """All so far; a watch is counted when it begins."""
        reads: Counter[str] = Counter()
        for labels, count in _READS.findall(self._space.cluster.kubectl("get", "--raw", _METRICS)):
            told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if told["verb"] in ("get", "list", "watch"):
                reads[f"{told['verb']} {told['resource']}"] += int(float(count))
        return reads


def _arrive(space: Namespace, log: Path, model: str, version: int) -> None:
    space.wait(model, version)
    space.kubectl("rollout", "status", f"deployment/{model}", "--timeout=180s", timeout=200)
    _until_quiet(log)


def _remove(space: Namespace, model: str) -> None:
    """Delete a resource, and wait for the end of its pods, which go on for a while."""
    space.kubectl("delete", "inferencemodel", model)
    space.kubectl(
        *("wait", "--for=delete", "pods", f"--selector=inferencemodel.dev/name={model}"),
        "--timeout=120s",
        timeout=150,
    )


def _until_quiet(log: Path) -> None:
    """Wait until nobody writes to the namespace any more.

    Raises:
        OutcomeError: somebody goes on.
    """
    begin = time.monotonic()
    offset, last = log.stat().st_size, begin
    while time.monotonic() - last < _QUIET_SECONDS:
        time.sleep(0.5)
        end = log.stat().st_size
        if any(_events(log, offset, end)):
            last = time.monotonic()
        offset = end
        if time.monotonic() - begin > _QUIET_LIMIT:
            raise OutcomeError("somebody goes on writing to the namespace")


def _events(log: Path, begin: int, end: int) -> Iterator[dict[str, Any]]:
    """What was written to the namespace, between two places of the log."""
    with log.open("rb") as file:
        file.seek(begin)
        for line in file.read(end - begin).splitlines():
            if f'"namespace":"{NAME}"'.encode() in line:
                event = json.loads(line)
                if event["objectRef"].get("namespace") == NAME:
                    yield event


def _who(event: Mapping[str, Any]) -> str:
    agent = str(event.get("userAgent", "")).partition("/")[0]
    return "the operator" if agent == "inferencemodel-operator" else agent


def _what(event: Mapping[str, Any]) -> str:
    about = event["objectRef"]
    return (
        f"{event['verb']} {'/'.join(filter(None, (about['resource'], about.get('subresource'))))}"
    )


def _objects(space: Namespace, model: str) -> dict[str, int]:
    """What exists of a resource, by kind."""
    names = space.kubectl(
        *("get", _CHILDREN, f"--selector=inferencemodel.dev/name={model}", "--output=name")
    )
    return dict(Counter(name.partition("/")[0] for name in names.split()))
