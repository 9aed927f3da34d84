"""Requests to a model, independent of how they arrive.

Each of predict, classify, regress and multi-inference checks the request against the signature,
runs the session once and shapes the answer, as the files of the same names in TensorFlow
Serving's ``servables/tensorflow`` do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from development_model_server.errors import (
    Code,
    ServingError,
    failed_precondition,
    invalid_argument,
)
from development_model_server.protos import (
    ClassificationRequest,
    ClassificationResponse,
    ClassificationResult,
    DataType,
    Input,
    ModelSpec,
    MultiInferenceRequest,
    MultiInferenceResponse,
    PredictRequest,
    PredictResponse,
    RegressionRequest,
    RegressionResponse,
    RegressionResult,
    SignatureDef,
    TensorProto,
)
from development_model_server.tensors import DT_FLOAT, DT_STRING, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from development_model_server.metrics import Metrics

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


class Runner(Protocol):
    """Runs a session once."""

    def __call__(
        self, inputs: Sequence[tuple[str, Tensor]], outputs: Sequence[str], timeout_ms: int = 0
    ) -> list[Tensor]:
        """Feed and fetch tensors by their names in the graph; raises ServingError."""
        ...


@dataclass
class Model:
    """What inference needs of a loaded version."""

    signatures: Mapping[str, SignatureDef]
    run: Runner


@dataclass(frozen=True)
class Inference:
    """Runs requests.

    Attributes:
        metrics: where run times and examples are counted.
        check_method_names: refuse a signature whose method name isn't the request's.
        as_content: answer Predict with ``tensor_content``.
    """

    metrics: Metrics
    check_method_names: bool = False
    as_content: bool = False

    def predict(
        self, model: Model, version: int | None, request: PredictRequest, timeout_ms: int = 0
    ) -> PredictResponse:
        """Answer a PredictRequest; raises ServingError."""
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        outputs = self.predict_tensors(
            model,
            request.model_spec.name,
            signature_name,
            request.inputs,
            request.output_filter,
            timeout_ms,
        )
        response = PredictResponse()
        _fill_spec(response.model_spec, request.model_spec.name, signature_name, version)
        for alias, tensor in outputs.items():
            response.outputs[alias].CopyFrom(tensor.to_proto(as_content=self.as_content))
        return response

    def predict_tensors(
        self,
        model: Model,
        model_name: str,
        signature_name: str,
        inputs: Mapping[str, Tensor | TensorProto],
        output_filter: Sequence[str] = (),
        timeout_ms: int = 0,
    ) -> dict[str, Tensor]:
        """Feed tensors by their aliases in the signature; return the outputs by theirs.

        Raises:
            ServingError: the inputs don't fit the signature, or the run failed.
        """
        signature = model.signatures.get(signature_name)
        if signature is None:
            raise failed_precondition(f'Serving signature key "{signature_name}" not found.')
        if self.check_method_names and signature.method_name not in (
            PREDICT_METHOD,
            CLASSIFY_METHOD,
            REGRESS_METHOD,
        ):
            raise ServingError(
                Code.INTERNAL,
                "Expected prediction signature method_name to be one of"
                f" {{{PREDICT_METHOD}, {CLASSIFY_METHOD}, {REGRESS_METHOD}}}."
                f" Was: {signature.method_name}",
            )
        _check_input_count(signature, inputs)
        feeds = _feeds(signature, inputs)
        aliases = _output_aliases(signature, output_filter)
        started = time.monotonic()
        results = model.run(feeds, [signature.outputs[alias].name for alias in aliases], timeout_ms)
        self._record_runtime(model_name, "Predict", started)
        return dict(zip(aliases, results, strict=True))

    def classify(
        self, model: Model, version: int | None, request: ClassificationRequest, timeout_ms: int = 0
    ) -> ClassificationResponse:
        """Answer a ClassificationRequest; raises ServingError."""
        signature = self._signature(model, request.model_spec, "classification", CLASSIFY_METHOD)
        feed, fetches = self._classification_tensors(signature)
        results, count = self._run_examples(model, request, "Classify", [feed], fetches, timeout_ms)
        response = ClassificationResponse()
        _fill_spec(
            response.model_spec,
            request.model_spec.name,
            request.model_spec.signature_name or DEFAULT_SIGNATURE,
            version,
        )
        response.result.CopyFrom(_classifications(signature, count, results))
        return response

    def regress(
        self, model: Model, version: int | None, request: RegressionRequest, timeout_ms: int = 0
    ) -> RegressionResponse:
        """Answer a RegressionRequest; raises ServingError."""
        signature = self._signature(model, request.model_spec, "regression", REGRESS_METHOD)
        feed, fetch = self._regression_tensors(signature)
        results, count = self._run_examples(model, request, "Regress", [feed], [fetch], timeout_ms)
        response = RegressionResponse()
        _fill_spec(
            response.model_spec,
            request.model_spec.name,
            request.model_spec.signature_name or DEFAULT_SIGNATURE,
            version,
        )
        response.result.CopyFrom(_regressions(signature, count, results))
        return response

    def multi_inference(
        self,
        model: Model,
        version: int | None,
        request: MultiInferenceRequest,
        timeout_ms: int = 0,
    ) -> MultiInferenceResponse:
        """Answer a MultiInferenceRequest; raises ServingError."""
        feeds: set[str] = set()
        fetches: set[str] = set()
        signatures: dict[str, SignatureDef] = {}
        name = ""
        for task in request.tasks:
            if not task.model_spec.name:
                raise invalid_argument("Found ModelSpec with an empty model name.")
            name = name or task.model_spec.name
            if task.model_spec.name != name:
                raise invalid_argument(
                    "All ModelSpecs in a MultiInferenceRequest must access the same model name."
                )
            signature_name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if signature_name in signatures:
                raise invalid_argument(f"Duplicate evaluation of signature: {signature_name}")
            signature = model.signatures.get(signature_name)
            if signature is None:
                raise invalid_argument(
                    f"Requested signature not found in model graph: {signature_name}"
                )
            signatures[signature_name] = signature
            if task.method_name == CLASSIFY_METHOD:
                feed, wanted = self._classification_tensors(signature)
                fetches.update(wanted)
            elif task.method_name == REGRESS_METHOD:
                feed, fetch = self._regression_tensors(signature)
                fetches.add(fetch)
            else:
                raise ServingError(
                    Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
                )
            feeds.add(feed)
        examples = serialized_examples(request.input)
        results = _run_named(model, sorted(feeds), examples, sorted(fetches), timeout_ms)
        self.metrics.example_counts.add(len(examples), name)
        self.metrics.example_count_total.add(name, amount=len(examples))
        response = MultiInferenceResponse()
        for task in request.tasks:
            signature_name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            signature = signatures[signature_name]
            result = response.results.add()
            if task.method_name == CLASSIFY_METHOD:
                result.classification_result.CopyFrom(
                    _classifications(signature, len(examples), results)
                )
            else:
                result.regression_result.CopyFrom(_regressions(signature, len(examples), results))
            _fill_spec(result.model_spec, task.model_spec.name, signature_name, version)
        return response

    def _record_runtime(self, model_name: str, api: str, started: float) -> None:
        self.metrics.runtime_latency.add(
            int((time.monotonic() - started) * 1e6), model_name, api, "TF1"
        )

    def _run_examples(
        self,
        model: Model,
        request: ClassificationRequest | RegressionRequest,
        api: str,
        feeds: Sequence[str],
        fetches: Sequence[str],
        timeout_ms: int,
    ) -> tuple[dict[str, Tensor], int]:
        examples = serialized_examples(request.input)
        started = time.monotonic()
        results = _run_named(model, feeds, examples, fetches, timeout_ms)
        self._record_runtime(request.model_spec.name, api, started)
        return results, len(examples)

    def _signature(
        self, model: Model, spec: ModelSpec, kind: str, method_name: str
    ) -> SignatureDef:
        name = spec.signature_name or DEFAULT_SIGNATURE
        signature = model.signatures.get(name)
        if signature is None:
            raise invalid_argument(f"No signature was found with the name: {name}")
        self._check_method_name(signature, kind, method_name)
        return signature

    def _check_method_name(self, signature: SignatureDef, kind: str, method_name: str) -> None:
        if self.check_method_names and signature.method_name != method_name:
            raise invalid_argument(
                f"Expected {kind} signature method_name to be {method_name}."
                f" Was: {signature.method_name}"
            )

    def _classification_tensors(self, signature: SignatureDef) -> tuple[str, list[str]]:
        self._check_method_name(signature, "classification", CLASSIFY_METHOD)
        if len(signature.inputs) != 1:
            raise invalid_argument("Expected one input Tensor.")
        if len(signature.outputs) not in (1, 2):
            raise invalid_argument(
                f"Expected one or two output Tensors, found {len(signature.outputs)}"
            )
        if "inputs" not in signature.inputs:
            raise invalid_argument(f"No classification inputs found in SignatureDef: {signature}")
        fetches = [
            signature.outputs[alias].name
            for alias in ("classes", "scores")
            if alias in signature.outputs
        ]
        if not fetches:
            raise invalid_argument(
                'Expected classification signature outputs to contain at least one of "classes" or'
                f' "scores". Signature was: {signature}'
            )
        return signature.inputs["inputs"].name, fetches

    def _regression_tensors(self, signature: SignatureDef) -> tuple[str, str]:
        self._check_method_name(signature, "regression", REGRESS_METHOD)
        if len(signature.inputs) != 1:
            raise invalid_argument("Expected one input Tensor.")
        if len(signature.outputs) != 1:
            raise invalid_argument("Expected one output Tensor.")
        if "inputs" not in signature.inputs:
            raise invalid_argument(f"No regression inputs found in SignatureDef: {signature}")
        if "outputs" not in signature.outputs:
            raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
        return signature.inputs["inputs"].name, signature.outputs["outputs"].name


def serialized_examples(request: Input) -> list[bytes]:
    """The examples as a parsing operation takes them, a shared context in front of each.

    Raises:
        ServingError: there are none.
    """
    if request.WhichOneof("kind") == "example_list_with_context":
        context = request.example_list_with_context.context.SerializeToString()
        examples = [
            context + example.SerializeToString()
            for example in request.example_list_with_context.examples
        ]
    else:
        examples = [example.SerializeToString() for example in request.example_list.examples]
    if not examples:
        raise invalid_argument("Input is empty.")
    return examples


def _run_named(
    model: Model,
    feeds: Sequence[str],
    examples: list[bytes],
    fetches: Sequence[str],
    timeout_ms: int,
) -> dict[str, Tensor]:
    tensor = Tensor(DT_STRING, (len(examples),), strings=examples)
    results = model.run([(name, tensor) for name in feeds], fetches, timeout_ms)
    return dict(zip(fetches, results, strict=True))


def _fill_spec(spec: ModelSpec, name: str, signature_name: str, version: int | None) -> None:
    spec.name = name
    spec.signature_name = signature_name
    if version is not None:
        spec.version.value = version


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _check_input_count(signature: SignatureDef, inputs: Mapping[str, Any]) -> None:
    wanted, given = len(signature.inputs), len(inputs)
    if given > wanted or (given < wanted and not signature.defaults):
        expected = set(signature.inputs)
        raise invalid_argument(
            f"input size does not match signature: {given}!={wanted}"
            f" len({{{_joined(inputs)}}}) != len({{{_joined(expected)}}})."
            f" Sent extra: {{{_joined(set(inputs) - expected)}}}."
            f" Missing but required: {{{_joined(expected - set(inputs))}}}."
        )


def _feeds(
    signature: SignatureDef, inputs: Mapping[str, Tensor | TensorProto]
) -> list[tuple[str, Tensor]]:
    feeds = []
    used = []
    for alias in sorted(signature.inputs):
        name = signature.inputs[alias].name
        value: Tensor | TensorProto
        if alias in inputs:
            value = inputs[alias]
            used.append(alias)
        elif alias in signature.defaults:
            value = signature.defaults[alias]
        else:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {name}) not found in request and no"
                " default value provided. Inputs expected to be in the request"
                f" {{{_joined(inputs)}}}, or default input alias set: {_joined(signature.defaults)}"
            )
        feeds.append((name, value if isinstance(value, Tensor) else _decoded(alias, value)))
    if inputs and len(used) != len(inputs):
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_joined(used)}, request input:"
            f" {_joined(inputs)}"
        )
    return feeds


def _decoded(alias: str, proto: TensorProto) -> Tensor:
    try:
        return Tensor.from_proto(proto)
    except ValueError as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def _output_aliases(signature: SignatureDef, output_filter: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the"
                f" set {{{_joined(signature.outputs)}}}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return list(output_filter) or sorted(signature.outputs)


def _shape(tensor: Tensor) -> str:
    return "[" + ",".join(map(str, tensor.shape)) + "]"


def _classifications(
    signature: SignatureDef, count: int, results: Mapping[str, Tensor]
) -> ClassificationResult:
    classes, scores = (
        results[signature.outputs[alias].name] if alias in signature.outputs else None
        for alias in ("classes", "scores")
    )
    for tensor, label, dtype in ((classes, "classes", DT_STRING), (scores, "scores", DT_FLOAT)):
        if tensor is None:
            continue
        if len(tensor.shape) != 2:
            raise invalid_argument(
                f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}"
            )
        if tensor.dtype != dtype:
            raise invalid_argument(
                f"Expected {label} Tensor of {DataType.Name(dtype)}."
                f" Got: {DataType.Name(tensor.dtype)}"
            )
        if tensor.shape[0] != count:
            raise invalid_argument(
                f"Expected {label} output batch size of {count}. Got: {tensor.shape[0]}"
            )
    if classes and scores and classes.shape[1] != scores.shape[1]:
        raise invalid_argument(
            "Tensors class and score should match in dim_size(1). Got"
            f" {classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = next(tensor.shape[1] for tensor in (classes, scores) if tensor is not None)
    result = ClassificationResult()
    for row in range(count):
        classifications = result.classifications.add()
        for column in range(width):
            entry = classifications.classes.add()
            if classes is not None:
                entry.label = classes.strings[row * width + column].decode(errors="replace")
            if scores is not None:
                entry.score = float(scores.values[row, column])
    return result


def _regressions(
    signature: SignatureDef, count: int, results: Mapping[str, Tensor]
) -> RegressionResult:
    tensor = results[signature.outputs["outputs"].name]
    if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got"
            f" {_shape(tensor)}"
        )
    if tensor.shape[0] != count:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {count} vs. {tensor.shape[0]}"
        )
    if tensor.dtype != DT_FLOAT:
        raise invalid_argument(
            f"Expected output Tensor of DT_FLOAT.  Got: {DataType.Name(tensor.dtype)}"
        )
    result = RegressionResult()
    for value in tensor.values.reshape(-1).tolist():
        result.regressions.add(value=value)
    return result
