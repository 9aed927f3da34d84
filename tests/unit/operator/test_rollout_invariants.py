"""What holds of rollouts whatever happens: any order of events, on a simulated fleet."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inferencemodel_operator import names
from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.record import Phase, VersionsRecord
from inferencemodel_operator.rollouts.checks import Finding
from inferencemodel_operator.rollouts.steps import count
from model_poller.status import (
    CheckResult,
    GoldenStatus,
    Interface,
    SignatureSpec,
    TensorSpec,
    VersionState,
    VersionStatus,
)
from tests.support.fleets import Fleet

LOADS = st.sampled_from(["good", "good", "fails", "crashes", "hangs", "crashes-serving"])
STEPS = st.sampled_from(
    [
        [],
        [{"replicas": 1}],
        [{"replicas": 1, "pause": {}}],
        [{"replicas": 1, "pause": {"duration": "5s"}}, {"replicas": "50%"}],
        [{"replicas": 2, "pause": {"duration": "3s"}}],
        [{"replicas": 1}, {"replicas": "100%", "pause": {"duration": "5s"}}],
    ]
)
MODES = st.sampled_from(["Enforce", "Report", "Ignore"])
ROLLOUTS = st.fixed_dictionaries(
    {
        "steps": STEPS,
        "drain": st.booleans(),
        "bake": st.sampled_from(["0s", "5s", "1h"]),
        "onFailure": st.sampled_from(["Rollback", "Pause"]),
        "deadline": st.sampled_from(["20s", "30m"]),
        "paused": st.sampled_from([False, False, True]),
        "rehearsal": st.fixed_dictionaries({"enabled": st.sampled_from([False, False, True])}),
        "checks": st.fixed_dictionaries(
            {
                "golden": st.fixed_dictionaries({"mode": MODES}),
                "signature": MODES,
                "live": st.fixed_dictionaries(
                    {"mode": MODES, "onInconclusive": st.sampled_from(["Hold", "Continue"])}
                ),
            }
        ),
    }
)
TEXTS = st.sampled_from(["", "2 ", "-2", "\uff12", "1e3", "9" * 400, "\x00", "2\n", "null", "2.0"])
ACTIONS = st.sampled_from(names.ACTION_ANNOTATIONS)
NUMBERS = st.integers(1, 5)
TIMES = st.sampled_from([-86_400, -600, -5, 5, 600, 86_400])
CLOCKS = st.tuples(st.sampled_from(["clock", "unnoticed clock"]), TIMES)
RUNS = st.tuples(st.just("run"), st.integers(1, 12))
ENDS = st.one_of(
    # The operator's: between two of its writes, or between two passes.
    st.tuples(st.just("lose"), st.integers(0, 2)),
    st.just(("forget",)),
)
SILENCE = st.tuples(st.just("silence"), st.integers(0, 4), st.booleans())
TEMPLATES = st.tuples(st.just("template"), st.booleans())
LIES = st.tuples(
    st.just("lie"),
    st.integers(0, 4),
    st.lists(
        st.builds(
            VersionStatus,
            version=NUMBERS | st.sampled_from([0, 7, 2**53]),
            state=st.sampled_from(VersionState),
            in_source=st.booleans(),
            fingerprint=st.sampled_from(["", "f2", "f2x", "other", "/v2@f2#"]),
            disk_fingerprint=st.sampled_from(["", "f3"]),
            proven=st.booleans(),
            failures=st.sampled_from([0, 9]),
            weight_bytes=st.sampled_from([0, 2**62]),
            golden=st.none()
            | st.builds(GoldenStatus, task=st.just("2-1.0"), result=st.sampled_from(CheckResult)),
        ),
        max_size=3,
        unique_by=lambda version: version.version,
    ),
)
HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(
            st.just("upload"),
            NUMBERS,
            LOADS,
            st.none() | st.sampled_from(CheckResult),
            st.sampled_from(["x", "y"]),
            st.sampled_from([0, 30]),
        ),
        st.tuples(st.just("change"), NUMBERS, LOADS),
        st.tuples(st.just("remove"), NUMBERS),
        st.tuples(st.just("mend"), NUMBERS),
        st.tuples(st.just("scale"), st.integers(0, 5)),
        st.tuples(st.just("node"), st.integers(0, 1)),
        st.tuples(st.sampled_from(["kill", "evict"]), st.integers(0, 4)),
        SILENCE,
        st.tuples(st.just("act"), ACTIONS, NUMBERS.map(str) | TEXTS),
        st.tuples(st.just("act twice"), ACTIONS, NUMBERS.map(str)),
        st.tuples(st.just("pin"), st.none() | NUMBERS),
        st.tuples(st.just("minimum"), st.none() | NUMBERS),
        st.tuples(st.just("edit"), ROLLOUTS),
        TEMPLATES,
        st.tuples(st.just("rehearse"), st.none() | st.sampled_from(CheckResult)),
        st.tuples(st.just("requests"), st.sampled_from([0, 10, 1000])),
        CLOCKS,
        LIES,
        ENDS,
        RUNS,
    ),
    max_size=16,
)


def interface(name: str) -> Interface:
    tensor = TensorSpec(dtype="float32", shape=(-1,))
    signature = SignatureSpec(method="predict", inputs={name: tensor}, outputs={"y": tensor})
    return Interface(signatures={"serving_default": signature})


def happen(fleet: Fleet, what: tuple[Any, ...]) -> None:
    uids = sorted(fleet.pods)
    match what:
        case ("upload", version, load, golden, name, errors):
            if version not in fleet.bucket:
                known = {"golden": golden, "interface": interface(name), "errors": errors}
                fleet.upload(version, load, **known)
        case ("change", version, load):
            if version in fleet.bucket:
                fleet.upload(version, load, fingerprint=f"{fleet.bucket[version].fingerprint}x")
        case ("remove", version):
            fleet.bucket.pop(version, None)
        case ("mend", version):
            if version in fleet.bucket:
                fleet.bucket[version].load = "good"
        case ("scale", replicas):
            fleet.scale(replicas)
        case ("node", number):
            fleet.kill(*(uid for uid, pod in fleet.pods.items() if pod.node == f"n{number}"))
        case ("kill", index) if index < len(uids):
            fleet.kill(uids[index])
        case ("evict", index) if index < len(uids):
            fleet.evict(uids[index])
        case ("silence", index, silent) if index < len(uids):
            fleet.pods[uids[index]].silent = silent
        case ("act", annotation, text):
            fleet.actions[annotation] = text
        case ("act twice", annotation, text):
            # It is read, and can't be taken away.
            for _ in range(2):
                fleet.actions[annotation] = text
                check_step(fleet)
            fleet.actions[annotation] = text
        case ("pin", version):
            fleet.model_fields = {} if version is None else {"version": version}
        case ("minimum", version):
            fleet.model_fields = {} if version is None else {"minVersion": version}
        case ("edit", rollout):
            fleet.fields = {**fleet.fields, "rollout": rollout}
        case ("template", is_replacing):
            fleet.is_replacing = is_replacing
        case ("rehearse", result):
            finding = None if result is None else Finding(result, "", Reason.REHEARSAL_FAILED)
            fleet.rehearsal = finding
        case ("lie", index, told) if index < len(uids):
            fleet.pods[uids[index]].lies = tuple(told)
        case ("requests", number):
            fleet.requests = number
        case ("clock", seconds):
            fleet.set_clock(seconds)
        case ("unnoticed clock", seconds):
            fleet.wait(seconds)
        case ("lose", writes):
            fleet.plan = fleet.operate()
            if writes:
                fleet.remember()
            if writes > 1:
                fleet.tell(sorted(fleet.pods)[:1])
            fleet.work()
        case ("forget",):
            fleet.plan = msgspec.structs.replace(fleet.plan, soaking=None, trying=None)
        case ("run", steps):
            for _ in range(steps):
                check_step(fleet)


def check_step(fleet: Fleet, *, seconds: float = 0.5) -> None:
    """One step, and what has to be so in each."""
    first, second = fleet.operate(), fleet.operate()
    assert first == second
    assert VersionsRecord.from_config_map(first.record.to_data()) == first.record
    before = {uid: pod.assigned.target for uid, pod in fleet.pods.items()}
    was = fleet.record
    fleet.step(seconds=seconds)
    plan, run = fleet.plan, fleet.record.rollout
    bad = {(entry.version, entry.stored) for entry in fleet.record.quarantined}
    for uid, pod in fleet.pods.items():
        target = pod.assigned.target
        if target is None or target == before[uid] or fleet.model_fields:
            continue
        had = {fingerprint for number, fingerprint in pod.disk if number == target}
        stored = {fleet.bucket[target].fingerprint} if target in fleet.bucket else set()
        assert not (had | stored) or any((target, one) not in bad for one in had | stored)
    if plan.candidate is not None and run is not None and plan.told is not None:
        newly = [uid for uid in plan.told if uid not in (was.rollout.told if was.rollout else ())]
        wanted = count(run.steps[run.step - 1], fleet.replicas, last=run.is_last_step)
        assert not newly or len(plan.told) <= max(wanted, 1)
    if run is not None and run.phase in (Phase.BAKING, Phase.COMPLETED):
        # Whoever goes on with it, and with none of those that it took the place of.
        assert {plan.assigned(uid).target for uid in fleet.pods} <= {fleet.record.target}
    if fleet.record.candidate is not None and not fleet.model_fields:
        assert fleet.record.target is not None
        assert fleet.record.candidate > fleet.record.target


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROLLOUTS, st.integers(1, 4), HAPPENINGS)
def test_it_can_be_aborted_comes_to_rest_and_holds_up_no_good_version(
    rollout: dict[str, Any], replicas: int, happenings: list[tuple[Any, ...]]
) -> None:
    fleet = Fleet(replicas, rollout=rollout)
    for what in happenings:
        happen(fleet, what)
    fleet.model_fields, fleet.actions, fleet.is_replacing = {}, {}, False
    fleet.scale(max(fleet.replicas, 1))
    fleet.kill(*(uid for uid, pod in fleet.pods.items() if pod.lies))
    for pod in fleet.pods.values():
        pod.silent = pod.evicted
    for _ in range(10):
        check_step(fleet)
    abort(fleet)

    # At rest, nothing is written, to the memory or to the status, by time alone.
    for _ in range(60):
        check_step(fleet, seconds=10)
    writes, told = fleet.writes, fleet.plan.status
    for _ in range(5):
        check_step(fleet, seconds=10)
    assert (fleet.writes, fleet.plan.status) == (writes, told)

    # Without what somebody asked for, and without what keeps servers from loading.
    fleet.fields, fleet.rehearsal, fleet.requests = {}, None, 0
    fleet.kill(*(uid for uid, pod in fleet.pods.items() if pod.hung))
    for behaviour in fleet.bucket.values():
        behaviour.load = "good"
    fleet.upload(9)
    for _ in range(60):
        check_step(fleet, seconds=2)
    assert len(fleet.on(9)) == fleet.replicas


def abort(fleet: Fleet) -> None:
    """It leaves no pod with the version."""
    candidate = fleet.record.candidate
    if candidate is None and fleet.phase == "Baking" and fleet.record.rollout:
        candidate = fleet.record.rollout.version
    if candidate is None:
        return
    fleet.actions[names.ABORT_ANNOTATION] = str(candidate)
    for _ in range(3):
        check_step(fleet)
    assert not [uid for uid in fleet.told(candidate) if fleet.record.candidate != candidate]
    aborted = {(q.version, q.reason) for q in fleet.record.quarantined}
    assert (candidate, Reason.ABORTED) in aborted or fleet.record.wanted != candidate


FAULTS: dict[str, dict[str, Any]] = {
    "fails": {},
    "crashes": {},
    "hangs": {},
    "crashes-serving": {},
    "golden": {"load": "good", "golden": CheckResult.FAILED},
    "signature": {"load": "crashes", "interface": interface("y")},
    "memory": {"load": "crashes", "weight": 2**40},
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([[{"replicas": 1}], [{"replicas": 1, "pause": {}}, {"replicas": "50%"}]]),
    st.booleans(),
    st.integers(2, 4),
    st.sampled_from([0, 0, 3]),
    st.lists(
        st.one_of(
            st.tuples(st.just("bad"), st.integers(2, 6), st.sampled_from([*FAULTS])),
            st.tuples(st.just("act"), st.just(names.ABORT_ANNOTATION), NUMBERS.map(str)),
            st.tuples(st.just("grow"), st.integers(0, 2)),
            st.tuples(st.just("pause"), st.booleans()),
            SILENCE,
            TEMPLATES,
            CLOCKS,
            ENDS,
            RUNS,
        ),
        max_size=16,
    ),
)
@example(
    # What a pod goes on with turns out to be bad, and other objects are stored under its number.
    steps=[{"replicas": 1}],
    drain=False,
    replicas=2,
    backoff=0,
    happenings=[
        ("bad", 4, "crashes-serving"),
        ("run", 4),
        ("bad", 4, "crashes"),
        ("bad", 6, "crashes"),
    ],
)
@example(
    # The next one comes while the server that the one before has ended isn't started again.
    steps=[{"replicas": 1}],
    drain=False,
    replicas=2,
    backoff=3,
    happenings=[("bad", 2, "crashes"), ("run", 5), ("bad", 3, "crashes")],
)
def test_no_bad_version_costs_more_than_one_replica(
    steps: list[dict[str, Any]],
    drain: bool,
    replicas: int,
    backoff: int,
    happenings: list[tuple[Any, ...]],
) -> None:
    """Nobody promotes or pins one, and no pod is taken away."""
    rollout = {"steps": steps, "drain": drain}
    fleet = Fleet(replicas, rollout=rollout, server={"resources": {"limits": {"memory": "1Gi"}}})
    fleet.bucket[1].interface, fleet.bucket[1].weight = interface("x"), 1000
    fleet.backoff = backoff
    for what in [*happenings, *[("run", 1), ("unnoticed clock", 60)] * 20]:
        match what:
            case ("bad", version, fault):
                again = "x" * (version in fleet.bucket)
                known = {"load": fault, "interface": interface("x"), **FAULTS[fault]}
                before = fleet.bucket[version].fingerprint if again else f"f{version}"
                fleet.upload(version, fingerprint=f"{before}{again}", **known)
            case ("grow", number):
                fleet.scale(min(fleet.replicas + number, 7))
            case ("pause", paused):
                fleet.fields = {**fleet.fields, "rollout": {**rollout, "paused": paused}}
            case _:
                happen(fleet, what)
        without = [uid for uid, pod in fleet.pods.items() if pod.proven and pod.answers != 1]
        # Whose server is not started again yet is no replica that the next one may cost.
        assert len(without) <= 1 if backoff == 0 else fleet.on(1)
