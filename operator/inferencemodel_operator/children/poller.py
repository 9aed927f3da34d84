"""The poller's container: a native sidecar that brings versions to the pod's disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from inferencemodel_operator import names
from inferencemodel_operator.children import batching, environment, pod
from inferencemodel_operator.children.manifest import Manifest, present
from inferencemodel_operator.record import QUARANTINED_KEY, SERVED_KEY, TARGET_KEY
from inferencemodel_operator.spec import Poller
from inferencemodel_operator.values import Quantity

if TYPE_CHECKING:
    from inferencemodel_operator.settings import Settings
    from inferencemodel_operator.spec import (
        InferenceModel,
        Model,
        PollerLimits,
        PollerRequests,
        Source,
    )

ASSIGNMENT: Final = {
    "TARGET_VERSION": TARGET_KEY,
    "SERVED_VERSIONS": SERVED_KEY,
    "QUARANTINED_VERSIONS": QUARANTINED_KEY,
}
"""What a pod starts with, whether the operator is there or not."""


def container(model: InferenceModel, settings: Settings) -> Manifest:
    """The init container that goes on running beside the model server.

    Its startup probe holds the model server back until what it is to begin with is published,
    however long that takes: TensorFlow Serving opens no port before it has a version to serve.
    """
    return present(
        name=names.POLLER_CONTAINER,
        image=settings.poller_image,
        imagePullPolicy=settings.poller_image_pull_policy,
        restartPolicy="Always",
        args=arguments(model),
        env=_environment(model),
        ports=[{"name": "poller", "containerPort": names.POLLER_PORT, "protocol": "TCP"}],
        # A day of waiting for a first version; a poller that hung instead is then started anew.
        startupProbe=_probe("/startupz", periodSeconds=1, failureThreshold=86400),
        # The pod leaves its Services by this one while its model server loads; the poller counts
        # on these seconds. More failures than it takes to start a poller anew that has died.
        readinessProbe=_probe("/drainz", periodSeconds=1, failureThreshold=5)
        if model.spec.rollout.drain
        else None,
        livenessProbe=_probe("/livez", periodSeconds=10, failureThreshold=6),
        terminationMessagePolicy="FallbackToLogsOnError",
        resources=_resources(model),
        securityContext=pod.CONTAINER_SECURITY,
        volumeMounts=_mounts(model),
    )


def _resources(model: InferenceModel) -> Manifest:
    requests, limits = model.spec.poller.resources.requests, model.spec.poller.resources.limits
    own, most = model.spec.storage.empty_dir, limits.memory
    if own is not None and own.medium is not None and own.size_limit is not None:
        # What versions in the node's memory take counts against who writes them.
        most = Quantity.parse(str(math.ceil(most.value + own.size_limit.value)))
    return {
        "requests": _amounts(requests, requests.memory),
        "limits": _amounts(limits, most),
    }


def _amounts(wanted: PollerRequests | PollerLimits, memory: Quantity) -> Manifest:
    disk = wanted.ephemeral_storage
    return present(
        **{
            "cpu": wanted.cpu and str(wanted.cpu),
            "memory": str(memory),
            "ephemeral-storage": disk and str(disk),
        }
    )


def arguments(model: InferenceModel) -> list[str]:
    """The poller's command line."""
    source, wanted = model.spec.source, model.spec.model
    arguments = [
        f"--model-name={model.model_name}",
        f"--storage-uri={wanted.storage_uri}",
        f"--models-dir={pod.MODELS_DIR}",
        f"--server-address=127.0.0.1:{names.GRPC_PORT}",
        f"--server-config-dir={pod.SERVER_CONFIG_DIR}",
        f"--target-file={pod.TARGET_FILE}",
        f"--http-port={names.POLLER_PORT}",
        f"--poll-interval={source.poll_interval}",
        f"--num-versions={wanted.num_versions}",
        f"--retain-versions={wanted.retain_versions}",
        "--log-format=json",
    ]
    if source.endpoint:
        arguments.append(f"--endpoint={source.endpoint}")
    if source.anonymous:
        arguments.append("--anonymous")
    arguments += [
        *_volume(model),
        *_store(model),
        *_cache(model),
        *_notifications(source),
        *_demands(wanted),
    ]
    if model.spec.poller.log_level != Poller().log_level:
        arguments.append(f"--log-level={model.spec.poller.log_level.lower()}")
    server = model.spec.server
    if server.batching is not None:
        parameters = batching.textproto(server.batching, server.threads)
        arguments.append(f"--batching-parameters={parameters}")
    # Kubernetes would read $(NAME) in them as a variable, and $$ as one $.
    return [argument.replace("$", "$$") for argument in arguments]


def _store(model: InferenceModel) -> list[str]:
    source = model.spec.source
    fetch = source.fetch
    options = {
        "region": source.region,
        "azure-account": source.azure and source.azure.account,
        "credentials-dir": source.secret_ref and pod.CREDENTIALS_DIR,
        "source-dir": model.spec.model.claim and pod.CLAIM_DIR,
        "parallelism": fetch.parallelism,
        "max-bandwidth": fetch.max_bandwidth and round(fetch.max_bandwidth.value),
    }
    given = [f"--{name}={value}" for name, value in options.items() if value]
    return [*given, "--path-style"] if source.path_style else given


def _volume(model: InferenceModel) -> list[str]:
    own = model.spec.storage.empty_dir
    if own is None or own.size_limit is None or own.medium is not None:
        return []
    # The disk has room for more; but the kubelet evicts a pod that takes it. In memory, the file
    # system itself ends there.
    return [f"--models-max-size={math.ceil(own.size_limit.value)}"]


def _cache(model: InferenceModel) -> list[str]:
    cache = model.spec.storage.cache
    if cache is None:
        return []
    limit = cache.max_size
    size = [] if limit is None else [f"--cache-max-size={math.ceil(limit.value)}"]
    return [f"--cache-dir={pod.CACHE_DIR}", *size]


def _notifications(source: Source) -> list[str]:
    wanted = source.notifications
    arguments = []
    if wanted and wanted.pubsub:
        arguments.append(f"--pubsub-subscription={wanted.pubsub.subscription}")
        if wanted.pubsub.endpoint:
            arguments.append(f"--pubsub-endpoint={wanted.pubsub.endpoint}")
    if wanted and wanted.sqs:
        arguments.append(f"--sqs-queue-url={wanted.sqs.queue_url}")
    return arguments


def _demands(wanted: Model) -> list[str]:
    completion, warmup = wanted.completion, wanted.warmup
    arguments = []
    if completion.marker:
        arguments.append(f"--complete-marker={completion.marker}")
    if completion.manifest == "Required":
        arguments.append("--require-manifest")
    if completion.public_key:
        arguments.append(f"--manifest-public-key={completion.public_key}")
    if warmup and warmup.uri:
        arguments.append(f"--warmup-requests={warmup.uri}")
    if warmup and warmup.config_map:
        arguments.append(f"--warmup-requests={pod.WARMUP_DIR}/{warmup.config_map.key}")
    return arguments


def _environment(model: InferenceModel) -> list[Manifest]:
    variables: list[Manifest] = [
        *(_remembered(model, variable, key) for variable, key in ASSIGNMENT.items()),
        _field("POD_NAME", "metadata.name"),
        _field("POD_NAMESPACE", "metadata.namespace"),
    ]
    is_google = model.spec.model.storage_uri.startswith("gs://")
    if model.spec.source.secret_ref is not None and is_google:
        variables.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": pod.CREDENTIALS_FILE})
    if model.spec.poller.extra_authorities is not None:
        variables.append({"name": "EXTRA_CA_FILE", "value": pod.AUTHORITIES_FILE})
    return [*variables, *environment.variables(model.spec.poller.env)]


def _remembered(model: InferenceModel, variable: str, key: str) -> Manifest:
    reference = {"name": names.versions_config_map(model.name), "key": key, "optional": True}
    return {"name": variable, "valueFrom": {"configMapKeyRef": reference}}


def _field(variable: str, path: str) -> Manifest:
    return {
        "name": variable,
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}},
    }


def _probe(path: str, **timing: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "poller", "scheme": "HTTP"},
        "timeoutSeconds": 5,
        **timing,
    }


def _mounts(model: InferenceModel) -> list[Manifest]:
    mounts = [
        pod.mount("models", pod.MODELS_DIR),
        pod.mount("tmp", "/tmp"),  # noqa: S108 - a volume of the pod's own
        pod.mount("podinfo", pod.POD_INFO_DIR, read_only=True),
    ]
    if model.spec.source.secret_ref is not None:
        mounts.append(pod.mount("model-source", pod.CREDENTIALS_DIR, read_only=True))
    mounts += pod.claim_mount(model)
    if model.spec.storage.cache is not None:
        mounts.append(pod.mount("model-cache", pod.CACHE_DIR))
    warmup = model.spec.model.warmup
    if warmup is not None and warmup.config_map is not None:
        mounts.append(pod.mount("warmup", pod.WARMUP_DIR, read_only=True))
    if model.spec.poller.extra_authorities is not None:
        mounts.append(pod.mount("extra-cas", pod.AUTHORITIES_DIR, read_only=True))
    return mounts
