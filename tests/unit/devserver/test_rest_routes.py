"""REST beside Predict: routes, status, metadata, examples, CORS, metrics."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.devserver.harness import ModelServer, publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METRICS = "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    directory = tmp_path_factory.mktemp("server")
    publish(models / "half_plus_two", directory / "m", "00000123")
    monitoring = directory / "monitoring.config"
    monitoring.write_text(f'prometheus_config {{ enable: true, path: "{METRICS}" }}')
    arguments = (f"--monitoring_config_file={monitoring}", "--rest_api_enable_cors_support")
    with ModelServer.of(directory, directory / "m", *arguments) as server:
        yield server


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/v1/models/m"),
        ("PUT", "/v1/models/m"),
        ("DELETE", "/v1/models/m"),
        ("GET", "/v1/models/m:predict"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m:explain"),
        ("GET", "/v1/models/m/versions/1/labels/a"),
        ("GET", "/v1/models/m/versions/x"),
        ("GET", "/v1/"),
        ("GET", "/v1/something"),
        ("POST", "/v1/models/m:predict?x=1"),
    ],
)
def test_what_is_no_route_is_malformed(server: ModelServer, method: str, path: str) -> None:
    answer = server.rest(method, path)
    assert answer.status == 400
    if method != "HEAD":
        assert answer.error == f"Malformed request: {method} {path}"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/metadata", 404, "Could not find any versions of model metadata"),
        ("/v1/models/m?x=1", 404, "Could not find any versions of model m?x=1"),
        ("/v1/models/a%2Fb%3A", 404, "Could not find any versions of model a/b:"),
        ("/v1/models/m/versions/5", 404, "Could not find version 5 of model m"),
        (
            "/v1/models/m/versions/9223372036854775808",
            400,
            "Failed to convert version: 9223372036854775808 to numeric.",
        ),
        (
            "/v1/models/nope/metadata",
            404,
            "Servable not found for request: Latest(nope)",
        ),
        (
            "/v1/models/m/versions/5/metadata",
            404,
            "Servable not found for request: Specific(m, 5)",
        ),
    ],
)
def test_what_is_not_there_is_told(server: ModelServer, path: str, status: int, error: str) -> None:
    answer = server.rest("GET", path)
    assert (answer.status, answer.error) == (status, error)


def test_outside_of_the_api_the_answer_is_html(server: ModelServer) -> None:
    answer = server.rest("GET", "/metrics")
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "text/html"
    assert b"<TITLE>404 Not Found</TITLE>" in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/m",
        "/V1/MODELS/m",
        "/v1/models/m/versions/123",
        "/v1/models/m/versions/00123",
        "/v1/models/m/labels/anything",
    ],
)
def test_status_lists_versions(server: ModelServer, path: str) -> None:
    answer = server.rest("GET", path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {
        "model_version_status": [
            {
                "version": "123",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }


def test_metadata_tells_every_signature(server: ModelServer) -> None:
    answer = server.rest("GET", "/v1/models/m/metadata").json
    assert answer["model_spec"] == {"name": "m", "signature_name": "", "version": "123"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert sorted(signatures) == [
        "classify_labelled",
        "classify_x_to_y",
        "regress_x_to_y",
        "regress_x_to_y2",
        "serving_default",
    ]
    dimensions = [{"size": "-1", "name": ""}, {"size": "1", "name": ""}]
    assert signatures["serving_default"] == {
        "inputs": {
            "x": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": dimensions, "unknown_rank": False},
                "name": "x:0",
            }
        },
        "outputs": {
            "y": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": dimensions, "unknown_rank": False},
                "name": "y:0",
            }
        },
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


def classify(server: ModelServer, **body: Any) -> Any:
    return server.post("/v1/models/m:classify", body)


def test_classify_answers_labels_and_scores(server: ModelServer) -> None:
    examples = [{"x": 2.0}, {"x": [4.0]}]
    answer = classify(server, signature_name="classify_x_to_y", examples=examples)
    assert answer.json == {"results": [[["", 3.0]], [["", 4.0]]]}
    answer = classify(server, signature_name="classify_labelled", examples=examples[:1])
    assert answer.json == {"results": [[["small", 3.0]]]}


def test_regress_answers_values(server: ModelServer) -> None:
    answer = server.post(
        "/v1/models/m:regress",
        {"signature_name": "regress_x_to_y2", "context": {"x": 2.0}, "examples": [{}, {"x": 4.0}]},
    )
    assert answer.json == {"results": [4.0, 5.0]}
    assert answer.body == b'{\n    "results": [4.0, 5.0]\n}'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            {},
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
        ),
        (
            {"examples": 1},
            "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array",
        ),
        (
            {"examples": []},
            "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array",
        ),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        (
            {"examples": [{"x": None}]},
            "Feature: x has element with unexpected JSON type: Null",
        ),
        (
            {"examples": [{"x": [1, 2.0]}]},
            "Unexpected element type in feature: x expecting type: int64",
        ),
        (
            {"examples": [{"x": 2**63}]},
            "Feature: x has uint64_t element. Only int64_t is supported.",
        ),
        (
            {"signature_name": "nope", "examples": [{"x": 1.0}]},
            "No signature was found with the name: nope",
        ),
        (
            {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}]},
            'Expected classification signature outputs to contain at least one of "classes" or',
        ),
    ],
)
def test_wrong_examples_are_told_what_is_wrong(
    server: ModelServer, body: dict[str, Any], error: str
) -> None:
    answer = classify(server, **body)
    assert answer.status == 400
    assert answer.error.startswith(error)


def test_an_integer_is_no_float_feature(server: ModelServer) -> None:
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2}]}
    answer = server.post("/v1/models/m:regress", body)
    assert answer.status == 400
    assert "Data types don't match. Data type: int64 but expected type: float" in answer.error


def test_cors_headers_are_sent_when_asked_for(server: ModelServer) -> None:
    answer = server.rest("OPTIONS", "/v1/models/m", headers={"Origin": "https://example.com"})
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Methods"] == "POST, GET"
    assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type"
    answer = server.rest("OPTIONS", "/v1/models/m")
    assert (answer.status, answer.body) == (400, b"")
    assert "Access-Control-Allow-Origin" in server.rest("GET", "/v1/models/m").headers


def test_metrics_have_tensorflow_servings_names(server: ModelServer) -> None:
    server.post("/v1/models/m:predict", {"instances": [1.0]})
    server.rest("GET", '/v1/models/un"known')
    answer = server.rest("GET", METRICS)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain"
    lines = answer.body.decode().splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert "# TYPE :tensorflow:serving:request_latency histogram" in lines
    assert "# TYPE :tensorflow:serving:batching_session:queuing_latency histogram" in lines
    assert any(
        line.startswith(':tensorflow:serving:request_count{model_name="m",status="OK"} ')
        for line in lines
    )
    unknown = ':tensorflow:serving:request_count{model_name="un\\"known",status="NOT_FOUND"} 1'
    assert unknown in lines
    latency = ':tensorflow:serving:request_latency_bucket{model_name="m",API="predict"'
    buckets = [line for line in lines if line.startswith(f'{latency},entrypoint="REST",le="')]
    assert [bucket.split('le="')[1].split('"')[0] for bucket in buckets[:4]] == [
        "10",
        "18",
        "32.4",
        "58.32",
    ]
    assert len(buckets) == 34
    assert 'le="+Inf"' in buckets[-1]
    path = server.directory / "m" / "00000123"
    assert (
        f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{path}",status="success"}} 1'
        in lines
    )
    assert any(line.startswith(":development_model_server:info{version=") for line in lines)


def test_the_metrics_path_takes_no_query(server: ModelServer) -> None:
    answer = server.rest("GET", f"{METRICS}?x=1")
    assert answer.status == 400
    assert answer.body.decode() == f"Unexpected path: {METRICS}?x=1. Should be {METRICS}"


def raw(server: ModelServer, request: bytes) -> bytes:
    """The whole answer to bytes that need be no request."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize("authority", ["http://elsewhere", "HTTP://a:1"])
@pytest.mark.parametrize(
    ("path", "status"), [("/v1/models/m", b"200 OK"), ("", b"404 Not Found"), (METRICS, b"200 OK")]
)
def test_an_absolute_target_is_taken_whatever_its_host(
    server: ModelServer, authority: str, path: str, status: bytes
) -> None:
    request = f"GET {authority}{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert raw(server, request.encode()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    "request_", [b"no request\r\n\r\n", b"GET / HTTP/1.1\r\nbroken\r\n\r\n", b"GET / x\r\n\r\n"]
)
def test_what_is_no_request_is_answered_with_a_page_of_the_servers_own(
    server: ModelServer, request_: bytes
) -> None:
    answer = raw(server, request_)
    head, _, page = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert b"<TITLE>400 Bad Request</TITLE>" in page
    assert b"aiohttp" not in answer
    assert b"Python" not in answer
    assert b"Server: development-model-server/" in head
