"""What ``spec.rollout`` may be, with the message that a user gets, and what is nearest to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster.client import KubectlError
from inferencemodel_operator.spec import decode
from tests.support import crd
from tests.support.objects import Objects, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

Object = dict[str, Any]


@pytest.fixture(scope="module")
def namespace(api_server: Api) -> Iterator[str]:
    with crd.installed(api_server) as name:
        yield name


def with_rollout(rollout: Object) -> Object:
    return {
        "apiVersion": "inferencemodel.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": "imagenet"},
        "spec": {"model": {"storageUri": "gs://models/imagenet"}, "rollout": rollout},
    }


def posted(api: Api, namespace: str, rollout: Object) -> Object:
    """What the API server makes of it, without keeping it."""
    objects = Objects(api.kubeconfig, namespace)
    return objects.create("inferencemodels", with_rollout(rollout), dry_run=True)


def steps(*replicas: int | str) -> Object:
    return {"steps": [{"replicas": each} for each in replicas]}


def paused(duration: str) -> Object:
    return {"steps": [{"replicas": 1, "pause": {"duration": duration}}]}


def golden(**check: Any) -> Object:
    return {"checks": {"golden": check}}


def live(**check: Any) -> Object:
    return {"checks": {"live": check}}


NUMBERS = "rollout.steps[].replicas must rise, each number above all numbers before it"
PERCENTS = "rollout.steps[].replicas must rise, each percent above all percents before it"
WHOLE = "rollout.steps[].replicas can be 100% in the last step alone"
SHARE = "rollout.steps[].replicas must be a number from 1 or a part from 1% to 100%"
PAUSE = "rollout.steps[].pause.duration must be a duration up to 720h"
REHEARSAL = "rollout.rehearsal.deadline must be a duration from 10s to 24h"
DEADLINE = "rollout.deadline must be a duration from 10s to 168h"
BAKE = "rollout.bake must be a duration up to 168h"
AGREEMENT = "rollout.checks.golden.minAgreement must be a part from 0% to 100%, such as 99%"
ERRORS = "rollout.checks.live.maxErrorIncrease must be a part from 0% to 100%, such as 1%"
LATENCY = "rollout.checks.live.maxLatencyIncrease must be a part from 0% to 1000%, such as 50%"

CASES: dict[str, tuple[Object, str, str, Object]] = {
    # -- name: (what is refused, the field in the message, what it says, the nearest that is taken)
    "no replicas": (steps(0), "steps[0].replicas", SHARE, steps(1)),
    "a negative number": (steps(-1), "steps[0].replicas", SHARE, steps(1)),
    "no part": (steps("0%"), "steps[0].replicas", SHARE, steps("1%")),
    "more than all": (steps("101%"), "steps[0].replicas", SHARE, steps("100%")),
    "part of a percent": (steps("2.5%"), "steps[0].replicas", SHARE, steps("3%")),
    "a number as text": (steps("2"), "steps[0].replicas", SHARE, steps(2)),
    "a part without its sign": (steps(1, "x%"), "steps[1].replicas", SHARE, steps(1, "2%")),
    "numbers that fall": (steps(5, 3), "steps", NUMBERS, steps(3, 5)),
    "numbers that fall by their digits": (steps(10, 9), "steps", NUMBERS, steps(9, 10)),
    "a number twice": (steps(1, 1), "steps", NUMBERS, steps(1, 2)),
    "a number twice around a part": (steps(1, "5%", 1), "steps", NUMBERS, steps(1, "5%", 2)),
    "percents that fall": (steps("50%", "25%"), "steps", PERCENTS, steps("25%", "50%")),
    "percents that fall by their digits": (
        steps("10%", "9%"),
        "steps",
        PERCENTS,
        steps("9%", "10%"),
    ),
    "a percent twice": (steps("50%", "50%"), "steps", PERCENTS, steps("50%", "51%")),
    "a percent twice around a number": (
        steps("50%", 9, "50%"),
        "steps",
        PERCENTS,
        steps("50%", 9, "51%"),
    ),
    "a number behind all": (steps("100%", 5), "steps", WHOLE, steps(5, "100%")),
    "twenty-one steps": (
        steps(*range(1, 22)),
        "steps",
        "must have at most 20 items",
        steps(*range(1, 21)),
    ),
    "a pause of no unit": (paused("30"), "steps[0].pause.duration", PAUSE, paused("30s")),
    "a pause in days": (paused("30d"), "steps[0].pause.duration", PAUSE, paused("720h")),
    "too long a pause": (paused("720h0.001s"), "steps[0].pause.duration", PAUSE, paused("720h")),
    "too hurried a rehearsal": (
        {"rehearsal": {"deadline": "9999ms"}},
        "rehearsal.deadline",
        REHEARSAL,
        {"rehearsal": {"deadline": "10s"}},
    ),
    "too long a rehearsal": (
        {"rehearsal": {"deadline": "24h1s"}},
        "rehearsal.deadline",
        REHEARSAL,
        {"rehearsal": {"deadline": "24h"}},
    ),
    "too short a deadline": ({"deadline": "9.9s"}, "deadline", DEADLINE, {"deadline": "10s"}),
    "too long a deadline": ({"deadline": "168h1ms"}, "deadline", DEADLINE, {"deadline": "168h"}),
    "a negative deadline": ({"deadline": "-30m"}, "deadline", DEADLINE, {"deadline": "30m"}),
    "too long a bake": ({"bake": "168h1ms"}, "bake", BAKE, {"bake": "168h"}),
    "a bake of no unit": ({"bake": "10"}, "bake", BAKE, {"bake": "0s"}),
    "a tolerance below nothing": (
        golden(absolute=-0.1),
        "checks.golden.absolute",
        "should be greater than or equal to 0",
        golden(absolute=0),
    ),
    "a tolerance of everything": (
        golden(absolute=1e7),
        "checks.golden.absolute",
        "should be less than or equal to 1000000",
        golden(absolute=1e6),
    ),
    "a relative tolerance below nothing": (
        golden(relative=-0.1),
        "checks.golden.relative",
        "should be greater than or equal to 0",
        golden(relative=0),
    ),
    "a relative tolerance beyond all": (
        golden(relative=1.1),
        "checks.golden.relative",
        "should be less than or equal to 1",
        golden(relative=1),
    ),
    "more than all agree": (
        golden(minAgreement="100.1%"),
        "checks.golden.minAgreement",
        AGREEMENT,
        golden(minAgreement="100%"),
    ),
    "an agreement as a fraction": (
        golden(minAgreement="0.99"),
        "checks.golden.minAgreement",
        AGREEMENT,
        golden(minAgreement="99.5%"),
    ),
    "a comparison of nothing": (
        live(minRequests=0),
        "checks.live.minRequests",
        "should be greater than or equal to 1",
        live(minRequests=1),
    ),
    "a comparison of too much": (
        live(minRequests=1_000_001),
        "checks.live.minRequests",
        "should be less than or equal to 1000000",
        live(minRequests=1_000_000),
    ),
    "more errors than requests": (
        live(maxErrorIncrease="101%"),
        "checks.live.maxErrorIncrease",
        ERRORS,
        live(maxErrorIncrease="0%"),
    ),
    "too slow": (
        live(maxLatencyIncrease="1001%"),
        "checks.live.maxLatencyIncrease",
        LATENCY,
        live(maxLatencyIncrease="1000%"),
    ),
    "slower without a sign": (
        live(maxLatencyIncrease="50"),
        "checks.live.maxLatencyIncrease",
        LATENCY,
        live(maxLatencyIncrease="7.125%"),
    ),
    "another mode": (
        {"checks": {"memory": "Warn"}},
        "checks.memory",
        'supported values: "Enforce", "Report", "Ignore"',
        {"checks": {"memory": "Report"}},
    ),
    "another end": (
        {"onFailure": "Ignore"},
        "onFailure",
        'supported values: "Rollback", "Pause"',
        {"onFailure": "Pause"},
    ),
    "another patience": (
        {"rehearsal": {"onUnschedulable": "Fail"}},
        "rehearsal.onUnschedulable",
        'supported values: "Hold", "Skip"',
        {"rehearsal": {"onUnschedulable": "Skip"}},
    ),
    "another doubt": (
        live(onInconclusive="Rollback"),
        "checks.live.onInconclusive",
        'supported values: "Hold", "Continue"',
        live(onInconclusive="Continue"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused_names_the_field_and_the_fix_and_the_nearest_is_taken(
    api_server: Api, namespace: str, case: str
) -> None:
    bad, field, told, good = CASES[case]
    with pytest.raises(RefusedError) as refused:
        posted(api_server, namespace, bad)
    assert f"spec.rollout.{field}" in str(refused.value)
    assert told in " ".join(str(refused.value).split())
    decode(posted(api_server, namespace, good))


def test_one_mistake_gets_one_message(api_server: Api, namespace: str) -> None:
    with pytest.raises(RefusedError) as refused:
        posted(api_server, namespace, steps("x%", "y%", 3, 4))
    assert str(refused.value).count("rollout.steps[].replicas must") == 2
    assert "rise" not in str(refused.value)


@pytest.mark.parametrize(
    "rollout",
    [
        pytest.param(steps(), id="all at once"),
        pytest.param(steps(1, "10%", 5, "50%", "100%"), id="numbers and parts mixed"),
        pytest.param(steps("100%"), id="all at once, and then a pause"),
        pytest.param({"steps": [{"replicas": 1, "pause": {}}]}, id="until somebody promotes"),
        pytest.param({"drain": True}, id="drain with one replica"),
        pytest.param(paused("0s"), id="no pause"),
        pytest.param(
            {
                "steps": [{"replicas": 1, "pause": {"duration": "5m"}}, {"replicas": "50%"}],
                "rehearsal": {"enabled": True, "deadline": "1.5m", "onUnschedulable": "Skip"},
                "checks": {
                    "memory": "Ignore",
                    "signature": "Report",
                    "golden": {"mode": "Report", "absolute": 0.5, "relative": 0.25},
                    "live": {"mode": "Enforce", "minRequests": 10, "maxErrorIncrease": "0.5%"},
                },
                "drain": True,
                "deadline": "1h30m",
                "bake": "10m",
                "onFailure": "Pause",
                "paused": True,
            },
            id="everything",
        ),
    ],
)
def test_what_is_legal_is_taken(api_server: Api, namespace: str, rollout: Object) -> None:
    made = posted(api_server, namespace, rollout)
    assert decode(made) == decode({"metadata": made["metadata"], **_spec(rollout)})


def _spec(rollout: Object) -> Object:
    return {"spec": with_rollout(rollout)["spec"]}


def test_without_a_word_the_first_step_is_one_replica_and_all_checks_have_their_modes(
    api_server: Api, namespace: str
) -> None:
    made = posted(api_server, namespace, {})["spec"]["rollout"]
    assert made["steps"] == [{"replicas": 1}]
    assert made["checks"]["memory"] == "Enforce"
    assert "signature" not in made["checks"]
    assert made["checks"]["golden"]["mode"] == "Enforce"
    assert made["checks"]["live"]["mode"] == "Report"
    assert made["rehearsal"] == {
        "enabled": False,
        "deadline": "10m",
        "onUnschedulable": "Hold",
    }
    assert (made["deadline"], made["bake"], made["onFailure"]) == ("30m", "0s", "Rollback")
    assert (made["drain"], made["paused"]) == (False, False)


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"phase": "Waiting"}, "phase"),
        (
            {"checks": [{"name": "canary", "result": "Passed", "time": "2026-01-01T00:00:00Z"}]},
            "name",
        ),
        (
            {"checks": [{"name": "live", "result": "Good", "time": "2026-01-01T00:00:00Z"}]},
            "result",
        ),
    ],
)
def test_the_status_has_the_phases_checks_and_results_that_are_documented_and_no_others(
    api_server: Api, namespace: str, status: Object, field: str
) -> None:
    made = with_rollout({})
    name = f"of-{field}"
    made["metadata"]["name"] = name
    place = ("--namespace", namespace)
    api_server.kubectl("create", *place, "-f", "-", stdin=json.dumps(made))
    whole = {"version": 15, "phase": "Baking", "startTime": "2026-01-01T00:00:00Z"}

    def write(rollout: Object) -> None:
        body = {"status": {"model": {"rollout": rollout}}}
        api_server.kubectl(
            *("patch", "inferencemodel", name, *place, "--subresource=status"),
            *("--type=merge", "--patch", json.dumps(body)),
        )

    write(whole)
    with pytest.raises(KubectlError, match=r"Unsupported value") as refused:
        write(whole | status)
    assert f".{field}" in str(refused.value)


def test_what_explain_tells_of_rollouts_is_whole(api_server: Api, namespace: str) -> None:
    """`kubectl explain` is all that many ever read of a field."""
    assert namespace
    told = api_server.kubectl("explain", "inferencemodel.spec.rollout")
    properties: Object = yaml.safe_load(crd.CRD.read_text())["spec"]["versions"][0]["schema"][
        "openAPIV3Schema"
    ]["properties"]["spec"]["properties"]["rollout"]["properties"]
    for name, schema in properties.items():
        assert f"  {name}\t" in told
        text = " ".join(schema["description"].split())
        assert text in " ".join(told.split())
