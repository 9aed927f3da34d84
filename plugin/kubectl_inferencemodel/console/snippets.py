"""The same request as other programs make it: to be copied. Pure."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from kubectl_inferencemodel.resource import InferenceModel

_LONGEST: Final = 4000
"""Characters of a request that is shown whole."""
_LOCAL: Final = "http://127.0.0.1:8501"


class Snippet(msgspec.Struct, frozen=True):
    """One way to ask."""

    title: str
    text: str


def snippets(
    model: InferenceModel, signature: str, version: int | None, *, photo: str, body: bytes
) -> list[Snippet]:
    """Curl, Python over REST, Python over gRPC, and the plugin.

    Args:
        model: who is asked.
        signature: by which signature.
        version: a certain one; None for whichever answers.
        photo: the name of the input that takes a photo's bytes; empty where it takes none.
        body: the request, where it is no photo.
    """
    at = "" if version is None else f"/versions/{version}"
    url = f"{model.status.url or _local_url(model)}{at}:predict"
    content = {} if photo else json.loads(body)
    short = len(body) <= _LONGEST
    return [
        Snippet("curl", _forward(model) + _curl(url, signature, photo, content, short=short)),
        Snippet("Python, REST", _rest(url, signature, photo, content, short=short)),
        Snippet("Python, gRPC", _grpc(model, signature, version, photo, content, short=short)),
        Snippet("kubectl", _kubectl(model, version, photo, signature)),
    ]


def _local_url(model: InferenceModel) -> str:
    return f"{_LOCAL}/v1/models/{model.served_name}"


def _forward(model: InferenceModel, port: str = "8501:http", *, always: bool = False) -> str:
    """How to get to a Service that has no URL outside."""
    if model.status.url and not always:
        return ""
    where = f"-n {model.metadata.namespace} service/{model.metadata.name}"
    return f"# in another terminal: kubectl port-forward {where} {port}\n"


def _curl(url: str, signature: str, photo: str, content: Any, *, short: bool) -> str:
    if photo:
        head = json.dumps({"signature_name": signature, "instances": [{photo: {"b64": ""}}]})
        begin, _, end = head.rpartition('""')
        begin, end = shlex.quote(begin + '"'), shlex.quote('"' + end)
        return (
            f"(printf %s {begin}; base64 < photo.jpg | tr -d '\\n'; printf %s {end}) |\n"
            f"  curl --fail-with-body --data-binary @- {shlex.quote(url)}\n"
        )
    data = shlex.quote(json.dumps(content)) if short else "@request.json"
    return f"curl --fail-with-body --data {data} {shlex.quote(url)}\n"


def _rest(url: str, signature: str, photo: str, content: Any, *, short: bool) -> str:
    if photo:
        made = (
            'photo = base64.b64encode(open("photo.jpg", "rb").read()).decode()\n'
            f"body = {{{json.dumps('signature_name')}: {json.dumps(signature)},"
            f' "instances": [{{{json.dumps(photo)}: {{"b64": photo}}}}]}}\n'
        )
    elif short:
        made = f"body = {content!r}\n"
    else:
        made = 'body = json.load(open("request.json"))\n'
    return (
        f"import base64\nimport json\nimport urllib.request\n\n{made}"
        f"asked = urllib.request.Request({url!r}, json.dumps(body).encode())\n"
        'print(json.load(urllib.request.urlopen(asked))["predictions"])\n'
    )


def _grpc(
    model: InferenceModel,
    signature: str,
    version: int | None,
    photo: str,
    content: Any,
    *,
    short: bool,
) -> str:
    if photo:
        inputs = f'{{{json.dumps(photo)}: [open("photo.jpg", "rb").read()]}}'
    elif short:
        instances = content.get("instances") or [{}]
        inputs = repr({name: [value] for name, value in instances[0].items()})
    else:
        inputs = "…"
    number = "" if version is None else f"request.model_spec.version.value = {version}\n"
    return (
        f"{_forward(model, '8500:grpc', always=True)}"
        "import grpc\nimport tensorflow as tf\n"
        "from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc\n\n"
        "request = predict_pb2.PredictRequest()\n"
        f"request.model_spec.name = {model.served_name!r}\n"
        f"request.model_spec.signature_name = {signature!r}\n{number}"
        f"for name, value in {inputs}.items():\n"
        "    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))\n"
        'with grpc.insecure_channel("127.0.0.1:8500") as channel:\n'
        "    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)\n"
        "    print(stub.Predict(request, timeout=60))\n"
    )


def _kubectl(model: InferenceModel, version: int | None, photo: str, signature: str) -> str:
    words = ["kubectl", "inferencemodel", "predict", model.metadata.name]
    words += [f"--namespace={model.metadata.namespace}"]
    words += ["--image=photo.jpg", f"--signature={signature}"] if photo else ["--json=request.json"]
    words += [f"--version={version}"] if version is not None else []
    return shlex.join(words) + "\n"
