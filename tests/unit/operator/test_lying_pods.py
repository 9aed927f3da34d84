"""What one replica says that isn't so costs that replica, and holds up none of the others."""

from __future__ import annotations

from typing import Any

import pytest

from model_poller.status import (
    CheckResult,
    GoldenStatus,
    Interface,
    SignatureSpec,
    VersionState,
    VersionStatus,
)
from tests.support.fleets import Fleet

A, D, F = VersionState.AVAILABLE, VersionState.DISCOVERED, VersionState.FETCHED
FACE = Interface(signatures={"serving_default": SignatureSpec()})
OTHER_FACE = Interface(signatures={"other": SignatureSpec()})
LIARS = pytest.mark.parametrize("liar", ["p1", "p2", "p3"])


def claim(number: int, state: VersionState = D, **fields: Any) -> VersionStatus:
    defaults: dict[str, Any] = {"fingerprint": f"f{number}", "in_source": True}
    return VersionStatus(version=number, state=state, **{**defaults, **fields})


def lied_to(liar: str, *claims: VersionStatus, answers: int | None = None) -> Fleet:
    """A fleet of three whose versions' interfaces are alike."""
    fleet = Fleet(server={"resources": {"limits": {"memory": "1Gi"}}})
    fleet.bucket[1].interface = FACE
    fleet.pods[liar].claims = claims
    fleet.pods[liar].claims_to_answer = answers
    return fleet


def upload(fleet: Fleet, version: int) -> None:
    fleet.upload(version, interface=FACE, weight=1000)


def until_progressing(fleet: Fleet) -> None:
    for _ in range(30):
        if fleet.phase == "Progressing":
            return
        assert fleet.phase != "Paused"
        fleet.step()
    raise AssertionError(fleet.phase)


def honest(fleet: Fleet, liar: str) -> list[str]:
    return sorted(fleet.pods.keys() - {liar})


@LIARS
@pytest.mark.parametrize("state", [D, F])
@pytest.mark.parametrize("steps", [0, 3])
def test_other_objects_under_a_number_are_those_that_most_replicas_find(
    liar: str, state: VersionState, steps: int
) -> None:
    fleet = lied_to(liar, claim(2, state, fingerprint="0"))
    fleet.run(steps)
    upload(fleet, 2)
    fleet.run(60, seconds=2)
    assert fleet.record.target == 2
    assert set(honest(fleet, liar)) <= set(fleet.on(2))


@LIARS
def test_a_weight_beyond_what_others_tell_is_no_proof(liar: str) -> None:
    fleet = lied_to(liar, claim(2, D, weight_bytes=2**62))
    upload(fleet, 2)
    fleet.run(60, seconds=2)
    assert fleet.record.target == 2


@LIARS
def test_the_interface_that_most_replicas_tell_is_the_versions(liar: str) -> None:
    fleet = lied_to(liar, claim(1, A, interface=OTHER_FACE, proven=True), answers=1)
    upload(fleet, 2)
    until_progressing(fleet)
    fleet = lied_to(liar, claim(2, F, interface=OTHER_FACE))
    upload(fleet, 2)
    fleet.run(4)
    assert fleet.phase == "Progressing"


@LIARS
def test_golden_answers_are_of_replicas_that_have_the_version(liar: str) -> None:
    fleet = lied_to(liar)
    upload(fleet, 2)
    until_progressing(fleet)
    assert fleet.plan.record.rollout is not None
    task = f"2-{int(fleet.plan.record.rollout.started.timestamp())}.0"
    golden = GoldenStatus(task=task, result=CheckResult.FAILED)
    fleet.pods[liar].claims = (claim(2, D, golden=golden),)
    fleet.run(20)
    assert fleet.record.quarantined == ()
