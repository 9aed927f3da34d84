"""The typed InferenceModel: mirrors ``crds/inferencemodel.yaml`` field by field.

The API server has validated an object and filled in its defaults before the operator sees it;
the defaults are repeated here for objects that are built in code. Field descriptions are in the
CRD (``kubectl explain inferencemodel.spec``).
"""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from inferencemodel_operator import names
from inferencemodel_operator.errors import InvalidModelError
from inferencemodel_operator.values import Duration, Quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

ImagePullPolicy = Literal["Always", "IfNotPresent", "Never"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    pass


class ObjectMeta(_Part, frozen=True):
    """The part of an object's metadata that the operator reads."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None


class Completion(_Part, frozen=True):
    """``spec.model.completion``: what a version has to come with."""

    marker: str | None = None
    manifest: Literal["Optional", "Required"] = "Optional"
    public_key: str | None = None


class WarmupConfigMap(_Part, frozen=True):
    """``spec.model.warmup.configMap``."""

    name: str
    key: str = "tf_serving_warmup_requests"


class Warmup(_Part, frozen=True):
    """``spec.model.warmup``; exactly one is set."""

    uri: str | None = None
    config_map: WarmupConfigMap | None = None


class Model(_Part, frozen=True):
    """``spec.model``: which model, and which of its versions."""

    storage_uri: str
    name: str | None = None
    version: int | None = None
    min_version: int | None = None
    num_versions: int = 1
    retain_versions: int = 2
    completion: Completion = Completion()
    warmup: Warmup | None = None

    @property
    def claim(self) -> str | None:
        """The PersistentVolumeClaim that holds the versions; None for other kinds of storage."""
        scheme, _, rest = self.storage_uri.partition("://")
        return rest.partition("/")[0] if scheme == "pvc" else None


class SecretRef(_Part, frozen=True):
    """The name of a Secret in the same namespace."""

    name: str


class PubSub(_Part, frozen=True):
    """``spec.source.notifications.pubsub``."""

    subscription: str
    endpoint: str | None = None


class Sqs(_Part, frozen=True):
    """``spec.source.notifications.sqs``."""

    queue_url: str


class Notifications(_Part, frozen=True):
    """``spec.source.notifications``; exactly one is set."""

    pubsub: PubSub | None = None
    sqs: Sqs | None = None


class Azure(_Part, frozen=True):
    """``spec.source.azure``."""

    account: str


class Fetch(_Part, frozen=True):
    """``spec.source.fetch``: how much of the network a replica's fetch may take."""

    parallelism: int | None = None
    max_bandwidth: Quantity | None = None
    """Bytes a second."""


class Source(_Part, frozen=True):
    """``spec.source``: how the bucket is reached."""

    service_account_name: str | None = None
    secret_ref: SecretRef | None = None
    endpoint: str | None = None
    region: str | None = None
    path_style: bool = False
    azure: Azure | None = None
    fetch: Fetch = Fetch()
    anonymous: bool = False
    poll_interval: Duration = Duration(30)
    """Seconds."""
    notifications: Notifications | None = None


class Resources(_Part, frozen=True):
    """``spec.server.resources``."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Batching(_Part, frozen=True):
    """``spec.server.batching``: TensorFlow Serving's BatchingParameters."""

    max_batch_size: int | None = None
    batch_timeout_micros: int | None = None
    max_enqueued_batches: int | None = None
    num_batch_threads: int | None = None
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False


class KeyRef(_Part, frozen=True):
    """One key of a Secret or ConfigMap in the same namespace."""

    name: str
    key: str
    optional: bool = False


class EnvVarSource(_Part, frozen=True):
    """Where an environment variable's value comes from; exactly one is set."""

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None


class EnvVar(_Part, frozen=True):
    """One environment variable of the model server or the poller."""

    name: str
    value: str | None = None
    value_from: EnvVarSource | None = None


class Server(_Part, frozen=True):
    """``spec.server``: the model server's container."""

    image: str = "tensorflow/serving:2.20.0"
    image_pull_policy: ImagePullPolicy | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    resources: Resources = Resources()
    batching: Batching | None = None
    env: tuple[EnvVar, ...] = ()

    @property
    def threads(self) -> int | None:
        """How many threads the CPU limit has work for; None without a limit."""
        cpu = self.resources.limits.get("cpu")
        return None if cpu is None else max(1, math.ceil(cpu.value))


class EmptyDir(_Part, frozen=True):
    """``spec.storage.emptyDir``."""

    size_limit: Quantity | None = None
    medium: Literal["Memory"] | None = None


class ClaimRequests(_Part, frozen=True):
    """How large a claimed volume is."""

    storage: Quantity


class ClaimResources(_Part, frozen=True):
    """How large a claimed volume is, in Kubernetes' words."""

    requests: ClaimRequests


class ClaimSpec(_Part, frozen=True):
    """``spec.storage.volumeClaimTemplate.spec``."""

    resources: ClaimResources
    access_modes: tuple[Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"], ...] = (
        "ReadWriteOnce",
    )
    storage_class_name: str | None = None


class ClaimTemplate(_Part, frozen=True):
    """``spec.storage.volumeClaimTemplate``."""

    spec: ClaimSpec


class SharedCache(_Part, frozen=True):
    """``spec.storage.cache``: a claim that pods share."""

    claim_name: str
    max_size: Quantity | None = None


class Storage(_Part, frozen=True):
    """``spec.storage``; of the first two at most one is set."""

    empty_dir: EmptyDir | None = None
    volume_claim_template: ClaimTemplate | None = None
    cache: SharedCache | None = None


class PollerRequests(_Part, frozen=True):
    """``spec.poller.resources.requests``."""

    cpu: Quantity = Quantity("20m")
    memory: Quantity = Quantity("128Mi")
    ephemeral_storage: Quantity | None = msgspec.field(default=None, name="ephemeral-storage")


class PollerLimits(_Part, frozen=True):
    """``spec.poller.resources.limits``."""

    cpu: Quantity | None = None
    memory: Quantity = Quantity("512Mi")
    ephemeral_storage: Quantity | None = msgspec.field(default=None, name="ephemeral-storage")


class PollerResources(_Part, frozen=True):
    """``spec.poller.resources``: what is left out keeps its default."""

    requests: PollerRequests = PollerRequests()
    limits: PollerLimits = PollerLimits()


class AuthoritiesConfigMap(_Part, frozen=True):
    """``spec.poller.extraCAs.configMap``."""

    name: str
    key: str = "ca.crt"


class ExtraAuthorities(_Part, frozen=True):
    """``spec.poller.extraCAs``."""

    config_map: AuthoritiesConfigMap


class Poller(_Part, frozen=True):
    """``spec.poller``: the container beside the model server."""

    resources: PollerResources = PollerResources()
    env: tuple[EnvVar, ...] = ()
    extra_authorities: ExtraAuthorities | None = msgspec.field(default=None, name="extraCAs")
    log_level: Literal["Debug", "Info", "Warning", "Error"] = "Info"


class ClientIP(_Part, frozen=True):
    """``spec.service.sessionAffinityConfig.clientIP``."""

    timeout_seconds: int = 10800


class SessionAffinityConfig(_Part, frozen=True):
    """``spec.service.sessionAffinityConfig``."""

    client_ip: ClientIP = msgspec.field(default=ClientIP(), name="clientIP")


class Service(_Part, frozen=True):
    """``spec.service``."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    http_port: int = 8501
    grpc_port: int = 8500
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    load_balancer_class: str | None = None
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    traffic_distribution: Literal["PreferClose", "PreferSameZone", "PreferSameNode"] | None = None
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()


class IngressTls(_Part, frozen=True):
    """``spec.ingress.tls``."""

    secret_name: str | None = None


class Ingress(_Part, frozen=True):
    """``spec.ingress``."""

    class_name: str | None = None
    host: str | None = None
    hosts: tuple[str, ...] = ()
    path: str = "/"
    path_type: Literal["Exact", "Prefix", "ImplementationSpecific"] = "Prefix"
    annotations: dict[str, str] = {}
    tls: IngressTls | None = None

    @property
    def every_host(self) -> tuple[str, ...]:
        """All host names, wildcards among them; none where there is no Ingress."""
        return (*(() if self.host is None else (self.host,)), *self.hosts)


class KedaHttp(_Part, frozen=True):
    """``spec.autoscaling.keda.http``: requests, as KEDA's HTTP add-on counts them."""

    hosts: tuple[str, ...] = ()
    """Beside those of the Ingress and the Gateway."""
    concurrency: int | None = None
    """Requests at a time for each replica."""
    request_rate: int | None = None
    """Requests a second for each replica."""
    timeout: Duration = Duration(300)
    """Seconds that a request waits for a replica."""


class Keda(_Part, frozen=True):
    """``spec.autoscaling.keda``; at least one of triggers and http is set."""

    http: KedaHttp | None = None
    triggers: tuple[dict[str, Any], ...] = ()
    polling_interval: int = 30
    """Seconds."""
    cooldown_period: int = 300
    """Seconds."""


class Autoscaling(_Part, frozen=True):
    """``spec.autoscaling``: the fields of autoscaling/v2, or KEDA."""

    max_replicas: int
    min_replicas: int = 1
    metrics: tuple[dict[str, Any], ...] = ()
    behavior: dict[str, Any] = {}
    keda: Keda | None = None


class DisruptionBudget(_Part, frozen=True):
    """``spec.disruptionBudget``."""

    enabled: bool = True
    min_available: int | str | None = None
    """Counts instead of the other where it is given."""
    max_unavailable: int | str = 1


class ParentRef(_Part, frozen=True):
    """A Gateway, or a listener of one."""

    name: str
    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    namespace: str | None = None
    section_name: str | None = None
    port: int | None = None


class Gateway(_Part, frozen=True):
    """``spec.gateway``."""

    parent_refs: tuple[ParentRef, ...]
    hostnames: tuple[str, ...] = ()
    path: str = "/"
    grpc_hostnames: tuple[str, ...] = ()


class NetworkPolicy(_Part, frozen=True):
    """``spec.networkPolicy``."""

    enabled: bool = False
    from_: tuple[dict[str, Any], ...] = msgspec.field(default=(), name="from")
    metrics_from: tuple[dict[str, Any], ...] = ()


class RollingUpdate(_Part, frozen=True):
    """``spec.strategy.rollingUpdate``; by default no pod leaves before its successor serves."""

    max_surge: int | str = "25%"
    max_unavailable: int | str = 0


class Strategy(_Part, frozen=True):
    """``spec.strategy``: how the Deployment replaces pods."""

    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class Drain(_Part, frozen=True):
    """``spec.drain``: how long a pod that is going away still serves."""

    seconds: int = 35


class TopologySpreadConstraint(_Part, frozen=True):
    """How the pods are spread over the values of one node label."""

    topology_key: str
    max_skew: int = 1
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = "ScheduleAnyway"


class Toleration(_Part, frozen=True):
    """A toleration, as in Kubernetes' own pods."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class TemplateMetadata(_Part, frozen=True):
    """``spec.template.metadata``."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Template(_Part, frozen=True):
    """``spec.template``: what the pods get beside what the operator gives them."""

    metadata: TemplateMetadata = TemplateMetadata()
    image_pull_secrets: tuple[SecretRef, ...] = ()
    priority_class_name: str | None = None
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    affinity: dict[str, Any] = {}
    spec: dict[str, Any] = {}
    """A part of a pod's spec, laid over the operator's own."""

    def __post_init__(self) -> None:
        if self.spec:
            _check_size(self.spec)


LARGEST_POD_SPEC: Final = 64 * 1024
"""Bytes of ``spec.template.spec`` as JSON: an object's annotations, where a template is kept that
waits, have 256 kB altogether."""
DEEPEST_POD_SPEC: Final = 32
"""Levels of it; Kubernetes' own pods have a dozen."""


def _check_size(spec: dict[str, Any]) -> None:
    if _is_deeper(spec, DEEPEST_POD_SPEC):
        raise ValueError(f"template.spec has more than {DEEPEST_POD_SPEC} levels")
    if len(msgspec.json.encode(spec)) > LARGEST_POD_SPEC:
        raise ValueError(f"template.spec has more than {LARGEST_POD_SPEC} bytes")


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    below = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(there, levels - 1) for there in below)


CheckMode = Literal["Enforce", "Report", "Ignore"]


class Pause(_Part, frozen=True):
    """``spec.rollout.steps[].pause``."""

    duration: Duration | None = None
    """Seconds; None until somebody promotes."""


class RolloutStep(_Part, frozen=True):
    """One of ``spec.rollout.steps``."""

    replicas: int | str
    """How many replicas have the new version from this step on, as a number or in percent."""
    pause: Pause | None = None
    """None for as long as the checks take."""


class Rehearsal(_Part, frozen=True):
    """``spec.rollout.rehearsal``: a pod that loads a version and gets no requests."""

    enabled: bool = False
    deadline: Duration = Duration(600)
    """Seconds."""
    on_unschedulable: Literal["Hold", "Skip"] = "Hold"


class GoldenCheck(_Part, frozen=True):
    """``spec.rollout.checks.golden``."""

    mode: CheckMode = "Enforce"
    absolute: float = 1e-4
    relative: float = 1e-3
    min_agreement: str = "99%"


class LiveCheck(_Part, frozen=True):
    """``spec.rollout.checks.live``."""

    mode: CheckMode = "Report"
    min_requests: int = 50
    max_error_increase: str = "1%"
    max_latency_increase: str = "50%"
    on_inconclusive: Literal["Hold", "Continue"] = "Hold"


class Checks(_Part, frozen=True):
    """``spec.rollout.checks``."""

    memory: CheckMode = "Enforce"
    signature: CheckMode | None = None
    """None for Enforce where the newest version is followed, and Report where one is pinned."""
    golden: GoldenCheck = GoldenCheck()
    live: LiveCheck = LiveCheck()


class Rollout(_Part, frozen=True):
    """``spec.rollout``: how a new version reaches the replicas."""

    steps: tuple[RolloutStep, ...] = (RolloutStep(replicas=1),)
    """Rising; all replicas are implied behind the last."""
    rehearsal: Rehearsal = Rehearsal()
    checks: Checks = Checks()
    drain: bool = False
    deadline: Duration = Duration(1800)
    """Seconds that a step may take until its verdict."""
    bake: Duration = Duration(0)
    """Seconds."""
    on_failure: Literal["Rollback", "Pause"] = "Rollback"
    paused: bool = False


class InferenceModelSpec(_Part, frozen=True):
    """``spec``."""

    model: Model
    source: Source = Source()
    server: Server = Server()
    storage: Storage = Storage()
    poller: Poller = Poller()
    replicas: int = 1
    autoscaling: Autoscaling | None = None
    disruption_budget: DisruptionBudget = DisruptionBudget()
    suspend: bool = False
    service: Service = Service()
    ingress: Ingress | None = None
    gateway: Gateway | None = None
    network_policy: NetworkPolicy = NetworkPolicy()
    strategy: Strategy = Strategy()
    min_ready_seconds: int = 5
    """More than the 4 s in which a server that dies right after its start is noticed."""
    progress_deadline_seconds: int = 1800
    revision_history_limit: int = 3
    drain: Drain = Drain()
    template: Template = Template()
    rollout: Rollout = Rollout()


class InferenceModel(_Part, frozen=True):
    """One InferenceModel, as the API server gave it."""

    metadata: ObjectMeta
    spec: InferenceModelSpec

    @property
    def replicas(self) -> int | None:
        """How many pods the operator asks for; None while an autoscaler sets the number."""
        return self.spec.replicas if self.spec.autoscaling is None else None

    @property
    def most_replicas(self) -> int:
        """The greatest number of pods that there can be on purpose."""
        autoscaling = self.spec.autoscaling
        return self.spec.replicas if autoscaling is None else autoscaling.max_replicas

    @property
    def scaled_by_requests(self) -> KedaHttp | None:
        """How requests set the number of pods; None where they don't."""
        keda = self.spec.autoscaling.keda if self.spec.autoscaling else None
        return keda.http if keda else None

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name

    @property
    def name(self) -> str:
        """Name of the resource, and of most of its children."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Namespace of the resource and of all its children."""
        return self.metadata.namespace

    @property
    def model_name(self) -> str:
        """The name under which the model server serves the model."""
        return self.spec.model.name or self.metadata.name

    @property
    def grpc_port(self) -> int:
        """The gRPC port of the Service with a cluster address."""
        return self.spec.service.grpc_port

    @property
    def http_port(self) -> int:
        """The REST port of the Service with a cluster address."""
        return self.spec.service.http_port

    @property
    def url(self) -> str:
        """Where the REST API is: through the Ingress, else the Gateway, else in the cluster.

        The model server only knows paths below ``/v1/models/NAME``. An Ingress path that begins
        like them reaches the server as it is; any other is taken as rewritten by the Ingress
        controller, so it comes in front: of a regular expression the part before its first
        operator.
        """
        return self.url_by(names.service(self.name), self.http_port)

    def url_by(self, service: str, port: int) -> str:
        """The same, where clients in the cluster are to come in by another Service."""
        api = f"/v1/models/{self.model_name}"
        scheme, host, path = self._entrance
        if host is None:
            return f"http://{service}.{self.namespace}.svc:{port}{api}"
        path = path.rstrip("/")
        beneath = f"{api}/".startswith(f"{path}/") or path.startswith((f"{api}/", f"{api}:"))
        prefix = "" if beneath else path
        return f"{scheme}://{host}{prefix}{api}"

    @property
    def _entrance(self) -> tuple[str, str | None, str]:
        """By which scheme, host and path clients outside the cluster come in; no host for none."""
        ingress, gateway = self.spec.ingress, self.spec.gateway
        if ingress is not None and (named := _named(ingress.every_host)) is not None:
            literal = ingress.path_type == "ImplementationSpecific"
            path = _literal(ingress.path) if literal else ingress.path
            return "https" if ingress.tls else "http", named, path
        host = _named(gateway.hostnames) if gateway else None
        # Whether a listener speaks TLS is the Gateway's own business, which isn't read.
        return "http", host, gateway.path if gateway else "/"


def _named(hosts: tuple[str, ...]) -> str | None:
    """The first that is one host."""
    return next((host for host in hosts if "*" not in host), None)


def decode(obj: Mapping[str, Any]) -> InferenceModel:
    """Read an InferenceModel as the API server gives it.

    Raises:
        InvalidModelError: its shape is not the one of this release.
    """
    try:
        return msgspec.convert(obj, InferenceModel, dec_hook=_decode_value)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        metadata = obj.get("metadata") or {}
        raise InvalidModelError(
            f"{metadata.get('namespace')}/{metadata.get('name')}",
            re.sub(r"\[\.\.\.\]", "[]", path.strip("`.")) or "object",
            problem,
            "correct it, and install the CRD and the operator of the same release",
        ) from None


_LITERAL: Final = re.compile(r"(?:[^\\.+*?()\[\]{}^$|]|\.(?![+*?{]))*")
_REPEATED: Final = frozenset("*?{")


def _literal(path: str) -> str:
    """What a regular expression begins with before its first operator; a plain path whole."""
    found = _LITERAL.match(path)
    literal = found[0] if found else ""
    # What may be there, or not, is no part of it.
    return literal[:-1] if path[len(literal) : len(literal) + 1] in _REPEATED else literal


def explicit(value: object) -> object:
    """What is given, as JSON types, without what is the default anyway.

    So it is the same for a release that knows more fields.
    """
    if isinstance(value, msgspec.Struct):
        return {
            name: explicit(getattr(value, field))
            for field, name, default in _fields(type(value))
            if getattr(value, field) != default
        }
    if isinstance(value, tuple):
        return [explicit(item) for item in value]
    return float(value) if isinstance(value, float) else value


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, object], ...]:
    """Each field's name, its name in JSON, and its default."""
    return tuple(
        (
            field.name,
            field.encode_name,
            field.default
            if field.default_factory is msgspec.NODEFAULT
            else field.default_factory(),
        )
        for field in msgspec.structs.fields(kind)
    )


def _decode_value(kind: type, value: object) -> object:
    if kind is Duration and isinstance(value, str):
        return Duration.parse(value)
    if kind is Quantity and isinstance(value, (str, int)):
        return Quantity.parse(value)
    raise ValueError(f"Expected {kind.__name__.lower()}, got {type(value).__name__}")
