"""The command line, as TensorFlow reads it."""

from __future__ import annotations

import pytest

from development_model_server import flags

SERVING_FLAGS = [
    "port",
    "grpc_socket_path",
    "rest_api_port",
    "rest_api_num_threads",
    "rest_api_timeout_in_ms",
    "rest_api_enable_cors_support",
    "enable_batching",
    "batching_parameters_file",
    "enable_per_model_batching_parameters",
    "allow_version_labels_for_unavailable_models",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "model_name",
    "model_base_path",
    "num_load_threads",
    "num_unload_threads",
    "max_num_load_retries",
    "load_retry_interval_micros",
    "file_system_poll_wait_seconds",
    "flush_filesystem_caches",
    "tensorflow_session_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "tensorflow_session_config_file",
    "use_alts_credentials",
    "ssl_config_file",
    "platform_config_file",
    "per_process_gpu_memory_fraction",
    "saved_model_tags",
    "grpc_channel_arguments",
    "grpc_max_threads",
    "enable_model_warmup",
    "num_request_iterations_for_warmup",
    "version",
    "monitoring_config_file",
    "remove_unused_fields_from_bundle_metagraph",
    "prefer_tflite_model",
    "num_tflite_pools",
    "num_tflite_interpreters_per_pool",
    "enable_signature_method_name_check",
    "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled",
    "enable_profiler",
    "thread_pool_factory_config_file",
    "mixed_precision",
    "skip_initialize_tpu",
    "enable_grpc_healthcheck_service",
    "enable_serialization_as_tensor_content",
]


def test_every_flag_of_tensorflow_serving_is_known() -> None:
    usage = flags.usage("tensorflow_model_server")
    assert len(SERVING_FLAGS) == 48
    for name in SERVING_FLAGS:
        assert f"\t--{name}=" in usage
    assert usage.startswith("usage: tensorflow_model_server\nFlags:\n\t--port=8500 ")


def test_defaults_are_those_of_tensorflow_serving() -> None:
    options = flags.parse([]).options
    assert options.port == 8500
    assert options.rest_api_port == 0
    assert options.rest_api_timeout_in_ms == 30000
    assert options.model_name == "default"
    assert options.max_num_load_retries == 5
    assert options.load_retry_interval_micros == 60_000_000
    assert options.file_system_poll_wait_seconds == 1
    assert options.saved_model_tags == "serve"
    assert options.enable_model_warmup
    assert not options.development_exit_on_sigterm


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--enable_batching", True),
        ("--enable_batching=true", True),
        ("--enable_batching=false", False),
    ],
)
def test_a_boolean_is_bare_true_or_false(argument: str, value: bool) -> None:
    line = flags.parse([argument])
    assert line.usable
    assert line.options.enable_batching is value


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("--enable_batching=True", "Couldn't interpret value =True for flag enable_batching."),
        ("--enable_batching=1", "Couldn't interpret value =1 for flag enable_batching."),
        ("--enable_batchings", "Couldn't interpret value s for flag enable_batching."),
        ("--port=", "Couldn't interpret value  for flag port."),
        ("--port=85oo", "Couldn't interpret value 85oo for flag port."),
        ("--port=8500 ", "Couldn't interpret value 8500  for flag port."),
        ("--port=1.5", "Couldn't interpret value 1.5 for flag port."),
        ("--load_retry_interval_micros=x", "Couldn't interpret value x for flag"),
        ("--per_process_gpu_memory_fraction=half", "Couldn't interpret value half for flag"),
    ],
)
def test_a_value_that_cannot_be_read_is_an_error(argument: str, error: str) -> None:
    line = flags.parse([argument])
    assert not line.usable
    assert line.errors[0].startswith(error)


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("--port= 8500", "port", 8500),
        ("--port=+8500", "port", 8500),
        ("--port=-1", "port", -1),
        ("--load_retry_interval_micros=-5", "load_retry_interval_micros", -5),
        ("--per_process_gpu_memory_fraction=0.25", "per_process_gpu_memory_fraction", 0.25),
        ("--model_name=", "model_name", ""),
        ("--model_name=a=b", "model_name", "a=b"),
    ],
)
def test_values_follow_an_equals_sign(argument: str, name: str, value: object) -> None:
    line = flags.parse([argument])
    assert line.usable
    assert getattr(line.options, name) == value


def test_a_value_after_a_blank_is_unknown_and_harmless() -> None:
    line = flags.parse(["--port", "9000", "--model_name=m", "-port=1", "x"])
    assert line.usable
    assert line.unknown == ("--port", "9000", "-port=1", "x")
    assert line.options.port == 8500
    assert line.options.model_name == "m"


def test_the_last_of_several_wins_and_two_dashes_end_the_flags() -> None:
    line = flags.parse(["--port=1", "--port=2", "--", "--port=3"])
    assert line.options.port == 2
    assert line.unknown == ("--", "--port=3")


def test_help_as_first_unknown_argument_prints_the_usage_and_ends() -> None:
    assert not flags.parse(["--model_name=m", "--help"]).usable
    assert flags.parse(["x", "--help"]).usable
