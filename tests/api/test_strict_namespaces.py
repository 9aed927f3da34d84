"""Pods in a namespace with a ResourceQuota or a LimitRange, by the real admission: what is refused
is told field by field, and taken once these fields are set."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from devcluster.client import KubectlError
from inferencemodel_operator import refusals
from inferencemodel_operator.children import deployment
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import decode
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from inferencemodel_operator.children.manifest import Manifest

pytestmark = pytest.mark.api

EQUAL: Manifest = {"cpu": 1, "memory": "256Mi"}


@dataclass(frozen=True)
class Case:
    """A rule, and what it says to the poller's resources as they are by default."""

    kind: str
    rule: Manifest
    fix: str
    poller: Manifest
    """Resources that are taken."""
    server: Manifest = field(default_factory=lambda: {"limits": EQUAL, "requests": EQUAL})
    """Of a model server that the rule has nothing against."""


def limits(**rule: Manifest) -> Manifest:
    return {"limits": [{"type": "Container", **rule}]}


CASES = {
    "a quota of limits": Case(
        "ResourceQuota",
        {"hard": {"limits.cpu": "4", "limits.memory": "8Gi"}},
        "set spec.poller.resources.limits.cpu, or have a LimitRange",
        {"limits": {"cpu": "500m"}},
    ),
    "a least request": Case(
        "LimitRange",
        limits(min={"cpu": "50m", "memory": "256Mi"}),
        "raise requests.cpu from 20m to at least 50m and raise requests.memory from 128Mi to at "
        "least 256Mi in spec.server.resources, spec.poller.resources or",
        {"requests": {"cpu": "50m", "memory": "256Mi"}},
    ),
    "a most limit": Case(
        "LimitRange",
        limits(max={"memory": "256Mi"}),
        "lower limits.memory from 512Mi to at most 256Mi in",
        {"limits": {"memory": "256Mi"}},
    ),
    "a ratio of memory": Case(
        "LimitRange",
        limits(maxLimitRequestRatio={"memory": "2"}),
        "set limits.memory to at most 2 times requests.memory in",
        {"requests": {"memory": "256Mi"}},
    ),
    "a ratio of cpu": Case(
        "LimitRange",
        limits(maxLimitRequestRatio={"cpu": "4"}),
        "set limits.cpu to at most 4 times requests.cpu in",
        {"limits": {"cpu": "80m"}},
    ),
}


@contextmanager
def namespace(api: Api, case: Case) -> Iterator[str]:
    """A namespace with one such rule."""
    name = f"strict-{uuid.uuid4().hex[:8]}"
    api.kubectl("create", "namespace", name)
    api.kubectl("create", "serviceaccount", "default", f"--namespace={name}")
    try:
        made = {
            "apiVersion": "v1",
            "kind": case.kind,
            "metadata": {"name": "rule", "namespace": name},
            "spec": case.rule,
        }
        api.kubectl("create", "-f", "-", stdin=json.dumps(made))
        hard = case.rule.get("hard")
        if hard:
            # Where no controllers run, nobody else fills in what is in use.
            used = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
            api.kubectl(
                *("patch", "resourcequota", "rule", f"--namespace={name}"),
                *("--subresource=status", "--type=merge", "--patch", json.dumps(used)),
            )
        yield name
    finally:
        api.kubectl("delete", "namespace", name, "--wait=false")


def refusal(api: Api, namespace: str, server: Manifest, poller: Manifest) -> str:
    """What the API server says to a pod of these resources; nothing where it takes it."""
    spec: dict[str, Any] = {
        "model": {"storageUri": "gs://models/imagenet"},
        "server": {"resources": server},
        "poller": {"resources": poller},
    }
    model = decode({"metadata": {"name": "m", "namespace": namespace}, "spec": spec})
    template = deployment.pod_template(model, Settings())
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "m-1", "namespace": namespace},
        "spec": template["spec"],
    }
    try:
        api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    except KubectlError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", CASES)
def test_a_strict_namespace_tells_the_fields_that_make_it_run(api_server: Api, name: str) -> None:
    case = CASES[name]
    with namespace(api_server, case) as strict:
        # Admission knows of the rule a moment later.
        said = eventually(
            lambda: refusal(api_server, strict, case.server, {}), what="a refusal", within=30
        )
        words = said[said.index('pods "m-1" is forbidden') :].strip()
        assert case.fix in (refusals.fix(words) or ""), words
        assert refusal(api_server, strict, case.server, case.poller) == ""
