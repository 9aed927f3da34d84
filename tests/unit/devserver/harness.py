"""A real development model server as a process of its own, and ways to talk to it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from devcluster.ports import free_port
from development_model_server import protos
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from types import TracebackType

REPOSITORY = Path(__file__).parents[3]
QUICK = ("--max_num_load_retries=0", "--num_load_threads=2", "--num_unload_threads=1")


def publish(model: Path, base_path: Path, version: int | str) -> Path:
    """Put a version into a base path as a poller does: by a rename."""
    base_path.mkdir(parents=True, exist_ok=True)
    staged = base_path / f".staged-{version}"
    shutil.copytree(model, staged)
    return staged.rename(base_path / str(version))


def single_model_config(name: str, base_path: Path, rest: str = "") -> str:
    return (
        f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {rest} }}'
    )


def model_config_list(*models: str) -> str:
    return f"model_config_list {{ {' '.join(models)} }}"


@dataclass
class RestAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


@dataclass
class ModelServer:
    """Starts on entering; is killed on leaving."""

    directory: Path
    arguments: list[str] = field(default_factory=list)
    wait: bool = True

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.grpc_port = free_port()
        self.rest_port = free_port()
        self.log_file = self.directory / "log"
        self.output_file = self.directory / "output"

    @classmethod
    def of(cls, directory: Path, base_path: Path, *arguments: str, name: str = "m") -> ModelServer:
        """A server of one model."""
        return cls(
            directory,
            [f"--model_name={name}", f"--model_base_path={base_path}", *QUICK, *arguments],
        )

    def __enter__(self) -> ModelServer:
        with self.log_file.open("wb") as log, self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "development_model_server",
                    f"--port={self.grpc_port}",
                    f"--rest_api_port={self.rest_port}",
                    *self.arguments,
                ],
                stdout=output,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY / "devserver")},
            )
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}")
        self.prediction = PredictionServiceStub(self.channel)
        self.models = ModelServiceStub(self.channel)
        if self.wait:
            self.wait_until_listening()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait(timeout=30)
        if error is not None:
            print(self.log[-8000:])

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def output(self) -> str:
        return self.output_file.read_text(errors="replace")

    def wait_until_listening(self) -> None:
        eventually(self.listening, what="the server to listen", within=60, every=0.05)

    def listening(self) -> bool:
        assert self.process.poll() is None, f"the server ended: {self.output}\n{self.log}"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.rest_port)) == 0

    def wait_for_exit(self) -> int:
        return self.process.wait(timeout=60)

    def rest(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> RestAnswer:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return RestAnswer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any) -> RestAnswer:
        return self.rest("POST", path, body)

    def states(self, model: str = "m") -> list[tuple[int, str, str]]:
        """Version, state and error message, in the order of the answer."""
        answer = self.rest("GET", f"/v1/models/{model}")
        if answer.status == 404:
            return []
        return [
            (int(entry["version"]), entry["state"], entry["status"]["error_message"])
            for entry in answer.json["model_version_status"]
        ]

    def wait_for_states(self, *states: tuple[int, str], model: str = "m") -> None:
        def reached() -> bool:
            seen = [state[:2] for state in self.states(model)]
            assert seen == list(states), seen
            return True

        eventually(reached, what=f"{model} to be {states}", within=30, every=0.05)

    def wait_for_log(self, text: str) -> None:
        eventually(lambda: text in self.log, what=f"{text!r} in the log", within=30, every=0.05)

    def predict(self, model: str = "m", x: float = 1.0, **spec: Any) -> protos.PredictResponse:
        request = predict_request(model, **spec)
        request.inputs["x"].CopyFrom(floats(x))
        return self.prediction.Predict(request, timeout=30)

    def reload(self, config: str) -> protos.ReloadConfigResponse:
        from google.protobuf import text_format

        request = protos.ReloadConfigRequest()
        text_format.Parse(config, request.config)
        return self.models.HandleReloadConfigRequest(request, timeout=30)


def predict_request(
    model: str = "m", *, signature: str = "", version: int | None = None, label: str = ""
) -> protos.PredictRequest:
    request = protos.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    return request


def floats(*values: float) -> protos.TensorProto:
    proto = protos.TensorProto(dtype=protos.DataType.DT_FLOAT, float_val=values)
    proto.tensor_shape.dim.add(size=len(values))
    return proto
