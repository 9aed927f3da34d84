"""Pods that say too much, on a real API server: it refuses nothing for its size or its letters."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from model_poller.status import SourceReason, SourceState, VersionReason, VersionState
from tests.api.models import Model, World, world
from tests.support.kubectl import condition
from tests.support.pods import told
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from model_poller.status import PollerStatus

pytestmark = pytest.mark.api

AVAILABLE, QUARANTINED = VersionState.AVAILABLE, VersionState.QUARANTINED


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


HONEST = told({1: AVAILABLE}, target=1)


def until_up_to_date(model: Model) -> None:
    model.until(
        lambda o: o["status"]["model"]["transitionStatus"] == "UpToDate", what="version 1 active"
    )


def quarantined(count: int, message: str) -> PollerStatus:
    bad = range(2, 2 + count)
    return told(
        {1: AVAILABLE, **dict.fromkeys(bad, QUARANTINED)},
        target=1,
        reasons=dict.fromkeys(bad, (VersionReason.LOAD_FAILED, message)),
    )


@pytest.mark.parametrize(
    ("count", "message"),
    [(20, "x" * 36_000), (50, "模\0\n\x1b[31m" * 1000), (90, "\U0001f600" * 3000)],
    ids=["36 kB each", "control characters", "many of four bytes"],
)
def test_what_a_pod_says_at_length_is_in_the_status_in_brief(
    here: World, count: int, message: str
) -> None:
    with here.model(replicas=1) as model:
        poller = model.add_pod().poller
        poller.tell(HONEST)
        until_up_to_date(model)

        poller.tell(quarantined(count, message))
        entries = model.until(
            lambda o: o["status"]["model"]["quarantined"], what="what is quarantined"
        )["status"]["model"]["quarantined"]
        assert all(entry["message"].endswith("…") for entry in entries)
        assert all(len(entry["message"].encode()) <= 1024 for entry in entries)
        assert all(entry["message"].isprintable() for entry in entries)
        record = model.until_child(
            "configmap",
            lambda o: "quarantined.json" in o["data"],
            what="record",
            suffix="-versions",
        )
        assert len(json.dumps(record)) < 300_000

        poller.tell(HONEST)
        model.until(lambda o: "quarantined" not in o["status"]["model"], what="its end")


@pytest.mark.parametrize(
    "lie",
    [
        told({2**63: AVAILABLE}, target=1),
        told(dict.fromkeys(range(1, 300_000), VersionState.DISCOVERED)),
    ],
    ids=["2^63", "300,000 versions"],
)
def test_what_is_no_report_counts_as_a_pod_that_can_not_be_asked(here: World, lie: Any) -> None:
    with here.model(replicas=1) as model:
        poller = model.add_pod().poller
        poller.tell(HONEST)
        until_up_to_date(model)

        poller.tell(lie)
        model.until(
            lambda o: condition(o, "Ready")["reason"] == "PollerUnreachable", what="the pod's fault"
        )
        poller.tell(HONEST)
        until_up_to_date(model)
        assert "Traceback" not in here.operator.log()


def test_a_bucket_that_comes_and_goes_is_one_event_with_a_count(here: World) -> None:
    failed = msgspec.structs.replace(
        HONEST,
        source=msgspec.structs.replace(
            HONEST.source,
            state=SourceState.FAILED,
            reason=SourceReason.ACCESS_DENIED,
            message="no right to list",
        ),
    )
    with here.model(replicas=1) as model:
        poller = model.add_pod().poller
        poller.tell(HONEST)
        until_up_to_date(model)

        def events() -> list[dict[str, Any]]:
            return [
                event
                for event in model.kubectl.list("events.events.k8s.io")
                if event["regarding"]["name"] == model.name and event["reason"] == "AccessDenied"
            ]

        def flip() -> bool:
            poller.tell(failed)
            model.until(lambda o: condition(o, "SourceReady")["status"] == "False", what="a fault")
            poller.tell(HONEST)
            model.until(lambda o: condition(o, "SourceReady")["status"] == "True", what="its end")
            return any("series" in event for event in events())

        eventually(flip, what="a series", within=30)
        (event,) = events()
        assert event["series"]["count"] >= 2
        assert event["type"] == "Warning"


def test_a_pod_that_changes_its_word_ten_times_a_second_causes_few_writes_and_then_none(
    here: World,
) -> None:
    with here.model(replicas=1) as model:
        poller = model.add_pod().poller
        poller.tell(HONEST)
        until_up_to_date(model)
        here.operator.until_quiet()
        before = here.operator.requests("create", "patch")

        other = told({1: AVAILABLE, 2: VersionState.FETCHING}, target=1)
        for number in range(100):
            poller.tell(other if number % 2 == 0 else HONEST)
            time.sleep(0.1)

        after = here.operator.requests("create", "patch")
        written = {
            name: count - before.get(name, 0)
            for name, count in after.items()
            if count != before.get(name, 0)
        }
        assert written.get("patch inferencemodels/status", 0) <= 20
        assert written.get("create events", 0) <= 5
        until_up_to_date(model)
