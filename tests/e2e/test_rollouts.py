"""What bad versions cost: three replicas, 40 requests a second, and one version after the other.

Each version does what it is said to do by its own graph (`bad_models`), on the development model
server in a container of a real kubelet. What it costs is counted by those who send requests, and
by a watch of what each replica was told.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator.names import TARGET_VERSION_ANNOTATION
from tests.e2e.conftest import serving
from tests.e2e.models import DEVELOPMENT_SERVER
from tests.support import bad_models
from tests.support.exposure import Exposure
from tests.support.golden import recorded
from tests.support.savedmodels import archive, files
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.load import Failure
    from devcluster.client import Api
    from tests.e2e.models import Served
    from tests.support.kubectl import Kubectl, Object

pytestmark = pytest.mark.e2e

REPLICAS = 3
REST, GRPC = 20, 20
"""Requests a second."""
LIMIT_MIB = 320
"""Of memory for a model server; the development server takes 70 of its own, and maps 280."""
STABLE, WRONG = "2.5", "3.5"
"""The answers of the version that serves, and of most bad ones."""
DEADLINE = 10
"""Seconds; the least that there is."""
LONG = pytest.mark.skipif(
    "LONG" not in os.environ, reason="takes minutes: LONG=1, or make bad-versions"
)


@pytest.fixture(scope="session")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of each bad version."""
    folders = bad_models.build(
        tmp_path_factory.mktemp("bad"),
        load_seconds=2 * DEADLINE,
        load_mib=2 * LIMIT_MIB,
        weights_mib=LIMIT_MIB,
    )
    return {name: files(folder) for name, folder in folders.items()}


@dataclass
class Cost:
    """What a version cost."""

    version: int
    exposed: dict[str, float]
    """Replicas that were told to serve it, each with when it was."""
    sent: int
    failures: tuple[Failure, ...]
    answers: dict[str, int]
    seconds: float
    """From the first replica that was told of it, or else from its rollout's begin, until all was
    as before."""
    rollout: Object
    """Its status at the end."""
    reason: str

    @property
    def wrong(self) -> int:
        """Answers that were not the stable version's."""
        return sum(self.answers.values()) - self.answers.get(STABLE, 0)


@dataclass
class Fleet:
    """Three replicas and a watch of them."""

    served: Served
    exposure: Exposure
    bad: dict[str, dict[str, bytes]]

    def configure(self, **rollout: Any) -> None:
        """Set ``spec.rollout`` to this and nothing else."""
        patch = [{"op": "add", "path": "/spec/rollout", "value": rollout}]
        self.served.kubectl(
            *("patch", "inferencemodel", self.served.name, "--type=json"),
            *("--patch", json.dumps(patch)),
        )

    def upload(self, kind: str, golden: tuple[float, ...] = ()) -> int:
        """Upload a version, with a record for each of these answers to 1.0."""
        version = self.served.next_version()
        entries = {**self.bad[kind], **recorded(*golden)} if golden else self.bad[kind]
        self.served.upload_raw(version, archive(entries, folder=f"{version:04}"))
        return version

    def until(self, version: int, *phases: str, within: float = 90) -> tuple[float, Object]:
        """Wait until the rollout of a version comes to one of these phases."""

        def there(status: Object) -> bool:
            rollout = status["model"]["rollout"]
            return rollout["version"] == version and rollout["phase"] in phases

        what = f"the rollout of version {version} to be {' or '.join(phases)}"
        return self.exposure.until(there, what=what, within=within)

    def until_replicas(self, count: int) -> None:
        """Wait until just so many replicas are there and ready."""
        self.served.until(
            lambda obj: obj["status"]["readyReplicas"] == obj["status"]["replicas"] == count,
            what=f"{count} replicas",
        )

    def replace_restarted(self) -> None:
        """Have new pods for those whose model server ended before: the kubelet waits longer and
        longer, up to five minutes, before it starts a container again.
        """
        for pod in self.served.pods():
            if any(c["restartCount"] for c in pod["status"].get("containerStatuses", [])):
                self._replace(pod["metadata"]["name"])

    def replace_busy(self) -> None:
        """Have new pods for those that still load two versions which were given up: a load can't be
        called off, and there are two threads for what comes.
        """
        for name, loading in self.served.loading_on_each_replica().items():
            if len(loading) > 1:
                self._replace(name)

    def _replace(self, pod: str) -> None:
        self.served.kubectl("delete", "pod", pod, "--timeout=60s")
        eventually(self._is_whole, what="another replica", within=120, every=0.5)

    def told_now(self, version: int) -> list[str]:
        """The replicas that are told to serve a version, those that go away left out."""
        return [
            pod["metadata"]["name"]
            for pod in self.served.pods()
            if "deletionTimestamp" not in pod["metadata"]
            # One that was made just now is told of no version yet.
            and pod["metadata"].get("annotations", {}).get(TARGET_VERSION_ANNOTATION)
            == str(version)
        ]

    def reason(self, status: Object, version: int) -> str:
        """Why a version is quarantined; empty where it is not."""
        found = [q for q in status["model"].get("quarantined", []) if q["version"] == version]
        return str(found[0]["reason"]) if found else ""

    def act(self, action: str, version: int) -> None:
        """Annotate the resource."""
        name = f"inferencemodel/{self.served.name}"
        self.served.kubectl("annotate", name, f"inferencemodel.dev/{action}={version}")

    def cost(
        self, kind: str, *phases: str, golden: tuple[float, ...] = (), named: str = ""
    ) -> Cost:
        """Upload a bad version under traffic, wait for the end, and count."""
        served = self.served
        before = self.exposure.restarts()
        with served.traffic(rate=REST, grpc_rate=GRPC) as traffic:
            version = self.upload(kind, golden)
            begun, _ = self.exposure.until(
                lambda status: status["model"]["rollout"]["version"] == version,
                what=f"the rollout of version {version}",
            )
            at, status = self.until(version, *phases)
            last = max([at, *(failure.at for failure in traffic.failures)])
            eventually(self._is_whole, what="all replicas to be as before", within=90, every=0.3)
            last = max(last, time.time() if self.exposure.restarts() != before else last)
        exposed = self.exposure.told(version)
        answers: dict[str, int] = {}
        for load in traffic.loads:
            for answer, count in load.answers.items():
                answers[answer] = answers.get(answer, 0) + count
        cost = Cost(
            version=version,
            exposed=exposed,
            sent=traffic.sent,
            failures=traffic.failures,
            answers=answers,
            seconds=last - min(exposed.values(), default=begun),
            rollout=status["model"]["rollout"],
            reason=self.reason(status, version),
        )
        restarted = sum(self.exposure.restarts().values()) - sum(before.values())
        row = (
            f"| {named or kind} | {len(exposed)} | {len(cost.failures)}/{cost.sent} | {cost.wrong}"
            f" | {cost.seconds:.1f} | {restarted} | {cost.reason} | {cost.rollout['message']} |"
        )
        print(row)
        for failure in cost.failures[:3]:
            print("   ", failure)
        return cost

    def _is_whole(self) -> bool:
        status = self.exposure.status
        return bool(
            status.get("readyReplicas") == status.get("replicas") == REPLICAS
            and self.served.versions_on_each_replica()
            == [status["model"]["activeVersion"]] * REPLICAS
        )


@pytest.fixture(scope="module")
def fleet(
    request: pytest.FixtureRequest,
    cluster: Api,
    installed: Kubectl,
    exports: dict[int, Path],
    bad: dict[str, dict[str, bytes]],
) -> Iterator[Fleet]:
    with serving(request, cluster, installed, exports) as served:
        served.upload(1, offset=2)
        served.apply(
            replicas=REPLICAS,
            server={
                "image": DEVELOPMENT_SERVER,
                "imagePullPolicy": "IfNotPresent",
                "resources": {"limits": {"memory": f"{LIMIT_MIB}Mi"}},
            },
        )
        served.until_active(1, replicas=REPLICAS)
        with Exposure(served.kubectl, served.name) as exposure:
            yield Fleet(served, exposure, bad)


@dataclass(frozen=True)
class Trial:
    """A version, what is asked of its rollout, and what is to come of it."""

    kind: str
    reason: str
    rollout: Object = field(default_factory=dict)
    golden: tuple[float, ...] = ()
    ends: str = "RolledBack"
    within: float = 45
    """Seconds until all is as before."""
    exposed: int = 1
    spares: bool = True
    """Whether not one request fails: the version before answers meanwhile."""


LIVE = {"checks": {"live": {"mode": "Enforce", "minRequests": 30}}}
SOON = {"deadline": f"{DEADLINE}s"}
ANSWERS = (3.5, 3.5, 3.0)
"""Golden ones, of which the last is wrong."""
TRIED_BY_ONE = {
    "crashes at load": Trial("crash", "CrashedServing", spares=False),
    "killed by memory at load": Trial("memory", "CrashedServing", spares=False),
    # The kubelet waits longer before each start of a container, those for other versions included.
    "crashes at its first request": Trial("fatal", "CrashedServing", within=90, spares=False),
    "hangs at load": Trial("hang", "DeadlineExceeded", SOON, within=DEADLINE + 10),
    "loads longer than the deadline": Trial("late", "DeadlineExceeded", SOON, within=DEADLINE + 10),
    "one golden answer wrong": Trial("good", "GoldenMismatch", golden=ANSWERS, within=15),
    "NaN": Trial("nan", "GoldenMismatch", golden=(3.5,), within=15),
    "ten times slower": Trial("slow", "Latency", LIVE),
    "errors for one in ten": Trial("errors", "ErrorRate", LIVE, spares=False),
}
TRIED_BY_NONE = {
    "weights above the limit": Trial("weights", "InsufficientMemory"),
    "no signature": Trial("unsigned", "", ends="Paused"),
    "renamed input": Trial("renamed", "", ends="Paused"),
    "other type": Trial("dtype", "", ends="Paused"),
}
ASIDE: Object = {"rehearsal": {"enabled": True}}
ASIDE_SOON: Object = {"rehearsal": {"enabled": True, "deadline": f"{DEADLINE + 5}s"}}
REHEARSED = {
    "crashes at load": Trial("crash", "RehearsalFailed", ASIDE, within=60),
    "killed by memory at load": Trial("memory", "RehearsalFailed", ASIDE, within=60),
    # The model server replays them when it loads a version, so it is then that this one crashes.
    "crashes at its first request": Trial(
        "fatal", "RehearsalFailed", ASIDE, golden=(3.5,), within=60
    ),
    "hangs at load": Trial("hang", "RehearsalFailed", ASIDE_SOON),
    "loads longer than the deadline": Trial("late", "RehearsalFailed", ASIDE_SOON),
    "one golden answer wrong": Trial("good", "GoldenMismatch", ASIDE, golden=ANSWERS),
    "NaN": Trial("nan", "GoldenMismatch", ASIDE, golden=(3.5,)),
}
NOTHING_ASKED: Object = {
    "steps": [],
    "checks": {"memory": "Ignore", "signature": "Ignore", "golden": {"mode": "Ignore"}},
}
ALL_AT_ONCE = {
    "crashes at load": Trial("crash", "CrashedServing", NOTHING_ASKED, within=120),
    "killed by memory at load": Trial("memory", "CrashedServing", NOTHING_ASKED, within=120),
    "weights above the limit": Trial("weights", "CrashedServing", NOTHING_ASKED, within=120),
    "crashes at its first request": Trial("fatal", "CrashedServing", NOTHING_ASKED, within=180),
    "hangs at load": Trial("hang", "DeadlineExceeded", NOTHING_ASKED | SOON, within=60),
}
"""What rollouts are there to spare: every replica takes the version at the same moment."""
LONG_ONES = ("killed", "loads longer", "crashes at its first request")
"""Of those that do much the same as another, one is enough on most days."""


def named(trials: dict[str, Trial]) -> list[Any]:
    """The parameters of a test."""
    return [
        pytest.param(name, trial, id=name, marks=[LONG] if name.startswith(LONG_ONES) else [])
        for name, trial in trials.items()
    ]


@pytest.mark.runbook("a-bad-version-everywhere")
@pytest.mark.parametrize(("name", "trial"), named(TRIED_BY_ONE))
def test_it_costs_no_more_than_one_replica_of_three_can_lose(
    fleet: Fleet, name: str, trial: Trial
) -> None:
    if trial.reason == "CrashedServing":
        fleet.replace_restarted()
    fleet.replace_busy()
    fleet.configure(**trial.rollout)

    cost = fleet.cost(trial.kind, trial.ends, golden=trial.golden, named=name)

    assert len(cost.exposed) == 1
    assert cost.reason == trial.reason
    assert cost.seconds <= trial.within
    # One of three gets a third of the requests; channels and connections need a moment to leave it.
    bound = (cost.seconds + 1) * (REST + GRPC) / REPLICAS
    assert len(cost.failures) <= (0 if trial.spares else bound)
    assert cost.wrong <= bound


@pytest.mark.parametrize(("name", "trial"), named(REHEARSED))
def test_it_is_tried_aside_and_costs_nothing(fleet: Fleet, name: str, trial: Trial) -> None:
    fleet.configure(**trial.rollout)
    restarts = fleet.exposure.restarts()

    cost = fleet.cost(trial.kind, trial.ends, golden=trial.golden, named=f"rehearsed: {name}")

    assert not cost.exposed, "no serving pod was touched"
    assert fleet.exposure.restarts() == restarts
    assert not cost.failures
    assert not cost.wrong
    assert cost.reason == trial.reason
    assert cost.seconds <= trial.within


@pytest.mark.parametrize(("name", "trial"), named(TRIED_BY_NONE))
def test_it_is_stopped_before_any_replica_has_it(fleet: Fleet, name: str, trial: Trial) -> None:
    """After the others: one that is held is the next one again when a newer one is taken back."""
    fleet.configure(**trial.rollout)

    cost = fleet.cost(trial.kind, trial.ends, golden=trial.golden, named=name)

    assert not cost.exposed
    assert not cost.failures
    assert not cost.wrong
    assert cost.reason == trial.reason
    if trial.ends == "Paused":
        assert "breaks clients of version" in cost.rollout["message"]


@pytest.mark.parametrize(
    "rollout",
    [
        {},
        pytest.param(ASIDE, marks=LONG),
        pytest.param({"steps": []}, marks=LONG),
    ],
    ids=["default", "aside", "at once"],
)
def test_a_good_version_is_everywhere_in_seconds(fleet: Fleet, rollout: Object) -> None:
    fleet.configure(**rollout)

    with fleet.served.traffic(rate=REST, grpc_rate=GRPC) as traffic:
        version = fleet.upload("good", golden=(3.5,))
        begun, _ = fleet.until(version, *PHASES)
        at, _ = fleet.until(version, "Completed")

    told = sorted(fleet.exposure.told(version).values())
    print(f"| good {rollout} |", [round(t - begun, 1) for t in (*told, at)], len(traffic.failures))
    assert len(told) == REPLICAS
    assert traffic.failures == ()
    assert fleet.served.versions_on_each_replica() == [version] * REPLICAS


PHASES = ("Checking", "Rehearsing", "Progressing", "Paused", "Baking", "Completed")
HELD: Object = {"steps": [{"replicas": 1, "pause": {}}]}


@LONG
def test_what_happens_in_the_middle_of_a_step_loses_nothing(fleet: Fleet) -> None:
    """The operator ends, a newer version comes, a pod goes, others come; then it is promoted."""
    served = fleet.served
    fleet.configure(**HELD)
    with served.traffic(rate=REST, grpc_rate=GRPC) as traffic:
        version = fleet.upload("good")
        fleet.until(version, "Paused")
        (first,) = fleet.told_now(version)
        served.operator.restart()

        version = fleet.upload("good")
        fleet.until(version, "Paused")
        (second,) = fleet.told_now(version)
        assert second == first, "who had the one in the middle gets the newer one first"

        served.kubectl("delete", "pod", second, "--wait=false")
        (third,) = eventually(
            lambda: [pod for pod in fleet.told_now(version) if pod != second],
            what="another replica to be told of it",
        )
        served.kubectl("scale", f"inferencemodel/{served.name}", "--replicas=4")
        fleet.until_replicas(4)
        assert fleet.told_now(version) == [third], "new ones begin with the version before"

        fleet.act("promote", version)
        fleet.until(version, "Completed")
        served.kubectl("scale", f"inferencemodel/{served.name}", f"--replicas={REPLICAS}")
        fleet.until_replicas(REPLICAS)

    assert traffic.failures == ()


ABORTS = {
    "Rehearsing": ("hang", ASIDE, "Rehearsing", 0),
    "Progressing": (
        "good",
        {"steps": [{"replicas": 1, "pause": {"duration": "1h"}}]},
        "Progressing",
        1,
    ),
    "Paused": ("good", HELD, "Paused", 1),
    "Baking": ("good", {"steps": [], "bake": "1h"}, "Baking", REPLICAS),
}


@LONG
@pytest.mark.parametrize("name", ABORTS)
def test_a_version_is_aborted_in_any_phase(fleet: Fleet, name: str) -> None:
    kind, rollout, phase, replicas = ABORTS[name]
    served = fleet.served
    stable = served.get()["status"]["model"]["activeVersion"]
    fleet.configure(**rollout)

    with served.traffic(rate=REST, grpc_rate=GRPC) as traffic:
        version = fleet.upload(kind)
        fleet.until(version, phase)
        eventually(
            lambda: served.versions_on_each_replica().count(version) == replicas,
            what=f"{replicas} replicas to answer with it",
        )
        began = time.time()
        fleet.act("abort", version)
        at, status = fleet.until(version, "RolledBack")

    print(f"| aborted while {name} | {replicas} | {len(traffic.failures)} | {at - began:.1f} |")
    assert traffic.failures == ()
    assert served.versions_on_each_replica() == [stable] * REPLICAS
    assert fleet.reason(status, version) == "Aborted"


@LONG
@pytest.mark.parametrize("rollout", [ASIDE, {}], ids=["aside", "default"])
def test_the_only_replica_comes_back_by_itself(fleet: Fleet, rollout: Object) -> None:
    """A rehearsal is worth most where there is one replica."""
    served = fleet.served
    served.kubectl("scale", f"inferencemodel/{served.name}", "--replicas=1")
    fleet.until_replicas(1)
    fleet.configure(**rollout)
    stable = served.get()["status"]["model"]["activeVersion"]

    with served.traffic(rate=REST) as traffic:
        version = fleet.upload("crash")
        began, _ = fleet.until(version, "Rehearsing" if rollout else "Progressing")
        fleet.until(version, "RolledBack")
        eventually(lambda: served.versions_on_each_replica() == [stable], what="the version before")

    print(f"| the only one {rollout} | {len(traffic.failures)} | {time.time() - began:.1f} |")
    assert bool(traffic.failures) == (not rollout)


@pytest.mark.runbook("a-bad-version-everywhere")
@LONG
@pytest.mark.parametrize(("name", "trial"), named(ALL_AT_ONCE))
def test_all_at_once_every_replica_has_it(fleet: Fleet, name: str, trial: Trial) -> None:
    """What the others are compared with, and the last: one that hangs leaves a thread less."""
    fleet.served.kubectl("scale", f"inferencemodel/{fleet.served.name}", f"--replicas={REPLICAS}")
    fleet.until_replicas(REPLICAS)
    fleet.replace_restarted()
    fleet.configure(**trial.rollout)

    cost = fleet.cost(trial.kind, trial.ends, named=f"all at once: {name}")

    assert len(cost.exposed) == REPLICAS
    assert cost.reason == trial.reason
    assert cost.seconds <= trial.within
