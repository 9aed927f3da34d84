"""From the release before to today's state and back, as docs/upgrades.md says, under traffic."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from demo.cluster import MANIFESTS, TREE
from devcluster import build, recipes
from devcluster.cluster import Cluster
from tests.e2e.conftest import SYSTEM, serving
from tests.e2e.test_uninstall import ROLLOUT, uninstall
from tests.support.earlier import TODAY, State, state
from tests.support.kubectl import Kubectl, KubectlError, Object, condition
from tests.support.released import releases
from tests.support.rendering import run
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api
    from tests.e2e.models import Served

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif("LONG" not in os.environ, reason="takes minutes: make upgrade"),
    pytest.mark.skipif("KUBECONFIG" in os.environ, reason="its images are built for this node"),
    pytest.mark.timeout(1500),
]

BEFORE = max(releases(), key=lambda tag: [int(part) for part in tag[1:].split(".")])
UNTIL_PROMOTED: dict[str, Any] = {"steps": [{"replicas": 1, "pause": {}}]}
OPERATOR = "deployment/inferencemodel-operator"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, installed: Kubectl) -> State:
    """The state to upgrade from, with its images on the node."""
    # Nobody has released it, so any version below today's does.
    found = state(BEFORE, tmp_path_factory.mktemp("before"), called="0.0.9")
    recipes.build_and_load(["operator", "poller"], Cluster().images(), found.root)
    return found


@pytest.fixture
def bare(installed: Kubectl) -> Iterator[Kubectl]:
    """No operator; today's is there again for the tests that follow."""
    uninstall(installed)
    yield installed
    helm(installed, "uninstall", "inferencemodel", "--ignore-not-found", "--wait")
    crd(installed, TODAY)
    installed("apply", "-k", str(TREE / MANIFESTS))
    installed.in_namespace(SYSTEM)(*ROLLOUT, timeout=150)


def crd(kubectl: Kubectl, of: State) -> None:
    """The definition alone, by the command of docs/install.md."""
    kubectl("apply", "--server-side", "--force-conflicts", "-k", str(of.root / "crds"))


def helm(kubectl: Kubectl, *arguments: str) -> None:
    """Run one command of helm."""
    program = build.ensure(["helm"])["helm"]
    run(program, *arguments, f"--namespace={SYSTEM}", f"--kubeconfig={kubectl.kubeconfig}")


class Way(Protocol):
    """How somebody installs."""

    def definition(self, kubectl: Kubectl, of: State) -> None:
        """The CRD of a state, where that is a step of its own."""

    def operator(self, kubectl: Kubectl, of: State, *, poller: State) -> None:
        """The operator of a state, with a poller image of a state."""


@dataclass(frozen=True)
class ByKustomize:
    """A kustomization of the user's own, on top of manifests/base."""

    folder: Path

    def definition(self, kubectl: Kubectl, of: State) -> None:
        crd(kubectl, of)

    def operator(self, kubectl: Kubectl, of: State, *, poller: State) -> None:
        base = os.path.relpath(of.root / "manifests" / "base", self.folder)
        add = {"op": "add", "path": "/spec/template/spec/containers/0/args/-"}
        argument = {**add, "value": f"--poller-image={poller.image('poller')}"}
        target = {"kind": "Deployment", "name": "inferencemodel-operator"}
        content = {
            "resources": [base],
            "patches": [{"target": target, "patch": json.dumps([argument])}],
        }
        (self.folder / "kustomization.yaml").write_text(json.dumps(content))
        kubectl("apply", "-k", str(self.folder))


class ByHelm:
    """The chart, which brings the CRD along."""

    def definition(self, kubectl: Kubectl, of: State) -> None:
        """It comes with the operator."""

    def operator(self, kubectl: Kubectl, of: State, *, poller: State) -> None:
        helm(
            kubectl,
            *("upgrade", "inferencemodel", str(of.chart), "--install", "--create-namespace"),
            *(f"--set=pollerImage.tag={poller.version}", "--wait"),
            # Of the CRD, which tests before this one have had from kustomize.
            *("--take-ownership", "--force-conflicts"),
        )


@dataclass
class Witness:
    """Reads the status of some InferenceModels all the time, inside its block."""

    models: list[Served]
    seen: dict[str, list[Object]] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Witness:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.5):
            self._look()
        # What became true last, too.
        self._look()

    def _look(self) -> None:
        for served in self.models:
            try:
                status = served.get()["status"]
            except (KubectlError, KeyError):
                continue
            known = self.seen.setdefault(served.name, [])
            if not known or known[-1] != status:
                known.append(status)

    def active(self, served: Served) -> list[int | None]:
        """The active versions that were told, in their order."""
        told = [status["model"].get("activeVersion") for status in self.seen[served.name]]
        return [version for i, version in enumerate(told) if i == 0 or told[i - 1] != version]

    def unready(self, served: Served) -> list[Object]:
        """What was told of Ready while it wasn't True."""
        found = (condition({"status": status}, "Ready") for status in self.seen[served.name])
        return [told for told in found if told["status"] != "True"]


def pods(*models: Served) -> dict[str, int]:
    """The pods that are there, each with how often its containers were started again."""
    return {
        pod["metadata"]["uid"]: sum(
            container["restartCount"]
            for kind in ("initContainerStatuses", "containerStatuses")
            for container in pod["status"].get(kind, [])
        )
        for served in models
        for pod in served.pods()
    }


def until_pollers(of: State, *models: Served) -> None:
    """Wait until just pods with a state's poller are there, and all of them are ready."""

    def have_it() -> bool:
        for served in models:
            found = served.pods()
            assert len(found) == 2
            for pod in found:
                (poller,) = pod["spec"]["initContainers"]
                assert poller["image"] == of.image("poller")
                assert condition(pod, "Ready")["status"] == "True"
        return True

    eventually(have_it, what=f"the poller {of.version} in all pods", within=300, every=1)


def until_settled(kubectl: Kubectl, of: State) -> None:
    """Wait until a state's operator leads, and has looked at every InferenceModel."""
    system = kubectl.in_namespace(SYSTEM)
    system("rollout", "status", OPERATOR, "--timeout=150s", timeout=180)

    def leads() -> bool:
        holder = system.get("lease", "inferencemodel-operator")["spec"]["holderIdentity"]
        (pod,) = (p for p in system.list("pods") if holder.startswith(p["metadata"]["name"]))
        assert pod["spec"]["containers"][0]["image"] == of.image("operator")
        address = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
        page = kubectl("get", "--raw", address)
        return all(
            f"inferencemodel_operator_queue_{gauge} 0.0" in page for gauge in ("depth", "working")
        )

    def quiet() -> bool:
        try:
            return leads()
        except ValueError as error:
            raise AssertionError("nobody leads") from error

    eventually(quiet, what=f"the operator {of.version} to be quiet", within=90, every=1)


@contextmanager
def answering(*models: Served) -> Iterator[None]:
    """Requests to all of them while the block runs, none of which may fail."""
    with ExitStack() as stack:
        traffics = [stack.enter_context(s.traffic(rate=8, grpc_rate=4)) for s in models]
        yield
    for traffic in traffics:
        assert traffic.failures == ()
    print(f"{sum(traffic.sent for traffic in traffics)} requests, none failed")


def is_paused(served: Served) -> None:
    """Wait until the first of two replicas has version 2, and the rollout waits for somebody."""

    def waits(obj: Object) -> bool:
        rollout = obj["status"]["model"]["rollout"]
        return bool(
            (rollout["phase"], rollout["version"], rollout["replicasOn"]) == ("Paused", 2, 1)
        )

    served.until(waits, what="a rollout that waits")
    assert sorted(served.versions_on_each_replica()) == [1, 2]


@pytest.mark.parametrize("by", ["kustomize", "helm"])
def test_nothing_is_lost_by_an_upgrade_and_by_the_way_back(
    request: pytest.FixtureRequest,
    cluster: Api,
    bare: Kubectl,
    before: State,
    exports: dict[int, Path],
    tmp_path: Path,
    by: str,
) -> None:
    kubectl = bare
    way: Way = ByKustomize(tmp_path) if by == "kustomize" else ByHelm()
    crd(kubectl, before)
    way.operator(kubectl, before, poller=before)
    with (
        serving(request, cluster, kubectl, exports) as steady,
        serving(request, cluster, kubectl, exports) as rolling,
    ):
        both = (steady, rolling)
        for served in both:
            served.upload(1, offset=2)
            served.apply(replicas=2, rollout=UNTIL_PROMOTED if served is rolling else {})
        for served in both:
            served.until_active(1, replicas=2)
        rolling.upload(2, offset=3)
        steady.upload_raw(2, b"no archive")
        is_paused(rolling)
        steady.until(lambda o: o["status"]["model"]["quarantined"], what="a bad version")
        until_pollers(before, *both)
        there = pods(*both)

        with Witness(list(both)) as witness, answering(*both):
            way.definition(kubectl, TODAY)
            way.operator(kubectl, TODAY, poller=before)
            until_settled(kubectl, TODAY)
            assert pods(*both) == there, "an operator alone replaces no pod, and restarts none"
            is_paused(rolling)
            steady.upload(3, offset=3)
            steady.until_active(3, replicas=2)

            way.operator(kubectl, TODAY, poller=TODAY)
            until_settled(kubectl, TODAY)
            until_pollers(TODAY, *both)
            is_paused(rolling)

            # Back, while the rollout still waits.
            way.operator(kubectl, TODAY, poller=before)
            until_settled(kubectl, TODAY)
            until_pollers(before, *both)
            is_paused(rolling)
            there = pods(*both)
            way.operator(kubectl, before, poller=before)
            way.definition(kubectl, before)
            until_settled(kubectl, before)
            assert pods(*both) == there
            is_paused(rolling)

            annotation = "inferencemodel.dev/promote=2"
            rolling.kubectl("annotate", f"inferencemodel/{rolling.name}", annotation)
            rolling.until_active(2, replicas=2)
            steady.upload(4, offset=2)
            steady.until_active(4, replicas=2)

        assert steady.versions_on_each_replica() == [4, 4]
        assert rolling.versions_on_each_replica() == [2, 2]
        assert witness.active(steady) == [1, 3, 4]
        assert witness.active(rolling) == [1, 2]
        for served in both:
            assert witness.unready(served) == []
        told = steady.get()["status"]["model"]
        assert [entry["version"] for entry in told["quarantined"]] == [2]
        assert [entry["version"] for entry in told["history"]][:2] == [4, 3]
