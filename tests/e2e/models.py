"""One InferenceModel under test, with its bucket folder, its traffic and its operator."""

from __future__ import annotations

import http.client
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from demo import messages
from demo.load import Exchange, Load, Traffic, grpc_predict, rest
from release import version
from tests.support.kubectl import Kubectl, KubectlError, Object, condition
from tests.support.savedmodels import archive, files
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from demo.bucket import Bucket

BUCKET_ENDPOINT_IN_CLUSTER = "http://bucket.development-bucket:4443"
PUBSUB_ENDPOINT_IN_CLUSTER = "pubsub.development-bucket:8085"
DRAIN_SECONDS = 20
DEVELOPMENT_SERVER = f"inferencemodel/development-model-server:{version.current()}"


@dataclass(frozen=True)
class Operator:
    """The operator's Deployment."""

    kubectl: Kubectl

    def restart(self) -> None:
        """End the running operator at once; its Deployment starts another."""
        self.kubectl("delete", "pod", "--all", "--grace-period=0", "--force", "--wait=false")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """No operator inside the block."""
        self._scale(0)
        eventually(lambda: not self.kubectl.list("pods"), what="the operator to be gone")
        try:
            yield
        finally:
            self._scale(1)
            self.kubectl("rollout", "status", "deployment/inferencemodel-operator", "--timeout=90s")

    def _scale(self, replicas: int) -> None:
        self.kubectl("scale", "deployment/inferencemodel-operator", f"--replicas={replicas}")


@dataclass
class Served:
    """One InferenceModel in a namespace of its own."""

    name: str
    namespace: str
    kubectl: Kubectl
    operator: Operator
    bucket: Bucket
    subscription: str
    ingress: str
    """``host:port`` of the ingress controller."""
    exports: dict[int, Path]
    """Exported SavedModels by the offset in ``y = 0.5 x + offset``."""
    newest: int = field(default=0)

    @property
    def prefix(self) -> str:
        """The folder of this model in the bucket."""
        return f"{self.namespace}/{self.name}"

    @property
    def selector(self) -> str:
        """The label selector of its pods."""
        return f"inferencemodel.dev/name={self.name}"

    @property
    def host(self) -> str:
        """The host name of its Ingress."""
        return f"{self.name}.{self.namespace}.example.com"

    # -- the bucket

    def files(self, *, offset: int) -> dict[str, bytes]:
        """The files of one export."""
        return files(self.exports[offset])

    def next_version(self) -> int:
        """A version number above all that were uploaded."""
        return self.newest + 1

    def upload(self, version: int, *, offset: int) -> None:
        """Upload a good archive."""
        self.upload_raw(version, archive(self.files(offset=offset), folder=f"{version:04}"))

    def upload_raw(self, version: int, content: bytes) -> None:
        """Upload any bytes under a version's archive name."""
        self.newest = max(self.newest, version)
        self.bucket.upload(f"{self.prefix}/{version:04}.zip", content)

    # -- the resource

    def apply(
        self,
        *,
        replicas: int,
        pollInterval: str = "30s",  # noqa: N803  the field's own name
        subscription: str | None = "",
        storageUri: str | None = None,  # noqa: N803
        **spec: Any,
    ) -> None:
        """``kubectl apply`` the resource; an empty subscription means the test's own."""
        source: dict[str, Any] = {
            "endpoint": BUCKET_ENDPOINT_IN_CLUSTER,
            "anonymous": True,
            "pollInterval": pollInterval,
        }
        if subscription is not None:
            source["notifications"] = {
                "pubsub": {
                    "subscription": subscription or self.subscription,
                    "endpoint": PUBSUB_ENDPOINT_IN_CLUSTER,
                }
            }
        self.kubectl.apply(
            {
                "apiVersion": "inferencemodel.dev/v1alpha1",
                "kind": "InferenceModel",
                "metadata": {"name": self.name},
                "spec": {
                    "model": {"storageUri": storageUri or f"gs://{self.bucket.name}/{self.prefix}"},
                    "source": source,
                    "server": {"image": DEVELOPMENT_SERVER, "imagePullPolicy": "IfNotPresent"},
                    "replicas": replicas,
                    # No request of a test takes longer, and each pod that goes is waited for.
                    "drain": {"seconds": DRAIN_SECONDS},
                    "ingress": {"className": "traefik", "host": self.host},
                    **spec,
                },
            }
        )

    def patch(self, spec: Object) -> None:
        """Merge into the spec."""
        self.kubectl(
            *("patch", "inferencemodel", self.name, "--type=merge"),
            *("--patch", json.dumps({"spec": spec})),
        )

    def get(self) -> Object:
        """The resource as it is."""
        return self.kubectl.get("inferencemodel", self.name)

    def until(self, holds: Callable[[Object], object], *, what: str, within: float = 120) -> Object:
        """Wait until something is true of the resource; what is not there yet is not an error."""

        def look(obj: Object) -> object:
            try:
                return holds(obj)
            except KeyError:
                return False

        return self.kubectl.until("inferencemodel", self.name, look, what=what, within=within)

    def until_active(self, version: int, *, replicas: int, within: float = 180) -> None:
        """Wait until the status says that this version answers on so many ready replicas."""

        def settled(obj: Object) -> bool:
            status = obj["status"]
            return (
                status["model"].get("activeVersion") == version
                and status.get("readyReplicas") == replicas
                and condition(obj, "Ready").get("status") == "True"
                and status["observedGeneration"] == obj["metadata"]["generation"]
            )

        self.until(settled, what=f"version {version} on {replicas} replicas", within=within)

    # -- its pods

    def pods(self) -> list[Object]:
        """All pods, terminating ones included."""
        return self.kubectl.list("pods", self.selector)

    def until_pods(self, count: int) -> None:
        """Wait until just so many pods exist."""
        eventually(
            lambda: len(self.pods()) == count, what=f"just {count} pods", within=120, every=1
        )

    def children(self) -> list[str]:
        """What exists of the resource, as ``kind/name``."""
        kinds = "deployments,services,ingresses,configmaps,pods"
        found = self.kubectl("get", kinds, "--selector", self.selector, "-o", "name")
        return found.split()

    def versions_on_each_replica(self) -> list[int]:
        """The version that each ready pod's own model server names in its answer."""
        return [
            self._asked(pod["metadata"]["name"])
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"]
            and any(
                c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"]
            )
        ]

    def _asked(self, pod: str) -> int:
        """Ask one pod's model server through the API server which version is servable."""
        try:
            answer = self._proxied(pod, 8501, f"/v1/models/{self.name}/metadata")
        except KubectlError:
            return -1
        return int(answer["model_spec"]["version"])

    def available_on_each_replica(self) -> dict[str, list[int]]:
        """The versions that each pod's own model server answers requests with, by the pod."""
        return self._on_each_replica("AVAILABLE")

    def loading_on_each_replica(self) -> dict[str, list[int]]:
        """The versions that each pod's own model server loads now, by the pod."""
        return self._on_each_replica("LOADING")

    def _on_each_replica(self, state: str) -> dict[str, list[int]]:
        found = {}
        for pod in self.pods():
            name = pod["metadata"]["name"]
            try:
                answer = self._proxied(name, 8501, f"/v1/models/{self.name}")
            except KubectlError:
                answer = {"model_version_status": []}
            found[name] = sorted(
                int(status["version"])
                for status in answer["model_version_status"]
                if status["state"] == state
            )
        return found

    def poller_status(self, pod: str) -> Object:
        """What one pod's poller tells."""
        return self._proxied(pod, 8502, "/status")

    def _proxied(self, pod: str, port: int, path: str) -> Object:
        base = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy"
        return self.kubectl.raw(f"{base}{path}")

    def tell(self) -> None:
        """Print what the cluster knows of the resource, for the report of a failed test."""
        for command in (
            ("get", "inferencemodels,pods,events", "-o", "wide"),
            ("get", "inferencemodels", "-o", "jsonpath={.items[*].status}"),
            ("logs", "--selector", self.selector, "--all-containers", "--tail=30", "--prefix"),
        ):
            try:
                print(self.kubectl(*command))
            except KubectlError as error:
                print(error)
        print(self.operator.kubectl("logs", "deployment/inferencemodel-operator", "--tail=40"))

    # -- requests

    def predict(self, x: float) -> float:
        """One prediction through the Ingress; raises as `predict`."""
        return predict(self.ingress, self.host, self.name, x)

    def traffic(self, *, rate: int, grpc_rate: int = 0, version: int | None = None) -> Traffic:
        """These loads inside a ``with`` block."""
        return Traffic(*self.loads(rate=rate, grpc_rate=grpc_rate, version=version))

    def loads(self, *, rate: int, grpc_rate: int = 0, version: int | None = None) -> list[Load]:
        """Steady requests, ``rate`` a second through the Ingress.

        With a ``version``, as many more go to just that one.
        ``grpc_rate`` a second go over one gRPC channel straight to the pods. Waits first until the
        ingress controller has taken notice of the Ingress.
        """
        what = f"an answer through the Ingress of {self.name}"
        eventually(lambda: self.predict(1.0) is not None, what=what)
        model = f"http://{self.ingress}/v1/models/{self.name}"
        exchange = Exchange(json.dumps({"instances": [1.0]}).encode(), _first_prediction)
        requests = rest(f"{model}:predict", [exchange], host=self.host)
        loads = [Load("REST through the Ingress", requests, rate)]
        if version is not None:
            asked = rest(f"{model}/versions/{version}:predict", [exchange], host=self.host)
            loads.append(Load(f"REST to version {version}", asked, rate))
        if grpc_rate:
            call = Exchange(messages.number_request(self.name, "x", 1.0), _grpc_prediction)
            calls = grpc_predict(self._pods_by_dns(), [call], messages.PredictResponse)
            loads.append(Load("gRPC to the pods", calls, grpc_rate))
        return loads

    def _pods_by_dns(self) -> str:
        dns = self.kubectl.in_namespace("kube-system").get("service", "kube-dns")
        name = f"{self.name}-headless.{self.namespace}.svc.cluster.local"
        return f"dns://{dns['spec']['clusterIP']}:53/{name}:8500"


def predict(address: str, host: str, model: str, x: float) -> float:
    """One prediction by REST, from whatever listens at ``address`` (``host:port``) for a host.

    Raises:
        AssertionError: no answer, or a refusal; a wait takes it for "not yet".
    """
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(
            "POST",
            f"/v1/models/{model}:predict",
            json.dumps({"instances": [x]}).encode(),
            {"Host": host, "Content-Type": "application/json"},
        )
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise AssertionError(f"{address} does not answer: {error}") from error
    finally:
        connection.close()
    assert response.status == http.HTTPStatus.OK, (response.status, content)
    return float(json.loads(content)["predictions"][0])


def _first_prediction(answer: bytes) -> str:
    return str(json.loads(answer)["predictions"][0])


def _grpc_prediction(answer: Any) -> str:
    (tensor,) = answer.outputs.values()
    return str(tensor.float_val[0])
