"""The command line: TensorFlow Serving's 48 flags, and one of our own.

The rules are those of TensorFlow's ``core/util/command_line_flags.cc``: only ``--name=value``; a
boolean is ``--name``, ``--name=true`` or ``--name=false``; the last of several wins; a value that
can't be read is an error, but an argument that nobody knows is not.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_CPUS = len(os.sched_getaffinity(0))


def _flag(default: Any, kind: str, usage: str) -> Any:
    return field(default=default, metadata={"kind": kind, "usage": usage})


def _int32(default: int, usage: str) -> int:
    return _flag(default, "int32", usage)  # type: ignore[no-any-return]


def _int64(default: int, usage: str) -> int:
    return _flag(default, "int64", usage)  # type: ignore[no-any-return]


def _bool(default: bool, usage: str) -> bool:
    return _flag(default, "bool", usage)  # type: ignore[no-any-return]


def _string(default: str, usage: str) -> str:
    return _flag(default, "string", usage)  # type: ignore[no-any-return]


def _float(default: float, usage: str) -> float:
    return _flag(default, "float", usage)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Options:
    """The value of every flag, in the order in which the usage lists them."""

    port: int = _int32(8500, "TCP port of gRPC; 0 switches it off.")
    grpc_socket_path: str = _string("", "Path of a UNIX socket on which gRPC listens too.")
    rest_api_port: int = _int32(0, "TCP port of REST, another one than --port; 0 switches it off.")
    rest_api_num_threads: int = _int32(4 * _CPUS, "Threads that work on REST requests.")
    rest_api_timeout_in_ms: int = _int32(30000, "Milliseconds that a REST request may run.")
    rest_api_enable_cors_support: bool = _bool(False, "Answer with CORS headers.")
    enable_batching: bool = _bool(False, "Run concurrent requests as one batch.")
    allow_version_labels_for_unavailable_models: bool = _bool(
        False, "Allow a label that is new to name a version that isn't available yet."
    )
    batching_parameters_file: str = _string(
        "", "File with BatchingParameters as text; needs --enable_batching."
    )
    enable_per_model_batching_parameters: bool = _bool(
        False, "Read batching parameters from batching_params.pbtxt in each version's folder."
    )
    model_config_file: str = _string(
        "", "File with a ModelServerConfig as text; --model_name and --model_base_path are ignored."
    )
    model_config_file_poll_wait_seconds: int = _int32(
        0, "Seconds between two readings of --model_config_file; 0 reads it once."
    )
    model_name: str = _string("default", "Name of the model, without --model_config_file.")
    model_base_path: str = _string(
        "", "Folder of the model's versions; required without --model_config_file."
    )
    num_load_threads: int = _int32(
        0, "Threads that load versions; 0 loads in the manager's own loop."
    )
    num_unload_threads: int = _int32(
        0, "Threads that unload versions; 0 unloads in the manager's own loop."
    )
    max_num_load_retries: int = _int32(5, "How often a load that failed is tried again.")
    load_retry_interval_micros: int = _int64(
        60_000_000, "Microseconds between two tries of a load; negative doesn't wait."
    )
    file_system_poll_wait_seconds: int = _int32(
        1, "Seconds between two looks for versions; 0 looks once, negative never."
    )
    flush_filesystem_caches: bool = _bool(True, "Accepted; this server leaves caches alone.")
    tensorflow_session_parallelism: int = _int64(
        0, "Threads of a session, within and between operations; 0 is automatic."
    )
    tensorflow_session_config_file: str = _string("", "File with a ConfigProto as text.")
    tensorflow_intra_op_parallelism: int = _int64(0, "Threads within an operation; 0 is automatic.")
    tensorflow_inter_op_parallelism: int = _int64(
        0, "Operations that run at the same time; 0 is automatic."
    )
    use_alts_credentials: bool = _bool(False, "ALTS credentials; not available in this server.")
    ssl_config_file: str = _string("", "File with an SSLConfig as text, for gRPC.")
    platform_config_file: str = _string(
        "", "File with a PlatformConfigMap as text; not available in this server."
    )
    per_process_gpu_memory_fraction: float = _float(0.0, "Part of a GPU's memory to take.")
    saved_model_tags: str = _string("serve", "Tags of the meta graph to load, comma-separated.")
    grpc_channel_arguments: str = _string("", "gRPC server arguments: name=value,name=value.")
    grpc_max_threads: int = _int32(4 * _CPUS, "gRPC requests that may run at the same time.")
    enable_model_warmup: bool = _bool(
        True, "Replay assets.extra/tf_serving_warmup_requests before a version is available."
    )
    num_request_iterations_for_warmup: int = _int32(
        0, "How often each warm-up request is replayed, if positive."
    )
    version: bool = _bool(False, "Print versions and exit.")
    monitoring_config_file: str = _string("", "File with a MonitoringConfig as text.")
    remove_unused_fields_from_bundle_metagraph: bool = _bool(
        True, "Accepted; this server keeps signatures only."
    )
    prefer_tflite_model: bool = _bool(False, "Prefer model.tflite; not available in this server.")
    num_tflite_pools: int = _int32(_CPUS, "Accepted; there is no TensorFlow Lite here.")
    num_tflite_interpreters_per_pool: int = _int32(1, "Accepted; there is no TensorFlow Lite here.")
    enable_signature_method_name_check: bool = _bool(
        False, "Refuse a request whose signature has another method name."
    )
    xla_cpu_compilation_enabled: bool = _bool(False, "Accepted; XLA is left as TensorFlow has it.")
    xla_gpu_compilation_enabled: bool = _bool(False, "Accepted; XLA is left as TensorFlow has it.")
    enable_profiler: bool = _bool(True, "Accepted; there is no profiler service here.")
    thread_pool_factory_config_file: str = _string(
        "", "File with a ThreadPoolFactoryConfig as text; checked, not used."
    )
    mixed_precision: str = _string("", "bfloat16 runs with automatic mixed precision.")
    skip_initialize_tpu: bool = _bool(False, "Accepted; there is no TPU here.")
    enable_grpc_healthcheck_service: bool = _bool(False, "Offer grpc.health.v1.Health.")
    enable_serialization_as_tensor_content: bool = _bool(
        False, "Answer Predict with tensor_content in place of typed fields."
    )
    development_exit_on_sigterm: bool = _bool(
        False,
        "This development server's own: end on SIGTERM after the requests under way. TensorFlow"
        " Serving as a container's first process ignores the signal, and so does this server"
        " without the flag.",
    )


_FLAGS = dataclasses.fields(Options)


@dataclass(frozen=True)
class CommandLine:
    """What a command line says."""

    options: Options
    unknown: tuple[str, ...] = ()
    """Arguments that are no flags; the server starts all the same."""
    errors: tuple[str, ...] = ()
    """Why values couldn't be read; the server prints its usage and ends."""

    @property
    def usable(self) -> bool:
        """Whether the server may start."""
        return not self.errors and self.unknown[:1] != ("--help",)


def parse(arguments: Sequence[str]) -> CommandLine:
    """Read the arguments that follow the program's name."""
    values: dict[str, Any] = {}
    unknown: list[str] = []
    errors: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            unknown.extend(arguments[position:])
            break
        matched = _match(argument)
        if matched is None:
            unknown.append(argument)
            continue
        flag, text = matched
        try:
            values[flag.name] = _READERS[flag.metadata["kind"]](text)
        except ValueError:
            errors.append(f"Couldn't interpret value {text} for flag {flag.name}.")
    return CommandLine(Options(**values), tuple(unknown), tuple(errors))


def usage(program: str) -> str:
    """What ``--help`` prints."""
    return "".join((f"usage: {program}\nFlags:\n", *_usage_lines()))


def _usage_lines() -> Iterable[str]:
    for flag in _FLAGS:
        kind = flag.metadata["kind"]
        default = {
            "bool": lambda value: str(value).lower(),
            "string": lambda value: f'"{value}"',
            "float": lambda value: f"{value:f}",
        }.get(kind, str)(flag.default)
        yield f"\t{f'--{flag.name}={default}':<33}\t{kind}\t{flag.metadata['usage']}\n"


def _match(argument: str) -> tuple[dataclasses.Field[Any], str] | None:
    for flag in _FLAGS:
        # A boolean takes every argument that begins with its name, and then finds it wrong.
        prefix = f"--{flag.name}" if flag.metadata["kind"] == "bool" else f"--{flag.name}="
        if argument.startswith(prefix):
            return flag, argument[len(prefix) :]
    return None


def _read_bool(text: str) -> bool:
    if text in ("", "=true"):
        return True
    if text == "=false":
        return False
    raise ValueError


def _read_integer(bits: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        # sscanf's %d: blanks before a number, nothing after it; what is too large is cut.
        if not re.fullmatch(r"[ \t\n\v\f\r]*[+-]?[0-9]+", text):
            raise ValueError
        value = max(-(2**63), min(2**63 - 1, int(text)))
        half = 1 << (bits - 1)
        return (value + half) % (1 << bits) - half

    return read


def _read_float(text: str) -> float:
    if "_" in text or text != text.rstrip():
        raise ValueError
    return float(text)


_READERS: dict[str, Callable[[str], Any]] = {
    "bool": _read_bool,
    "int32": _read_integer(32),
    "int64": _read_integer(64),
    "float": _read_float,
    "string": str,
}
