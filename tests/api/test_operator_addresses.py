"""Two InferenceModels with one host and path on a real API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.api.models import Model, World, world
from tests.support.kubectl import Object, condition
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


def is_in_conflict(obj: Object) -> bool:
    stalled = condition(obj, "Stalled")
    return (stalled["status"], stalled["reason"]) == ("True", "AddressConflict")


def until_free(model: Model) -> Object:
    return model.until(
        lambda o: condition(o, "Stalled")["status"] == "False",
        what="no conflict",
    )


def test_the_younger_of_two_with_one_host_is_told_and_heals_when_the_other_goes(
    here: World,
) -> None:
    with here.model(ingress={"host": "one.example.com"}) as first:
        first.until_child("ingress", lambda _: True, what="it is there")
        with here.model(ingress={"host": "one.example.com"}) as second:
            found = second.until(is_in_conflict, what="the conflict")
            assert f"InferenceModel {first.name}" in condition(found, "Stalled")["message"]
            until_free(first)
            warned = eventually(
                lambda: [
                    event
                    for event in json.loads(here.kubectl("get", "events", "-o", "json"))["items"]
                    if event["reason"] == "AddressConflict"
                ],
                what="an Event",
            )
            assert {event["involvedObject"]["name"] for event in warned} == {second.name}
            first.delete()
            until_free(second)


def test_the_younger_one_heals_when_the_other_moves(here: World) -> None:
    with here.model(ingress={"host": "two.example.com"}) as first:
        first.until_child("ingress", lambda _: True, what="it is there")
        with here.model(ingress={"host": "two.example.com"}) as second:
            second.until(is_in_conflict, what="the conflict")
            first.apply(ingress={"host": "two.example.com", "path": "/v1/models/first"})
            until_free(second)
            until_free(first)
