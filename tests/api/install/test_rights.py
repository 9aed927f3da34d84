"""The operator's rights are exact: it needs each of them, and none that it hasn't.

The operator runs with its own service account, on an API server of its own. Its requests are
counted by its metrics.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from model_poller.status import VersionState
from tests.api.models import Model
from tests.support import crd
from tests.support.kubectl import Kubectl, condition
from tests.support.operators import Operator
from tests.support.pods import told
from tests.support.rendering import MANIFESTS, SYSTEM, Object, Programs
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devcluster.client import Api

pytestmark = pytest.mark.api

NAME: Final = "inferencemodel-operator"
PLACE: Final = "vision"
"""Where the InferenceModels are, and where the operator for one namespace is."""
OPTIONAL: Final[dict[str, dict[str, Any]]] = {
    "ingresses": {"ingress": {"host": "m.example.com"}},
}
"""What asks for each of the children that a change of the spec can take away again."""
ALWAYS: Final = {"configmaps", "deployments", "services"}
CHILDREN: Final = ALWAYS | set(OPTIONAL)
NOT_ASKED_FOR: Final = {
    "grpcroutes",
    "horizontalpodautoscalers",
    "httproutes",
    "networkpolicies",
    "poddisruptionbudgets",
    "scaledobjects",
}
"""Kinds that the operator watches, and that no field of the spec asks for yet."""
FOREIGN_CRDS: Final = (
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    ("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes"),
    ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
)
"""Kinds that a cluster need not have; here they are, with any content."""
_REQUESTS = re.compile(
    r'^inferencemodel_operator_api_requests_total\{outcome="(\w+)",'
    r'resource="([^"]*)",verb="(\w+)"\} (\S+)$',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Installed:
    """The operator's service account and roles on an API server, without the operator."""

    kubectl: Kubectl
    """In the namespace of the InferenceModels."""
    role: str
    user: str
    kubeconfig: Path
    """Of the service account."""
    namespaces: tuple[str, ...]

    @contextmanager
    def operator(self) -> Iterator[Operator]:
        """The operator, while it has every right."""
        with Operator(self.kubeconfig, self.namespaces) as running:
            yield running

    def rules(self) -> list[Object]:
        """The rules of the role, as they are."""
        found: list[Object] = self.kubectl.get(self.role, NAME)["rules"]
        return found

    @contextmanager
    def without(self, verb: str, resources: set[str]) -> Iterator[None]:
        """Take a verb away from some resources inside the block."""
        before = self.rules()
        after = []
        for rule in before:
            for resource in rule["resources"]:
                verbs = [v for v in rule["verbs"] if v != verb or resource not in resources]
                if verbs:
                    after.append({**rule, "resources": [resource], "verbs": verbs})
        self._write(after)
        try:
            for resource in resources:
                self._until(verb, resource, "no")
            yield
        finally:
            self._write(before)
            for resource in resources:
                self._until(verb, resource, "yes")

    def _write(self, rules: list[Object]) -> None:
        self.kubectl(
            "patch", self.role, NAME, "--type=merge", "--patch", json.dumps({"rules": rules})
        )

    def _until(self, verb: str, resource: str, answer: str) -> None:
        eventually(
            lambda: self.may(verb, resource) == (answer == "yes"),
            what=f"{answer} to {verb} {resource}",
            within=10,
        )

    def may(self, verb: str, resource: str) -> bool:
        """What the API server says of a right."""
        name, _, subresource = resource.partition("/")
        group = next((r["apiGroups"][0] for r in self.rules() if resource in r["resources"]), "")
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": self.user,
                "resourceAttributes": {
                    "namespace": self.kubectl.namespace,
                    "verb": verb,
                    "group": group,
                    "resource": name,
                    "subresource": subresource,
                },
            },
        }
        answer = self.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review))
        return bool(json.loads(answer)["status"]["allowed"])


def granted(rules: list[Object]) -> set[tuple[str, str]]:
    """Verb and resource of every right."""
    rights = {(v, r) for rule in rules for r in rule["resources"] for v in rule["verbs"]}
    return {(v, r) for v, r in rights if v in ("list", "watch") or r not in NOT_ASKED_FOR}


def requests(operator: Operator) -> dict[tuple[str, str], set[str]]:
    """The outcomes of the operator's requests, by verb and resource."""
    outcomes: dict[tuple[str, str], set[str]] = {}
    try:
        metrics = operator.get("/metrics")
    except OSError as error:
        raise AssertionError(f"not up yet: {error}") from error
    for outcome, resource, verb, _ in _REQUESTS.findall(metrics):
        outcomes.setdefault((verb, resource), set()).add(outcome)
    return outcomes


def refused(operator: Operator) -> set[str]:
    """The resources of which some request was refused for want of a right."""
    return {resource for (_, resource), seen in requests(operator).items() if "403" in seen}


def with_rights(
    api: Api, programs: Programs, directory: Path, kustomization: Path, namespace: str
) -> Installed:
    """Install service account and roles of a kustomization, without the operator."""
    kubectl = Kubectl(api.program, api.kubeconfig)
    objects = [
        obj
        for (kind, _, _), obj in programs.kustomize(kustomization).items()
        if kind not in {"Deployment", "Service", "CustomResourceDefinition"}
    ]
    for obj in sorted(objects, key=lambda obj: obj["kind"] != "Namespace"):
        kubectl.apply(obj)
    token = kubectl.in_namespace(namespace)("create", "token", NAME, "--duration=1h").strip()
    config = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    cluster_wide = any(obj["kind"] == "ClusterRole" for obj in objects)
    return Installed(
        kubectl=kubectl.in_namespace(PLACE),
        role="clusterrole" if cluster_wide else "role",
        user=f"system:serviceaccount:{namespace}:{NAME}",
        kubeconfig=kubeconfig,
        namespaces=() if cluster_wide else (namespace,),
    )


def foreign(group: str, version: str, kind: str, plural: str) -> Object:
    """A CRD of another project, as far as the operator needs one."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


@pytest.fixture(scope="module")
def api(fresh_api: Api) -> Iterator[Api]:
    with crd.installed(fresh_api):
        kubectl = Kubectl(fresh_api.program, fresh_api.kubeconfig)
        for names in FOREIGN_CRDS:
            kubectl.apply(foreign(*names))
            crd_name = f"{names[3]}.{names[0]}"
            kubectl.until(
                "crd", crd_name, lambda o: condition(o, "Established"), what="to be established"
            )
        fresh_api.kubectl("create", "namespace", PLACE)
        yield fresh_api


@pytest.fixture(scope="module")
def everywhere(api: Api, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """For the whole cluster."""
    directory = tmp_path_factory.mktemp("everywhere")
    return with_rights(api, programs, directory, MANIFESTS / "base", SYSTEM)


@pytest.fixture(scope="module")
def in_one_namespace(
    api: Api, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """For one namespace, the operator's own."""
    directory = tmp_path_factory.mktemp("one")
    base = MANIFESTS / "overlays" / "namespace-only"
    on_top = {
        "resources": ["../" * len(directory.parts[1:]) + str(base).lstrip("/")],
        "namespace": PLACE,
    }
    (directory / "kustomization.yaml").write_text(json.dumps(on_top))
    return with_rights(api, programs, directory, directory, PLACE)


class Everything:
    """An InferenceModel that has every child, and one pod."""

    def __init__(self, installed: Installed) -> None:
        self.model = Model(installed.kubectl)
        self.kubectl = installed.kubectl

    def __enter__(self) -> Everything:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.delete()
        self.kubectl("delete", ",".join(CHILDREN), "--all")

    def serve(self) -> None:
        """Ask for every child, and let a pod serve a version, as far as the rights allow."""
        self.ask()
        pod = self.model.add_pod()
        pod.poller.tell(told({1: VersionState.AVAILABLE}))

    def ask(self) -> None:
        """Ask for every child."""
        spec = {k: v for fragment in OPTIONAL.values() for k, v in fragment.items()}
        self.model.apply(**spec)

    def ask_for_less(self) -> None:
        """Ask for no optional child any more."""
        self.model.patch(**{k: None for fragment in OPTIONAL.values() for k in fragment})

    def estrange(self) -> None:
        """Make all children somebody else's, and ask for them anew."""
        self.kubectl("delete", "inferencemodel", self.model.name)
        for child in self.children():
            self.kubectl("label", child, "app.kubernetes.io/managed-by-")
        self.ask()

    def children(self) -> list[str]:
        """What exists of it, as ``kind/name``."""
        return self.kubectl(
            *("get", ",".join(CHILDREN), "-o", "name"),
            f"--selector=inferencemodel.dev/name={self.model.name}",
        ).split()

    def until_served(self) -> None:
        """Wait until its status tells the pod's version."""
        self.model.until(
            lambda o: o["status"]["model"]["activeVersion"] == 1, what="version 1 to be active"
        )

    def until_has(self, optional: int) -> None:
        """Wait until it has so many of the optional children."""
        # Two Services, a Deployment and a ConfigMap.
        eventually(
            lambda: len(self.children()) == 4 + optional, what=f"{optional} optional children"
        )


def go_through_everything(installed: Installed) -> set[tuple[str, str]]:
    """Have all children, fewer, and a conflict over each; verbs and resources that it took."""
    with installed.operator() as operator, Everything(installed) as everything:
        everything.serve()
        everything.until_served()
        everything.ask_for_less()
        everything.until_has(0)
        everything.ask()
        everything.until_has(len(OPTIONAL))
        everything.estrange()
        eventually(
            lambda: {("get", child) for child in CHILDREN} <= set(requests(operator)),
            what="a look at each child that is in the way",
        )
        assert refused(operator) == set()
        return {of for of in requests(operator) if of[0] != "discovery"}


def until_refused(operator: Operator, resources: set[str]) -> None:
    """Wait until each of these resources was refused for want of a right."""
    eventually(lambda: not resources - refused(operator), what=f"refused: {resources}", within=30)


def test_each_right_is_used_and_no_other_is_missing(everywhere: Installed) -> None:
    used = go_through_everything(everywhere)
    rights = granted(everywhere.rules())
    # Server-side apply of something new asks for create too, in the same request; admission asks
    # for the right to set finalizers.
    unseen = {(v, r) for v, r in rights if v == "create" and r in CHILDREN}
    unseen |= {("update", "inferencemodels/finalizers")}
    assert rights - unseen == used


def test_a_role_in_one_namespace_is_enough_for_it(in_one_namespace: Installed) -> None:
    go_through_everything(in_one_namespace)


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_without_the_right_to_see_a_kind_the_operator_is_not_ready(
    everywhere: Installed, verb: str
) -> None:
    resources = {r for v, r in granted(everywhere.rules()) if v == verb}
    operator = Operator(everywhere.kubeconfig, ())
    with everywhere.without(verb, resources):
        operator.launch()
        try:
            until_refused(operator, resources)
            assert operator.get("/readyz") != "ok\n"
        finally:
            operator.stop()


@pytest.mark.parametrize("verb", ["create", "patch"])
def test_without_a_right_what_needs_it_is_refused_for_each_kind(
    everywhere: Installed, verb: str
) -> None:
    resources = {r for v, r in granted(everywhere.rules()) if v == verb}
    with everywhere.operator() as operator, Everything(everywhere) as everything:
        with everywhere.without(verb, resources):
            everything.serve()
            until_refused(operator, resources)
        # With the right again, what was refused is done.
        operator.restart()
        everything.until_served()


@pytest.mark.parametrize(
    ("verb", "change"), [("delete", Everything.ask_for_less), ("get", Everything.estrange)]
)
def test_without_a_right_a_later_change_is_refused_for_each_kind(
    everywhere: Installed, verb: str, change: Callable[[Everything], None]
) -> None:
    resources = {r for v, r in granted(everywhere.rules()) if v == verb}
    with everywhere.operator() as operator, Everything(everywhere) as everything:
        everything.serve()
        everything.until_served()
        with everywhere.without(verb, resources):
            change(everything)
            until_refused(operator, resources)


def test_without_the_right_to_set_finalizers_no_child_can_name_its_owner(
    everywhere: Installed,
) -> None:
    with (
        everywhere.operator() as operator,
        Everything(everywhere) as everything,
        everywhere.without("update", {"inferencemodels/finalizers"}),
    ):
        everything.serve()
        until_refused(operator, {"deployments"})
        assert everything.children() == []


def test_secrets_are_out_of_reach(everywhere: Installed) -> None:
    assert not [r for r in everywhere.rules() if "secrets" in r["resources"]]
    for verb in ("get", "list", "watch"):
        assert not everywhere.may(verb, "secrets")
