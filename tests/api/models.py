"""InferenceModels under test on an API server without controllers."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support import audit, crd
from tests.support.controllers import DeploymentController
from tests.support.kubectl import Kubectl, Object
from tests.support.kubelet import Kubelet
from tests.support.objects import RefusedError
from tests.support.operators import Operator
from tests.support.pods import SimulatedPod, StubPoller
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devcluster.client import Api

# All of one length: of two that were made in the same second the first by name is the older.
_numbers = itertools.count(100)

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

CHILDREN = {
    "configmaps": "configmap",
    "deployments": "deployment.apps",
    "ingresses": "ingress.networking.k8s.io",
    "services": "service",
}
"""The kinds that are looked for, with what kubectl calls one."""

AT_ONCE: dict[str, Any] = {"steps": [], "checks": {"memory": "Ignore", "signature": "Ignore"}}
"""All pods are told of a version as soon as one has found it: rollouts have tests of their own."""


@dataclass
class Model:
    """One InferenceModel in the namespace of its test module."""

    kubectl: Kubectl
    name: str = field(default_factory=lambda: f"model-{next(_numbers)}")
    pods: list[SimulatedPod] = field(default_factory=list)
    kubelet: Kubelet | None = None

    def apply(self, **spec: Any) -> Model:
        """``kubectl apply`` it; a repeated call replaces the spec."""
        manifest = self.manifest(**spec)
        # What is not there yet, kubectl creates with a note of what it was given.
        metadata: Object = {
            "annotations": {},
            "name": self.name,
            "namespace": self.kubectl.namespace,
        }
        given = {**manifest, "metadata": metadata}
        note = json.dumps(given, sort_keys=True, separators=(",", ":")) + "\n"
        noted = {**manifest, "metadata": {**metadata, "annotations": {LAST_APPLIED: note}}}
        try:
            self.kubectl.objects.create("inferencemodels", noted)
        except RefusedError:
            self.kubectl.apply(manifest)
        return self

    def manifest(self, **spec: Any) -> Object:
        """What is applied."""
        return {
            "apiVersion": "inferencemodel.dev/v1alpha1",
            "kind": "InferenceModel",
            "metadata": {"name": self.name},
            "spec": {
                "model": {"storageUri": f"gs://models/{self.name}"},
                "rollout": AT_ONCE,
                **spec,
            },
        }

    def patch(self, **spec: Any) -> None:
        """Merge into the spec."""
        self.kubectl.objects.merge("inferencemodels", self.name, spec=spec)

    def get(self) -> Object:
        """The resource as it is."""
        return self.kubectl.get("inferencemodel", self.name)

    def child(self, kind: str, suffix: str = "") -> Object:
        """One child."""
        return self.kubectl.get(kind, self.name + suffix)

    def children(self) -> list[str]:
        """What exists of it, as ``kind/name``."""
        selector = f"inferencemodel.dev/name={self.name}"
        found: list[str] = []
        for plural, name in CHILDREN.items():
            listed = self.kubectl.list(plural, selector)
            found += [f"{name}/{child['metadata']['name']}" for child in listed]
        return sorted(found)

    def until(self, holds: Callable[[Object], object], *, what: str, within: float = 20) -> Object:
        """Wait until something is true of the resource; a missing key means not yet."""
        return self._until("inferencemodel", self.name, holds, what, within)

    def until_child(
        self, kind: str, holds: Callable[[Object], object], *, what: str, suffix: str = ""
    ) -> Object:
        """Wait until something is true of a child."""
        return self._until(kind, self.name + suffix, holds, what, 20)

    def until_children(self, *kinds: str) -> None:
        """Wait until it has exactly these children, as kubectl names kinds."""
        eventually(
            lambda: (
                sorted(c.partition("/")[0].partition(".")[0] for c in self.children())
                == sorted(kinds)
            ),
            what=f"{self.name} to have {kinds}",
            within=45,
        )

    def until_reported(self) -> Object:
        """Wait until the status answers the present spec."""
        return self.until(
            lambda o: o["status"]["observedGeneration"] == o["metadata"]["generation"],
            what="status for the present spec",
        )

    def add_pod(self, *, ready: bool = True) -> SimulatedPod:
        """One more running pod."""
        pod = SimulatedPod(self.kubectl, self.name, f"{self.name}-pod-{len(self.pods) + 1}")
        self.pods.append(pod)
        if self.kubelet is not None:
            self.kubelet.run(pod.name, pod.poller)
        return pod.create(ready=ready)

    def roll_out(self) -> None:
        """Have its Deployment say that all pods are there, as the controller of it would."""
        deployment = self.child("deployment")
        numbers = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            **dict.fromkeys(numbers, deployment["spec"]["replicas"]),
        }
        self.kubectl.objects.merge("deployments", self.name, "status", status=status)

    def pollers(self) -> list[StubPoller]:
        """The pods' pollers."""
        return [pod.poller for pod in self.pods]

    def delete(self) -> None:
        """Remove it, its pods and its children, as the garbage collector would."""
        for pod in self.pods:
            pod.delete()
        self.kubectl("delete", "inferencemodel", self.name, "--ignore-not-found")
        selector = f"inferencemodel.dev/name={self.name}"
        for plural in (*CHILDREN, "replicasets"):
            for child in self.kubectl.list(plural, selector):
                # The real collector may run, too.
                with suppress(RefusedError):
                    self.kubectl.objects.delete(plural, child["metadata"]["name"])

    def _until(
        self, kind: str, name: str, holds: Callable[[Object], object], what: str, within: float
    ) -> Object:
        return self.kubectl.until(kind, name, holds, what=what, within=within)


@dataclass
class World:
    """A namespace with an operator that serves it alone."""

    api: Api
    namespace: str
    kubectl: Kubectl
    operator: Operator
    kubelet: Kubelet

    @contextmanager
    def model(self, **spec: Any) -> Iterator[Model]:
        """An InferenceModel that ends with the block; not yet applied without a spec."""
        made = Model(self.kubectl, kubelet=self.kubelet)
        try:
            yield made.apply(**spec) if spec else made
        finally:
            made.delete()

    def writes(self) -> list[str]:
        """All writes to the namespace that the API server has answered, as its audit log tells."""
        return [
            f"{entry['verb']} {entry['requestURI']}"
            for entry in audit.entries(self.api, self.namespace)
        ]


@contextmanager
def world(api: Api) -> Iterator[World]:
    """The CRD, a namespace and an operator."""
    with crd.installed(api) as namespace:
        kubectl = Kubectl(api.program, api.kubeconfig, namespace)
        with (
            Kubelet(kubectl) as kubelet,
            DeploymentController(api.kubeconfig, namespace),
            Operator(api.kubeconfig, (namespace,)) as operator,
        ):
            yield World(api, namespace, kubectl, operator, kubelet)
