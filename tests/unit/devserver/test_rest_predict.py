"""Predict over REST: rows, columns, types, bytes, and what goes wrong."""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.devserver.harness import (
    ModelServer,
    model_config_list,
    publish,
    single_model_config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    directory = tmp_path_factory.mktemp("server")
    publish(models / "half_plus_two", directory / "m", 123)
    publish(models / "shapes", directory / "shapes", 1)
    config = directory / "models.config"
    config.write_text(
        model_config_list(
            single_model_config("m", directory / "m"),
            single_model_config("shapes", directory / "shapes"),
        )
    )
    with ModelServer(directory, [f"--model_config_file={config}"]) as server:
        yield server


def predict(server: ModelServer, signature: str, **body: Any) -> Any:
    return server.post("/v1/models/shapes:predict", {"signature_name": signature, **body}).json


def test_rows_come_back_as_rows_in_rapidjsons_layout(server: ModelServer) -> None:
    answer = server.post("/v1/models/m:predict", {"instances": [1.0, 2.0, 5.0]})
    assert answer.status == 200
    assert answer.body == b'{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'
    assert answer.headers["Content-Type"] == "application/json"


def test_columns_come_back_as_columns(server: ModelServer) -> None:
    answer = server.post("/v1/models/m:predict", {"inputs": [[1.0], [2.0]]})
    assert answer.body == (
        b'{\n    "outputs": [\n        [\n            2.5\n        ],\n        [\n'
        b"            3.0\n        ]\n    ]\n}"
    )


def test_the_server_says_that_it_is_for_development(server: ModelServer) -> None:
    answer = server.rest("GET", "/v1/models/m")
    assert answer.headers["Server"].startswith("development-model-server/")


def test_a_version_in_the_path_may_have_leading_zeros(server: ModelServer) -> None:
    for version in ("123", "00123"):
        answer = server.post(f"/v1/models/m/versions/{version}:predict", {"instances": [2]})
        assert answer.json == {"predictions": [3.0]}


def test_a_matrix_keeps_its_shape(server: ModelServer) -> None:
    rows = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    halved = [[[2.5, 3.0], [3.5, 4.0]], [[4.5, 5.0], [5.5, 6.0]]]
    assert predict(server, "matrix", instances=rows) == {"predictions": halved}
    assert predict(server, "matrix", instances=[{"x": rows[0]}, {"x": rows[1]}]) == {
        "predictions": halved
    }
    assert predict(server, "matrix", inputs=rows) == {"outputs": halved}
    assert predict(server, "matrix", inputs={"x": rows}) == {"outputs": halved}


def test_several_inputs_and_outputs_are_objects(server: ModelServer) -> None:
    image = base64.b64encode(b"\xff\x00").decode()
    rows = [{"number": 1, "text": "a"}, {"number": 2.5, "text": {"b64": image}}]
    assert predict(server, "pair", instances=rows) == {
        "predictions": [
            {"doubled": 2.0, "text_bytes": {"b64": "YQ=="}},
            {"doubled": 5.0, "text_bytes": {"b64": image}},
        ]
    }
    columns = {"number": [1, 2.5], "text": ["a", {"b64": image}], "ignored": 1}
    assert predict(server, "pair", inputs=columns) == {
        "outputs": {"doubled": [2.0, 5.0], "text_bytes": [{"b64": "YQ=="}, {"b64": image}]}
    }


def test_a_lone_b64_object_is_a_value(server: ModelServer) -> None:
    encoded = base64.b64encode(b"\x00\xfe").decode()
    assert predict(server, "bytes", instances=[{"b64": encoded}]) == {
        "predictions": [{"b64": encoded}]
    }
    assert predict(server, "bytes", instances=[{"image": {"b64": encoded}}]) == {
        "predictions": [{"b64": encoded}]
    }


def test_strings_come_back_as_they_were_sent(server: ModelServer) -> None:
    texts = ['quote " backslash \\ tab \t', "grüße", "\U0001f600", ""]
    assert predict(server, "text", instances=texts) == {"predictions": texts}


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("float64", [0.1, -1e300, 3.0]),
        ("int8", [-128, 127]),
        ("int16", [-32768, 32767]),
        ("int32", [-(2**31), 2**31 - 1]),
        ("int64", [-(2**63), 2**63 - 1]),
        ("uint8", [0, 255]),
        ("uint32", [0, 2**32 - 1]),
        ("uint64", [0, 2**64 - 1]),
        ("bool", [True, False]),
    ],
)
def test_every_type_that_json_can_carry_survives(
    server: ModelServer, signature: str, values: list[Any]
) -> None:
    assert predict(server, signature, instances=values) == {"predictions": values}
    assert predict(server, signature, inputs=values) == {"outputs": values}


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"0.2", b"0.2"),
        (b"16777217", b"16777216.0"),
        (b"1000000", b"1e+06"),
        (b"1e30", b"1e+30"),
        (b"0.1234567", b"0.123456702"),
        (b"NaN", b"NaN"),
        (b"Infinity", b"Infinity"),
        (b"-Inf", b"-Infinity"),
        (b"1e-5", b"1e-05"),
    ],
)
def test_floats_are_printed_as_short_as_they_can_be_read_back(
    server: ModelServer, sent: bytes, text: bytes
) -> None:
    body = b'{"signature_name": "scalar", "inputs": [' + sent + b"]}"
    answer = server.post("/v1/models/shapes:predict", body)
    assert answer.body == b'{\n    "outputs": ' + text + b"\n}"


def test_text_after_the_first_value_is_ignored(server: ModelServer) -> None:
    answer = server.post("/v1/models/m:predict", b'  {"instances": [1]} and so on')
    assert answer.json == {"predictions": [2.5]}


def test_a_gzip_body_is_inflated(server: ModelServer) -> None:
    body = gzip.compress(b'{"instances": [1]}')
    answer = server.rest("POST", "/v1/models/m:predict", body, {"Content-Encoding": "gzip"})
    assert answer.json == {"predictions": [2.5]}
    broken = server.rest("POST", "/v1/models/m:predict", b"no gzip", {"Content-Encoding": "gzip"})
    assert broken.error == "JSON Parse error: The document is empty"


def test_a_large_body_is_taken(server: ModelServer) -> None:
    rows = [[[float(i), 2.0], [3.0, 4.0]] for i in range(60_000)]
    answer = predict(server, "matrix", instances=rows)
    assert len(answer["predictions"]) == len(rows)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b" ", "JSON Parse error: The document is empty. at offset: 1"),
        (b"xyz", "JSON Parse error: Invalid value. at offset: 0"),
        (b'{"instances": [nul]}', "JSON Parse error: Invalid value. at offset: 18"),
        (
            b'{"instances": [1 2]}',
            "JSON Parse error: Missing a comma or ] after an array element. at offset: 17",
        ),
        (
            b'{"instances": [1]',
            "JSON Parse error: Missing a comma or } after an object member. at offset: 17",
        ),
        (
            b"{instances: [1]}",
            "JSON Parse error: Missing a name for object member. at offset: 1",
        ),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b'"a"', 'JSON Value: "a" Is not object'),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (
            b'{"signature_name": 5, "instances": [1]}',
            'JSON Value: {\n    "signature_name": 5,\n    "instances": [1]\n} not formatted'
            " correctly. 'signature_name' key must be a string value.",
        ),
        (
            b'{"signature_name": "s", "instances": [1]}',
            'Serving signature name: "s" not found in signature def',
        ),
        (
            b'{"instances": [1], "inputs": [1]}',
            'JSON Value: {\n    "instances": [1],\n    "inputs": [1]\n} Not formatted correctly'
            " expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        (
            b'{"instances": 1}',
            "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array",
        ),
        (
            b'{"instances": []}',
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
        ),
        (
            b'{"instances": ["x"]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value:"
            ' "x" Type: String is not of expected type: float',
        ),
        (
            b'{"instances": [[1, 2], [1, 2, 3]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting"
            " tensor size: 2 but got: 3",
        ),
        (
            b'{"instances": [[1, 2], [[1], [2]]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting"
            " shape [2] but got: [2,1]",
        ),
        (
            b'{"instances": [{"y": 1}]}',
            "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: JSON"
            " object: does not have named input: y",
        ),
        (
            b'{"instances": [{"x": 1}, 2]}',
            "Expecting object but got list at item 1 of input list",
        ),
        (
            b'{"instances": [1, {"x": 1}]}',
            "Expecting value/list but got object at item 1 of input list",
        ),
        (b'{"inputs": {"y": 1}}', "Missing named input: x in 'inputs' object."),
        (
            b'{"inputs": [[1, 2], [1, 2, 3]]}',
            "Encountered list at unexpected size: 3 at level: 1 expected size: 2",
        ),
        (
            b'{"inputs": [1, [2]]}',
            "Encountered list at unexpected level: 1 expected < 1",
        ),
        (
            b'{"inputs": [[1], 2]}',
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            b'{"inputs": [true]}',
            "JSON Value: true Type: True is not of expected type: float",
        ),
        (
            b'{"inputs": [null]}',
            "JSON Value: null Type: Null is not of expected type: float",
        ),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong(server: ModelServer, body: bytes, error: str) -> None:
    answer = server.post("/v1/models/m:predict", body)
    assert (answer.status, answer.error) == (400, error)
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("signature", "body", "status", "error"),
    [
        (
            "int32",
            {"inputs": [1.0]},
            400,
            "JSON Value: 1.0 Type: Number is not of expected type: int32",
        ),
        (
            "int32",
            {"inputs": [2**31]},
            400,
            f"JSON Value: {2**31} Type: Number is not of expected type: int32",
        ),
        (
            "text",
            {"inputs": [1]},
            400,
            "JSON Value: 1 Type: Number is not of expected type: string",
        ),
        ("bytes", {"inputs": {"b64": "*"}}, 400, "Unable to base64 decode"),
        ("float16", {"inputs": [1.5]}, 501, "Conversion of JSON Value: 1.5 to type: half"),
        ("half", {"inputs": [1.5]}, 400, "Failed to write JSON value for tensor type: half"),
        ("scalar", {"instances": [1.5]}, 400, "Tensor name: sum has no shape information "),
        (
            "uneven",
            {"instances": [1.5]},
            400,
            "Tensor name: b has inconsistent batch size: 2 expecting: 1",
        ),
        (
            "pair",
            {"instances": [1]},
            400,
            "instances is a plain list, but expecting list of objects as multiple input tensors"
            " required as per tensorinfo_map",
        ),
        (
            "pair",
            {"inputs": [1]},
            400,
            "inputs is a plain value/list, but expecting an object as multiple input tensors"
            " required as per tensorinfo_map",
        ),
        (
            "pair",
            {"instances": [{"number": 1}]},
            400,
            "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"number\": 1\n}"
            " keys must be equal to: number,text",
        ),
    ],
)
def test_a_value_that_does_not_fit_the_signature_is_refused(
    server: ModelServer, signature: str, body: dict[str, Any], status: int, error: str
) -> None:
    answer = server.post("/v1/models/shapes:predict", {"signature_name": signature, **body})
    assert (answer.status, answer.error) == (status, error)


def test_a_wrong_body_comes_before_an_unknown_model(server: ModelServer) -> None:
    assert server.post("/v1/models/nope:predict", b"{").status == 400
    answer = server.post("/v1/models/nope:predict", {"instances": [1]})
    assert (answer.status, answer.error) == (404, "Servable not found for request: Latest(nope)")
    answer = server.post("/v1/models/m/versions/7:predict", {"instances": [1]})
    assert (answer.status, answer.error) == (404, "Servable not found for request: Specific(m, 7)")
    answer = server.post("/v1/models/m/labels/stable:predict", {"instances": [1]})
    assert (answer.status, answer.error) == (400, "Unrecognized servable version label: stable")
