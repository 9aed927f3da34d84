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

from inferencemodel_operator.names import (
    ABORT_ANNOTATION,
    DESIRED_HASH_ANNOTATION,
    REHEARSAL_LABEL,
)
from model_poller.status import SourceReason, SourceState, SourceStatus, VersionState
from tests.api.models import Model
from tests.support import crd
from tests.support.kubectl import Kubectl, condition
from tests.support.operators import Operator
from tests.support.pods import told
from tests.support.rendering import MANIFESTS, SYSTEM, Object, Programs
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api

pytestmark = pytest.mark.api

NAME: Final = "inferencemodel-operator"
PLACE: Final = "vision"
"""Where the InferenceModels are, and where the operator for one namespace is."""
ALWAYS: Final = frozenset({"configmaps", "deployments", "services"})
"""Children that every InferenceModel has; the Services are two."""


@dataclass(frozen=True)
class Stage:
    """A spec, and the children that it asks for beside those that there always are."""

    spec: dict[str, Any]
    optional: frozenset[str]
    services: int = 0
    """More of them than there always are."""
    waiting: frozenset[str] = frozenset()
    """Children that are let be while another one can't be had."""

    @property
    def more(self) -> int:
        """How many children it asks for beside those that there always are."""
        return len(self.optional) + self.services

    @property
    def children(self) -> frozenset[str]:
        """All kinds of children."""
        return ALWAYS | self.optional


STAGES: Final = (
    Stage(
        {
            "ingress": {"host": "m.example.com"},
            "autoscaling": {"maxReplicas": 3},
            "server": {"resources": {"requests": {"cpu": "100m"}}},
            "networkPolicy": {"enabled": True},
        },
        frozenset(
            {"ingresses", "horizontalpodautoscalers", "poddisruptionbudgets", "networkpolicies"}
        ),
    ),
    Stage(
        {
            "gateway": {
                "parentRefs": [{"name": "public"}],
                "hostnames": ["m.example.com"],
                "grpcHostnames": ["grpc.example.com"],
            },
            "autoscaling": {
                "minReplicas": 0,
                "maxReplicas": 3,
                "keda": {"triggers": [{"type": "cron", "metadata": {"timezone": "Etc/UTC"}}]},
            },
        },
        frozenset({"httproutes", "grpcroutes", "scaledobjects", "poddisruptionbudgets"}),
    ),
    Stage(
        {"autoscaling": {"minReplicas": 0, "maxReplicas": 3, "keda": {"http": {"concurrency": 1}}}},
        frozenset({"interceptorroutes", "scaledobjects", "poddisruptionbudgets"}),
        services=1,
        waiting=frozenset({"scaledobjects"}),
    ),
)
"""Together they ask for every child that there can be."""
CHILDREN: Final = frozenset().union(*(stage.children for stage in STAGES))
FOREIGN_CRDS: Final = (
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    ("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes"),
    ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
    ("http.keda.sh", "v1beta1", "InterceptorRoute", "interceptorroutes"),
)
"""Kinds that a cluster need not have; here they are, with any content."""
ROLLOUTS: Final = frozenset({("create", "pods"), ("delete", "pods"), ("patch", "inferencemodels")})
"""Rights that only the delivery of a new version takes: its rehearsal, and what is asked of it."""
REFUSED: Final = SourceStatus(
    uri="gs://models/m",
    state=SourceState.FAILED,
    reason=SourceReason.ACCESS_DENIED,
    message="403",
)
"""A bucket that lets nobody in."""
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
    namespace: str
    """The operator's own."""
    namespaces: tuple[str, ...]
    """Those that it serves; all when empty."""

    def operator(self) -> Operator:
        """The operator, not started yet."""
        lease = f"--lease-namespace={self.namespace}"
        return Operator(self.kubeconfig, self.namespaces, ("--poller-access=direct", lease))

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
        # The role changes as a whole, so one of them tells of all.
        one = min(resources)
        self._write(after)
        try:
            self._until(verb, one, allowed=False)
            yield
        finally:
            self._write(before)
            self._until(verb, one, allowed=True)

    def _write(self, rules: list[Object]) -> None:
        self.kubectl(
            "patch", self.role, NAME, "--type=merge", "--patch", json.dumps({"rules": rules})
        )

    def _until(self, verb: str, resource: str, *, allowed: bool) -> None:
        eventually(
            lambda: self.may(verb, resource) == allowed,
            what=f"{'yes' if allowed else 'no'} to {verb} {resource}",
            within=10,
        )

    def may(self, verb: str, resource: str, *, user: str | None = None) -> bool:
        """What the API server says of a right of the operator, or of another user."""
        name, _, subresource = resource.partition("/")
        groups = {r: rule["apiGroups"][0] for rule in self.rules() for r in rule["resources"]}
        group = groups.get(name, "")
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user or self.user,
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
    return {(v, r) for rule in rules for r in rule["resources"] for v in rule["verbs"]}


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
    account = kubectl.in_namespace(namespace).as_service_account(NAME, directory / "kubeconfig")
    cluster_wide = any(obj["kind"] == "ClusterRole" for obj in objects)
    return Installed(
        kubectl=kubectl.in_namespace(PLACE),
        role="clusterrole" if cluster_wide else "role",
        user=f"system:serviceaccount:{namespace}:{NAME}",
        kubeconfig=account.kubeconfig,
        namespace=namespace,
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
    """An InferenceModel with one pod, and with the children of one stage after the other."""

    def __init__(self, installed: Installed) -> None:
        self.model = Model(installed.kubectl)
        self.kubectl = installed.kubectl

    def __enter__(self) -> Everything:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.delete()
        self.kubectl("delete", ",".join(CHILDREN), "--all")

    def serve(self, stage: Stage) -> None:
        """Ask for a stage's children, and let a pod serve a version, as far as the rights allow."""
        self.model.apply(**stage.spec)
        self.model.add_pod(ready=False).hang()
        pod = self.model.add_pod()
        pod.poller.tell(told({1: VersionState.AVAILABLE}))

    def rehearse(self) -> None:
        """Find a new version that is to be rehearsed."""
        self.model.patch(rollout={"steps": None, "rehearsal": {"enabled": True}})
        self.model.roll_out()
        states = {1: VersionState.AVAILABLE, 2: VersionState.FETCHED}
        self.model.pods[-1].poller.tell(told(states))

    def until_rehearsed(self, pods: int) -> None:
        """Wait until it has so many pods that rehearse a version."""
        listing = ("get", "pods", "-o", "name", f"--selector={REHEARSAL_LABEL}={self.model.name}")
        eventually(
            lambda: len(self.kubectl(*listing).split()) == pods, what=f"{pods} rehearsal pods"
        )

    def abort(self) -> None:
        """Take the version back by hand."""
        self.kubectl("annotate", f"inferencemodel/{self.model.name}", f"{ABORT_ANNOTATION}=2")

    def until_heard(self) -> None:
        """Wait until that is taken away."""
        self.model.until(
            lambda o: ABORT_ANNOTATION not in o["metadata"].get("annotations", {}),
            what="the annotation to be taken away",
        )

    def lose_the_bucket(self) -> None:
        """Let the pod be refused by its bucket, and then not any more: each time an Event."""
        self.model.pods[-1].poller.tell(told({1: VersionState.AVAILABLE}, source=REFUSED))
        self._until_source("False")
        self.model.pods[-1].poller.tell(told({1: VersionState.AVAILABLE}))
        self._until_source("True")

    def _until_source(self, status: str) -> None:
        self.model.until(
            lambda o: condition(o, "SourceReady").get("status") == status,
            what=f"SourceReady to be {status}",
        )

    def ask_for_less(self, stage: Stage) -> None:
        """Ask for none of a stage's optional children any more."""
        self.model.patch(**dict.fromkeys(stage.spec))

    def spoil(self) -> None:
        """Have every child lack something, so that it is applied anew."""
        for child in self.children():
            if not child.startswith("pod/"):
                self.kubectl("annotate", child, f"{DESIRED_HASH_ANNOTATION}-")

    def until_mended(self) -> None:
        """Wait until nothing lacks in any child."""
        annotation = DESIRED_HASH_ANNOTATION.replace(".", "\\.")
        hashed = f"jsonpath={{.metadata.annotations.{annotation}}}"
        eventually(
            lambda: all(self.kubectl("get", child, "-o", hashed) for child in self.children()),
            what="every child to be whole again",
        )

    def estrange(self, stage: Stage) -> None:
        """Make all children somebody else's, and ask for them anew."""
        self.kubectl("delete", "inferencemodel", self.model.name)
        for child in self.children():
            self.kubectl("label", child, "app.kubernetes.io/managed-by-")
        self.model.apply(**stage.spec)

    def children(self) -> list[str]:
        """What exists of it, as ``kind/name``."""
        return self.kubectl(
            *("get", ",".join(CHILDREN), "-o", "name"),
            f"--selector=inferencemodel.dev/name={self.model.name}",
        ).split()

    def until_served(self, stage: Stage) -> None:
        """Wait until its status tells the pod's version, and every child is there."""
        self.model.until(
            lambda o: o["status"]["model"]["activeVersion"] == 1, what="version 1 to be active"
        )
        self.until_has(stage.more)

    def until_has(self, optional: int) -> None:
        """Wait until it has so many of the optional children."""
        eventually(
            lambda: len(self.children()) == len(ALWAYS) + 1 + optional,
            what=f"{optional} optional children",
        )


def go_through_everything(installed: Installed) -> set[tuple[str, str]]:
    """Have all children, fewer, and a conflict over each; verbs and resources that it took."""
    # A Lease of an earlier operator would not have to be created.
    installed.kubectl.in_namespace(installed.namespace)("delete", "leases", "--all")
    with installed.operator() as operator:
        for stage in STAGES:
            with Everything(installed) as everything:
                everything.serve(stage)
                everything.until_served(stage)
                eventually(
                    lambda: ("list", "events") in requests(operator),
                    what="a look at the Events of a pod that does not start",
                )
                everything.lose_the_bucket()
                everything.lose_the_bucket()
                everything.rehearse()
                everything.until_rehearsed(1)
                everything.abort()
                everything.until_rehearsed(0)
                everything.until_heard()
                everything.spoil()
                everything.until_mended()
                everything.ask_for_less(stage)
                everything.until_has(0)
                everything.model.apply(**stage.spec)
                everything.until_has(stage.more)
                everything.estrange(stage)
                looks = {("get", child) for child in stage.children - stage.waiting}
                eventually(
                    lambda looks=looks: looks <= set(requests(operator)),  # type: ignore[misc]
                    what="a look at each child that is in the way",
                )
        assert refused(operator) == set()
        return {of for of in requests(operator) if of[0] != "discovery"}


def until_refused(operator: Operator, resources: set[str] | frozenset[str]) -> None:
    """Wait until each of these resources was refused for want of a right."""
    eventually(lambda: not resources - refused(operator), what=f"refused: {resources}", within=30)


def test_each_right_is_used_and_no_other_is_missing(everywhere: Installed) -> None:
    used = go_through_everything(everywhere)
    lease = everywhere.kubectl.in_namespace(SYSTEM).get("role", f"{NAME}-leader-election")
    rights = granted([*everywhere.rules(), *lease["rules"]])
    # An apply of something new asks for create too, in the same request; admission asks for the
    # right to set finalizers.
    unseen = {("create", "configmaps"), ("update", "inferencemodels/finalizers")}
    assert rights - unseen == used


def test_a_role_in_one_namespace_is_enough_for_it(in_one_namespace: Installed) -> None:
    go_through_everything(in_one_namespace)


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_without_the_right_to_see_a_kind_the_operator_is_not_ready(
    everywhere: Installed, verb: str
) -> None:
    # Events are none of those that are watched.
    resources = {r for v, r in granted(everywhere.rules()) if v == verb} - {"events"}
    operator = everywhere.operator()
    with everywhere.without(verb, resources):
        operator.launch()
        try:
            until_refused(operator, resources)
            assert operator.get("/readyz") != "ok\n"
        finally:
            operator.stop()


@pytest.mark.parametrize("stage", STAGES)
def test_without_the_right_to_create_a_kind_there_is_none_of_it(
    everywhere: Installed, stage: Stage
) -> None:
    resources = {r for v, r in granted(everywhere.rules()) - ROLLOUTS if v == "create"}
    with everywhere.operator() as operator, Everything(everywhere) as everything:
        with everywhere.without("create", resources):
            everything.model.apply(**stage.spec)
            until_refused(operator, resources - (CHILDREN - stage.children) - stage.waiting)
        # With the right again, what was refused is done.
        operator.restart()
        everything.serve(stage)
        everything.until_served(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_without_the_right_to_change_a_kind_it_stays_as_it_is(
    everywhere: Installed, stage: Stage
) -> None:
    # Without a status nothing happens that an Event would count; pods have tests of their own.
    resources = {r for v, r in granted(everywhere.rules()) - ROLLOUTS if v == "patch"}
    resources -= {"events", "pods"}
    with everywhere.operator() as operator, Everything(everywhere) as everything:
        everything.serve(stage)
        everything.until_served(stage)
        with everywhere.without("patch", resources):
            everything.spoil()
            until_refused(operator, resources - (CHILDREN - stage.children) - stage.waiting)
        operator.restart()
        everything.until_mended()


def test_without_the_right_to_change_pods_none_is_told_another_version(
    everywhere: Installed,
) -> None:
    with everywhere.operator() as operator, Everything(everywhere) as everything:
        everything.serve(STAGES[0])
        everything.until_served(STAGES[0])
        with everywhere.without("patch", {"pods"}):
            states = {1: VersionState.AVAILABLE, 2: VersionState.FETCHED}
            everything.model.pods[-1].poller.tell(told(states))
            until_refused(operator, {"pods"})


@contextmanager
def rehearsing(installed: Installed) -> Iterator[tuple[Operator, Everything]]:
    """A version that is about to be rehearsed."""
    with installed.operator() as operator, Everything(installed) as everything:
        everything.serve(STAGES[0])
        everything.until_served(STAGES[0])
        yield operator, everything


def test_without_the_right_to_make_pods_nothing_is_rehearsed(
    everywhere: Installed,
) -> None:
    with rehearsing(everywhere) as (operator, everything), everywhere.without("create", {"pods"}):
        everything.rehearse()
        until_refused(operator, {"pods"})
        everything.until_rehearsed(0)


def test_without_the_right_to_delete_pods_one_that_has_rehearsed_stays(
    everywhere: Installed,
) -> None:
    with rehearsing(everywhere) as (operator, everything):
        everything.rehearse()
        everything.until_rehearsed(1)
        with everywhere.without("delete", {"pods"}):
            everything.abort()
            until_refused(operator, {"pods"})
            everything.until_rehearsed(1)
        everything.until_rehearsed(0)


def test_without_the_right_to_change_inferencemodels_what_is_asked_for_once_stays(
    everywhere: Installed,
) -> None:
    with rehearsing(everywhere) as (operator, everything):
        everything.rehearse()
        everything.until_rehearsed(1)
        with everywhere.without("patch", {"inferencemodels"}):
            everything.abort()
            # It is obeyed all the same.
            everything.until_rehearsed(0)
            until_refused(operator, {"inferencemodels"})
        everything.until_heard()


def test_without_the_right_to_change_events_nobody_counts_them(everywhere: Installed) -> None:
    with everywhere.operator() as operator, Everything(everywhere) as everything:
        everything.serve(STAGES[0])
        everything.until_served(STAGES[0])
        with everywhere.without("patch", {"events"}):
            everything.lose_the_bucket()
            everything.lose_the_bucket()
            until_refused(operator, {"events"})


@pytest.mark.parametrize("stage", STAGES)
def test_without_the_right_to_delete_what_is_no_longer_wanted_stays(
    everywhere: Installed, stage: Stage
) -> None:
    with everywhere.operator() as operator, Everything(everywhere) as everything:
        everything.serve(stage)
        everything.until_served(stage)
        with everywhere.without("delete", set(stage.optional)):
            everything.ask_for_less(stage)
            until_refused(operator, stage.optional)


@pytest.mark.parametrize("stage", STAGES)
def test_without_the_right_to_get_a_child_nobody_knows_whose_one_in_the_way_is(
    everywhere: Installed, stage: Stage
) -> None:
    with everywhere.operator() as operator, Everything(everywhere) as everything:
        everything.serve(stage)
        everything.until_served(stage)
        with everywhere.without("get", set(stage.children)):
            everything.estrange(stage)
            until_refused(operator, stage.children - stage.waiting)


@pytest.mark.parametrize("verb", ["get", "create", "update"])
def test_without_a_right_to_the_lease_nobody_leads(everywhere: Installed, verb: str) -> None:
    place = everywhere.kubectl.in_namespace(everywhere.namespace)
    role = place.get("role", f"{NAME}-leader-election")
    (rule,) = role["rules"]
    place("delete", "leases", "--all")
    less = [{**rule, "verbs": [v for v in rule["verbs"] if v != verb]}]
    write = ("patch", "role", f"{NAME}-leader-election", "--type=merge", "--patch")
    place(*write, json.dumps({"rules": less}))
    operator = everywhere.operator()
    operator.launch()
    try:
        until_refused(operator, {"leases"})
    finally:
        operator.stop()
        place(*write, json.dumps({"rules": role["rules"]}))


def test_without_the_right_to_set_finalizers_no_child_can_name_its_owner(
    everywhere: Installed,
) -> None:
    with (
        everywhere.operator() as operator,
        Everything(everywhere) as everything,
        everywhere.without("update", {"inferencemodels/finalizers"}),
    ):
        everything.model.apply(**STAGES[0].spec)
        until_refused(operator, STAGES[0].children)
        assert everything.children() == []


def test_secrets_are_out_of_reach(everywhere: Installed) -> None:
    assert not [r for r in everywhere.rules() if "secrets" in r["resources"]]
    for verb in ("get", "list", "watch"):
        assert not everywhere.may(verb, "secrets")


@pytest.mark.parametrize(
    ("role", "aggregated_to", "verbs"),
    [
        (
            "view",
            {"view", "edit", "admin"},
            {
                "inferencemodels": {"get", "list", "watch"},
                "inferencemodels/status": {"get", "list", "watch"},
                "inferencemodels/scale": {"get", "list", "watch"},
            },
        ),
        (
            "edit",
            {"edit", "admin"},
            {
                "inferencemodels": {"create", "update", "patch", "delete", "deletecollection"},
                "inferencemodels/status": set(),
                "inferencemodels/scale": {"update", "patch"},
            },
        ),
    ],
)
def test_who_may_view_or_edit_a_namespace_may_do_so_with_its_models(
    everywhere: Installed, role: str, aggregated_to: set[str], verbs: dict[str, set[str]]
) -> None:
    name = f"inferencemodel-{role}"
    labels = everywhere.kubectl.get("clusterrole", name)["metadata"]["labels"]
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert {label.removeprefix(prefix) for label in labels if prefix in label} == aggregated_to
    # No controller aggregates here, so somebody gets the role itself.
    everywhere.kubectl("create", "rolebinding", name, f"--clusterrole={name}", f"--user={role}")
    every = {verb for found in verbs.values() for verb in found} | {"get", "list", "patch"}
    for resource, expected in verbs.items():
        allowed = {v for v in every if everywhere.may(v, resource, user=role)}
        assert allowed == expected, resource
    assert not everywhere.may("get", "secrets", user=role)
