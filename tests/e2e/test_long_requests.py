"""Requests that take longer than a pod used to wait for, while their pod goes."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from demo import messages
from tests.support import bad_models
from tests.support.savedmodels import archive, files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e

SECONDS = 60
REST, GRPC = 45, 30
"""How long the requests take: more than a pod gives them by default, by either way."""


class Request(threading.Thread):
    """One request, and what came of it."""

    def __init__(self, ask: Callable[[], float]) -> None:
        super().__init__()
        self._ask = ask
        self.answer: float | Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._ask()
        except (OSError, grpc.RpcError) as error:
            self.answer = error


def by_rest(address: str, name: str, x: float) -> float:
    body = json.dumps({"instances": [x]}).encode()
    url = f"http://{address}:8501/v1/models/{name}:predict"
    with urllib.request.urlopen(url, body, timeout=SECONDS) as answer:
        return float(json.load(answer)["predictions"][0])


def by_grpc(channel: grpc.Channel, name: str, x: float) -> float:
    call: Any = channel.unary_unary(
        "/tensorflow.serving.PredictionService/Predict",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=messages.PredictResponse.FromString,
    )
    answer = call(messages.number_request(name, "x", x), timeout=SECONDS)
    (tensor,) = answer.outputs.values()
    return float(tensor.float_val[0])


def test_long_requests_are_answered_though_their_pod_goes(served: Served, tmp_path: Path) -> None:
    folders = bad_models.build(tmp_path, load_seconds=1, load_mib=1, weights_mib=1)
    served.upload_raw(1, archive(files(folders["long"]), folder="0001"))
    served.apply(replicas=2, drain={"seconds": SECONDS})
    served.until_active(1, replicas=2)
    # One for each way: a model server on few cores works off what sleeps one after the other.
    pods = served.pods()
    one, other = (pod["status"]["podIP"] for pod in pods)
    name = served.name
    with grpc.insecure_channel(f"{other}:8500") as channel:
        assert by_grpc(channel, name, 0.0) == 0.0
        # Its connection is about to reach its age, so the request gets the grace alone.
        time.sleep(12)
        started = time.monotonic()
        requests = [
            Request(lambda: by_rest(one, name, REST)),
            Request(lambda: by_grpc(channel, name, GRPC)),
        ]
        time.sleep(1)
        gone = [pod["metadata"]["name"] for pod in pods]
        served.kubectl("delete", "pods", *gone, "--wait=false")
        for request in requests:
            request.join()
        assert [request.answer for request in requests] == [REST / 2, GRPC / 2]
        assert time.monotonic() - started >= REST
    graces = {pod["spec"]["terminationGracePeriodSeconds"] for pod in pods}
    assert graces == {SECONDS + 10}
