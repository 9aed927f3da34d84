"""gRPC in front of the API: PredictionService, ModelService and, if asked for, health."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from development_model_server.errors import Code, ServingError
from development_model_server.protos import (
    HealthCheckRequest,
    HealthCheckResponse,
    ModelServiceServicer,
    PredictionServiceServicer,
    add_ModelServiceServicer_to_server,
    add_PredictionServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from concurrent.futures import Executor

    from development_model_server.api import Api

_logger = logging.getLogger(__name__)

_MAX_MESSAGE_BYTES = 2**31 - 1
_MESSAGE_LIMIT = 1024
_STATUS = {code.value[0]: code for code in grpc.StatusCode}

ResultT = TypeVar("ResultT")


class Calls:
    """Runs each call's work in a thread, as many at once as there may be."""

    def __init__(self, executor: Executor, limit: int) -> None:
        self._executor = executor
        self._limit = limit
        self._running = 0

    async def run(
        self, context: grpc.aio.ServicerContext[Any, Any], work: Callable[[], ResultT]
    ) -> ResultT:
        """Return the work's result; a ServingError ends the call with its code and message."""
        if self._running >= self._limit:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except ServingError as error:
            message = error.message
            if len(message) > _MESSAGE_LIMIT:
                message = f"{message[:_MESSAGE_LIMIT]}...TRUNCATED"
            await context.abort(_STATUS[int(error.code)], message)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            _logger.exception("A request failed unexpectedly")
            await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        finally:
            self._running -= 1
        raise AssertionError("abort always raises")


def _timeout_ms(context: grpc.aio.ServicerContext[Any, Any]) -> int:
    remaining = context.time_remaining()
    # Without a deadline gRPC tells an absurdly large number.
    if remaining is None or remaining > 10 * 365 * 86400:
        return 0
    return max(1, int(remaining * 1000))


class _PredictionService(PredictionServiceServicer):  # type: ignore[misc]
    def __init__(self, api: Api, calls: Calls) -> None:
        self._api = api
        self._calls = calls

    async def _measured(
        self, request: Any, context: Any, name: str, work: Callable[[Any, int], ResultT]
    ) -> ResultT:
        started = time.monotonic()
        timeout_ms = _timeout_ms(context)
        metrics = self._api.metrics
        model = request.model_spec.name

        def measured() -> ResultT:
            try:
                result = work(request, timeout_ms)
            except ServingError as error:
                metrics.request_count.add(model, error.code.name)
                raise
            metrics.request_latency.add(
                int((time.monotonic() - started) * 1e6), model, name, "GRPC"
            )
            metrics.request_count.add(model, Code.OK.name)
            return result

        return await self._calls.run(context, measured)

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._measured(request, context, "Predict", self._api.predict)

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._measured(request, context, "Classify", self._api.classify)

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._measured(request, context, "Regress", self._api.regress)

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        timeout_ms = _timeout_ms(context)
        return await self._calls.run(
            context, lambda: self._api.multi_inference(request, timeout_ms)
        )

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._calls.run(context, lambda: self._api.model_metadata(request))


class _ModelService(ModelServiceServicer):  # type: ignore[misc]
    def __init__(self, api: Api, calls: Calls) -> None:
        self._api = api
        self._calls = calls

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._calls.run(context, lambda: self._api.model_status(request))

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        def reload() -> Any:
            response, failure = self._api.reload_config(request)
            if failure is not None:
                raise failure
            return response

        return await self._calls.run(context, reload)


class _Unparsed(grpc.aio.ServerInterceptor):
    """Answers what is no message of its type with INTERNAL and no word, as gRPC's C++ does."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        def read(content: bytes) -> Any:
            try:
                return handler.request_deserializer(content)
            except DecodeError:
                return None

        async def answer(request: Any, context: Any) -> Any:
            if request is None:
                await context.abort(grpc.StatusCode.INTERNAL, "")
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(answer, read, handler.response_serializer)


_SERVING = 1
_SERVICE_UNKNOWN = 3
# The names under which TensorFlow Serving registers itself: short ones, set once for all.
_HEALTHY = frozenset(("", "ModelService", "PredictionService"))


async def _check_health(request: Any, context: Any) -> Any:
    if request.service not in _HEALTHY:
        await context.abort(grpc.StatusCode.NOT_FOUND, "")
    return HealthCheckResponse(status=_SERVING)


async def _watch_health(request: Any, context: Any) -> None:
    status = _SERVING if request.service in _HEALTHY else _SERVICE_UNKNOWN
    await context.write(HealthCheckResponse(status=status))
    # Nothing ever changes; the call ends with its client.
    await asyncio.Event().wait()


def _health_service() -> grpc.GenericRpcHandler:
    serialization: dict[str, Any] = {
        "request_deserializer": HealthCheckRequest.FromString,
        "response_serializer": HealthCheckResponse.SerializeToString,
    }
    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.unary_unary_rpc_method_handler(_check_health, **serialization),
            "Watch": grpc.unary_stream_rpc_method_handler(_watch_health, **serialization),
        },
    )


def make_server(
    api: Api,
    calls: Calls,
    *,
    channel_arguments: Sequence[tuple[str, str | int]],
    health: bool,
) -> grpc.aio.Server:
    """Make a server with its services, not listening yet."""
    server = grpc.aio.server(
        interceptors=[_Unparsed()],
        options=[
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            *channel_arguments,
        ],
    )
    add_PredictionServiceServicer_to_server(_PredictionService(api, calls), server)
    add_ModelServiceServicer_to_server(_ModelService(api, calls), server)
    if health:
        server.add_generic_rpc_handlers((_health_service(),))
    return server
