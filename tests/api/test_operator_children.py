"""The children of an InferenceModel on a real API server: there, repaired, never taken over.

No controllers run there: no pod starts, and nothing is garbage-collected.
"""

from __future__ import annotations

import json
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.api.models import World, world
from tests.support.kubectl import Kubectl, KubectlError, Object, condition
from tests.support.operators import WRITES
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")


@pytest.fixture(scope="module")
def here(api_server: Api) -> Iterator[World]:
    with world(api_server) as made:
        yield made


def _image(deployment: Object) -> str:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    image: str = container["image"]
    return image


def test_children_exist_and_belong_to_their_inferencemodel(here: World) -> None:
    with here.model(ingress={"host": "photo.example.com"}) as model:
        model.until_children(*ALL, "ingress")

        uid = model.get()["metadata"]["uid"]
        for kind, suffix in (
            ("deployment", ""),
            ("service", ""),
            ("service", "-headless"),
            ("configmap", "-versions"),
            ("ingress", ""),
        ):
            metadata = model.child(kind, suffix)["metadata"]
            (owner,) = metadata["ownerReferences"]
            assert (owner["uid"], owner["controller"]) == (uid, True)
            assert "finalizers" not in metadata
        assert "finalizers" not in model.get()["metadata"]
        assert not [
            name for name in model.get()["metadata"].get("annotations", {}) if "kopf" in name
        ]


def test_a_restart_of_the_operator_over_settled_resources_writes_and_reads_nothing(
    here: World,
) -> None:
    with here.model(ingress={"host": "a.example.com"}) as one, here.model(replicas=2) as two:
        one.until_children(*ALL, "ingress")
        two.until_children(*ALL)
        one.until_reported()
        two.until_reported()
        here.operator.until_quiet()
        before = here.writes()

        here.operator.restart()
        here.operator.until_quiet()

        assert here.writes() == before
        assert here.operator.requests(*WRITES, "get") == {}


@pytest.mark.parametrize(
    ("kind", "suffix", "patch"),
    [
        ("deployment", "", {"spec": {"minReadySeconds": 77}}),
        ("deployment", "", {"spec": {"template": {"spec": {"enableServiceLinks": None}}}}),
        ("service", "", {"spec": {"selector": {"inferencemodel.dev/name": "another"}}}),
        ("ingress", "", {"spec": {"rules": [{"host": "stolen.example.com"}]}}),
        ("configmap", "-versions", {"data": {"quarantined.json": None}}),
        ("service", "-headless", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
    ],
)
def test_what_others_change_of_a_child_is_changed_back(
    here: World, kind: str, suffix: str, patch: Object
) -> None:
    with here.model(ingress={"host": "drift.example.com"}) as model:
        model.until_children(*ALL, "ingress")
        here.operator.until_quiet()
        fields = ("spec", "data")
        before = {name: model.child(kind, suffix).get(name) for name in fields}
        labels = model.child(kind, suffix)["metadata"]["labels"]

        model.kubectl(
            *("patch", kind, model.name + suffix, "--type=merge"),
            *("--patch", json.dumps(patch)),
        )

        model.until_child(
            kind,
            lambda o: (
                {name: o.get(name) for name in fields} == before
                and o["metadata"]["labels"] == labels
            ),
            what="its former content",
            suffix=suffix,
        )


def test_what_others_add_to_a_child_stays(here: World) -> None:
    with here.model() as model:
        model.apply()
        model.until_children(*ALL)
        sidecar = {"name": "proxy", "image": "mesh/proxy:1"}
        template = {"spec": {"containers": [sidecar]}}
        patch = {"metadata": {"annotations": {"team": "vision"}}, "spec": {"template": template}}
        model.kubectl(
            *("patch", "deployment", model.name, "--type=strategic"),
            *("--patch", json.dumps(patch)),
        )

        model.patch(replicas=4)

        changed = model.until_child(
            "deployment", lambda o: o["spec"]["replicas"] == 4, what="4 replicas"
        )
        assert changed["metadata"]["annotations"]["team"] == "vision"
        containers = changed["spec"]["template"]["spec"]["containers"]
        assert {"proxy", "model-server"} == {container["name"] for container in containers}


def test_a_field_that_leaves_the_spec_leaves_the_child(here: World) -> None:
    with here.model(
        template={"nodeSelector": {"disk": "ssd"}},
        server={"env": [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "1"}]},
    ) as model:
        model.until_child(
            "deployment",
            lambda o: o["spec"]["template"]["spec"]["nodeSelector"] == {"disk": "ssd"},
            what="the node selector",
        )

        model.apply()

        def gone(deployment: Object) -> bool:
            pod = deployment["spec"]["template"]["spec"]
            return "nodeSelector" not in pod and "env" not in pod["containers"][0]

        model.until_child("deployment", gone, what="no node selector, no environment")


def test_a_child_that_somebody_deletes_comes_back(here: World) -> None:
    with here.model() as model:
        model.apply()
        model.until_children(*ALL)
        uid = model.child("service")["metadata"]["uid"]

        model.kubectl("delete", "service", model.name)

        model.until_child("service", lambda o: o["metadata"]["uid"] != uid, what="another Service")


def test_an_ingress_comes_and_goes_with_its_host(here: World) -> None:
    with here.model() as model:
        model.apply()
        model.until_children(*ALL)
        assert ".svc:8501/" in model.until_reported()["status"]["url"]

        model.apply(ingress={"host": "come.example.com"})
        model.until_children(*ALL, "ingress")
        url = f"http://come.example.com/v1/models/{model.name}"
        model.until(lambda o: o["status"]["url"] == url, what="the Ingress in the URL")

        model.apply()
        model.until_children(*ALL)


def test_the_scale_subresource_scales_the_deployment(here: World) -> None:
    with here.model(replicas=1) as model:
        model.until_children(*ALL)
        model.until_reported()

        model.kubectl("scale", f"inferencemodel/{model.name}", "--replicas=5")

        model.until_child("deployment", lambda o: o["spec"]["replicas"] == 5, what="5 replicas")
        scale = json.loads(
            model.kubectl(
                *("get", "--raw"),
                "/apis/inferencemodel.dev/v1alpha1/namespaces/"
                f"{here.namespace}/inferencemodels/{model.name}/scale",
            )
        )
        assert scale["status"]["selector"] == f"inferencemodel.dev/name={model.name}"


@pytest.mark.parametrize("labelled", [False, True])
def test_an_object_of_the_same_name_that_is_somebody_elses_is_never_touched(
    here: World, labelled: bool
) -> None:
    with here.model() as model:
        label = {"app.kubernetes.io/managed-by": "inferencemodel-operator"} if labelled else {}
        theirs: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{model.name}-versions", "labels": label},
            "data": {"theirs": "1"},
        }
        model.kubectl.apply(theirs)
        before = model.child("configmap", "-versions")

        model.apply()
        told = model.until(
            lambda o: condition(o, "Stalled")["reason"] == "NameConflict", what="NameConflict"
        )

        assert condition(told, "Stalled")["status"] == "True"
        assert (
            f"ConfigMap {here.namespace}/{model.name}-versions"
            in (condition(told, "Stalled")["message"])
        )
        assert condition(told, "Reconciling")["status"] == "False"
        assert model.child("configmap", "-versions") == before
        model.kubectl("delete", "configmap", f"{model.name}-versions")


def test_orphans_are_told_all_at_once_and_handed_over_by_the_command_that_is_told(
    here: World,
) -> None:
    with here.model(ingress={"host": "orphans.example.com"}) as model:
        model.until_children(*ALL, "ingress")
        uids = {child: _uid(model.kubectl, child) for child in model.children()}
        here.operator.stop()
        # What the garbage collector does for --cascade=orphan, which does not run here.
        model.kubectl("delete", "inferencemodel", model.name)
        for child in model.children():
            model.kubectl("patch", child, "--type=json", "--patch", DISOWN)
        model.apply(ingress={"host": "orphans.example.com"})
        here.operator.start()

        told = model.until(
            lambda o: condition(o, "Stalled")["reason"] == "NameConflict", what="NameConflict"
        )
        message = condition(told, "Stalled")["message"]
        for name in ("Deployment {}", "Service {}", "Service {}-headless", "Ingress {}"):
            assert name.format(f"{here.namespace}/{model.name}") in message
        program, *arguments = shlex.split(message.split("`")[1])
        assert program == "kubectl"
        model.kubectl(*arguments)

        model.until(lambda o: condition(o, "Stalled")["status"] == "False", what="not stalled")
        assert {child: _uid(model.kubectl, child) for child in model.children()} == uids
        owner = model.child("deployment")["metadata"]["ownerReferences"][0]
        assert owner["uid"] == model.get()["metadata"]["uid"]


DISOWN = json.dumps([{"op": "remove", "path": "/metadata/ownerReferences"}])


def _uid(kubectl: Kubectl, child: str) -> str:
    return kubectl("get", child, "-o", "jsonpath={.metadata.uid}")


def test_a_port_that_somebody_edits_is_edited_back_and_no_other_one_stays(here: World) -> None:
    with here.model() as model:
        model.apply()
        model.until_children(*ALL)
        ports = model.child("service")["spec"]["ports"]
        edit = [{"op": "replace", "path": "/spec/ports/0/port", "value": 80}]
        model.kubectl("patch", "service", model.name, "--type=json", "--patch", json.dumps(edit))

        model.until_child("service", lambda o: o["spec"]["ports"] == ports, what="its ports")
        here.operator.until_quiet()
        assert condition(model.get(), "Stalled")["status"] == "False"


def test_a_webhook_that_is_dead_is_told_with_the_child_and_its_error(here: World) -> None:
    with here.model() as model, _dead_webhook(here):
        model.apply()
        told = model.until(
            lambda o: "webhook" in condition(o, "Reconciling")["message"], what="the webhook"
        )
        message = condition(told, "Reconciling")["message"]
        assert condition(told, "Reconciling")["reason"] == "Applying"
        assert f"ConfigMap {here.namespace}/{model.name}-versions" in message
        assert "dead.example.com" in message
        assert "bring back the webhook named here" in message

        here.kubectl("delete", "validatingwebhookconfiguration", "dead")
        model.until_children(*ALL)
        model.until(
            lambda o: condition(o, "Reconciling")["reason"] != "Applying", what="all applied"
        )


@contextmanager
def _dead_webhook(here: World) -> Iterator[None]:
    here.kubectl.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "dead"},
            "webhooks": [
                {
                    "name": "dead.example.com",
                    "clientConfig": {"url": "https://127.0.0.1:9/"},
                    "rules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["*"],
                            "operations": ["*"],
                            "resources": ["configmaps"],
                        }
                    ],
                    "namespaceSelector": {
                        "matchLabels": {"kubernetes.io/metadata.name": here.namespace}
                    },
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                    "timeoutSeconds": 1,
                }
            ],
        }
    )
    try:
        probe = ("create", "configmap", "probe", "--dry-run=server")
        eventually(
            lambda: _fails(here.kubectl, "failed calling webhook", *probe),
            what="the webhook to be asked",
            within=30,
        )
        yield
    finally:
        here.kubectl("delete", "validatingwebhookconfiguration", "dead", "--ignore-not-found")


def _fails(kubectl: Kubectl, why: str, *arguments: str) -> bool:
    try:
        kubectl(*arguments)
    except KubectlError as error:
        return why in str(error)
    return False


def test_a_child_that_a_policy_refuses_is_told_with_its_words(here: World) -> None:
    with here.model() as model, _no_deployments(here):
        model.apply()
        told = model.until(
            lambda o: condition(o, "Stalled")["reason"] == "Refused", what="Refused", within=20
        )
        message = condition(told, "Stalled")["message"]
        assert f"Deployment {here.namespace}/{model.name} was refused" in message
        assert "ask the platform team" in message
        assert "satisfy the admission policy named here" in message
        model.until_children("configmap", "service", "service")

        here.kubectl("delete", "validatingadmissionpolicybinding", "no-deployments")
        eventually(
            lambda: here.kubectl(*_DEPLOYMENT), what="Deployments to be taken again", within=30
        )
        # Nothing tells of it: a change of the resource is looked at before the next minute.
        model.apply(replicas=2)
        model.until(lambda o: condition(o, "Stalled")["status"] == "False", what="not stalled")
        model.until_children(*ALL)


_DEPLOYMENT = ("create", "deployment", "probe", "--image=any", "--dry-run=server")


@contextmanager
def _no_deployments(here: World) -> Iterator[None]:
    group = "admissionregistration.k8s.io/v1"
    name = {"metadata": {"name": "no-deployments"}}
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"],
    }
    only_here = {"matchLabels": {"kubernetes.io/metadata.name": here.namespace}}
    here.kubectl.apply(
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            **name,
            "spec": {
                "matchConstraints": {"resourceRules": [rule], "namespaceSelector": only_here},
                "validations": [{"expression": "false", "message": "ask the platform team"}],
            },
        }
    )
    here.kubectl.apply(
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            **name,
            "spec": {"policyName": "no-deployments", "validationActions": ["Deny"]},
        }
    )
    try:
        eventually(
            lambda: _fails(here.kubectl, "ask the platform team", *_DEPLOYMENT),
            what="the policy to be enforced",
            within=30,
        )
        yield
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            here.kubectl("delete", kind, "no-deployments", "--ignore-not-found")


def test_an_immutable_field_that_differs_is_told_with_the_way_out(here: World) -> None:
    with here.model() as model:
        model.apply(suspend=True)
        uid = model.until_reported()["metadata"]["uid"]
        labels = {"app.kubernetes.io/managed-by": "inferencemodel-operator"}
        other = {"app": "of-another-release"}
        model.kubectl.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {
                    "name": model.name,
                    "labels": labels | {"inferencemodel.dev/name": model.name},
                    "ownerReferences": [
                        {
                            "apiVersion": "inferencemodel.dev/v1alpha1",
                            "kind": "InferenceModel",
                            "name": model.name,
                            "uid": uid,
                            "controller": True,
                        }
                    ],
                },
                "spec": {
                    "selector": {"matchLabels": other},
                    "template": {
                        "metadata": {"labels": other},
                        "spec": {"containers": [{"name": "model-server", "image": "old:1"}]},
                    },
                },
            }
        )

        model.apply(suspend=False)
        told = model.until(
            lambda o: condition(o, "Stalled")["reason"] == "Refused", what="Refused", within=20
        )
        message = condition(told, "Stalled")["message"]
        assert "Deployment" in message
        assert "delete it, and the operator creates it" in message
        assert model.child("service"), "the others are there"

        model.kubectl("delete", "deployment", model.name)
        model.until(lambda o: condition(o, "Stalled")["status"] == "False", what="not stalled")
        model.until_children(*ALL)


def test_a_class_of_load_balancers_that_can_not_change_is_told_with_the_way_out(
    here: World,
) -> None:
    def balanced(name: str | None) -> Object:
        return {"type": "LoadBalancer", **({"loadBalancerClass": name} if name else {})}

    with here.model(service=balanced("example.com/a")) as model:
        model.until_children(*ALL)
        for other in ("example.com/b", None):
            model.apply(service=balanced(other))
            told = model.until(
                lambda o: condition(o, "Stalled")["reason"] == "Refused", what="Refused", within=20
            )
            message = condition(told, "Stalled")["message"]
            assert "take the change of spec.service.loadBalancerClass back" in message
            assert f"delete service {model.name}" in message
            assert model.child("service")["spec"]["loadBalancerClass"] == "example.com/a"

            model.apply(service=balanced("example.com/a"))
            model.until(lambda o: condition(o, "Stalled")["status"] == "False", what="taken back")
        model.apply(service=balanced("example.com/b"))
        model.until(lambda o: condition(o, "Stalled")["status"] == "True", what="Refused")
        model.kubectl("delete", "service", model.name)
        model.until(lambda o: condition(o, "Stalled")["status"] == "False", what="not stalled")
        assert model.child("service")["spec"]["loadBalancerClass"] == "example.com/b"


def test_two_families_where_the_cluster_has_one_are_told_with_the_field(here: World) -> None:
    with here.model(service={"ipFamilyPolicy": "RequireDualStack"}) as model:
        told = model.until(
            lambda o: condition(o, "Stalled")["reason"] == "Refused", what="Refused", within=20
        )
        message = condition(told, "Stalled")["message"]
        assert "correct spec.service.ipFamilyPolicy of the InferenceModel" in message
        model.apply(service={"ipFamilyPolicy": "PreferDualStack"})
        model.until_children(*ALL)
        model.until(lambda o: condition(o, "Stalled")["status"] == "False", what="not stalled")


def test_an_exceeded_quota_is_told_and_holds_up_nothing_else(here: World) -> None:
    kubectl = here.kubectl
    hard = {"count/services": "0"}
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none"},
            "spec": {"hard": hard},
        }
    )
    # Where no controllers run, nobody else fills in what is in use.
    kubectl(
        *("patch", "resourcequota", "none", "--subresource=status", "--type=merge"),
        *("--patch", json.dumps({"status": {"hard": hard, "used": hard}})),
    )
    try:
        with here.model() as model:
            # The quota is known to admission a moment later.
            eventually(lambda: _refused(kubectl), what="the quota to be enforced", within=30)
            model.apply()
            told = model.until(
                lambda o: condition(o, "Stalled")["reason"] == "Refused", what="Refused", within=20
            )
            message = condition(told, "Stalled")["message"]
            assert "exceeded quota: none" in message
            assert "raise the namespace's ResourceQuota" in message
            model.until_children("configmap", "deployment")

            kubectl("delete", "resourcequota", "none")
            # Nothing tells of it: a change of the resource is looked at before the next minute.
            model.apply(service={"httpPort": 8080})
            model.until_children(*ALL)
    finally:
        kubectl("delete", "resourcequota", "none", "--ignore-not-found")


def _refused(kubectl: Kubectl) -> bool:
    try:
        kubectl("create", "service", "clusterip", "probe", "--tcp=80", "--dry-run=server")
    except KubectlError as error:
        return "exceeded quota" in str(error)
    return False


def test_a_suspended_resource_is_reported_and_left_as_it_is(here: World) -> None:
    with here.model(replicas=1) as model:
        model.until_children(*ALL)
        model.apply(replicas=3, suspend=True)

        told = model.until(
            lambda o: o["status"]["model"]["transitionStatus"] == "Suspended",
            what="Suspended",
        )
        assert told["status"]["replicaSummary"] == "0/3"
        assert condition(told, "Reconciling")["reason"] == "Suspended"
        model.kubectl("delete", "service", model.name)
        here.operator.until_quiet()
        assert model.child("deployment")["spec"]["replicas"] == 1
        assert f"service/{model.name}" not in model.children()

        model.apply(replicas=3, suspend=False)
        model.until_children(*ALL)
        model.until_child("deployment", lambda o: o["spec"]["replicas"] == 3, what="3 replicas")


def test_what_happened_while_the_operator_was_down_is_made_good(here: World) -> None:
    with here.model(replicas=1) as model:
        model.until_children(*ALL)
        here.operator.stop()
        model.apply(replicas=2)
        model.kubectl("delete", "service", model.name)

        here.operator.start()

        model.until_children(*ALL)
        model.until_child("deployment", lambda o: o["spec"]["replicas"] == 2, what="2 replicas")


def test_a_new_resource_of_a_deleted_ones_name_waits_for_its_remains(here: World) -> None:
    """Deletion leaves the children to the garbage collector, which does not run here."""
    with here.model() as model:
        model.apply()
        model.until_children(*ALL)
        old = model.child("deployment")["metadata"]["uid"]
        model.kubectl("delete", "inferencemodel", model.name)
        model.apply()
        model.until(lambda o: condition(o, "Reconciling")["reason"] == "Applying", what="waiting")
        assert condition(model.get(), "Stalled")["status"] == "False"
        assert model.child("deployment")["metadata"]["uid"] == old

        model.kubectl("delete", *model.children())

        model.until_children(*ALL)
        owner = model.child("deployment")["metadata"]["ownerReferences"][0]
        assert owner["uid"] == model.get()["metadata"]["uid"]


def test_the_operator_ends_at_once_when_told_to(here: World) -> None:
    assert here.operator.stop() == 0
    here.operator.start()


def test_another_namespace_is_none_of_its_business(here: World, api_server: Api) -> None:
    elsewhere = Kubectl(api_server.program, api_server.kubeconfig, f"{here.namespace}-other")
    elsewhere("create", "namespace", f"{here.namespace}-other")
    theirs: Object = {
        "apiVersion": "inferencemodel.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": "elsewhere"},
        "spec": {"model": {"storageUri": "gs://models/elsewhere"}},
    }
    elsewhere.apply(theirs)
    with here.model() as model:
        model.apply()
        model.until_children(*ALL)
        here.operator.until_quiet()

    assert elsewhere.list("deployments") == []
    elsewhere("delete", "inferencemodel", "elsewhere")
    elsewhere("delete", "namespace", f"{here.namespace}-other", "--wait=false")
