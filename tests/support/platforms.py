"""What a platform does to pods at their admission, done by the API server's own policies.

Stands in for a mesh's injector and for OpenShift's security context constraints: Kubernetes itself
changes and refuses pods of one namespace as these would.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.kubectl import Kubectl, KubectlError
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.kubectl import Object

_API = "admissionregistration.k8s.io/v1"


def has_policies(kubectl: Kubectl) -> bool:
    """Whether the cluster changes pods by policies: Kubernetes 1.36 does."""
    group = _API.partition("/")[0]
    found = kubectl("api-resources", f"--api-group={group}", "--output=name")
    return f"mutatingadmissionpolicies.{group}" in found


@contextmanager
def policies(
    kubectl: Kubectl,
    *,
    changes: Sequence[str] = (),
    refusals: Sequence[tuple[str, str]] = (),
    works: Callable[[Object], object],
) -> Iterator[None]:
    """Have the pods of the namespace changed and refused while the block runs.

    Args:
        kubectl: with the namespace.
        changes: CEL expressions, each a list of JSON patches.
        refusals: CEL expressions that have to be true, each with what is said where it isn't.
        works: whether it is in force already, by a pod that was created as a dry run.
    """
    name = f"e2e-{kubectl.namespace}"
    rules = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {
                "matchLabels": {"kubernetes.io/metadata.name": kubectl.namespace}
            },
            "resourceRules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                }
            ],
        },
    }
    mutations = [
        {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}
        for expression in changes
    ]
    validations = [
        {"expression": expression, "message": message} for expression, message in refusals
    ]
    made: list[tuple[str, Object, Object]] = []
    if mutations:
        spec = {**rules, "reinvocationPolicy": "Never", "mutations": mutations}
        made += [("MutatingAdmissionPolicy", spec, {})]
    if validations:
        spec = {**rules, "validations": validations}
        made += [("ValidatingAdmissionPolicy", spec, {"validationActions": ["Deny"]})]
    try:
        for kind, spec, binding in made:
            kubectl.apply(_object(kind, name, spec))
            kubectl.apply(_object(f"{kind}Binding", name, {"policyName": name, **binding}))
        eventually(lambda: works(_tried(kubectl)), what="the policies to be in force", within=30)
        yield
    finally:
        for kind, _, _ in made:
            kubectl("delete", kind, f"{kind}Binding", name, "--ignore-not-found")


def _object(kind: str, name: str, spec: dict[str, Any]) -> Object:
    return {"apiVersion": _API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _tried(kubectl: Kubectl) -> Object:
    """A pod as it comes out of admission; empty when it is refused."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tried"},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": [_container("first")],
            "containers": [_container("second")],
        },
    }
    try:
        found: Object = json.loads(
            kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod))
        )
    except KubectlError:
        return {}
    return found


def _container(name: str) -> Object:
    return {
        "name": name,
        "image": "none",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
