"""From the command line to open ports, or to an end that tells why."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest

from development_model_server.protos import TensorProto
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
    from pathlib import Path


def start(directory: Path, *arguments: str) -> ModelServer:
    return ModelServer(directory, [*QUICK, *arguments], wait=False)


def test_the_version_names_both_and_what_this_is() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "development_model_server", "--version", "--unknown"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": "devserver"},
        check=True,
    )
    first, second = result.stdout.splitlines()
    assert first.startswith("TensorFlow ModelServer: ")
    assert "development-model-server" in first
    assert second.startswith("TensorFlow Library: 2.")


def test_a_bad_value_prints_the_usage_and_ends_with_255(tmp_path: Path) -> None:
    with start(tmp_path, "--rest_api_timeout_in_ms=soon") as server:
        assert server.wait_for_exit() == 255
        assert server.output.startswith("usage: ")
        assert "Couldn't interpret value soon for flag rest_api_timeout_in_ms." in server.log


def test_an_unknown_argument_is_printed_and_the_server_starts(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    with start(tmp_path, f"--model_config_file={config}", "--no_such_flag=1", "x") as server:
        server.wait_until_listening()
        assert server.output.startswith("unknown argument: --no_such_flag=1\nusage: ")


def test_an_empty_list_of_models_opens_the_ports_at_once(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    with start(tmp_path, f"--model_config_file={config}") as server:
        server.wait_until_listening()
        assert server.rest("GET", "/v1/models/m").status == 404
        server.wait_for_log(f"Running gRPC ModelServer at 0.0.0.0:{server.grpc_port} ...")
        server.wait_for_log(f"Exporting HTTP/REST API at:localhost:{server.rest_port} ...")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["--port=0", "--model_base_path=/m"],
            "INVALID_ARGUMENT: At least one of server_options.grpc_port or"
            " server_options.grpc_socket_path must be set.",
        ),
        (
            [],
            "INVALID_ARGUMENT: Both server_options.model_base_path and"
            " server_options.model_config_file are empty!",
        ),
        (
            ["--model_base_path=/m", "--batching_parameters_file=/b"],
            "INVALID_ARGUMENT: server_options.batching_parameters_file is set without setting"
            " server_options.enable_batching to true.",
        ),
        (
            ["--model_base_path=m"],
            "INVALID_ARGUMENT: Expected model default to have an absolute path or URI; got"
            " base_path()=m",
        ),
        (
            ["--model_config_file=/no/such/file"],
            "NOT_FOUND: /no/such/file; No such file or directory",
        ),
        (
            [
                "--model_base_path=/m",
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ],
            "INVALID_ARGUMENT: Either configure server_options.tensorflow_session_parallelism or"
            " (server_options.tensorflow_intra_op_parallelism,"
            " server_options.tensorflow_inter_op_parallelism) separately. You cannot configure"
            " all.",
        ),
    ],
)
def test_contradicting_options_end_the_start(
    tmp_path: Path, arguments: list[str], error: str
) -> None:
    with start(tmp_path, *arguments) as server:
        assert server.wait_for_exit() == 255
        assert server.output == f"Failed to start server. Error: {error}\n"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (
            model_config_list('config { name: "m" base_path: "/m" }'),
            "INVALID_ARGUMENT: Illegal setting neither ModelServerConfig::model_type (deprecated)"
            " nor ModelServerConfig::model_platform, model name is m",
        ),
        (
            model_config_list('config { name: "m" base_path: "/m" model_platform: "torch" }'),
            "INVALID_ARGUMENT: Model m requests unsupported platform torch",
        ),
        (
            model_config_list(
                'config { name: "m" base_path: "/m" }', 'config { name: "m" base_path: "/n" }'
            ),
            "INVALID_ARGUMENT: Illegal to list model m multiple times in config list",
        ),
        (
            model_config_list(
                'config { name: "m" base_path: "/m" model_platform: "tensorflow"'
                ' version_labels { key: "stable" value: 1 } }'
            ),
            "FAILED_PRECONDITION: Request to assign label to version 1 of model m, which is not"
            " currently available for inference",
        ),
    ],
)
def test_a_wrong_model_config_ends_the_start(tmp_path: Path, config: str, error: str) -> None:
    file = tmp_path / "models.config"
    file.write_text(config)
    with start(tmp_path, f"--model_config_file={file}") as server:
        assert server.wait_for_exit() == 255
        assert server.output == f"Failed to start server. Error: {error}\n"


def test_a_model_config_that_is_none_is_told_with_its_type(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("improbable: true")
    with start(tmp_path, f"--model_config_file={file}") as server:
        assert server.wait_for_exit() == 255
        assert "Error parsing text-format tensorflow.serving.ModelServerConfig: " in server.log
        assert (
            f"Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '{file}'"
            in server.output
        )


def test_ports_stay_closed_until_a_first_version_is_there(models: Path, tmp_path: Path) -> None:
    base = tmp_path / "m"
    base.mkdir()
    with start(tmp_path / "server", "--model_name=m", f"--model_base_path={base}") as server:
        server.wait_for_log(f"No versions of servable m found under base path {base}.")
        assert not server.listening()
        publish(models / "half_plus_two", base, 1)
        server.wait_until_listening()
        assert server.states() == [(1, "AVAILABLE", "")]


def test_a_startup_model_that_fails_for_good_ends_the_server(tmp_path: Path) -> None:
    base = tmp_path / "m"
    (base / "3").mkdir(parents=True)
    with start(tmp_path / "server", "--model_name=m", f"--model_base_path={base}") as server:
        assert server.wait_for_exit() == 255
        assert server.output == (
            "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: "
            "{{{name: m version: 3} due to error: NOT_FOUND: Specified file path does not appear to"
            " contain a SavedModel bundle (should have a file called `saved_model.pb`)\nSpecified"
            f" file path: {base}/3}}, }}\n"
        )


def test_one_port_for_both_leaves_rest_out(models: Path, tmp_path: Path) -> None:
    publish(models / "half_plus_two", tmp_path / "m", 1)
    server = ModelServer.of(tmp_path, tmp_path / "m")
    server.rest_port = server.grpc_port
    with server:
        server.wait_for_log("server_options.http_port cannot be same as grpc_port.")
        assert server.predict().outputs["y"].float_val[0] == 2.5


def test_a_taken_port_ends_the_start(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    argument = f"--model_config_file={config}"
    with ModelServer(tmp_path / "first", [argument]) as first:
        second = ModelServer(tmp_path / "second", [argument], wait=False)
        second.grpc_port = first.grpc_port
        with second:
            assert second.wait_for_exit() == 255
            assert "INVALID_ARGUMENT: Failed to BuildAndStart gRPC server" in second.output


def test_sigterm_is_ignored_unless_asked_for(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    argument = f"--model_config_file={config}"
    with (
        ModelServer(tmp_path / "deaf", [argument]) as deaf,
        ModelServer(tmp_path / "polite", [argument, "--development_exit_on_sigterm"]) as polite,
    ):
        deaf.process.send_signal(signal.SIGTERM)
        polite.process.send_signal(signal.SIGTERM)
        assert polite.wait_for_exit() == 0
        assert deaf.rest("GET", "/v1/models/m").status == 404


def test_tensor_content_and_method_names_are_checked_when_asked_for(
    models: Path, tmp_path: Path
) -> None:
    publish(models / "half_plus_three", tmp_path / "m", 1)
    publish(models / "half_plus_two", tmp_path / "examples", 1)
    config = tmp_path / "models.config"
    config.write_text(
        model_config_list(
            single_model_config("m", tmp_path / "m"),
            single_model_config("examples", tmp_path / "examples"),
        )
    )
    arguments = [
        f"--model_config_file={config}",
        "--enable_serialization_as_tensor_content",
        "--enable_signature_method_name_check",
    ]
    with ModelServer(tmp_path / "server", arguments) as server:
        output = server.predict().outputs["y"]
        assert (output.tensor_content, list(output.float_val)) == (b"\x00\x00\x60\x40", [])
        answer = server.post(
            "/v1/models/examples:classify",
            {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}]},
        )
        assert answer.error == (
            "Expected classification signature method_name to be tensorflow/serving/classify. Was:"
            " tensorflow/serving/regress"
        )


def certificate(directory: Path) -> tuple[str, str]:
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return key.read_text(), cert.read_text()


def test_grpc_speaks_tls_where_configured_and_rest_does_not(models: Path, tmp_path: Path) -> None:
    publish(models / "half_plus_two", tmp_path / "m", 1)
    key, cert = certificate(tmp_path)
    ssl = tmp_path / "ssl.config"
    quoted = {name: text.replace("\n", "\\n") for name, text in (("key", key), ("cert", cert))}
    ssl.write_text(f'server_key: "{quoted["key"]}" server_cert: "{quoted["cert"]}"')
    with ModelServer.of(tmp_path / "server", tmp_path / "m", f"--ssl_config_file={ssl}") as server:
        request = predict_request()
        request.inputs["x"].CopyFrom(floats(1.0))
        credentials = grpc.ssl_channel_credentials(cert.encode())
        with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
            response = type(server.prediction)(channel).Predict(request, timeout=30)
        assert response.outputs["y"].float_val[0] == 2.5
        with pytest.raises(grpc.RpcError):
            server.prediction.Predict(request, timeout=5)
        assert server.rest("GET", "/v1/models/m").status == 200


def test_the_monitoring_config_is_read_with_rest_alone(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    broken = tmp_path / "monitoring.config"
    broken.write_text("prometheus { }")
    with start(
        tmp_path, f"--model_config_file={config}", f"--monitoring_config_file={broken}"
    ) as server:
        assert server.wait_for_exit() == 255
        assert f"INVALID_ARGUMENT: Invalid protobuf file: '{broken}'" in server.output


def test_too_many_calls_at_once_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    arguments = [f"--model_config_file={config}", "--grpc_max_threads=1"]
    with ModelServer(tmp_path, arguments) as server:
        (tmp_path / "empty").mkdir()
        from google.protobuf import text_format

        from development_model_server.protos import ReloadConfigRequest

        # A new model without a version: the reload waits, and holds the only thread.
        request = ReloadConfigRequest()
        text_format.Parse(
            model_config_list(single_model_config("empty", tmp_path / "empty")), request.config
        )
        waiting = server.models.HandleReloadConfigRequest.future(request, timeout=60)
        server.wait_for_log("(Re-)adding model: empty")

        def refused() -> bool:
            with pytest.raises(grpc.RpcError) as caught:
                server.predict("empty")
            return (caught.value.code(), caught.value.details()) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "Server Threadpool Exhausted",
            )

        eventually(refused, what="a refusal")
        waiting.cancel()


def test_a_request_ends_at_its_deadline(models: Path, tmp_path: Path) -> None:
    publish(models / "shapes", tmp_path / "m", 1)
    with ModelServer.of(
        tmp_path / "server", tmp_path / "m", "--rest_api_timeout_in_ms=200"
    ) as server:
        body = {"signature_name": "count", "inputs": 10**12}
        answer = server.post("/v1/models/m:predict", body)
        assert answer.status == 504
        assert server.post("/v1/models/m:predict", {**body, "inputs": 5}).json == {"outputs": 5}
        request = predict_request(signature="count")
        request.inputs["rounds"].CopyFrom(TensorProto(dtype=9, int64_val=[10**12]))
        with pytest.raises(grpc.RpcError) as caught:
            server.prediction.Predict(request, timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # The session let go of it: the only other way to an answer would be to wait for it.
        assert server.post("/v1/models/m:predict", {**body, "inputs": 6}).json == {"outputs": 6}
