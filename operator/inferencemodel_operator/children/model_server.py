"""The model server's container: TensorFlow Serving behind an explicit command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inferencemodel_operator import names
from inferencemodel_operator.children import environment, pod
from inferencemodel_operator.children.leaving import Leaving, leaving
from inferencemodel_operator.children.manifest import Manifest, present

if TYPE_CHECKING:
    from inferencemodel_operator.spec import InferenceModel, Server

EXECUTABLE: Final = "/usr/bin/tensorflow_model_server"

LOAD_SECONDS: Final = 1800
"""How long a version may take to load, as the poller's --load-timeout has it: that counts while the
ports are open, the startup probe while they are closed."""


def container(model: InferenceModel) -> Manifest:
    """The container that answers requests."""
    server, leave = model.spec.server, leaving(model.spec.drain.seconds)
    return present(
        name=names.SERVER_CONTAINER,
        image=server.image,
        imagePullPolicy=server.image_pull_policy,
        # Explicit, because the image's own entry point is a shell that adds flags of its own.
        command=list(server.command or (EXECUTABLE,)),
        args=arguments(server, leave),
        env=environment.variables(server.env),
        ports=[
            {"name": "grpc", "containerPort": names.GRPC_PORT, "protocol": "TCP"},
            {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
        ],
        # Ports are closed until the first version is loaded.
        startupProbe={**_OPEN, "periodSeconds": 1, "failureThreshold": LOAD_SECONDS},
        # The only path that answers 200 just when some version can be served.
        readinessProbe={
            "httpGet": {
                "path": f"/v1/models/{model.model_name}/metadata",
                "port": "http",
                "scheme": "HTTP",
            },
            "periodSeconds": 2,
            "failureThreshold": 2,
            # A server that is busy, or loading the next version, still serves.
            "timeoutSeconds": 5,
        },
        livenessProbe={**_OPEN, "periodSeconds": 10, "failureThreshold": 6, "timeoutSeconds": 5},
        lifecycle={"preStop": {"sleep": {"seconds": leave.drain}}},
        # Its last words are told in the condition Ready.
        terminationMessagePolicy="FallbackToLogsOnError",
        resources=present(
            requests={name: str(amount) for name, amount in server.resources.requests.items()},
            limits={name: str(amount) for name, amount in server.resources.limits.items()},
        ),
        securityContext=pod.CONTAINER_SECURITY,
        volumeMounts=[
            pod.mount("models", pod.MODELS_DIR, read_only=True),
            pod.mount("tmp", "/tmp"),  # noqa: S108 - a volume of the pod's own
            *pod.claim_mount(model),
        ],
    )


_OPEN: Final[Manifest] = {"tcpSocket": {"port": "grpc"}}


def arguments(server: Server, leave: Leaving) -> list[str]:
    """The model server's flags; of a repeated one the last counts, so the user's come last.

    The operator's values differ from TensorFlow Serving's defaults where those are harmful: loads
    inside the manager loop stop every load and unload for minutes after one bad version,
    parallelism follows the node's cores instead of the limit, and the profiler is open to all.
    """
    config = pod.SERVER_CONFIG_DIR
    arguments = [
        f"--port={names.GRPC_PORT}",
        f"--rest_api_port={names.HTTP_PORT}",
        f"--model_config_file={config}/models.config",
        "--file_system_poll_wait_seconds=1",
        "--num_load_threads=2",
        "--num_unload_threads=1",
        "--max_num_load_retries=2",
        "--load_retry_interval_micros=5000000",
        "--enable_profiler=false",
        f"--monitoring_config_file={config}/monitoring.config",
        f"--grpc_channel_arguments=grpc.max_connection_age_ms={leave.connection_age * 1000}"
        f",grpc.max_connection_age_grace_ms={leave.connection_grace * 1000}",
    ]
    if leave.rest_timeout is not None:
        arguments.append(f"--rest_api_timeout_in_ms={leave.rest_timeout * 1000}")
    if server.threads is not None:
        arguments += [
            f"--tensorflow_intra_op_parallelism={server.threads}",
            f"--tensorflow_inter_op_parallelism={server.threads}",
        ]
    if server.batching is not None:
        arguments += [
            "--enable_batching=true",
            f"--batching_parameters_file={config}/batching.config",
        ]
    return [*arguments, *server.args]
