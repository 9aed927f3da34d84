"""A pod that has not heard what it is to serve is told again, not too soon and not for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferencemodel_operator import names
from inferencemodel_operator.confirmation import (
    FIRST_SECONDS,
    LONGEST_SECONDS,
    REPETITIONS,
    ConfirmationWatch,
    Telling,
)
from inferencemodel_operator.observe import objects
from model_poller.status import VersionState
from tests.support.pods import told

if TYPE_CHECKING:
    from inferencemodel_operator.observe.objects import Pod
    from model_poller.status import PollerStatus


def pod(**annotations: str) -> Pod:
    found = objects.pod(
        {
            "metadata": {
                "name": "m-1",
                "namespace": "vision",
                "uid": "uid-1",
                "resourceVersion": "1",
                "labels": {names.MODEL_LABEL: "m"},
                "annotations": {
                    f"{names.GROUP}/{k.replace('_', '-')}": v for k, v in annotations.items()
                },
            }
        }
    )
    assert found is not None
    return found


def says(target: int | None) -> PollerStatus:
    return told({1: VersionState.AVAILABLE}, target=target)


class Node:
    """A pod whose annotations are written as the watch says, at a clock that a test sets."""

    def __init__(self, jitter: float = 0.0) -> None:
        self.now = 100.0
        self.pod = pod()
        self.watch = ConfirmationWatch(lambda: self.now, lambda: jitter)

    def look(self, version: int, report: PollerStatus | None) -> Telling:
        assignment = {names.TARGET_VERSION_ANNOTATION: str(version)}
        telling = self.watch.look(self.pod, assignment, report)
        annotations = dict(telling.annotations)
        attempt = int(annotations.pop(names.ASSIGNMENT_ATTEMPT_ANNOTATION, self.pod.attempt))
        assigned = {**self.pod.assignment, **annotations}
        self.pod = msgspec.structs.replace(self.pod, assignment=assigned, attempt=attempt)
        return telling

    def until_silent(self, version: int, report: PollerStatus) -> list[float]:
        """The seconds between what is written, until nothing more is to come."""
        gaps, last = [], self.now
        while True:
            telling = self.look(version, report)
            if telling.annotations:
                gaps.append(self.now - last)
                last = self.now
            if telling.after is None:
                return gaps
            assert telling.after > 0
            self.now += telling.after


def attempt(telling: Telling) -> str | None:
    return telling.annotations.get(names.ASSIGNMENT_ATTEMPT_ANNOTATION)


def test_what_a_pod_is_to_serve_is_written_once_and_looked_at_again_after_a_second() -> None:
    node = Node()
    first = node.look(2, says(1))
    assert first == Telling({names.TARGET_VERSION_ANNOTATION: "2"}, after=FIRST_SECONDS)
    node.now += 0.4
    assert node.look(2, says(1)).annotations == {}


def test_what_somebody_undoes_each_time_is_written_again_five_times_then_once_a_minute() -> None:
    node = Node()
    written = 0
    for _ in range(600):
        telling = node.look(2, says(2))
        written += bool(telling.annotations)
        assert telling.contested != bool(telling.annotations)
        node.pod = pod(target_version="7")
        node.now += 0.2
    assert written == 1 + 5 + 1
    # Another decision is told at once.
    assert node.look(3, says(2)).annotations


def test_changes_of_what_is_to_be_served_are_not_counted_as_repairs() -> None:
    node = Node()
    for version in range(100):
        assert node.look(version, says(version)).annotations
        node.now += 0.1


def test_nothing_is_written_once_the_poller_confirms() -> None:
    node = Node()
    node.look(2, says(1))
    node.now += 0.2
    assert node.look(2, says(2)) == Telling()
    node.now += 3600
    assert node.look(2, says(2)) == Telling()


def test_a_pod_that_has_not_heard_is_told_again_by_another_annotation() -> None:
    node = Node()
    node.look(2, says(1))
    node.now += FIRST_SECONDS
    second = node.look(2, says(1))
    assert second.repeated
    assert dict(second.annotations) == {names.ASSIGNMENT_ATTEMPT_ANNOTATION: "1"}
    assert second.after == 2 * FIRST_SECONDS


def test_the_gaps_double_up_to_a_bound_and_come_to_an_end() -> None:
    gaps = Node().until_silent(2, says(1))
    assert gaps[:6] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert set(gaps[6:]) == {LONGEST_SECONDS}
    assert len(gaps) == 1 + REPETITIONS


def test_pods_that_were_told_together_are_not_told_again_together() -> None:
    assert Node(jitter=0.0).until_silent(2, says(1)) != Node(jitter=0.9).until_silent(2, says(1))


def test_another_target_begins_anew() -> None:
    node = Node()
    node.until_silent(2, says(1))
    assert node.look(3, says(1)).after == FIRST_SECONDS
    node.now += FIRST_SECONDS
    assert attempt(node.look(3, says(1))) == str(REPETITIONS + 1)


def test_an_operator_that_was_restarted_goes_on_with_the_counter_of_the_pod() -> None:
    """Writing what is there already would be no write, and bring nothing up to date."""
    node = Node()
    node.pod = pod(target_version="2", assignment_attempt="7")
    assert node.look(2, says(1)) == Telling(after=FIRST_SECONDS)
    node.now += FIRST_SECONDS
    assert attempt(node.look(2, says(1))) == "8"


@pytest.mark.parametrize("text", ["", "x", "-1", "9" * 5000, "٣"])
def test_a_counter_that_somebody_else_wrote_counts_as_none(text: str) -> None:
    node = Node()
    node.pod = pod(target_version="2", assignment_attempt=text)
    node.look(2, says(1))
    node.now += FIRST_SECONDS
    assert attempt(node.look(2, says(1))) == "1"


def test_a_pod_that_cannot_be_asked_is_told_once() -> None:
    node = Node()
    node.look(2, None)
    node.now += 3600
    assert node.look(2, None) == Telling()


def test_a_pod_that_goes_away_is_forgotten() -> None:
    node = Node()
    node.look(2, says(1))
    node.watch.keep([])
    node.now += 3600
    assert node.look(2, says(1)) == Telling(after=FIRST_SECONDS)


def test_a_poller_that_says_now_this_and_now_that_is_not_told_for_ever() -> None:
    node = Node()
    repetitions = 0
    for _ in range(1000):
        node.now += 60
        repetitions += node.look(2, says(2)).repeated + node.look(2, says(1)).repeated
        node.now += 60
        repetitions += node.look(2, says(1)).repeated
    assert repetitions == REPETITIONS


Steps = st.lists(
    st.tuples(st.floats(0, 90), st.integers(1, 3), st.sampled_from([None, 1, 2, 3])), max_size=60
)


@given(Steps, st.floats(0, 1))
def test_no_sequence_of_looks_writes_to_a_pod_that_has_confirmed_or_more_often_than_allowed(
    steps: list[Any], jitter: float
) -> None:
    node = Node(jitter)
    written, wanted = 0, None
    for seconds, version, target in steps:
        node.now += seconds
        if version != wanted:
            written, wanted = 0, version
        report = None if target is None else says(target)
        before = node.pod.assignment.get(names.TARGET_VERSION_ANNOTATION)
        telling = node.look(version, report)
        written += telling.repeated
        assert written <= REPETITIONS
        if before == str(version) and target in (None, version):
            assert telling.annotations == {}
