"""What a seed draws is the same each time, and never two faults of one family at once."""

from __future__ import annotations

import itertools

import pytest

from chaos import plan
from chaos.faults import FAULTS
from chaos.fleet import FLEET
from chaos.plan import Quality

SEEDS = range(20)
MODELS = [model.name for model in FLEET]
HOUR = 3600.0


def test_a_seed_draws_the_same_again() -> None:
    assert plan.faults(7, HOUR, several=True) == plan.faults(7, HOUR, several=True)
    assert plan.uploads(7, HOUR, MODELS) == plan.uploads(7, HOUR, MODELS)
    assert plan.faults(7, HOUR, several=True) != plan.faults(8, HOUR, several=True)
    assert plan.uploads(7, HOUR, MODELS) != plan.uploads(8, HOUR, MODELS)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_longer_run_begins_as_a_shorter_one(seed: int) -> None:
    short, long = (plan.faults(seed, seconds, several=True) for seconds in (600.0, HOUR))
    assert long[: len(short)] == short
    few, many = (plan.uploads(seed, seconds, MODELS) for seconds in (600.0, HOUR))
    assert many[: len(few)] == few


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_of_one_family_follow_each_other(seed: int) -> None:
    drawn = plan.faults(seed, HOUR, several=True)
    assert len(drawn) > 50
    for one, other in itertools.combinations(drawn, 2):
        if one.kind.family == other.kind.family:
            assert one.at + one.seconds <= other.at or other.at + other.seconds <= one.at


@pytest.mark.parametrize("seed", SEEDS)
def test_every_fault_ends_before_the_run_and_begins_after_a_quiet_time(seed: int) -> None:
    drawn = plan.faults(seed, 300.0, several=True)
    assert min(fault.at for fault in drawn) >= plan.FIRST_FAULT
    assert max(fault.at + fault.seconds for fault in drawn) <= 300.0


def test_an_hour_of_some_seeds_has_every_fault_and_every_quality() -> None:
    drawn = {fault.kind.name for seed in SEEDS for fault in plan.faults(seed, HOUR, several=True)}
    assert drawn == set(plan.NAMES) == set(FAULTS)
    uploads = [upload for seed in SEEDS for upload in plan.uploads(seed, HOUR, MODELS)]
    assert {upload.quality for upload in uploads} == set(Quality)
    assert {upload.model for upload in uploads} == set(MODELS)


def test_some_faults_meet() -> None:
    drawn = plan.faults(1, HOUR, several=True)
    assert any(two.at < one.at + one.seconds for one, two in itertools.pairwise(drawn))


def test_one_node_is_not_taken_away() -> None:
    names = {fault.kind.name for seed in SEEDS for fault in plan.faults(seed, HOUR, several=False)}
    assert "kill-poller" in names
    assert not names & {"stop-node", "cut-node", "kill-kubelet", "drain-node"}


def test_only_what_is_asked_for_is_drawn() -> None:
    drawn = plan.faults(1, HOUR, several=True, only=["stop-node", "store-lies"])
    assert {fault.kind.name for fault in drawn} == {"stop-node", "store-lies"}
