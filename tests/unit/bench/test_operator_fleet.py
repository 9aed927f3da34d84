"""Simulated pollers tell what a poller would."""

from __future__ import annotations

from bench.operator_fleet import report
from model_poller.status import (
    AssignmentStatus,
    CheckResult,
    GoldenTask,
    RolloutTask,
    VersionState,
    decode,
    encode,
    encode_task,
)


def test_a_pod_has_all_versions_and_answers_with_what_it_is_told() -> None:
    task = encode_task(RolloutTask(version=2, key="2-1.0", golden=GoldenTask()))
    stored = {1: "a", 2: "b", 3: "c"}
    told = decode(encode(report(7, stored, 2, AssignmentStatus(target="2", rollout=task))))
    assert (told.model, told.active_version) == ("model-7", 2)
    assert {v.version: v.state for v in told.versions} == {
        3: VersionState.FETCHED,
        2: VersionState.AVAILABLE,
        1: VersionState.RETIRED,
    }
    golden = {v.version: v.golden for v in told.versions if v.golden is not None}
    assert [(n, g.task, g.result) for n, g in golden.items()] == [(2, "2-1.0", CheckResult.SKIPPED)]
