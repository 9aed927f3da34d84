"""The program: from a command line to a running server."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from development_model_server import config, flags, identity, logs, operations
from development_model_server.api import Api
from development_model_server.batching import BatchScheduler
from development_model_server.core import ServerCore
from development_model_server.errors import Code, ServingError, invalid_argument
from development_model_server.grpc_server import Calls, make_server
from development_model_server.http_server import HttpServer
from development_model_server.inference import Inference
from development_model_server.manager import ManagerOptions
from development_model_server.metrics import Metrics
from development_model_server.protos import (
    BatchingParameters,
    ConfigProto,
    ModelServerConfig,
    MonitoringConfig,
    RewriterConfig,
    SSLConfig,
    ThreadPoolFactoryConfig,
)
from development_model_server.rest import RestApi
from development_model_server.saved_model import SavedModelLoader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from development_model_server.flags import Options
    from development_model_server.saved_model import SavedModel

_logger = logging.getLogger(__name__)

_FAILURE = 255
_DRAIN_SECONDS = 30.0
_SERVE_TAG = "serve"
_METRICS_PATH = "/monitoring/prometheus/metrics"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``tensorflow_model_server``; returns the exit code."""
    logs.configure()
    program = sys.argv[0]
    line = flags.parse(sys.argv[1:] if arguments is None else arguments)
    for error in line.errors:
        _logger.error("%s", error)
    if not line.usable:
        print(flags.usage(program), end="", flush=True)
        return _FAILURE
    if line.options.version:
        print(identity.version_text(), end="", flush=True)
        return 0
    if line.unknown:
        print(f"unknown argument: {line.unknown[0]}\n{flags.usage(program)}", end="", flush=True)
    _logger.warning("%s", identity.BANNER)
    _set_signals(line.options)
    try:
        Server(line.options).run()
    except ServingError as error:
        print(f"Failed to start server. Error: {error.text}", flush=True)
        _end(_FAILURE)
    except KeyboardInterrupt:
        _end(130)
    _end(0)
    return 0


def _set_signals(options: Options) -> None:
    if options.development_exit_on_sigterm:
        # Until the servers run there is nothing to drain.
        signal.signal(signal.SIGTERM, lambda *_: _end(0))
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end(code: int) -> None:
    """End at once: threads may be in TensorFlow, or waiting as they may for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Server:
    """A server by its options."""

    def __init__(self, options: Options) -> None:
        """Check the options and make everything that needs no model.

        Raises:
            ServingError: options contradict each other, or a file of theirs can't be read.
        """
        _check(options)
        self._options = options
        self._model_config = _model_config(options)
        batching_parameters = _batching_parameters(options)
        _check_thread_pool_factory(options)
        self._channel_arguments = config.channel_arguments(options.grpc_channel_arguments)
        inference = Inference(
            Metrics(identity.VERSION),
            check_method_names=options.enable_signature_method_name_check,
            as_content=options.enable_serialization_as_tensor_content,
        )
        operations.load()
        loader = SavedModelLoader(
            tags=(options.saved_model_tags or _SERVE_TAG).split(","),
            session_config=_session_config(options).SerializeToString(),
            metrics=inference.metrics,
            inference=inference,
            warmup_iterations=max(1, options.num_request_iterations_for_warmup)
            if options.enable_model_warmup
            else None,
            batching=_batching(batching_parameters, inference.metrics, options),
        )
        self._core: ServerCore[SavedModel] = ServerCore(
            loader,
            ManagerOptions(
                options.num_load_threads,
                options.num_unload_threads,
                options.max_num_load_retries,
                options.load_retry_interval_micros,
            ),
            file_system_poll_wait_seconds=options.file_system_poll_wait_seconds,
            allow_version_labels_for_unavailable_models=(
                options.allow_version_labels_for_unavailable_models
            ),
        )
        self._api = Api(self._core, inference)

    def run(self) -> None:
        """Load the models, then listen until the process is told to end.

        Raises:
            ServingError: a model doesn't become available, or a port is taken.
        """
        self._core.reload_config(self._model_config)
        self._poll_model_config()
        asyncio.run(self._serve())

    def _poll_model_config(self) -> None:
        options = self._options
        if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
            threading.Thread(
                target=self._poll_model_config_loop, name="model-config", daemon=True
            ).start()

    def _poll_model_config_loop(self) -> None:
        while True:
            self._read_model_config()
            time.sleep(self._options.model_config_file_poll_wait_seconds)

    def _read_model_config(self) -> None:
        try:
            model_config = config.read_text_proto(
                self._options.model_config_file, ModelServerConfig
            )
        except ServingError as error:
            _logger.error("Failed to read ModelServerConfig file: %s", error.message)  # noqa: TRY400 - the message says it all
            return
        try:
            self._core.reload_config(model_config)
        except ServingError as error:
            _logger.error("PollFilesystemAndReloadConfig failed to ReloadConfig: %s", error.message)  # noqa: TRY400 - the message says it all

    async def _serve(self) -> None:
        options = self._options
        ended = asyncio.Event()
        if options.development_exit_on_sigterm:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        grpc_server = make_server(
            self._api,
            Calls(
                ThreadPoolExecutor(max(1, options.grpc_max_threads), "grpc"),
                max(1, options.grpc_max_threads),
            ),
            channel_arguments=self._channel_arguments,
            health=options.enable_grpc_healthcheck_service,
        )
        _listen(grpc_server, options)
        await grpc_server.start()
        if options.port:
            _logger.info("Running gRPC ModelServer at 0.0.0.0:%d ...", options.port)
        if options.grpc_socket_path:
            _logger.info("Running gRPC ModelServer at UNIX socket %s ...", options.grpc_socket_path)
        http_server = await self._start_http()
        await ended.wait()
        _logger.info("SIGTERM: waiting for the requests under way")
        await grpc_server.stop(_DRAIN_SECONDS)
        if http_server is not None:
            await http_server.stop()
        self._core.stop()

    async def _start_http(self) -> HttpServer | None:
        options = self._options
        if not options.rest_api_port:
            return None
        if options.rest_api_port == options.port:
            _logger.error(
                "server_options.http_port cannot be same as grpc_port. Please use a different port"
                " for HTTP/REST API. Skipped exporting HTTP/REST API."
            )
            return None
        rest = RestApi(
            self._api,
            timeout_ms=options.rest_api_timeout_in_ms,
            cors=options.rest_api_enable_cors_support,
            metrics_path=_metrics_path(options),
        )
        threads = max(1, options.rest_api_num_threads - 1)
        server = HttpServer(rest, ThreadPoolExecutor(threads, "rest"))
        address = f"localhost:{options.rest_api_port}"
        try:
            await server.start(options.rest_api_port)
        except OSError as error:
            _logger.error("Failed to start HTTP Server at %s: %s", address, error)  # noqa: TRY400 - the message says it all
            return None
        _logger.info("Exporting HTTP/REST API at:%s ...", address)
        return server


def _check(options: Options) -> None:
    if not options.port and not options.grpc_socket_path:
        raise invalid_argument(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be"
            " set."
        )
    if options.use_alts_credentials and options.ssl_config_file:
        raise invalid_argument(
            "Either use_alts_credentials must be false or ssl_config_file must be empty."
        )
    if not options.model_base_path and not options.model_config_file:
        raise invalid_argument(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    for flag, value in (
        ("use_alts_credentials", options.use_alts_credentials),
        ("platform_config_file", options.platform_config_file),
    ):
        if value:
            raise ServingError(
                Code.UNIMPLEMENTED,
                f"--{flag} is not available in this development server; start it without",
            )


def _model_config(options: Options) -> ModelServerConfig:
    if options.model_config_file:
        return config.read_text_proto(options.model_config_file, ModelServerConfig)
    _logger.info(
        "Building single TensorFlow model file config:  model_name: %s model_base_path: %s",
        options.model_name,
        options.model_base_path,
    )
    model_config = ModelServerConfig()
    model_config.model_config_list.config.add(
        name=options.model_name,
        base_path=options.model_base_path,
        model_platform=config.PLATFORM,
    )
    return model_config


def _batching_parameters(options: Options) -> BatchingParameters | None:
    if not options.enable_batching:
        if options.batching_parameters_file:
            raise invalid_argument(
                "server_options.batching_parameters_file is set without setting"
                " server_options.enable_batching to true."
            )
        return None
    if options.batching_parameters_file:
        return config.read_text_proto(options.batching_parameters_file, BatchingParameters)
    parameters = BatchingParameters()
    parameters.thread_pool_name.value = "model_server_batch_threads"
    return parameters


def _batching(
    parameters: BatchingParameters | None, metrics: Metrics, options: Options
) -> BatchScheduler | None:
    if parameters is None:
        return None
    return BatchScheduler(
        parameters, metrics, per_model=options.enable_per_model_batching_parameters
    )


def _check_thread_pool_factory(options: Options) -> None:
    if options.thread_pool_factory_config_file:
        config.read_text_proto(options.thread_pool_factory_config_file, ThreadPoolFactoryConfig)


def _session_config(options: Options) -> ConfigProto:
    session_config = ConfigProto()
    if options.tensorflow_session_config_file:
        session_config = config.read_text_proto(options.tensorflow_session_config_file, ConfigProto)
    session_config.gpu_options.per_process_gpu_memory_fraction = (
        options.per_process_gpu_memory_fraction
    )
    both = options.tensorflow_session_parallelism
    intra = options.tensorflow_intra_op_parallelism
    inter = options.tensorflow_inter_op_parallelism
    if both > 0 and intra > 0 and inter > 0:
        raise invalid_argument(
            "Either configure server_options.tensorflow_session_parallelism or"
            " (server_options.tensorflow_intra_op_parallelism,"
            " server_options.tensorflow_inter_op_parallelism) separately. You cannot configure all."
        )
    if intra <= 0 and inter <= 0:
        intra = inter = both
    session_config.intra_op_parallelism_threads = intra
    session_config.inter_op_parallelism_threads = inter
    if options.mixed_precision == "bfloat16":
        _logger.info("Running inference with bfloat16 auto mixed precision")
        session_config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = (
            RewriterConfig.ON
        )
    elif options.mixed_precision:
        _logger.warning(
            "%s auto mixed precision is not supported. Valid option: bfloat16",
            options.mixed_precision,
        )
    return session_config


def _metrics_path(options: Options) -> str | None:
    if not options.monitoring_config_file:
        return None
    monitoring = config.read_text_proto(options.monitoring_config_file, MonitoringConfig)
    if not monitoring.prometheus_config.enable:
        return None
    return monitoring.prometheus_config.path or _METRICS_PATH


def _listen(server: grpc.aio.Server, options: Options) -> None:
    addresses = [f"0.0.0.0:{options.port}"] if options.port else []
    if options.grpc_socket_path:
        addresses.append(f"unix:{options.grpc_socket_path}")
    credentials = _credentials(options)
    for address in addresses:
        try:
            bound = (
                server.add_insecure_port(address)
                if credentials is None
                else server.add_secure_port(address, credentials)
            )
        except RuntimeError:
            bound = 0
        if not bound:
            _logger.error("%s can't be bound: is another server running there?", address)
            raise invalid_argument("Failed to BuildAndStart gRPC server")


def _credentials(options: Options) -> grpc.ServerCredentials | None:
    if not options.ssl_config_file:
        _logger.info("Using InsecureServerCredentials")
        return None
    ssl = config.read_text_proto(options.ssl_config_file, SSLConfig)
    if ssl.client_verify and not ssl.custom_ca:
        raise invalid_argument(
            f"{options.ssl_config_file}: client_verify needs custom_ca, the authority of the"
            " clients' certificates"
        )
    _logger.info("Using SSL credentials")
    return grpc.ssl_server_credentials(
        [(ssl.server_key.encode(), ssl.server_cert.encode())],
        root_certificates=ssl.custom_ca.encode() or None,
        require_client_auth=ssl.client_verify,
    )
