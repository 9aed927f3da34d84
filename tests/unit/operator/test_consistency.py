"""Whatever is observed, no two fields of the status contradict one another."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inferencemodel_operator import assessment
from inferencemodel_operator.observe.troubles import Trouble
from inferencemodel_operator.observe.wire import Condition, DeploymentStatus
from inferencemodel_operator.observed import Observed, Replica
from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
from inferencemodel_operator.spec import decode
from inferencemodel_operator.status import ModelStatus, Status
from model_poller.status import SourceReason, SourceState, SourceStatus, VersionState
from tests.support.pods import told

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VERSIONS = st.integers(1, 4)
SOURCES = st.builds(
    lambda state, reason: SourceStatus(
        uri="gs://models/m", state=state, reason=reason, message="words"
    ),
    st.sampled_from(SourceState),
    st.sampled_from(SourceReason),
)
REPORTS = st.none() | st.builds(
    told,
    st.dictionaries(VERSIONS, st.sampled_from(VersionState), max_size=4),
    target=st.none() | VERSIONS,
    source=SOURCES,
    reachable=st.booleans(),
)


@st.composite
def replicas(draw: st.DrawFn) -> Replica:
    other, draining = draw(st.booleans()), draw(st.integers(0, 3)) == 0
    trouble = draw(st.none() | st.sampled_from(Trouble))
    return Replica(
        name=f"pod-{draw(st.integers(1, 99))}",
        ready=draw(st.booleans()) and trouble is None,
        report=None if other else draw(REPORTS),
        draining=draining,
        silent=draining and draw(st.booleans()),
        other_source=other,
        current=draw(st.booleans()) and not other,
        trouble=trouble,
        message="words" if trouble else "",
    )


DEADLINE = Condition(type="Progressing", status="False", reason="ProgressDeadlineExceeded")
DEPLOYMENTS = st.none() | st.builds(
    lambda replicas, updated, late: DeploymentStatus(
        replicas=replicas,
        updated_replicas=updated,
        conditions=(DEADLINE,) if late else (),
    ),
    st.integers(0, 4),
    st.integers(0, 4),
    st.booleans(),
)
RECORDS = st.builds(
    lambda target, failed: VersionsRecord(
        target=None if target in failed else target,
        quarantined=tuple(
            QuarantinedVersion(version=v, fingerprint="f", reason="LoadFailed", message="no")
            for v in sorted(failed, reverse=True)
        ),
    ),
    st.none() | VERSIONS,
    st.frozensets(VERSIONS, max_size=2),
)
OBSERVATIONS = st.builds(
    lambda pods, record, wanted, deployment: Observed(
        pods=tuple(pods), record=record, wanted=wanted, deployment=deployment
    ),
    st.lists(replicas(), max_size=4),
    RECORDS,
    st.integers(0, 3),
    DEPLOYMENTS,
)
MODELS = st.builds(
    lambda pinned, suspended: decode(
        {
            "metadata": {"name": "m", "namespace": "vision", "uid": "u", "generation": 4},
            "spec": {
                "model": {
                    "storageUri": "gs://models/m",
                    **({} if pinned is None else {"version": pinned}),
                },
                "suspend": suspended,
            },
        }
    ),
    st.none() | VERSIONS,
    st.booleans(),
)
PREVIOUS = st.builds(
    lambda active, uri: Status(model=ModelStatus(active_version=active, storage_uri=uri)),
    st.none() | VERSIONS,
    st.sampled_from(["", "gs://models/m", "gs://models/before"]),
)


@settings(max_examples=400)
@given(MODELS, OBSERVATIONS, PREVIOUS)
def test_no_field_contradicts_another(model: Any, seen: Observed, previous: Status) -> None:
    found = assessment.assess(model, seen, previous, NOW)
    of = found.model
    conditions = {c.type: c for c in found.conditions}
    true = {kind for kind, c in conditions.items() if c.status == "True"}
    asked = [pod for pod in seen.pods if pod.gets_requests]
    ready = [p for p in seen.pods if p.ready and not p.draining and not p.other_source]
    active, target = of.active_version, of.target_version

    reached = (
        target is not None
        and len(ready) >= seen.wanted > 0
        and all(pod.answer == target for pod in asked)
    )
    assert ("ModelLoaded" in true) == (
        reached and conditions["ModelLoaded"].reason in ("Loaded", "ChangedAfterPublish")
    )
    if of.transition_status == "UpToDate":
        assert reached
        assert active == target
        assert seen.rolled_out
        assert conditions["Reconciling"].status == "False" or seen.problems
    if reached:
        assert active == target
        assert "VersionSkew" not in true
        assert of.history[0].result == "Active"
    elif of.history:
        assert (of.history[0].version, of.history[0].result) != (target, "Active")
    if "VersionSkew" in true:
        assert len({pod.answer for pod in asked}) > 1
        assert of.transition_status != "UpToDate"
    if active is not None:
        # Somebody gets it, or it can't be known that nobody does.
        assert any(pod.answer == active or not isinstance(pod.answer, int) for pod in asked)
    if not asked:
        assert active is None
    if "Ready" in true:
        assert found.ready_replicas >= seen.wanted
        assert "None" not in conditions["Ready"].message
        assert all(isinstance(pod.answer, int) for pod in ready)
    assert not {"Stalled", "Reconciling"} <= true
    assert found.ready_replicas <= found.replicas
    assert len(of.versions) <= 10
    assert sum(v.replicas for v in of.versions if v.version == target) <= found.replicas
    if of.transition_status == "BlockedByFailedLoad":
        assert "ModelLoaded" not in true

    # What is unchanged is unchanged, and it survives the API server.
    assert assessment.assess(model, seen, found, NOW.replace(year=2027)) == found
    assert Status() != found
