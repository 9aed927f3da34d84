"""The REST API: from a method, a path and a body to an answer. Independent of the HTTP server.

Routes and answers are those of TensorFlow Serving's ``http_rest_api_handler.cc``. The path counts
as it was sent, its query included: ``/v1/models/m?x=1`` asks for a model named ``m?x=1``.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from google.protobuf import json_format

from development_model_server import json_tensor
from development_model_server.errors import (
    Code,
    ServingError,
    failed_precondition,
    invalid_argument,
)
from development_model_server.inference import DEFAULT_SIGNATURE
from development_model_server.protos import (
    ClassificationRequest,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelSpec,
    RegressionRequest,
    SignatureDefMap,
)
from development_model_server.servable import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from development_model_server.api import Api

_API = re.compile(r"/v1/.*", re.IGNORECASE | re.ASCII)
_AUTHORITY = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE | re.ASCII)
_POST = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?:(classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_GET = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/([0-9]+)|/labels/([^/:]+))?(?:/(metadata))?",
    re.IGNORECASE | re.ASCII,
)

_HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class _Target:
    """What a request is about, as far as its path could be read."""

    spec: ModelSpec = field(default_factory=ModelSpec)
    verb: str = ""
    subresource: str = ""
    matched: bool = False


class RestApi:
    """Answers requests below ``/v1/`` and, where it is configured, for metrics."""

    def __init__(self, api: Api, *, timeout_ms: int, cors: bool, metrics_path: str | None) -> None:
        """Make the API.

        Args:
            api: what answers.
            timeout_ms: milliseconds that a request may run; 0 or less is for ever.
            cors: whether to send CORS headers.
            metrics_path: where the Prometheus page lies, or None for no such page.
        """
        self._api = api
        self._timeout_ms = max(0, timeout_ms)
        self._cors = cors
        self._metrics_path = metrics_path

    def answer(self, method: str, path: str, body: bytes, origin: str = "") -> Answer:
        """Answer one request.

        Args:
            method: the HTTP method.
            path: path, query and fragment as they were sent.
            body: the request's body, inflated.
            origin: the ``Origin`` header.
        """
        # An absolute target, as to a proxy: whose name it has doesn't matter.
        if absolute := _AUTHORITY.match(path):
            path = path[absolute.end() :]
            path = path if path.startswith("/") else f"/{path}"
        if re.split(r"[?#]", path, maxsplit=1)[0] == self._metrics_path:
            return self._metrics(path)
        if _API.fullmatch(path) is None:
            return html_error(404, "Not Found")
        started = time.monotonic()
        target = _Target()
        headers: dict[str, str] = {}
        code = Code.OK
        output = b""
        try:
            if method == "OPTIONS":
                _check_origin(origin)
            else:
                headers["Content-Type"] = "application/json"
                _read_target(target, method, path)
                output = self._process(target, method, path, body)
        except ServingError as error:
            code = error.code
            output = b"" if method == "OPTIONS" else json_tensor.error_response(error)
        if self._cors:
            headers.update(_CORS)
        if code is Code.OK:
            self._api.metrics.request_latency.add(
                int((time.monotonic() - started) * 1e6), target.spec.name, target.verb, "REST"
            )
        self._api.metrics.request_count.add(target.spec.name, code.name)
        return Answer(_HTTP_STATUS.get(code, 500), output, headers)

    def _metrics(self, path: str) -> Answer:
        headers = {"Content-Type": "text/plain"}
        if path != self._metrics_path:
            text = f"Unexpected path: {path}. Should be {self._metrics_path}"
            return Answer(400, text.encode("utf-8", "surrogateescape"), headers)
        return Answer(200, self._api.metrics.page().encode(), headers)

    def _process(self, target: _Target, method: str, path: str, body: bytes) -> bytes:
        if not target.matched:
            raise invalid_argument(f"Malformed request: {method} {path}")
        if method == "POST":
            match target.verb:
                case "predict":
                    return self._predict(target.spec, body)
                case "classify":
                    return self._classify(target.spec, body)
                case "regress":
                    return self._regress(target.spec, body)
                case _:
                    # The path's case is free, the verb's isn't.
                    raise invalid_argument(f"Malformed request: {method} {path}")
        if not target.spec.name:
            raise invalid_argument("Missing model name in request.")
        if target.subresource == "metadata":
            return self._metadata(target.spec)
        return self._status(target.spec)

    def _predict(self, spec: ModelSpec, body: bytes) -> bytes:
        document = json_tensor.parse_object(body)
        name = json_tensor.signature_name(document)
        with self._api.core.lend(spec) as (_, model):
            signature = model.signatures.get(name or DEFAULT_SIGNATURE)
            if signature is None:
                raise invalid_argument(
                    f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature'
                    " def"
                )
            if not signature.inputs:
                raise invalid_argument(
                    f"Failed to get input map for signature: {name or 'DEFAULT'}"
                )
            types = {alias: info.dtype for alias, info in signature.inputs.items()}
            inputs, layout = json_tensor.predict_inputs(document, types)
            outputs = self._api.inference.predict_tensors(
                model,
                spec.name,
                name or DEFAULT_SIGNATURE,
                inputs,
                timeout_ms=self._timeout_ms,
            )
        return json_tensor.predict_response(outputs, layout)

    def _classify(self, spec: ModelSpec, body: bytes) -> bytes:
        request = ClassificationRequest(model_spec=spec)
        document = json_tensor.parse_object(body)
        request.model_spec.signature_name = json_tensor.signature_name(document)
        json_tensor.fill_examples(document, request)
        response = self._api.classify(request, self._timeout_ms)
        return json_tensor.classification_response(response.result)

    def _regress(self, spec: ModelSpec, body: bytes) -> bytes:
        request = RegressionRequest(model_spec=spec)
        document = json_tensor.parse_object(body)
        request.model_spec.signature_name = json_tensor.signature_name(document)
        json_tensor.fill_examples(document, request)
        response = self._api.regress(request, self._timeout_ms)
        return json_tensor.regression_response(response.result)

    def _status(self, spec: ModelSpec) -> bytes:
        response = self._api.model_status(GetModelStatusRequest(model_spec=spec))
        return _proto_json(
            {
                "model_version_status": [
                    {
                        "version": str(entry.version),
                        "state": State(entry.state).name,
                        "status": {
                            "error_code": Code(entry.status.error_code).name,
                            "error_message": entry.status.error_message,
                        },
                    }
                    for entry in response.model_version_status
                ]
            }
        )

    def _metadata(self, spec: ModelSpec) -> bytes:
        response = self._api.model_metadata(
            GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        )
        signatures = SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return _proto_json(
            {
                "model_spec": {
                    "name": response.model_spec.name,
                    "signature_name": "",
                    "version": str(response.model_spec.version.value),
                },
                "metadata": {
                    "signature_def": json_format.MessageToDict(
                        signatures,
                        preserving_proto_field_name=True,
                        always_print_fields_with_no_presence=True,
                    )
                },
            }
        )


def html_error(status: int, reason: str) -> Answer:
    """The page that the HTTP server itself answers with, in libevent's form."""
    page = (
        f"<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n<H1>{reason}</H1>\n"
        "</BODY></HTML>\n"
    )
    return Answer(status, page.encode(), {"Content-Type": "text/html"})


def _proto_json(message: Mapping[str, object]) -> bytes:
    text = json.dumps(message, indent=1, ensure_ascii=False)
    # As protobuf's JSON writer: these two could begin or end a tag.
    text = text.replace("<", "\\u003c").replace(">", "\\u003e")
    return (text + "\n").encode("utf-8", "surrogateescape")


def _check_origin(origin: str) -> None:
    if re.search("https?://", origin) is None:
        raise failed_precondition("Origin header is missing in CORS preflight")


def _read_target(target: _Target, method: str, path: str) -> None:
    pattern = {"POST": _POST, "GET": _GET}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        return
    target.matched = True
    name, version, label, last = match.groups()
    if method == "POST":
        target.verb = last
    else:
        target.subresource = last or ""
    target.spec.name = _decoded(name or "")
    if version:
        if int(version) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {version} to numeric.")
        target.spec.version.value = int(version)
    if label:
        target.spec.version_label = _decoded(label)


def _decoded(text: str) -> str:
    # Names in protocol buffers are UTF-8; a name that isn't can't be a model's.
    raw = unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
    return raw.decode(errors="replace")
