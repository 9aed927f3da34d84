"""One run: the fleet comes up, faults come and go, it settles, and the judge says what is wrong."""

from __future__ import annotations

import heapq
import json
import math
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos import judge, plan
from chaos.faults import FAULTS, NothingThereError, api_proxy
from chaos.fleet import (
    CACHE_CLAIM,
    CLAIM,
    FLEET,
    INPUT,
    NAMESPACE,
    OFFSETS,
    Model,
    answer,
    entries,
    manifest,
)
from chaos.ground import OPERATOR, OPERATORS, Ground, UnreadableError
from chaos.judge import Expected, Finding
from chaos.plan import Quality
from chaos.seen import Failure, Happened, Way
from chaos.stores import SECRETS, Stores, Version
from chaos.watching import Watching
from demo import messages
from demo.cluster import TREE, devcluster
from demo.console import say
from demo.errors import ClusterError, DemoError, OutcomeError
from demo.load import Exchange, Load, Traffic, grpc_predict, rest
from devcluster import Cluster, DevclusterError, paths
from devcluster.network import NODE_ADDRESS
from tests.e2e.models import predict
from tests.support import bad_models, savedmodels, volumes
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.faults import Fault

_IMAGES = ("operator", "poller", "development-model-server")
_RATES = {Way.REST: 1.0, Way.GRPC: 0.5}
"""Requests a second to each model."""
_START_SECONDS = 600.0
_SETTLE_SECONDS = 240.0
"""From the last fault's end until all is as it has to be."""
_STILL = 3
"""So many looks in a row have to find it so."""
_KEEPALIVE = (("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 4_000))
"""Without it a client never learns that a connection leads to a node which has no power."""
_LOG = Path("build/chaos")


@dataclass
class Run:
    """What became of it."""

    seed: int
    seconds: float
    faults: list[Happened] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    sent: int = 0
    failed: int = 0
    began: float = 0.0

    def tell(self, text: str) -> None:
        """Show, and once it has begun write into the history."""
        if not self.began:
            say(text)
            return
        line = f"{time.time() - self.began:7.1f} s  {text}"
        self.history.append(line)
        say(line)


def run(seed: int, minutes: float, nodes: int, only: Sequence[str], *, keep: bool) -> None:
    """Run for so long and print what was found.

    Raises:
        OutcomeError: something was not as it must be; the seed, the history and the state are
            printed.
        ClusterError: a part does not run.
    """
    cluster = Cluster()
    if cluster.exists() and cluster.settings().nodes != nodes:
        raise ClusterError(
            f"a cluster with another number of nodes than {nodes} is up: take it down first, with"
            " `make cluster-down`, or name its number with NODES="
        )
    devcluster("up", f"--nodes={nodes}", capture=True)
    devcluster("load-image", *_IMAGES, capture=True)
    made = Run(seed, minutes * 60)
    try:
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            _Experiment(cluster, made, only, scratch, stack).go()
    finally:
        if not keep:
            cluster.down()
    if made.findings:
        raise OutcomeError(
            f"{len(made.findings)} findings with SEED={seed} MINUTES={minutes:g}; history and"
            f" state are in {_LOG}"
        )
    say(f"{len(made.faults)} faults, {made.sent} requests, {made.failed} failed for a reason")


class _Experiment:
    """The parts of a run, put together."""

    def __init__(
        self,
        cluster: Cluster,
        made: Run,
        only: Sequence[str],
        scratch: Path,
        stack: ExitStack,
    ) -> None:
        shared = paths.STATE / "chaos"
        for name in (CLAIM, CACHE_CLAIM):
            _made(shared / name).chmod(0o2777)
        self.made = made
        self.only = only
        stores = stack.enter_context(Stores(scratch, shared / CLAIM))
        proxy = stack.enter_context(api_proxy())
        self.ground = Ground(cluster, cluster.api(), stores, proxy)
        self.shared = shared
        self.exports = savedmodels.contents(scratch / "good", *OFFSETS)
        bad = bad_models.build(_made(scratch / "bad"), load_seconds=1, load_mib=1, weights_mib=1)
        self.unsigned = savedmodels.files(bad["unsigned"])
        self.by_name = {model.name: model for model in FLEET}
        self.uploading = threading.Lock()

    def go(self) -> None:
        """Everything in its order."""
        self.install()
        self.create()
        made = self.made
        with Watching(self.ground) as watching:
            self.settle(watching, _START_SECONDS, "the fleet serves")
            with Traffic(*self.loads()) as traffic:
                time.sleep(5.0)
                traffic.check()
                before = _inventory(watching)
                made.began = time.time()
                made.tell(f"seed {made.seed}, {made.seconds / 60:g} minutes")
                self.faults(watching, traffic)
                for model in FLEET:
                    self.upload(model, Quality.GOOD)
                ended = time.time()
                try:
                    self.settle(watching, _SETTLE_SECONDS, "the fleet has settled")
                except OutcomeError as error:
                    made.findings.append(Finding(ended, f"not settled: {error}"))
                # What was sent last is answered, or known not to be.
                time.sleep(12.0)
            self.judge(watching, traffic, before)
            if made.findings:
                self.report(watching, traffic)

    def install(self) -> None:
        """The operator, by the proxy, with a standby."""
        ground = self.ground
        ground.kubectl("apply", "-k", str(TREE / "manifests/base"))
        host, port = NODE_ADDRESS, ground.api_proxy.port
        ground.kubectl(
            *(f"--namespace={OPERATORS}", "set", "env", f"deployment/{OPERATOR}"),
            *(f"KUBERNETES_SERVICE_HOST={host}", f"KUBERNETES_SERVICE_PORT={port}"),
        )
        ground.kubectl(
            *(f"--namespace={OPERATORS}", "rollout", "status", f"deployment/{OPERATOR}"),
            "--timeout=180s",
            timeout=200,
        )

    def create(self) -> None:
        """The namespace, its claims and keys, version 1 of each model, and the models."""
        ground = self.ground
        ground.try_kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
        objects: list[dict[str, Any]] = [
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": NAMESPACE,
                    "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
                },
            }
        ]
        for name in (CLAIM, CACHE_CLAIM):
            folder = self.shared / name
            objects += volumes.claim(name, folder, volume=name, namespace=NAMESPACE, size="1Gi")
        for name, keys in SECRETS.items():
            metadata = {"name": name, "namespace": NAMESPACE}
            objects.append(
                {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys}
            )
        for model in FLEET:
            if model.notified:
                ground.stores.subscribe(model)
            self.upload(model, Quality.GOOD)
            source, uri = ground.stores.source(model), ground.stores.uri(model)
            objects.append(manifest(model, source, uri))
        ground.kubectl(
            "apply",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def upload(self, model: Model, quality: Quality) -> None:
        """A new version."""
        with self.uploading:
            number = self.ground.stores.newest(model) + 1
            files = entries(self.exports, self.unsigned, number, quality)
            try:
                self.ground.stores.add(model, Version(number, quality, files))
            except (OSError, DemoError) as error:
                raise ClusterError(f"version {number} of {model.name}: {error}") from error
        if self.made.began:
            self.made.tell(f"upload   {model.name} {number} ({quality})")

    def loads(self) -> list[Load]:
        """Requests to each model, by both ways."""
        dns = self.ground.read("/api/v1/namespaces/kube-system/services/kube-dns")
        resolver = dns["spec"]["clusterIP"]
        found = []
        for model in FLEET:
            eventually(self._answers(model), what=f"the Ingress of {model.name}", within=90)
            body = json.dumps({"instances": [INPUT]}).encode()
            url = f"http://{self.ground.api.ingress}/v1/models/{model.name}:predict"
            sent = rest(url, [Exchange(body, _read_rest)], host=model.host)
            found.append(_load(model, Way.REST, sent, self.made.seconds))
            request = messages.number_request(model.name, "x", INPUT)
            call = Exchange(request, _read_grpc)
            target = f"dns://{resolver}:53/{model.name}-headless.{NAMESPACE}.svc.cluster.local:8500"
            calls = grpc_predict(target, [call], messages.PredictResponse, more_options=_KEEPALIVE)
            found.append(_load(model, Way.GRPC, calls, self.made.seconds))
        return found

    def _answers(self, model: Model) -> Callable[[], bool]:
        return lambda: predict(self.ground.api.ingress, model.host, model.name, INPUT) > 0

    def faults(self, watching: Watching, traffic: Traffic) -> None:
        """Do what the plan says until its end."""
        made = self.made
        drawn = plan.faults(made.seed, made.seconds, several=self.ground.several, only=self.only)
        uploads = plan.uploads(made.seed, made.seconds, [model.name for model in FLEET])
        work: list[tuple[float, int, Any]] = []
        everything: list[plan.Fault | plan.Upload] = [*drawn, *uploads]
        for number, each in enumerate(everything):
            heapq.heappush(work, (each.at, number, each))
        open_faults: dict[int, tuple[Fault, Happened]] = {}
        began = time.monotonic()
        while work:
            at, number, what = heapq.heappop(work)
            time.sleep(max(0.0, began + at - time.monotonic()))
            traffic.check()
            if not watching.running:
                raise ClusterError("nobody watches any more")
            if isinstance(what, plan.Upload):
                self.upload(self.by_name[what.model], what.quality)
            elif isinstance(what, plan.Fault):
                begun = self._begin(what)
                if begun:
                    open_faults[number] = begun
                    late = max(0.0, time.monotonic() - began - at)
                    heapq.heappush(work, (at + late + what.seconds, number, number))
            else:
                fault, happened = open_faults.pop(number)
                self._end(fault, happened)

    def _begin(self, drawn: plan.Fault) -> tuple[Fault, Happened] | None:
        fault = FAULTS[drawn.kind.name](self.ground, drawn.number)
        happened = Happened(drawn.kind.name, time.time())
        try:
            happened.taken = fault.begin()
        except NothingThereError as error:
            self.made.tell(f"nothing  {drawn.kind.name}: {str(error)[:120]}")
            return None
        self.made.faults.append(happened)
        self.made.tell(
            f"begin    {drawn.kind.name} for {drawn.seconds:.0f} s: {happened.taken.what}"
        )
        return fault, happened

    def _end(self, fault: Fault, happened: Happened) -> None:
        for attempt in range(5):
            try:
                fault.end()
                break
            except (DevclusterError, DemoError, OSError) as error:
                # Another fault may be in the way of the repair.
                self.made.tell(f"again    {happened.kind} does not end: {str(error)[:200]}")
                if attempt == 4:
                    self.made.findings.append(
                        Finding(time.time(), f"{happened.kind} does not end: {error}")
                    )
                time.sleep(5.0)
        happened.ended = time.time()
        self.made.tell(f"end      {happened.kind}")

    def settle(self, watching: Watching, seconds: float, what: str) -> None:
        """Wait until all models have come to their newest version, and stay so for some looks.

        Raises:
            OutcomeError: they have not within so many seconds.
        """
        expected = [Expected(m.name, self.ground.stores.newest(m)) for m in FLEET]
        began, seen, still = time.monotonic(), len(watching.looks), 0
        wrong: list[str] = ["nobody has looked"]
        while still < _STILL:
            if time.monotonic() > began + seconds:
                raise OutcomeError(f"after {seconds:.0f} s: {'; '.join(wrong)}")
            time.sleep(0.5)
            for look in watching.looks[seen:]:
                seen += 1
                wrong = judge.unsettled(look, expected)
                still = 0 if wrong else still + 1
        self.made.tell(f"{what} after {time.monotonic() - began:.0f} s")

    def judge(self, watching: Watching, traffic: Traffic, before: Any) -> None:
        """Have everything judged that was seen."""
        made = self.made
        failures = _failures(traffic)
        made.sent, made.failed = traffic.sent, len(failures)
        looks, faults = watching.looks, made.faults
        made.findings += judge.unexplained(failures, faults, looks, watching.standstills)
        made.findings += judge.untrue([look for look in looks if look.at >= made.began], faults)
        made.findings += judge.invented([look for look in looks if look.at >= made.began])
        made.findings += watching.findings
        after = _inventory(watching)
        now = time.time()
        made.findings += [
            Finding(now, f"grown: {text}")
            for text in judge.growth(watching.usages, before, after, judged=("operator", "poller"))
        ]
        made.findings.sort(key=lambda finding: finding.at)
        still = sum(each.seconds for each in watching.standstills)
        if still:
            made.tell(f"the machine stood still for {still:.0f} s altogether")

    def report(self, watching: Watching, traffic: Traffic) -> None:
        """Print the findings, and write history and state down."""
        made = self.made
        folder = _made(_LOG)
        (folder / "history.txt").write_text("\n".join([*made.history, ""]))
        lines = [f"{each.at - made.began:7.1f} s  {each.what}" for each in made.findings]
        (folder / "findings.txt").write_text("\n".join([*lines, ""]))
        (folder / "failures.txt").write_text(
            "".join(
                f"{each.at - made.began:7.1f} s  {each.model} {each.way}"
                f" waited {each.waited:.1f} s: {each.reason}\n"
                for each in _failures(traffic)
            )
        )
        with (folder / "looks.jsonl").open("w") as written:
            for look in watching.looks:
                plain = asdict(look)
                plain["at"] = look.at - made.began
                written.write(json.dumps(plain, default=sorted) + "\n")
        for name, arguments in {
            "resources": ("get", "inferencemodels", "-o", "yaml"),
            "pods": ("get", "pods", "-o", "wide"),
            "events": ("get", "events", "--sort-by=.lastTimestamp"),
        }.items():
            text = self.ground.try_kubectl(f"--namespace={NAMESPACE}", *arguments)
            (folder / f"{name}.txt").write_text(text)
        logs = self.ground.try_kubectl(
            *(f"--namespace={OPERATORS}", "logs", f"--selector=app.kubernetes.io/name={OPERATOR}"),
            *("--tail=-1", "--prefix"),
        )
        (folder / "operator.txt").write_text(logs)
        say("")
        say(f"FINDINGS (SEED={made.seed})")
        for line in lines[:40]:
            say(line)


def _inventory(watching: Watching) -> Any:
    """What there is, once the API server tells."""

    def look() -> Any:
        try:
            return watching.inventory()
        except UnreadableError as error:
            raise AssertionError(str(error)) from error

    return eventually(look, what="the API server", within=60)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _load(model: Model, way: Way, client: Any, seconds: float) -> Load:
    longest = seconds + _SETTLE_SECONDS + 600
    return Load(f"{model.name} {way}", client, _RATES[way], longest=longest)


def _read_rest(content: bytes) -> str:
    value = json.loads(content)["predictions"][0]
    if value not in {answer(version) for version in range(len(OFFSETS))}:
        raise ValueError(f"{value} is no version's answer")
    return str(value)


def _read_grpc(response: Any) -> str:
    (tensor,) = response.outputs.values()
    version = response.model_spec.version.value
    if not math.isclose(tensor.float_val[0], answer(version)):
        raise ValueError(f"{tensor.float_val[0]} is not version {version}'s answer")
    return f"version {version}"


def _failures(traffic: Traffic) -> list[Failure]:
    found = []
    for each in traffic.failures:
        model, way = each.load.split()
        found.append(Failure(each.at, model, Way(way), each.reason, each.waited))
    return found
