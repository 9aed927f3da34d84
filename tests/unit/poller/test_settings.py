"""The command line and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_poller.errors import InvalidSettingsError
from model_poller.settings import parse
from model_poller.stores.uri import Location

POD = [
    "--model-name=imagenet",
    "--storage-uri=gs://models/imagenet",
    "--models-dir=/models",
    "--server-address=127.0.0.1:8500",
    "--server-config-dir=/models/.server",
    "--target-file=/etc/podinfo/target-version",
    "--http-port=8502",
    "--poll-interval=30",
    "--num-versions=1",
    "--retain-versions=2",
    "--log-format=json",
]


def test_a_pod_keeps_its_versions_beside_the_base_path() -> None:
    chosen = parse(POD, {"TARGET_VERSION": "4"})
    assert chosen.base == Path("/models/imagenet")
    assert chosen.hidden == Path("/models")
    assert chosen.source.locations == (Location("models", "imagenet"),)
    assert not chosen.policy.follow_newest
    assert chosen.first_assignment.target == "4"
    assert chosen.subscription is None


def test_all_further_options_of_a_pod_are_taken() -> None:
    more = [
        "--endpoint=http://bucket:4443",
        "--anonymous",
        "--pubsub-endpoint=pubsub:8085",
        "--pubsub-subscription=projects/p/subscriptions/s",
    ]
    chosen = parse([*POD, *more, "--batching-parameters=max_batch_size { value: 8 }"], {})
    assert (chosen.source.endpoint, chosen.source.anonymous) == ("http://bucket:4443", True)
    assert chosen.subscription == "projects/p/subscriptions/s"
    assert chosen.pubsub_endpoint == "pubsub:8085"
    assert chosen.batching_parameters == "max_batch_size { value: 8 }"


def test_three_arguments_are_enough_alone() -> None:
    chosen = parse(["my-project", "uploads", "/models/resnet"], {})
    assert chosen.base == chosen.hidden == Path("/models/resnet")
    assert chosen.model == "resnet"
    assert chosen.subscription == "projects/my-project/subscriptions/uploads"
    assert chosen.source.locations == ()
    assert chosen.policy.follow_newest


def test_the_environment_is_enough_alone_and_arguments_win() -> None:
    environment = {"PROJECT_ID": "p", "SUBSCRIPTION": "s", "SAVE_DIR": "/models/resnet"}
    assert parse([], environment).subscription == "projects/p/subscriptions/s"
    chosen = parse(["q", "t", "/models/other"], environment)
    assert chosen.subscription == "projects/q/subscriptions/t"
    assert chosen.base == Path("/models/other")


def test_an_emulator_is_found_by_its_usual_variable() -> None:
    environment = {"PUBSUB_EMULATOR_HOST": "127.0.0.1:8085"}
    assert parse(["p", "s", "/m"], environment).pubsub_endpoint == "127.0.0.1:8085"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "SAVE_DIR is missing"),
        (["p", "s"], "SAVE_DIR is missing"),
        (["--models-dir=/m", "--storage-uri=gs://models/x"], "needs --model-name"),
        (["--models-dir=/m", "--model-name=x"], "give --storage-uri"),
        ([*POD, "--storage-uri=ftp://x"], "gs://BUCKET/FOLDER"),
        ([*POD, "--num-versions=3"], "--retain-versions not less"),
        ([*POD, "--num-versions=0"], "at least 1"),
        ([*POD, "--poll-interval=0"], "more than 0 seconds"),
        ([*POD, "--load-timeout=-1"], "more than 0 seconds"),
    ],
)
def test_what_can_not_be_is_refused_with_the_fix(arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidSettingsError, match=message):
        parse(arguments, {})


def test_a_subscription_without_its_project_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="PROJECT is missing"):
        parse([], {"SUBSCRIPTION": "s", "SAVE_DIR": "/m"})


def test_the_help_shows_how_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "model_poller PROJECT SUBSCRIPTION SAVE_DIR" in text
    assert all(len(line) <= 100 for line in text.splitlines())
