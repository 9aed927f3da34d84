"""``kubectl inferencemodel predict`` with a real model: a picture in, labels out."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from development_model_server.protos import PredictionLog, PredictRequest, PredictResponse
from development_model_server.tensors import Tensor
from kubectl_inferencemodel.errors import AnswerError
from model_poller.model_server import records
from tests.api.test_plugin import Plugin, create, tell
from tests.support import crd
from tests.support.http_servers import own_address
from tests.support.kubectl import Kubectl
from tests.unit.devserver.harness import ModelServer, publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api

pytestmark = pytest.mark.api

# How red a picture is, and how blue: from the bytes of a PNG file to labels with scores.
_BUILD = """
import sys
import tensorflow as tf

class Colours(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def classify(self, image_bytes):
        def one(image):
            pixels = tf.cast(tf.io.decode_png(image, channels=3), tf.float32) / 255.0
            mean = tf.reduce_mean(pixels, axis=[0, 1])
            return tf.stack([mean[0], mean[2]])
        scores = tf.map_fn(one, image_bytes, fn_output_signature=tf.float32)
        classes = tf.tile([["red", "blue"]], [tf.shape(image_bytes)[0], 1])
        return {"classes": classes, "scores": scores}

model = Colours()
tf.saved_model.save(model, sys.argv[1], signatures={"serving_default": model.classify})
tf.io.write_file(sys.argv[2], tf.io.encode_png(tf.constant([[[51, 0, 204]]], tf.uint8)))
"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pixel, more blue than red; the model lies beside it."""
    directory = tmp_path_factory.mktemp("colours")
    subprocess.run(
        [sys.executable, "-c", _BUILD, str(directory / "model"), str(directory / "picture.png")],
        check=True,
        capture_output=True,
        timeout=180,
    )
    return directory / "picture.png"


@pytest.fixture(scope="module")
def server(picture: Path) -> Iterator[ModelServer]:
    """Serves version 7 of the model as ``colours``."""
    base_path = picture.parent / "base"
    publish(picture.parent / "model", base_path, 7)
    with ModelServer.of(picture.parent / "server", base_path, name="colours") as running:
        yield running


@pytest.fixture(scope="module")
def plugin(api_server: Api, server: ModelServer) -> Iterator[Plugin]:
    """With an InferenceModel ``colours``, whose URL leads to the model server."""
    with crd.installed(api_server) as namespace:
        kubectl = Kubectl(api_server.program, api_server.kubeconfig, namespace)
        create(kubectl, "colours")
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/colours"
        tell(kubectl, "colours", active=7, target=7, url=url)
        yield Plugin(kubectl)


def serve(kubectl: Kubectl, name: str, port: int) -> None:
    """The Service of an InferenceModel, with one pod: a port of this machine.

    The API server carries requests to addresses of pods alone, so there has to be a Pod.
    """
    address = own_address()
    pod = {"kind": "Pod", "namespace": kubectl.namespace, "name": name}
    subset = {
        "addresses": [{"ip": address, "targetRef": pod}],
        "ports": [{"name": "http", "port": port}],
    }
    contents: dict[str, Any] = {
        "Pod": {"spec": {"containers": [{"name": "model-server", "image": "none"}]}},
        "Service": {"spec": {"ports": [{"name": "http", "port": 8501}]}},
        "Endpoints": {"subsets": [subset]},
    }
    for kind, content in contents.items():
        kubectl.apply({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **content})
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    kubectl(
        *("patch", "pod", name, "--subresource=status", "--type=merge"),
        *("--patch", json.dumps({"status": status})),
    )


def test_without_any_url_the_api_server_carries_the_picture_to_the_service(
    plugin: Plugin, server: ModelServer, picture: Path
) -> None:
    create(plugin.kubectl, "inside", model={"storageUri": "gs://models/colours", "name": "colours"})
    serve(plugin.kubectl, "inside", server.rest_port)
    of = ("predict", "inside", f"--image={picture}")
    printed = plugin(*of)
    rows = [line.split()[:2] for line in printed.splitlines()]
    assert rows[1:3] == [["0.800", "blue"], ["0.200", "red"]]
    assert "by version 7 of inside" in printed
    assert plugin.json(*of, "--version=7")["version"] == 7
    with pytest.raises(AnswerError, match="inside answers 404: Servable not found"):
        plugin(*of, "--version=6")
    with pytest.raises(AnswerError, match="inside has no URL in its status yet"):
        plugin(*of, "--via=url")


def test_a_picture_becomes_labels(plugin: Plugin, picture: Path) -> None:
    printed = plugin("predict", "colours", f"--image={picture}", "--via=url")
    rows = [line.split()[:2] for line in printed.splitlines()]
    assert rows[1:3] == [["0.800", "blue"], ["0.200", "red"]]
    assert "by version 7 of colours" in printed


def test_a_certain_version_can_be_asked_and_one_that_is_not_served_says_so(
    plugin: Plugin, picture: Path
) -> None:
    of = ("predict", "colours", f"--image={picture}", "--via=url")
    assert plugin.json(*of, "--version=7")["version"] == 7
    with pytest.raises(AnswerError, match="colours answers 404: Servable not found"):
        plugin(*of, "--version=6")


def test_what_is_no_picture_gets_the_model_servers_own_words(
    plugin: Plugin, tmp_path: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(AnswerError, match="answers 400"):
        plugin("predict", "colours", f"--image={text}", "--via=url")


def test_what_is_recorded_is_what_the_model_server_answers_over_grpc(
    plugin: Plugin, server: ModelServer, picture: Path, tmp_path: Path
) -> None:
    request = tmp_path / "request.json"
    encoded = base64.b64encode(picture.read_bytes()).decode()
    request.write_text(json.dumps({"instances": [{"b64": encoded}, {"b64": encoded}]}))
    out = tmp_path / "golden"
    files = [f"--image={picture}", f"--json={request}", f"--out={out}"]
    told = plugin.json("record", "colours", *files, "--via=url")
    assert (told["version"], told["records"]) == (7, 2)
    assert records.check(out) == 2
    whole = out.read_bytes()
    logs = [PredictionLog.FromString(whole[at.start : at.stop]) for at in records.records(whole)]
    ask = server.channel.unary_unary(
        "/tensorflow.serving.PredictionService/Predict",
        request_serializer=PredictRequest.SerializeToString,
        response_deserializer=PredictResponse.FromString,
    )
    for log, rows in zip(logs, (1, 2), strict=True):
        recorded = log.predict_log.response.outputs
        answered = ask(log.predict_log.request, timeout=60).outputs
        assert recorded.keys() == answered.keys() == {"classes", "scores"}
        for name in recorded:
            mine, theirs = Tensor.from_proto(recorded[name]), Tensor.from_proto(answered[name])
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
            assert mine.shape == (rows, 2)
            assert mine.strings == theirs.strings
            assert mine.values.tolist() == theirs.values.tolist()
