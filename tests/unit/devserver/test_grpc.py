"""The two gRPC services."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from development_model_server import protos
from tests.unit.devserver.harness import (
    ModelServer,
    floats,
    model_config_list,
    predict_request,
    publish,
    single_model_config,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    directory = tmp_path_factory.mktemp("server")
    for model, name in (("half_plus_two", "m"), ("shapes", "shapes"), ("counter", "counter")):
        publish(models / model, directory / name, 1)
    config = directory / "models.config"
    config.write_text(
        model_config_list(
            *(single_model_config(name, directory / name) for name in ("m", "shapes", "counter"))
        )
    )
    socket = directory / "socket"
    arguments = [
        f"--model_config_file={config}",
        f"--grpc_socket_path={socket}",
        "--enable_grpc_healthcheck_service",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=20000,grpc.lb_policy_name=grpclb",
    ]
    with ModelServer(directory, arguments) as server:
        yield server


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


def examples(*values: float) -> protos.Input:
    request = protos.Input()
    for value in values:
        example = request.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(value)
    return request


def test_predict_answers_in_typed_fields_and_tells_the_version(server: ModelServer) -> None:
    request = predict_request()
    request.inputs["x"].CopyFrom(floats(1.0, 2.0))
    response = server.prediction.Predict(request, timeout=30)
    assert list(response.outputs["y"].float_val) == [2.5, 3.0]
    assert not response.outputs["y"].tensor_content
    assert [dimension.size for dimension in response.outputs["y"].tensor_shape.dim] == [2]
    assert response.model_spec.name == "m"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize(
    ("signature", "field", "values"),
    [
        ("float64", "double_val", [0.5, -1.0]),
        ("int8", "int_val", [-128, 127]),
        ("int16", "int_val", [-5, 5]),
        ("int32", "int_val", [-5, 5]),
        ("uint8", "int_val", [0, 255]),
        ("uint16", "int_val", [0, 65535]),
        ("int64", "int64_val", [-(2**63), 5]),
        ("uint32", "uint32_val", [0, 2**32 - 1]),
        ("uint64", "uint64_val", [0, 2**64 - 1]),
        ("bool", "bool_val", [True, False]),
        ("float16", "half_val", [0x3C00, 0xC000]),
        ("bfloat16", "half_val", [0x3F80, 0xC000]),
        ("complex64", "scomplex_val", [1.0, 2.0, -3.0, 4.0]),
        ("complex128", "dcomplex_val", [1.0, 2.0, -3.0, 4.0]),
        ("text", "string_val", [b"a", b"\xff\x00"]),
    ],
)
def test_each_type_travels_in_its_own_field(
    server: ModelServer, signature: str, field: str, values: list[Any]
) -> None:
    request = predict_request("shapes", signature=signature)
    name = {"half": "float16"}.get(signature, signature)
    dtype = {
        "float64": "DOUBLE",
        "float16": "HALF",
        "text": "STRING",
    }.get(signature, name.upper())
    alias = "text" if signature == "text" else "x"
    tensor = request.inputs[alias]
    tensor.dtype = protos.DataType.Value(f"DT_{dtype}")
    tensor.tensor_shape.dim.add(size=2)
    getattr(tensor, field).extend(values)
    response = server.prediction.Predict(request, timeout=30)
    (output,) = response.outputs.values()
    assert output.dtype == tensor.dtype
    assert list(getattr(output, field)) == values


def test_tensor_content_is_understood(server: ModelServer) -> None:
    request = predict_request()
    tensor = request.inputs["x"]
    tensor.dtype = protos.DataType.DT_FLOAT
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_content = b"\x00\x00\x80\x3f"
    assert list(server.prediction.Predict(request, timeout=30).outputs["y"].float_val) == [2.5]
    tensor.tensor_content = b"\x00\x00"
    code, message = failure(lambda: server.prediction.Predict(request, timeout=30))
    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "tensor parsing error: x")


def test_a_short_value_list_repeats_its_last_value(server: ModelServer) -> None:
    request = predict_request()
    request.inputs["x"].CopyFrom(floats(1.0))
    request.inputs["x"].tensor_shape.dim[0].size = 3
    response = server.prediction.Predict(request, timeout=30)
    assert list(response.outputs["y"].float_val) == [2.5, 2.5, 2.5]


def test_a_scalar_has_a_shape_without_dimensions(server: ModelServer) -> None:
    request = predict_request("shapes", signature="scalar")
    request.inputs["x"].CopyFrom(floats(1.0, 2.0))
    (output,) = server.prediction.Predict(request, timeout=30).outputs.values()
    assert output.HasField("tensor_shape")
    assert not output.tensor_shape.dim
    assert list(output.float_val) == [3.0]


@pytest.mark.parametrize("rank", [64, 65, 254])
@pytest.mark.parametrize("as_content", [False, True])
def test_a_tensor_may_have_more_dimensions_than_an_array(
    server: ModelServer, rank: int, as_content: bool
) -> None:
    request = predict_request("shapes", signature="deep")
    tensor = request.inputs["x"]
    tensor.dtype = protos.DataType.DT_FLOAT
    for _ in range(rank - 1):
        tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_shape.dim.add(size=2)
    if as_content:
        tensor.tensor_content = struct.pack("<2f", 1.0, 2.5)
    else:
        tensor.float_val.extend([1.0, 2.5])
    (output,) = server.prediction.Predict(request, timeout=30).outputs.values()
    assert [dim.size for dim in output.tensor_shape.dim] == [1] * (rank - 1) + [2]
    assert list(output.float_val) == [2.0, 5.0]


@pytest.mark.parametrize("sizes", [[1] * 255, [2**40, 2**40], [-1]])
def test_a_shape_that_can_not_be_is_no_tensor(server: ModelServer, sizes: list[int]) -> None:
    request = predict_request("shapes", signature="deep")
    request.inputs["x"].dtype = protos.DataType.DT_FLOAT
    for size in sizes:
        request.inputs["x"].tensor_shape.dim.add(size=size)
    assert failure(lambda: server.prediction.Predict(request, timeout=30)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "tensor parsing error: x",
    )


def test_an_unknown_rank_is_not_looked_at(server: ModelServer) -> None:
    request = predict_request("shapes", signature="deep")
    request.inputs["x"].dtype = protos.DataType.DT_FLOAT
    request.inputs["x"].tensor_shape.unknown_rank = True
    request.inputs["x"].float_val.append(4.0)
    (output,) = server.prediction.Predict(request, timeout=30).outputs.values()
    assert not output.tensor_shape.dim
    assert list(output.float_val) == [8.0]


@pytest.mark.parametrize(
    "method",
    [
        "/tensorflow.serving.PredictionService/Predict",
        "/tensorflow.serving.PredictionService/GetModelMetadata",
        "/tensorflow.serving.ModelService/GetModelStatus",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_what_is_no_message_is_an_internal_error_without_a_word(
    server: ModelServer, method: str
) -> None:
    call: Any = server.channel.unary_unary(method)
    assert failure(lambda: call(b"\xff\xff\xff", timeout=30)) == (grpc.StatusCode.INTERNAL, "")


def test_an_output_filter_picks_outputs(server: ModelServer) -> None:
    request = predict_request("shapes", signature="pair")
    request.inputs["number"].CopyFrom(floats(1.0))
    request.inputs["text"].dtype = protos.DataType.DT_STRING
    request.inputs["text"].tensor_shape.dim.add(size=1)
    request.output_filter.append("doubled")
    assert list(server.prediction.Predict(request, timeout=30).outputs) == ["doubled"]
    request.output_filter.append("doubled")
    assert failure(lambda: server.prediction.Predict(request, timeout=30)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "duplicate output tensor alias: doubled",
    )
    request.output_filter[1] = "nope"
    assert failure(lambda: server.prediction.Predict(request, timeout=30)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "output tensor alias not found in signature: nope Outputs expected to be in the set"
        " {doubled,text_bytes}.",
    )


def _with_inputs(request: protos.PredictRequest, **inputs: float) -> protos.PredictRequest:
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(floats(value))
    return request


def _of_bool() -> protos.PredictRequest:
    request = predict_request()
    request.inputs["x"].dtype = protos.DataType.DT_BOOL
    request.inputs["x"].tensor_shape.dim.add(size=1)
    return request


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (protos.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            protos.PredictRequest(model_spec=protos.ModelSpec(signature_name="s")),
            "INVALID_ARGUMENT",
            "ModelSpec has no name specified.",
        ),
        (predict_request("nope"), "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        (
            predict_request(version=3),
            "NOT_FOUND",
            "Servable not found for request: Specific(m, 3)",
        ),
        (
            predict_request(label="L"),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: L",
        ),
        (
            predict_request(signature="s"),
            "FAILED_PRECONDITION",
            'Serving signature key "s" not found.',
        ),
        (
            predict_request(),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing"
            " but required: {x}.",
        ),
        (
            _with_inputs(predict_request(), x=1, z=2),
            "INVALID_ARGUMENT",
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}."
            " Missing but required: {}.",
        ),
        (
            _with_inputs(predict_request(), z=2),
            "INVALID_ARGUMENT",
            "Signature input alias: x(feed name: x:0) not found in request and no default value"
            " provided. Inputs expected to be in the request {z}, or default input alias set: ",
        ),
        (
            _of_bool(),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but bool is provided",
        ),
    ],
)
def test_a_wrong_predict_request_is_told_what_is_wrong(
    server: ModelServer, request_: protos.PredictRequest, code: str, message: str
) -> None:
    seen = failure(lambda: server.prediction.Predict(request_, timeout=30))
    assert seen == (grpc.StatusCode[code], message)


def test_state_is_kept_between_requests(server: ModelServer) -> None:
    def run(signature: str, **inputs: protos.TensorProto) -> float:
        request = predict_request("counter", signature=signature)
        for alias, tensor in inputs.items():
            request.inputs[alias].CopyFrom(tensor)
        response = server.prediction.Predict(request, timeout=30)
        return float(response.outputs["output"].float_val[0])

    scalar = protos.TensorProto(dtype=protos.DataType.DT_FLOAT, float_val=[5.0])
    assert run("get_counter") == 0
    assert run("incr_counter") == 1
    assert run("incr_counter_by", delta=scalar) == 6
    assert run("get_counter") == 6


def test_classify_and_regress_run_on_examples(server: ModelServer) -> None:
    classify = protos.ClassificationRequest(input=examples(2.0, 4.0))
    classify.model_spec.name = "m"
    classify.model_spec.signature_name = "classify_labelled"
    response = server.prediction.Classify(classify, timeout=30)
    assert [
        (entry.classes[0].label, entry.classes[0].score)
        for entry in response.result.classifications
    ] == [("small", 3.0), ("small", 4.0)]
    assert response.model_spec.version.value == 1

    regress = protos.RegressionRequest(input=examples(2.0))
    regress.model_spec.name = "m"
    regress.model_spec.signature_name = "regress_x_to_y"
    result = server.prediction.Regress(regress, timeout=30)
    assert [entry.value for entry in result.result.regressions] == [3.0]
    assert result.model_spec.signature_name == "regress_x_to_y"


def test_an_empty_input_is_refused(server: ModelServer) -> None:
    request = protos.RegressionRequest()
    request.model_spec.name = "m"
    request.model_spec.signature_name = "regress_x_to_y"
    assert failure(lambda: server.prediction.Regress(request, timeout=30)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Input is empty.",
    )
    request.model_spec.signature_name = ""
    code, message = failure(lambda: server.prediction.Regress(request, timeout=30))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("No regression inputs found in SignatureDef: ")


def multi_inference(*tasks: tuple[str, str, str]) -> protos.MultiInferenceRequest:
    request = protos.MultiInferenceRequest(input=examples(2.0))
    for name, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = name
        task.model_spec.signature_name = signature
    return request


def test_multi_inference_runs_several_signatures_at_once(server: ModelServer) -> None:
    request = multi_inference(
        ("m", "regress_x_to_y", "regress"), ("m", "classify_x_to_y", "classify")
    )
    regression, classification = server.prediction.MultiInference(request, timeout=30).results
    assert [entry.value for entry in regression.regression_result.regressions] == [3.0]
    assert classification.classification_result.classifications[0].classes[0].score == 3.0
    assert classification.model_spec.signature_name == "classify_x_to_y"
    assert classification.model_spec.version.value == 1


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (multi_inference(), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            multi_inference(
                ("m", "regress_x_to_y", "regress"), ("shapes", "regress_x_to_y", "regress")
            ),
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            multi_inference(("m", "regress_x_to_y", "regress"), ("m", "regress_x_to_y", "regress")),
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        (
            multi_inference(("m", "nope", "regress")),
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: nope",
        ),
        (
            multi_inference(("m", "regress_x_to_y", "predict")),
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
    ],
)
def test_a_wrong_multi_inference_is_told_what_is_wrong(
    server: ModelServer, request_: protos.MultiInferenceRequest, code: str, message: str
) -> None:
    seen = failure(lambda: server.prediction.MultiInference(request_, timeout=30))
    assert seen == (grpc.StatusCode[code], message)


def test_metadata_is_the_signatures(server: ModelServer) -> None:
    request = protos.GetModelMetadataRequest()
    assert failure(lambda: server.prediction.GetModelMetadata(request, timeout=30)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )
    request.model_spec.name = "m"
    assert failure(lambda: server.prediction.GetModelMetadata(request, timeout=30)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.append("graph")
    assert failure(lambda: server.prediction.GetModelMetadata(request, timeout=30)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Metadata field graph is not supported",
    )
    request.metadata_field[0] = "signature_def"
    response = server.prediction.GetModelMetadata(request, timeout=30)
    signatures = protos.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs["x"].name == "x:0"
    assert response.model_spec.version.value == 1


def test_status_needs_a_model_and_takes_no_label(server: ModelServer) -> None:
    request = protos.GetModelStatusRequest()
    assert failure(lambda: server.models.GetModelStatus(request, timeout=30)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )
    request.model_spec.name = "nope"
    assert failure(lambda: server.models.GetModelStatus(request, timeout=30)) == (
        grpc.StatusCode.NOT_FOUND,
        "Could not find any versions of model nope",
    )
    request.model_spec.name = "m"
    request.model_spec.version_label = "whatever"
    (status,) = server.models.GetModelStatus(request, timeout=30).model_version_status
    assert (status.version, status.state, status.status.error_code) == (1, 30, 0)
    request.model_spec.version.value = 9
    assert failure(lambda: server.models.GetModelStatus(request, timeout=30)) == (
        grpc.StatusCode.NOT_FOUND,
        "Could not find version 9 of model m",
    )


def test_a_long_message_is_cut(server: ModelServer) -> None:
    name = "n" * 2000
    request = predict_request(name)
    _, message = failure(lambda: server.prediction.Predict(request, timeout=30))
    assert message == f"Servable not found for request: Latest({name}"[:1024] + "...TRUNCATED"


def test_grpc_listens_on_the_socket_too(server: ModelServer) -> None:
    request = predict_request()
    request.inputs["x"].CopyFrom(floats(1.0))
    with grpc.insecure_channel(f"unix:{server.directory / 'socket'}") as channel:
        response = type(server.prediction)(channel).Predict(request, timeout=30)
    assert list(response.outputs["y"].float_val) == [2.5]


def test_health_is_told_under_short_names(server: ModelServer) -> None:
    check = server.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=protos.HealthCheckRequest.SerializeToString,
        response_deserializer=protos.HealthCheckResponse.FromString,
    )
    watch = server.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=protos.HealthCheckRequest.SerializeToString,
        response_deserializer=protos.HealthCheckResponse.FromString,
    )
    for service in ("", "ModelService", "PredictionService"):
        request = protos.HealthCheckRequest(service=service)
        assert check(request, timeout=30).status == 1
        call = watch(request, timeout=30)
        assert next(call).status == 1
        call.cancel()
    unknown = protos.HealthCheckRequest(service="tensorflow.serving.ModelService")
    assert failure(lambda: check(unknown, timeout=30))[0] is grpc.StatusCode.NOT_FOUND
    call = watch(unknown, timeout=30)
    assert next(call).status == 3
    call.cancel()


def test_what_tensorflow_serving_does_not_register_is_unimplemented(server: ModelServer) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = server.channel.unary_unary(
        "/tensorflow.serving.SessionService/SessionRun"
    )
    assert failure(lambda: call(b"", timeout=30))[0] is grpc.StatusCode.UNIMPLEMENTED
