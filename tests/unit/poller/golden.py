"""Recorded requests with their answers, and a model server that says what it is told to."""

from __future__ import annotations

from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc

from development_model_server.protos import (
    PredictionLog,
    PredictRequest,
    PredictResponse,
    TensorProto,
)
from model_poller.model_server.records import FILE, FOLDER, framed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self


def tensor(values: Sequence[float]) -> TensorProto:
    built = TensorProto(dtype=1, float_val=values)
    built.tensor_shape.dim.add().size = len(values)
    return built


def predict_log(inputs: Sequence[float], outputs: Sequence[float] | None) -> PredictionLog:
    """A record of one request ``x`` and, unless None, its answer ``y``."""
    log = PredictionLog()
    log.predict_log.request.model_spec.name = "recorded"
    log.predict_log.request.inputs["x"].CopyFrom(tensor(inputs))
    if outputs is not None:
        log.predict_log.response.outputs["y"].CopyFrom(tensor(outputs))
    return log


def put(folder: Path, *logs: PredictionLog) -> Path:
    """Write them to where a version has them."""
    path = folder / FOLDER / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(framed(log.SerializeToString()) for log in logs))
    return folder


Answer = bytes | tuple[grpc.StatusCode, str]


class PredictionService(grpc.GenericRpcHandler):
    """A gRPC server whose answers a test gives, by the method and the request."""

    def __init__(self, answer: Callable[[str, bytes], Answer]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, bytes]] = []
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(10)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method.rpartition("/")[2]

        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.requests.append((method, request))
            answer = self.answer(method, request)
            if isinstance(answer, bytes):
                return answer
            context.abort(*answer)
            raise AssertionError

        return grpc.unary_unary_rpc_method_handler(call)

    def predictions(self) -> list[PredictRequest]:
        return [PredictRequest.FromString(request) for _, request in self.requests]


def predicting(function: Callable[[float], float]) -> Callable[[str, bytes], Answer]:
    """Answers ``y = function(x)``."""

    def answer(_: str, request: bytes) -> bytes:
        inputs = PredictRequest.FromString(request).inputs["x"].float_val
        response = PredictResponse()
        response.outputs["y"].CopyFrom(tensor([function(value) for value in inputs]))
        content: bytes = response.SerializeToString()
        return content

    return answer
