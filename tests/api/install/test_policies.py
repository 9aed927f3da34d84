"""The admission policies to copy, on a real API server: what each allows, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

from model_poller.status import VersionState
from tests.api.models import Model
from tests.support import crd
from tests.support.kubectl import Kubectl, KubectlError
from tests.support.operators import Operator
from tests.support.pods import told
from tests.support.rendering import MANIFESTS, SYSTEM
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api
    from tests.support.rendering import Object, Programs

pytestmark = pytest.mark.api

OPERATOR: Final = "inferencemodel-operator"
PLACE: Final = "vision"
HOST: Final = f"m.{PLACE}.models.example.com"
PATCH: Final = ("patch", "--type=merge", "--patch")


@pytest.fixture(scope="module")
def kubectl(
    fresh_api: Api, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubectl]:
    """An install with the policies in force, and one namespace for models."""
    directory = tmp_path_factory.mktemp("install")
    up = "../" * len(directory.parts[1:])
    together = {
        "resources": [up + str(MANIFESTS / "base").lstrip("/")],
        "components": [up + str(MANIFESTS / "components" / "policies").lstrip("/")],
    }
    (directory / "kustomization.yaml").write_text(json.dumps(together))
    with crd.installed(fresh_api):
        kubectl = Kubectl(fresh_api.program, fresh_api.kubeconfig)
        kubectl("create", "namespace", PLACE)
        place = kubectl.in_namespace(PLACE)
        # One of before the policies, which they would refuse.
        place.apply(model("before", source={"serviceAccountName": "owner"}))
        objects = programs.kustomize(directory)
        for obj in sorted(objects.values(), key=lambda obj: obj["kind"] != "Namespace"):
            if obj["kind"] not in {"CustomResourceDefinition", "Deployment"}:
                kubectl.apply(obj)
        until_in_force(place)
        yield place


def until_in_force(place: Kubectl) -> None:
    """Wait until the API server asks both policies."""
    eventually(
        lambda: refusal(place, model("early", server={"image": "busybox"})),
        what="the authors' policy to be in force",
    )
    # The operator's may come later; only its own account hears of it.
    account = f"--as=system:serviceaccount:{SYSTEM}:{OPERATOR}"
    eventually(
        lambda: (
            "the operator may touch only"
            in said(place, "create", "configmap", "early", account, "--dry-run=server")
        ),
        what="the operator's policy to be in force",
    )


def said(kubectl: Kubectl, *arguments: str) -> str:
    """What kubectl says when it fails; empty when it doesn't."""
    try:
        kubectl(*arguments)
    except KubectlError as error:
        return str(error)
    return ""


def model(name: str = "m", **spec: Any) -> Object:
    return {
        "apiVersion": "inferencemodel.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": name, "namespace": PLACE},
        "spec": {"model": {"storageUri": "gs://models/m"}, **spec},
    }


def refusal(kubectl: Kubectl, obj: Object) -> str:
    """Why the authors' policy refuses an object; empty when it is taken. Nothing is stored."""
    done = subprocess.run(
        [str(kubectl.program), "create", "--dry-run=server", "-f", "-"],
        input=json.dumps(obj),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)},
    )
    assert "inferencemodel-authors" in done.stderr or done.returncode == 0, done.stderr
    return done.stderr


SECRET_ENV: Final = {"valueFrom": {"secretKeyRef": {"name": "model-token", "key": "k"}}}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"server": {"image": "registry.example.com/models/serving@sha256:" + "0" * 64}},
        {"model": {"storageUri": "s3://models/m", "warmup": {"uri": "gs://models/warmup"}}},
        {"source": {"serviceAccountName": "model-reader"}},
        {"source": {"secretRef": {"name": "model-key"}}},
        {
            "model": {"storageUri": "s3://models/m"},
            "source": {
                "notifications": {"sqs": {"queueUrl": "https://sqs.eu-north-1.amazonaws.com/1/q"}}
            },
        },
        {"poller": {"resources": {"limits": {"cpu": "1"}}, "logLevel": "Debug"}},
        {"server": {"env": [{"name": "PLAIN", "value": "v"}, {"name": "TOKEN", **SECRET_ENV}]}},
        {
            "ingress": {
                "host": HOST,
                "hosts": [f"*.{HOST}"],
                "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
                "tls": {"secretName": "model-tls"},
            }
        },
        {
            "gateway": {
                "parentRefs": [{"name": "public", "namespace": "gateways"}],
                "hostnames": [HOST],
                "grpcHostnames": [f"grpc-{HOST}"],
            }
        },
        {
            "autoscaling": {"maxReplicas": 3},
            "server": {"resources": {"requests": {"cpu": "1"}}},
            "networkPolicy": {"enabled": True},
        },
        {
            "template": {
                "nodeSelector": {"disk": "ssd"},
                "imagePullSecrets": [{"name": "model-reg"}],
            }
        },
    ],
)
def test_what_authors_are_there_for_is_allowed(kubectl: Kubectl, spec: dict[str, Any]) -> None:
    assert refusal(kubectl, model(**spec)) == ""


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("server.image", {"server": {"image": "registry.example.com/other:1"}}),
        ("server.command", {"server": {"command": ["/bin/sh"]}}),
        ("poller.env", {"poller": {"env": [{"name": "HTTPS_PROXY", "value": "http://p:1"}]}}),
        ("poller.extraCAs", {"poller": {"extraCAs": {"configMap": {"name": "mine"}}}}),
        ("spec.ingress", {"ingress": {"hosts": [HOST, "*.example.com"]}}),
        ("service.type", {"service": {"labels": {"app": "other"}}}),
        ("model.storageUri", {"model": {"storageUri": "gs://others/m"}}),
        ("model.storageUri", {"model": {"storageUri": "pvc://backups/m"}}),
        ("model.storageUri", {"model": {"storageUri": "https://models.example.com/m"}}),
        (
            "model.warmup.uri",
            {"model": {"storageUri": "gs://models/m", "warmup": {"uri": "gs://others/w"}}},
        ),
        ("source.endpoint", {"source": {"endpoint": "http://collector.example.com"}}),
        (
            "pubsub.endpoint",
            {
                "source": {
                    "notifications": {
                        "pubsub": {
                            "subscription": "projects/project/subscriptions/models",
                            "endpoint": "collector.example.com:80",
                        }
                    }
                }
            },
        ),
        (
            "sqs.queueUrl",
            {
                "model": {"storageUri": "s3://models/m"},
                "source": {"notifications": {"sqs": {"queueUrl": "https://sqs.example.com/1/q"}}},
            },
        ),
        ("source.serviceAccountName", {"source": {"serviceAccountName": "admin"}}),
        ("every Secret", {"source": {"secretRef": {"name": "database"}}}),
        (
            "every Secret",
            {
                "server": {
                    "env": [
                        {
                            "name": "T",
                            "valueFrom": {"secretKeyRef": {"name": "database", "key": "k"}},
                        }
                    ]
                }
            },
        ),
        ("every Secret", {"ingress": {"host": HOST, "tls": {"secretName": "database"}}}),
        ("every Secret", {"template": {"imagePullSecrets": [{"name": "database"}]}}),
        ("service.type", {"service": {"type": "LoadBalancer"}}),
        ("service.type", {"service": {"type": "NodePort"}}),
        ("service.type", {"service": {"annotations": {"a.example.com/b": "c"}}}),
        ("every host", {"ingress": {"host": "shop.example.com"}}),
        ("every host", {"ingress": {"host": "m.other.models.example.com"}}),
        (
            "ingress.annotations",
            {
                "ingress": {
                    "host": HOST,
                    "annotations": {"nginx.ingress.kubernetes.io/configuration-snippet": "x"},
                }
            },
        ),
        (
            "every host",
            {
                "gateway": {
                    "parentRefs": [{"name": "public", "namespace": "gateways"}],
                    "hostnames": [HOST],
                    "grpcHostnames": ["shop.example.com"],
                }
            },
        ),
        (
            "parentRefs must be one of",
            {"gateway": {"parentRefs": [{"name": "private"}], "hostnames": [HOST]}},
        ),
        (
            "must give hostnames",
            {"gateway": {"parentRefs": [{"name": "public", "namespace": "gateways"}]}},
        ),
        (
            "autoscaling.keda",
            {
                "autoscaling": {
                    "maxReplicas": 2,
                    "keda": {"triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}]},
                }
            },
        ),
        ("spec.template", {"template": {"metadata": {"labels": {"app": "shop"}}}}),
        ("spec.template", {"template": {"metadata": {"annotations": {"inject": "yes"}}}}),
        ("spec.template", {"template": {"priorityClassName": "system-node-critical"}}),
        ("spec.template", {"template": {"tolerations": [{"operator": "Exists"}]}}),
        ("spec.template.spec", {"template": {"spec": {"hostPID": True}}}),
    ],
)
def test_what_authors_are_not_to_have_is_refused_by_the_fields_name(
    kubectl: Kubectl, field: str, spec: dict[str, Any]
) -> None:
    assert field in refusal(kubectl, model(**spec))


def test_what_was_there_before_can_be_labelled_and_deleted_but_not_changed_for_the_worse(
    kubectl: Kubectl,
) -> None:
    kubectl(*PATCH, '{"metadata": {"finalizers": ["example.com/last"]}}', "inferencemodel/before")
    kubectl("label", "inferencemodel/before", "team=vision")
    with pytest.raises(KubectlError, match="serviceAccountName must begin with model-"):
        kubectl(*PATCH, '{"spec": {"replicas": 2}}', "inferencemodel/before")
    kubectl(*PATCH, '{"spec": {"source": {"serviceAccountName": null}}}', "inferencemodel/before")
    kubectl("delete", "inferencemodel/before", "--wait=false")
    kubectl(*PATCH, '{"metadata": {"finalizers": null}}', "inferencemodel/before")
    assert "not found" in said(kubectl, "get", "inferencemodel/before")


@pytest.fixture(scope="module")
def account(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Be the operator."""
    place = kubectl.in_namespace(SYSTEM)
    directory: Path = tmp_path_factory.mktemp("account")
    account = place.as_service_account(OPERATOR, directory / "kubeconfig")
    # kubectl reads a pod before it patches it; the operator doesn't.
    kubectl("create", "role", "reader", "--verb=get", "--resource=pods,inferencemodels")
    who = f"--serviceaccount={SYSTEM}:{OPERATOR}"
    kubectl("create", "rolebinding", "reader", "--role=reader", who)
    return account.in_namespace(PLACE)


@pytest.fixture(scope="module")
def served(kubectl: Kubectl, account: Kubectl) -> Iterator[Model]:
    """A model with every change of children and one pod, by a real operator under the policies."""
    served = Model(kubectl)
    spec = {
        "ingress": {"host": HOST},
        "autoscaling": {"maxReplicas": 3},
        "server": {"resources": {"requests": {"cpu": "100m"}}},
        "networkPolicy": {"enabled": True},
    }
    lease = f"--lease-namespace={SYSTEM}"
    with Operator(account.kubeconfig, (), ("--poller-access=direct", lease)) as operator:
        served.apply(**spec)
        # The Deployment's uid is known once it is there.
        served.until_child("deployment", lambda o: o["metadata"]["uid"], what="to be there")
        pod = served.add_pod()
        pod.poller.tell(told({1: VersionState.AVAILABLE}, target=1))
        served.until(lambda o: o["status"]["model"]["activeVersion"] == 1, what="version 1")
        served.patch(ingress=None, autoscaling=None, networkPolicy=None)
        eventually(
            lambda: not kubectl("get", "ingress,hpa,networkpolicy", "-o", "name").strip(),
            what="the optional children to be gone",
        )
        served.patch(**spec)
        served.until_child("ingress", lambda o: o["spec"], what="to be back")
        served.until_child("networkpolicy", lambda o: o["spec"], what="to be back")
        operator.until_quiet()
        forbidden = operator.requests("create", "patch", "delete", outcome="403")
        refused = operator.requests("create", "patch", "delete", outcome="422")
        assert (forbidden, refused) == ({}, {})
    yield served
    served.delete()


def test_the_operator_works_under_its_policy_and_may_annotate_its_pods(
    served: Model, account: Kubectl
) -> None:
    pod = f"pod/{served.pods[0].name}"
    account(
        *PATCH, '{"metadata": {"annotations": {"inferencemodel.dev/target-version": "2"}}}', pod
    )


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ({"metadata": {"annotations": {"example.com/a": "b"}}}, "only those of inferencemodel.dev"),
        ({"metadata": {"labels": {"app": "shop"}}}, "only annotations"),
        ({"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}, "may touch only"),
        ({"metadata": {"finalizers": ["example.com/a"]}}, "only annotations"),
        ({"spec": {"activeDeadlineSeconds": 1}}, "only annotations"),
    ],
)
def test_of_its_pods_the_operator_may_change_nothing_else(
    served: Model, account: Kubectl, patch: dict[str, Any], reason: str
) -> None:
    refused = said(account, *PATCH, json.dumps(patch), f"pod/{served.pods[0].name}")
    assert reason in refused


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ({"metadata": {"annotations": {"inferencemodel.dev/abort": None}}}, ""),
        ({"metadata": {"annotations": {"example.com/a": "b"}}}, "only those of inferencemodel.dev"),
        ({"metadata": {"labels": {"app": "shop"}}}, "only annotations"),
        ({"metadata": {"finalizers": ["example.com/a"]}}, "only annotations"),
        ({"spec": {"replicas": 2}}, "only annotations"),
    ],
)
def test_of_an_inferencemodel_the_operator_may_take_away_what_was_asked_for_once(
    served: Model, account: Kubectl, patch: dict[str, Any], reason: str
) -> None:
    served.kubectl("annotate", f"inferencemodel/{served.name}", "inferencemodel.dev/abort=2")
    try:
        refused = said(account, *PATCH, json.dumps(patch), f"inferencemodel/{served.name}")
        assert reason in refused
        assert bool(reason) == bool(refused)
    finally:
        served.kubectl("annotate", f"inferencemodel/{served.name}", "inferencemodel.dev/abort-")


def rehearsal(owner: Object | None, labels: dict[str, str]) -> Object:
    """A pod that an operator might make."""
    reference = owner and {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "rehearsal",
            "namespace": PLACE,
            "labels": labels,
            "ownerReferences": [reference] if reference else [],
        },
        "spec": {"containers": [{"name": "model-server", "image": "none"}]},
    }


def test_the_operator_may_make_and_delete_only_pods_that_an_inferencemodel_owns(
    served: Model, account: Kubectl
) -> None:
    managed = {"app.kubernetes.io/managed-by": OPERATOR}
    own = json.dumps(rehearsal(served.get(), managed))
    account("create", "-f", "-", stdin=own)
    account("delete", "pod/rehearsal", "--wait=false")
    strange = [rehearsal(None, managed), rehearsal(served.get(), {})]
    for pod, reason in zip(strange, ("only what an InferenceModel owns", "may touch"), strict=True):
        with pytest.raises(KubectlError, match=reason):
            account("create", "-f", "-", stdin=json.dumps(pod))
    replica = f"pod/{served.pods[0].name}"
    assert "only what an InferenceModel owns" in said(account, "delete", replica, "--wait=false")


def test_the_operator_may_not_touch_what_is_somebody_elses(
    kubectl: Kubectl, account: Kubectl, served: Model
) -> None:
    kubectl("create", "configmap", "theirs", "--from-literal=a=b")
    kubectl("create", "ingress", "theirs", f"--rule={HOST}/*=theirs:80")
    change = '{"metadata": {"annotations": {"inferencemodel.dev/a": "b"}}}'
    adopted = (
        '{"metadata": {"labels": {"app.kubernetes.io/managed-by": "inferencemodel-operator"}}}'
    )
    for patch in (change, adopted, '{"data": {"a": "c"}}'):
        assert "may touch only" in said(account, *PATCH, patch, "configmap/theirs")
    assert "may touch only" in said(account, "delete", "ingress/theirs")
    assert "may touch only" in said(account, "create", "deployment", "free", "--image=busybox")
    without_owner = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "free",
            "labels": {"app.kubernetes.io/managed-by": "inferencemodel-operator"},
        },
    }
    with pytest.raises(KubectlError, match="only what an InferenceModel owns"):
        account("create", "-f", "-", stdin=json.dumps(without_owner))
    # Others are not the operator.
    kubectl(*PATCH, '{"data": {"a": "c"}}', "configmap/theirs")
