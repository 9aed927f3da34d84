"""Versions and configurations that change while a real server runs."""

from __future__ import annotations

import re
import shutil
import struct
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from development_model_server import protos
from development_model_server.warmup import REQUESTS_FILE, masked_crc32c
from tests.support.waiting import eventually
from tests.unit.devserver.harness import (
    QUICK,
    ModelServer,
    floats,
    model_config_list,
    predict_request,
    publish,
    single_model_config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A server without models; each test brings its own, with names of its own."""
    directory = tmp_path_factory.mktemp("server")
    config = directory / "models.config"
    config.write_text("model_config_list {}")
    with ModelServer(
        directory,
        [
            f"--model_config_file={config}",
            "--allow_version_labels_for_unavailable_models",
            *QUICK,
        ],
    ) as server:
        yield server


def answer(server: ModelServer, model: str, **spec: Any) -> float:
    return float(server.predict(model, **spec).outputs["y"].float_val[0])


def test_a_new_version_takes_over_without_a_failed_request(
    server: ModelServer, models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "takeover"
    publish(models / "half_plus_two", base, 1)
    server.reload(model_config_list(single_model_config("takeover", base)))
    answers: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(answer(server, "takeover"))

    client = threading.Thread(target=ask)
    client.start()
    try:
        publish(models / "slow_to_load", base, 2)
        server.wait_for_states((2, "LOADING"), (1, "AVAILABLE"), model="takeover")
        before = len(answers)
        server.wait_for_states((2, "AVAILABLE"), (1, "END"), model="takeover")
        eventually(lambda: answers[-1] == 4.5, what="answers of version 2")
    finally:
        stop.set()
        client.join(30)
    assert set(answers) == {2.5, 4.5}
    assert answers == sorted(answers)
    assert answers[before] == 2.5


def test_a_broken_version_leaves_the_old_one_and_its_error(
    server: ModelServer, models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "broken"
    publish(models / "half_plus_two", base, 1)
    server.reload(model_config_list(single_model_config("broken", base)))
    (base / "2").write_text("a file")
    server.wait_for_states((2, "END"), (1, "AVAILABLE"), model="broken")
    (error,) = [message for _, state, message in server.states("broken") if state == "END"]
    assert error == (
        "Error while attempting to reserve resources to load servable {name: broken version: 2}:"
        f" {base}/2; Not a directory"
    )
    status = server.rest("GET", "/v1/models/broken").json["model_version_status"][0]["status"]
    assert status["error_code"] == "FAILED_PRECONDITION"
    assert answer(server, "broken") == 2.5

    truncated = shutil.copytree(models / "half_plus_two", tmp_path / "truncated")
    (truncated / "saved_model.pb").write_bytes(b"\x00broken")
    publish(truncated, base, 3)
    server.wait_for_states((3, "END"), (2, "END"), (1, "AVAILABLE"), model="broken")
    assert "saved_model.pb" in server.states("broken")[0][2]

    publish(models / "half_plus_three", base, 4)
    server.wait_for_states((4, "AVAILABLE"), (3, "END"), (2, "END"), (1, "END"), model="broken")
    assert server.states("broken")[3][2] == ""


def test_without_any_folder_left_a_model_is_unloaded(
    server: ModelServer, models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "unloaded"
    folder = publish(models / "half_plus_two", base, 1)
    server.reload(model_config_list(single_model_config("unloaded", base)))
    assert server.rest("GET", "/v1/models/unloaded/metadata").status == 200
    shutil.rmtree(folder)
    server.wait_for_states((1, "END"), model="unloaded")
    assert server.rest("GET", "/v1/models/unloaded").status == 200
    assert server.rest("GET", "/v1/models/unloaded/metadata").status == 404
    publish(models / "half_plus_two", base, 1)
    server.wait_for_states((1, "AVAILABLE"), model="unloaded")


def test_a_partial_copy_loads_without_its_variables(
    server: ModelServer, models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "partial"
    partial = shutil.copytree(models / "half_plus_two", tmp_path / "copy")
    shutil.rmtree(partial / "variables")
    publish(partial, base, 1)
    server.reload(model_config_list(single_model_config("partial", base)))
    assert server.states("partial") == [(1, "AVAILABLE", "")]
    with pytest.raises(grpc.RpcError) as caught:
        answer(server, "partial")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_version_policies_choose_what_is_served(
    server: ModelServer, models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "policies"
    for version in (1, 2, 3):
        publish(models / "half_plus_three", base, version)

    def apply(policy: str) -> None:
        server.reload(
            model_config_list(
                single_model_config("policies", base, f"model_version_policy {{ {policy} }}")
            )
        )

    apply("latest { num_versions: 2 }")
    server.wait_for_states((3, "AVAILABLE"), (2, "AVAILABLE"), model="policies")
    apply("all {}")
    server.wait_for_states((3, "AVAILABLE"), (2, "AVAILABLE"), (1, "AVAILABLE"), model="policies")
    assert server.predict("policies").model_spec.version.value == 3
    apply("specific { versions: 1 versions: 2 }")
    server.wait_for_states((3, "END"), (2, "AVAILABLE"), (1, "AVAILABLE"), model="policies")
    assert server.predict("policies").model_spec.version.value == 2
    assert server.predict("policies", version=1).model_spec.version.value == 1
    with pytest.raises(grpc.RpcError, match=r"Specific\(policies, 3\)"):
        server.predict("policies", version=3)


def test_labels_name_versions(server: ModelServer, models: Path, tmp_path: Path) -> None:
    base = tmp_path / "labels"
    publish(models / "half_plus_two", base, 1)
    publish(models / "half_plus_three", base, 2)

    def apply(policy: str, **labels: int) -> None:
        entries = "".join(
            f' version_labels {{ key: "{label}" value: {version} }}'
            for label, version in labels.items()
        )
        rest = f"model_version_policy {{ {policy} }} {entries}"
        server.reload(model_config_list(single_model_config("labels", base, rest)))

    apply("all {}", stable=1, canary=2)
    server.wait_for_states((2, "AVAILABLE"), (1, "AVAILABLE"), model="labels")
    assert answer(server, "labels", label="stable") == 2.5
    assert answer(server, "labels", label="canary") == 3.5
    body = {"instances": [1.0]}
    assert server.post("/v1/models/labels/labels/stable:predict", body).json == {
        "predictions": [2.5]
    }
    # A bound label can't be moved to what isn't available, and nothing of that config is applied.
    with pytest.raises(grpc.RpcError) as caught:
        apply("specific { versions: 2 }", stable=9)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == (
        "Request to assign label to version 9 of model labels, which is not currently available for"
        " inference"
    )
    assert answer(server, "labels", label="stable") == 2.5
    # A label stays bound when its version leaves.
    apply("specific { versions: 2 }", stable=1, canary=2)
    server.wait_for_states((2, "AVAILABLE"), (1, "END"), model="labels")
    with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Specific\(labels, 1"):
        answer(server, "labels", label="stable")
    # A new label may name what isn't available yet: the server's flag allows it.
    apply("specific { versions: 2 }", canary=2, future=7)
    with pytest.raises(grpc.RpcError, match=r"Specific\(labels, 7\)"):
        answer(server, "labels", label="future")
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: stable"):
        answer(server, "labels", label="stable")


def test_a_reload_tells_what_failed_and_stays_in_force(
    server: ModelServer, models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "reload"
    (base / "1").mkdir(parents=True)
    config = model_config_list(single_model_config("reload", base))
    with pytest.raises(grpc.RpcError) as caught:
        server.reload(config)
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert (caught.value.details() or "").startswith(
        "1 model(s) did not become available: {{{name: reload version: 1} due to error: NOT_FOUND:"
        " Specified file path does not appear to contain a SavedModel bundle"
    )
    assert server.reload(config).status.error_code == 0
    assert server.states("reload")[0][:2] == (1, "END")
    publish(models / "half_plus_two", base, 2)
    server.wait_for_states((2, "AVAILABLE"), (1, "END"), model="reload")


def test_a_reload_drops_the_models_it_does_not_list(
    server: ModelServer, models: Path, tmp_path: Path
) -> None:
    for name in ("kept", "dropped"):
        publish(models / "half_plus_two", tmp_path / name, 1)
    both = [single_model_config(name, tmp_path / name) for name in ("kept", "dropped")]
    server.reload(model_config_list(*both))
    server.reload(model_config_list(both[0]))
    server.wait_for_states((1, "END"), model="dropped")
    assert server.states("kept") == [(1, "AVAILABLE", "")]


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        (
            "",
            "INVALID_ARGUMENT",
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
            " ModelConfigList is currently supported",
        ),
        (
            model_config_list('config { name: "x" base_path: "x" model_platform: "tensorflow" }'),
            "INVALID_ARGUMENT",
            "Expected model x to have an absolute path or URI; got base_path()=x",
        ),
    ],
)
def test_a_config_that_is_refused_changes_nothing(
    server: ModelServer, models: Path, tmp_path: Path, config: str, code: str, message: str
) -> None:
    publish(models / "half_plus_two", tmp_path / "m", 1)
    server.reload(model_config_list(single_model_config("unchanged", tmp_path / "m")))
    with pytest.raises(grpc.RpcError) as caught:
        server.reload(config)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode[code], message)
    assert answer(server, "unchanged") == 2.5


def test_a_reload_tells_how_metrics_grew(server: ModelServer, models: Path, tmp_path: Path) -> None:
    publish(models / "half_plus_two", tmp_path / "m", 1)
    request = protos.ReloadConfigRequest(
        metric_names=["/tensorflow/serving/request_count", "/no/such/metric"]
    )
    model = request.config.model_config_list.config.add()
    model.name, model.base_path, model.model_platform = "metrics", str(tmp_path / "m"), "tensorflow"
    response = server.models.HandleReloadConfigRequest(request, timeout=30)
    assert {metric.name: metric.int64_value_increase for metric in response.metric} == {
        "/tensorflow/serving/request_count": 0,
        "/no/such/metric": 0,
    }


def test_the_config_file_is_read_again(models: Path, tmp_path: Path) -> None:
    for model in ("half_plus_two", "half_plus_three"):
        publish(models / model, tmp_path / model, 1)
    config = tmp_path / "models.config"
    config.write_text(
        model_config_list(single_model_config("half_plus_two", tmp_path / "half_plus_two"))
    )
    arguments = [
        f"--model_config_file={config}",
        "--model_config_file_poll_wait_seconds=1",
        *QUICK,
    ]
    with ModelServer(tmp_path / "server", arguments) as server:
        assert answer(server, "half_plus_two") == 2.5
        config.write_text("model_config_list {")
        server.wait_for_log(
            f"Failed to read ModelServerConfig file: Invalid protobuf file: '{config}'"
        )
        assert answer(server, "half_plus_two") == 2.5
        config.write_text(
            model_config_list(single_model_config("half_plus_three", tmp_path / "half_plus_three"))
        )
        server.wait_for_states((1, "AVAILABLE"), model="half_plus_three")
        server.wait_for_states((1, "END"), model="half_plus_two")


# -- Warm-up --------------------------------------------------------------------------------


def record(data: bytes) -> bytes:
    header = struct.pack("<Q", len(data))
    return b"".join(
        (
            header,
            struct.pack("<I", masked_crc32c(header)),
            data,
            struct.pack("<I", masked_crc32c(data)),
        )
    )


def with_warmup(model: Path, directory: Path, content: bytes) -> Path:
    copy = shutil.copytree(model, directory / "with_warmup")
    (copy / REQUESTS_FILE).parent.mkdir()
    (copy / REQUESTS_FILE).write_bytes(content)
    return copy


def predict_log(model: str = "m", signature: str = "") -> bytes:
    log = protos.PredictionLog()
    request = predict_request(model, signature=signature)
    request.inputs["x"].CopyFrom(floats(1.0))
    log.predict_log.request.CopyFrom(request)
    serialized: bytes = log.SerializeToString()
    return serialized


def test_warm_up_requests_run_before_a_version_is_available(
    server: ModelServer, models: Path, tmp_path: Path
) -> None:
    model = with_warmup(models / "half_plus_two", tmp_path, record(predict_log()) * 3)
    path = publish(model, tmp_path / "warm", 1)
    server.reload(model_config_list(single_model_config("warm", tmp_path / "warm")))
    server.wait_for_log(
        f"Finished reading warmup data for model at {path}/{REQUESTS_FILE}. Number of warmup"
        " records read: 3."
    )


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"this is no TFRecord file", "Please verify your warmup data is in TFRecord format."),
        (record(predict_log())[:-1], "Please verify your warmup data is in TFRecord format."),
        (record(b"\xff"), "Failed to parse warmup record: "),
        (
            record(predict_log(signature="nope")),
            'Serving signature key "nope" not found.',
        ),
        (record(predict_log()) * 1001, "Number of warmup records exceeds the maximum (1000) at "),
        (
            record(b"\x2a\x00"),  # an empty session_run_log
            "Unsupported log_type for warmup: 5",
        ),
    ],
)
def test_a_warm_up_that_fails_fails_the_load(
    server: ModelServer,
    models: Path,
    tmp_path: Path,
    content: bytes,
    error: str,
    request: pytest.FixtureRequest,
) -> None:
    name = f"cold{abs(hash(request.node.name))}"
    model = with_warmup(models / "half_plus_two", tmp_path, content)
    publish(model, tmp_path / "cold", 1)
    with pytest.raises(grpc.RpcError):
        server.reload(model_config_list(single_model_config(name, tmp_path / "cold")))
    ((version, state, message),) = server.states(name)
    assert (version, state) == (1, "END")
    assert error in message


# -- Batching -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batching_server(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    directory = tmp_path_factory.mktemp("batching")
    publish(models / "half_plus_two", directory / "m", 1)
    publish(models / "shapes", directory / "shapes", 1)
    parameters = directory / "batching.config"
    parameters.write_text(
        "max_batch_size { value: 4 } batch_timeout_micros { value: 100000 }"
        " max_enqueued_batches { value: 2 } num_batch_threads { value: 1 }"
        " allowed_batch_sizes: 2 allowed_batch_sizes: 4"
    )
    config = directory / "models.config"
    config.write_text(
        model_config_list(
            single_model_config("m", directory / "m"),
            single_model_config("shapes", directory / "shapes"),
        )
    )
    monitoring = directory / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    arguments = [
        f"--model_config_file={config}",
        "--enable_batching=true",
        f"--batching_parameters_file={parameters}",
        f"--monitoring_config_file={monitoring}",
        "--grpc_max_threads=16",
    ]
    with ModelServer(directory, arguments) as server:
        yield server


def runs(server: ModelServer) -> int:
    page = server.rest("GET", "/monitoring/prometheus/metrics").body.decode()
    name = ":tensorflow:serving:batching_session:wrapped_run_count{} "
    return next((int(line.removeprefix(name)) for line in page.splitlines() if name in line), 0)


def test_concurrent_requests_run_as_one(batching_server: ModelServer) -> None:
    before = runs(batching_server)
    calls = []
    for x in (1.0, 2.0, 3.0, 4.0):
        request = predict_request()
        request.inputs["x"].CopyFrom(floats(x))
        calls.append(batching_server.prediction.Predict.future(request, timeout=30))
    answers = [call.result().outputs["y"].float_val[0] for call in calls]
    assert answers == [2.5, 3.0, 3.5, 4.0]
    assert runs(batching_server) - before < len(calls)


def sums(server: ModelServer, name: str) -> dict[str, tuple[float, int]]:
    """Sum and count of a batching metric, by its labels."""
    page = server.rest("GET", "/monitoring/prometheus/metrics").body.decode()
    found = {
        (kind, labels): float(value)
        for kind, labels, value in re.findall(
            rf"^:tensorflow:serving:batching_session:{name}_(sum|count){{(.*)}} (\S+)$", page, re.M
        )
    }
    return {
        labels: (total, int(found["count", labels]))
        for (kind, labels), total in found.items()
        if kind == "sum"
    }


def test_sizes_of_batches_are_counted(batching_server: ModelServer) -> None:
    names = ("input_batch_size", "processed_batch_size", "padding_size")
    before = {name: sums(batching_server, name) for name in names}
    batching_server.post("/v1/models/m:predict", {"instances": [1.0, 2.0, 3.0]})
    after = {name: sums(batching_server, name) for name in names}

    def more(name: str, labels: str = "") -> tuple[float, int]:
        total, count = after[name][labels]
        total_before, count_before = before[name].get(labels, (0.0, 0))
        return total - total_before, count - count_before

    assert more("input_batch_size") == (3.0, 1)
    assert more("processed_batch_size") == (4.0, 1)
    assert more("padding_size", 'execution_batch_size="4"') == (1.0, 1)
    page = batching_server.rest("GET", "/monitoring/prometheus/metrics").body.decode()
    assert ':batching_session:input_batch_size_bucket{le="8192"}' in page


def test_a_lone_request_is_padded_and_cut_back(batching_server: ModelServer) -> None:
    assert batching_server.post("/v1/models/m:predict", {"instances": [1.0]}).json == {
        "predictions": [2.5]
    }
    body = {"signature_name": "text", "instances": ["a", "b", "c"]}
    assert batching_server.post("/v1/models/shapes:predict", body).json == {
        "predictions": ["a", "b", "c"]
    }


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            {"instances": [1.0] * 5},
            "Task size 5 is larger than maximum input batch size 4",
        ),
        (
            {"inputs": 1.0},
            "Batching Run() input tensors must have at least one dimension",
        ),
        (
            {"signature_name": "pair", "inputs": {"number": [1], "text": ["a", "b"]}},
            "Batching Run() input tensors must have equal 0th-dimension size",
        ),
        (
            {"signature_name": "uneven", "inputs": [1.0]},
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension"
            " sizes of the input tensors",
        ),
        (
            {"signature_name": "scalar", "inputs": [1.0]},
            "Batched output tensor has 0 dimensions",
        ),
    ],
)
def test_what_cannot_be_batched_is_refused(
    batching_server: ModelServer, body: dict[str, object], error: str
) -> None:
    model = "shapes" if "signature_name" in body else "m"
    answer = batching_server.post(f"/v1/models/{model}:predict", body)
    assert (answer.status, answer.error) == (400, error)


def test_batch_sizes_that_end_elsewhere_fail_the_load(models: Path, tmp_path: Path) -> None:
    publish(models / "half_plus_two", tmp_path / "m", 1)
    parameters = tmp_path / "batching.config"
    parameters.write_text("max_batch_size { value: 8 } allowed_batch_sizes: 4")
    server = ModelServer.of(
        tmp_path / "server",
        tmp_path / "m",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
    )
    server.wait = False
    with server:
        assert server.wait_for_exit() == 255
        assert (
            "due to error: INVALID_ARGUMENT: Last entry in allowed_batch_sizes must match"
            " max_batch_size; last entry was 4; expected 8}, }" in server.output
        )


def test_per_model_parameters_batch_only_the_models_that_have_them(
    models: Path, tmp_path: Path
) -> None:
    batched = shutil.copytree(models / "half_plus_two", tmp_path / "copy")
    (batched / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    publish(batched, tmp_path / "batched", 1)
    publish(models / "half_plus_two", tmp_path / "plain", 1)
    config = tmp_path / "models.config"
    config.write_text(
        model_config_list(
            single_model_config("batched", tmp_path / "batched"),
            single_model_config("plain", tmp_path / "plain"),
        )
    )
    arguments = [
        f"--model_config_file={config}",
        "--enable_batching",
        "--enable_per_model_batching_parameters",
    ]
    with ModelServer(tmp_path / "server", arguments) as server:
        body = {"instances": [1.0, 2.0, 3.0]}
        assert server.post("/v1/models/plain:predict", body).json == {
            "predictions": [2.5, 3.0, 3.5]
        }
        refused = server.post("/v1/models/batched:predict", body)
        assert refused.error == "Task size 3 is larger than maximum input batch size 2"


def test_request_logging_is_refused_after_the_models_are_taken(
    server: ModelServer, models: Path, tmp_path: Path
) -> None:
    publish(models / "half_plus_two", tmp_path / "m", 1)
    rest = "logging_config { sampling_config { sampling_rate: 1 } }"
    with pytest.raises(grpc.RpcError, match=r"No request-logger-creator provided\."):
        server.reload(model_config_list(single_model_config("logged", tmp_path / "m", rest)))
    assert answer(server, "logged") == 2.5
