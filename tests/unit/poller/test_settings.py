"""The command line and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_poller import main
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
        (
            ["--storage-uri=gs://models/x", "--models-max-size=5"],
            "--models-max-size=5 needs --models-dir",
        ),
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


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--http-port=99999"], "99999"),
        (["--http-port=-1"], "-1"),
        (["--http-port=80.5"], "80.5"),
        (["--http-port=8_5"], "8_5"),
        (["--poll-interval=nan"], "nan"),
        (["--poll-interval=inf"], "inf"),
        (["--poll-interval=1e30"], "1e30"),
        (["--poll-interval=30s"], "30s"),
        (["--poll-interval=3_0"], "3_0"),
        (["--poll-interval= 30"], " 30"),
        (["--load-timeout=\uff13\uff10"], "\uff13\uff10"),
        (["--max-bandwidth=1_000"], "1_000"),
        (["--max-bandwidth=\u0663"], "\u0663"),
        (["--load-timeout=nan"], "nan"),
        (["--once", "--timeout=nan"], "nan"),
        (["--once", "--timeout=-5"], "-5"),
        (["--timeout=5"], "--timeout=5"),
        (["--max-bandwidth=nan"], "nan"),
        (["--max-bandwidth=-1"], "-1"),
        (["--max-bandwidth=10MB"], "10MB"),
        (["--parallelism=0"], "'0'"),
        (["--parallelism=33"], "33"),
        (["--num-versions=3"], "--num-versions=3"),
        (["--retain-versions=two"], "two"),
        (["--server-address=localhost"], "localhost"),
        (["--server-rest-address=localhost"], "localhost"),
        (["--server-rest-address=unix:/run/tf.sock"], "unix:/run/tf.sock"),
        (["--server-address=127.0.0.1:99999"], "99999"),
        (["--server-address=http://127.0.0.1:8500"], "http://127.0.0.1:8500"),
        (["--pubsub-endpoint=pubsub"], "pubsub"),
        (["--pubsub-subscription=uploads"], "uploads"),
        (["--endpoint=minio:9000"], "minio:9000"),
        (["--endpoint=https://:9000"], "https://:9000"),
        (["--endpoint=http://minio:99999"], "99999"),
        (["--region=eu west"], "eu west"),
        (["--azure-account=my_account"], "my_account"),
        (["--credentials-dir=/not/there"], "/not/there"),
        (["--complete-marker=variables"], "variables"),
        (["--complete-marker=saved_model.pb"], "saved_model.pb"),
        (["--complete-marker=a/b"], "a/b"),
        (["--complete-marker=.."], ".."),
        (["--complete-marker=._done"], "._done"),
        (["--model-name=a/b"], "a/b"),
        (["--model-name=.."], ".."),
        (["--model-name=.retained"], ".retained"),
        (["--target-file="], "--target-file"),
        (["--manifest-public-key="], "--manifest-public-key"),
        (["--complete-marker= "], "--complete-marker"),
        (["--region=\udcff"], "udcff"),
        (["--warmup-requests=\udcff"], "udcff"),
        (["--source-dir=/mnt"], "/mnt"),
        (["--log-format=xml"], "xml"),
        (["--interval=3"], "--interval=3"),
        (["--anonymous=yes"], "yes"),
        (["project"], "project"),
    ],
)
def test_every_bad_setting_is_one_line_that_names_the_value(
    arguments: list[str], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*POD, *arguments]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert not out
    assert line.startswith("model_poller: ")
    assert value in line


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TARGET_VERSION", "v2"),
        ("TARGET_VERSION", "2.0"),
        ("TARGET_VERSION", "latest"),
        ("SERVED_VERSIONS", "2;1"),
        ("QUARANTINED_VERSIONS", "3"),
        ("PUBSUB_EMULATOR_HOST", "localhost"),
    ],
)
@pytest.mark.parametrize("once", [False, True])
def test_every_bad_variable_is_named_with_its_value(variable: str, value: str, once: bool) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        parse([*POD, *(["--once"] if once else [])], {variable: value})
    assert variable in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "variable", "value"),
    [
        ("gs://models", "STORAGE_EMULATOR_HOST", "localhost:4443"),
        ("s3://models", "AWS_REGION", "eu west"),
        ("s3://models", "AWS_DEFAULT_REGION", "eu\nwest"),
        ("s3://models", "AWS_ENDPOINT_URL", "minio"),
        ("s3://models", "AWS_ENDPOINT_URL_S3", "minio:9000"),
        ("s3://models", "AWS_ENDPOINT_URL_STS", "sts.internal"),
        ("s3://models", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "169.254.169.254"),
        ("s3://models", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "/v1/credentials"),
        ("az://models", "AZURE_STORAGE_ACCOUNT_NAME", "My Account"),
        ("az://models", "AZURE_POD_IDENTITY_AUTHORITY_HOST", "127.0.0.1:2579"),
    ],
)
def test_variables_that_stand_for_options_are_read_as_these(
    uri: str, variable: str, value: str
) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        parse([*POD, f"--storage-uri={uri}"], {variable: value})
    assert str(caught.value).startswith(f"{variable}: {value!a}")


@pytest.mark.parametrize(
    "host", ["login.microsoftonline.us", "https://login.microsoftonline.us/", "http://127.0.0.1:1"]
)
def test_an_authority_of_azure_may_be_a_host_alone(host: str) -> None:
    assert parse([*POD, "--storage-uri=az://models"], {"AZURE_AUTHORITY_HOST": host})
    with pytest.raises(InvalidSettingsError, match="AZURE_AUTHORITY_HOST"):
        parse(
            [*POD, "--storage-uri=az://models"],
            {"AZURE_AUTHORITY_HOST": f"{host.rstrip(chr(47))}:x"},
        )


@pytest.mark.parametrize(
    ("uri", "given", "lacking"),
    [
        ("s3://models", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("s3://models", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        ("https://host/models", "HTTP_USERNAME", "HTTP_PASSWORD"),
        ("http://host/models", "HTTP_PASSWORD", "HTTP_USERNAME"),
    ],
)
def test_half_of_what_proves_who_asks_is_refused_without_a_word_of_it(
    uri: str, given: str, lacking: str
) -> None:
    arguments = [*POD, f"--storage-uri={uri}"]
    with pytest.raises(InvalidSettingsError, match=f"{given} is there without {lacking};") as told:
        parse(arguments, {given: "hidden"})
    assert "hidden" not in str(told.value)
    assert parse([*arguments, "--anonymous"], {given: "hidden"})
    assert parse(arguments, {given: "hidden", lacking: "hidden"})


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("REQUESTS_CA_BUNDLE", "/not/there", "/not/there"),
        ("REQUESTS_CA_BUNDLE", __file__, __file__),
        ("EXTRA_CA_FILE", "/not/there", "/not/there"),
        ("EXTRA_CA_FILE", __file__, "spec.poller.extraCAs"),
        ("HTTPS_PROXY", "proxy:99999", "HTTPS_PROXY names no proxy"),
    ],
)
def test_what_https_is_spoken_with_is_judged_at_the_start(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettingsError, match=told):
        parse(POD, {})
    assert parse([*POD, "--endpoint=http://127.0.0.1:9000"], {}).source.endpoint


def test_extra_authorities_are_judged_wherever_the_folder_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXTRA_CA_FILE", "/not/there")
    arguments = [*POD, "--endpoint=http://127.0.0.1:9000"]
    with pytest.raises(InvalidSettingsError, match="EXTRA_CA_FILE=/not/there"):
        parse(arguments, {"EXTRA_CA_FILE": "/not/there"})


def test_the_log_tells_as_much_as_is_asked_for() -> None:
    assert parse(POD, {}).log_level == "info"
    assert parse([*POD, "--log-level=debug"], {}).log_level == "debug"
    with pytest.raises(InvalidSettingsError, match="--log-level"):
        parse([*POD, "--log-level=loud"], {})


def test_a_secret_in_an_endpoint_is_not_shown() -> None:
    for endpoint in ("https://user:hunter2@store", "https://store/?sig=hunter2"):
        with pytest.raises(InvalidSettingsError, match="--endpoint") as caught:
            parse([*POD, f"--endpoint={endpoint}"], {})
        assert "hunter2" not in str(caught.value)


def test_values_at_the_edge_are_taken() -> None:
    chosen = parse(
        [
            *("--storage-uri=s3://models/m", "--models-dir=/m", "--model-name=m", "--http-port=0"),
            *("--poll-interval=0.2", "--load-timeout=31536000", "--max-bandwidth=0"),
            *("--parallelism=32", "--server-address=[::1]:65535", "--region=eu.central-1"),
            *("--endpoint=http://[::1]:9000/a@b", "--complete-marker=_SUCCESS"),
        ],
        {"TARGET_VERSION": "", "PUBSUB_EMULATOR_HOST": ""},
    )
    assert chosen.policy.load_timeout == 31536000
    assert parse([*POD, "--max-bandwidth=2.5e+8"], {}).fetch.bandwidth == 2.5e8
    assert parse([*POD, "--poll-interval=7", "--poll-interval=5."], {}).poll_interval == 5
    assert chosen.server_address == "[::1]:65535"
    assert chosen.server_rest_address == "127.0.0.1:8501"
    assert parse([*POD, "--server-address=unix:///run/tf.sock"], {}).server_address


def test_the_environments_target_is_served_also_without_a_file() -> None:
    arguments = [argument for argument in POD if not argument.startswith("--target-file")]
    assert not parse(arguments, {"TARGET_VERSION": "4"}).policy.follow_newest
    assert parse(arguments, {}).policy.follow_newest


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
