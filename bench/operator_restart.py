"""What a restart of the operator over settled resources writes: it should be nothing.

It runs on a real API server without a node. What a node and the controllers would do is done here:
each InferenceModel gets its pods, ready and with an address of this machine on which a stand-in
for their pollers says that version 1 is served, so that every resource settles as Ready. Writes
are counted by the API server's own audit log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from bench import record
from demo.console import say, table
from demo.errors import OutcomeError
from devcluster import ApiServer
from model_poller import status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devcluster import Api

_TREE = Path(__file__).parent.parent
_NAMESPACE = "bench"
_PODS_EACH = 2
_POLLER_PORT = 8502
_OPERATOR_PORT = 18080
_OPERATOR = "inferencemodel-operator"
_QUIET_SECONDS = 10.0
"""Without a write for so long, what was started counts as settled."""
_SETTLE_LIMIT = 300.0


@dataclass(frozen=True)
class Start:
    """What one start of the operator took.

    Attributes:
        writes: by verb and resource, from its start until it was quiet.
        settled_seconds: from its start until every resource was reconciled and every pod asked.
        cpu_seconds: of the process by then.
        memory_mb: its resident memory by then.
    """

    writes: dict[str, int]
    settled_seconds: float
    cpu_seconds: float
    memory_mb: float


def run(resources: int) -> None:
    """Measure a first start and a restart, and print both.

    Raises:
        OutcomeError: the restart wrote something, or the resources never settled.
    """
    with ApiServer() as api, _pollers():
        say(f"creating {resources} InferenceModels with {_PODS_EACH} pods each")
        _prepare(api, resources)
        first = _start(api, resources, "first start")
        again = _start(api, resources, "restart")
        ready = _ready(api)
    rows = [("", "WRITES", "SETTLED AFTER", "CPU", "MEMORY")]
    rows += [
        (
            name,
            str(sum(start.writes.values())),
            f"{start.settled_seconds:.2f} s",
            f"{start.cpu_seconds:.2f} s",
            f"{start.memory_mb:.0f} MB",
        )
        for name, start in (("first start", first), ("restart", again))
    ]
    table(rows)
    say(f"{ready} of {resources} resources were Ready; writes of the first start: {first.writes}")
    path = record.write(
        "operator-restart",
        {
            "resources": resources,
            "pods": resources * _PODS_EACH,
            "ready": ready,
            "first_start": asdict(first),
            "restart": asdict(again),
        },
    )
    say(f"written to {path.relative_to(_TREE)}")
    if again.writes or ready != resources:
        raise OutcomeError(f"the restart wrote {again.writes}; {ready} resources were Ready")


def _prepare(api: Api, resources: int) -> None:
    api.kubectl("apply", "--server-side", "-k", str(_TREE / "crds"))
    api.kubectl("create", "namespace", _NAMESPACE)
    items: list[dict[str, Any]] = []
    for number in range(resources):
        items.append(
            {
                "apiVersion": "inferencemodel.dev/v1alpha1",
                "kind": "InferenceModel",
                "metadata": {"name": f"model-{number}", "namespace": _NAMESPACE},
                "spec": {
                    "model": {"storageUri": f"gs://models/model-{number}"},
                    "replicas": _PODS_EACH,
                    "ingress": {"host": f"model-{number}.example.com"},
                },
            }
        )
        items += [_pod(number, index) for index in range(_PODS_EACH)]
    _apply(api, items)
    pods = [item for item in items if item["kind"] == "Pod"]
    _apply(api, [pod | {"status": _pod_status(pod)} for pod in pods], "--subresource=status")


def _apply(api: Api, items: list[dict[str, Any]], *flags: str) -> None:
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    api.kubectl(
        *("apply", "--server-side", "--field-manager=bench", "-f", "-", *flags),
        stdin=manifest,
        timeout=600,
    )


def _pod(number: int, index: int) -> dict[str, Any]:
    name = f"model-{number}"
    container = {"image": "none", "command": ["none"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{index}",
            "namespace": _NAMESPACE,
            "labels": {
                "app.kubernetes.io/managed-by": _OPERATOR,
                "inferencemodel.dev/name": name,
            },
            "annotations": {"inferencemodel.dev/target-version": "1"},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "initContainers": [{"name": "poller", "restartPolicy": "Always"} | container],
            "containers": [{"name": "model-server"} | container],
        },
    }


def _pod_status(pod: dict[str, Any]) -> dict[str, Any]:
    _, number, index = pod["metadata"]["name"].split("-")
    address = f"127.1.{int(number) // 100}.{int(number) % 100 * _PODS_EACH + int(index) + 1}"
    running = {"ready": True, "restartCount": 0, "image": "none", "imageID": ""} | {
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    }
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "initContainerStatuses": [{"name": "poller"} | running],
        "containerStatuses": [{"name": "model-server"} | running],
    }


def _start(api: Api, resources: int, name: str) -> Start:
    assert api.audit_log
    before = api.audit_log.stat().st_size
    started = time.monotonic()
    log = Path(api.kubeconfig).parent / f"{name.replace(' ', '-')}.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [
                *(sys.executable, "-m", "inferencemodel_operator", "run"),
                *(f"--kubeconfig={api.kubeconfig}", f"--http-port={_OPERATOR_PORT}"),
                *("--poller-access=direct", f"--namespace={_NAMESPACE}"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": f"{_TREE / 'operator'}:{_TREE / 'poller'}"},
        ) as operator,
    ):
        try:
            pods = resources * _PODS_EACH

            def settled() -> bool:
                return (
                    _metric("reconciles_total", 'outcome="done"') >= resources
                    and _metric("polls_total", 'outcome="news"') >= pods
                    and _metric("queue_depth") + _metric("queue_working") == 0
                )

            _until(settled, operator, log, f"the operator to reconcile {resources} resources")
            took = time.monotonic() - started
            cpu, memory = _process(operator.pid)
            writes = _quiet(api.audit_log, before)
        finally:
            operator.send_signal(signal.SIGTERM)
    say(f"{name}: {took:.2f} s, {sum(writes.values())} writes")
    return Start(dict(writes), round(took, 3), cpu, memory)


def _until(
    holds: Callable[[], bool], operator: subprocess.Popen[bytes], log: Path, what: str
) -> None:
    deadline = time.monotonic() + _SETTLE_LIMIT
    while not holds():
        if operator.poll() is not None or time.monotonic() > deadline:
            raise OutcomeError(f"waited in vain for {what}:\n{log.read_text()[-3000:]}")
        time.sleep(0.02)


def _metric(name: str, label: str = "") -> float:
    """The sum of the operator's samples of that name, 0 while it doesn't answer."""
    url = f"http://127.0.0.1:{_OPERATOR_PORT}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            text = response.read().decode()
    except (urllib.error.URLError, OSError):
        return 0.0
    sample = re.compile(rf"^inferencemodel_operator_{name}(\{{[^}}]*\}})? (\S+)$", re.MULTILINE)
    return sum(float(value) for labels, value in sample.findall(text) if label in labels)


def _process(pid: int) -> tuple[float, float]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(fields[21])
    return (
        round(ticks / os.sysconf("SC_CLK_TCK"), 2),
        round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
    )


def _quiet(audit_log: Path, offset: int) -> Counter[str]:
    """The operator's writes from an offset of the audit log until there are no more."""
    writes = _writes(audit_log, offset)
    since = time.monotonic()
    deadline = since + _SETTLE_LIMIT
    while time.monotonic() - since < _QUIET_SECONDS:
        if time.monotonic() > deadline:
            raise OutcomeError(f"the operator did not stop writing within {_SETTLE_LIMIT:.0f} s")
        time.sleep(1.0)
        found = _writes(audit_log, offset)
        if found != writes:
            writes, since = found, time.monotonic()
    return writes


def _writes(audit_log: Path, offset: int) -> Counter[str]:
    with audit_log.open("rb") as file:
        file.seek(offset)
        events = [json.loads(line) for line in file if line.endswith(b"\n")]
    writes: Counter[str] = Counter()
    for event in events:
        if event.get("userAgent", "").startswith(_OPERATOR):
            reference = event["objectRef"]
            resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
            writes[f"{event['verb']} {resource}"] += 1
    return writes


def _ready(api: Api) -> int:
    models = json.loads(api.kubectl("-n", _NAMESPACE, "get", "inferencemodels", "-o", "json"))
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in m["status"]["conditions"])
        for m in models["items"]
    )


@contextlib.contextmanager
def _pollers() -> Iterator[None]:
    """Answer as the poller of every pod: version 1 is there and served."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(_poller_app(), access_log=None)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", _POLLER_PORT).start()  # noqa: S104  all of 127/8

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, name="pollers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


def _poller_app() -> web.Application:
    version = status.VersionStatus(
        version=1, state=status.VersionState.AVAILABLE, in_source=True, fingerprint="1"
    )
    report = status.encode(
        status.PollerStatus(
            revision="bench-1",
            model="model",
            target=1,
            source=status.SourceStatus(
                uri="gs://models/model",
                state=status.SourceState.READY,
                reason=status.SourceReason.LISTED,
            ),
            versions=(version,),
            server_reachable=True,
            served=(status.ServedVersion(version=1, state="AVAILABLE"),),
        )
    )

    async def answer(request: web.Request) -> web.Response:
        if request.query.get("after") == "bench-1":
            await asyncio.sleep(float(request.query.get("timeout", "0")))
        return web.Response(body=report, content_type="application/json")

    app = web.Application()
    app.router.add_get("/status", answer)
    return app
