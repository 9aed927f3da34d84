"""The ground moves under a running operator: it says so, waits, and goes on without a restart."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from devcluster.apiserver import ApiServer
from tests.api import accounts
from tests.api.models import Model
from tests.support import crd
from tests.support.kubectl import Kubectl
from tests.support.operators import Operator
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api
    from tests.support.kubectl import Object
    from tests.support.rendering import Programs

pytestmark = pytest.mark.api

ALL = ("configmap", "deployment", "service", "service")


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """An API server for this module alone: what is taken away here, others may need."""
    server = ApiServer()
    try:
        yield server.start()
    finally:
        server.stop()


def nameless(kubectl: Kubectl) -> Model:
    """A model of which a child's name is taken: there is an Event of it."""
    model = Model(kubectl)
    kubectl("create", "service", "clusterip", model.name, "--tcp=80")
    return model.apply()


def until_logged(operator: Operator, *words: str, within: float = 30) -> None:
    """Wait until a line of the log has all these words."""
    pattern = re.compile(".*".join(map(re.escape, words)))
    eventually(lambda: pattern.search(operator.log()), what=f"{words} in the log", within=within)


def until_gone(api: Api, *what: str) -> None:
    api.kubectl("wait", "--for=delete", *what, "--timeout=30s")


def assert_calm(operator: Operator) -> None:
    """It never ended, and said nothing that a person can't read."""
    assert operator.ended() is None
    assert operator.get("/livez") == "ok\n"
    assert "Traceback" not in operator.log()
    assert "kopf" not in operator.log()


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_crd_that_is_deleted_and_applied_again_is_waited_for(api: Api, everywhere: bool) -> None:
    with crd.installed(api) as namespace:
        kubectl = Kubectl(api.program, api.kubeconfig, namespace)
        before = Model(kubectl).apply()
        with Operator(api.kubeconfig, () if everywhere else (namespace,)) as operator:
            before.until_children(*ALL)

            api.kubectl("delete", "-f", str(crd.CRD))
            until_logged(operator, "waiting: watching inferencemodels", "kubectl apply -f crds/")
            assert operator.log().count("kubectl apply -f crds/") == 1
            with crd.installed(api):
                Model(kubectl).apply().until_children(*ALL)
                until_logged(operator, "watching inferencemodels", "is back")
                after = Model(kubectl).apply()
                after.until_children(*ALL)
                after.delete()
            assert_calm(operator)


def test_a_crd_of_another_release_is_said_once_and_waited_for(api: Api) -> None:
    definition = yaml.safe_load(crd.CRD.read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["status"]["properties"]["url"]
    with crd.installed(api) as namespace:
        kubectl = Kubectl(api.program, api.kubeconfig, namespace)
        kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(definition)
        )
        model = Model(kubectl)
        eventually(lambda: model.apply(), what="the other definition to be served")
        with Operator(api.kubeconfig, (namespace,)) as operator:
            model.until_children(*ALL)
            until_logged(
                operator, f"status of InferenceModel {namespace}/{model.name}", "install the CRD"
            )
            with crd.installed(api):
                model.until(
                    lambda o: o["status"]["url"], what="the status to be written", within=90
                )
            assert operator.log().count("install the CRD") == 1
            assert_calm(operator)
        model.delete()


def test_a_namespace_that_goes_away_is_said_once_and_left_alone(api: Api) -> None:
    with crd.installed(api) as namespace:
        kubectl = Kubectl(api.program, api.kubeconfig, namespace)
        models = [Model(kubectl).apply() for _ in range(3)]
        with Operator(api.kubeconfig, (namespace,)) as operator:
            for model in models:
                model.until_children(*ALL)
            # Nobody finalizes it here: it goes away for as long as the test lasts.
            api.kubectl("delete", "namespace", namespace, "--wait=false")
            kubectl("delete", "services,deployments", "--all")
            until_logged(operator, f"namespace {namespace} is being deleted, and is left alone")
            operator.until_quiet()
            assert operator.log().count("being deleted") == 1
            assert "WARNING" not in operator.log()
            assert_calm(operator)


class Account:
    """The operator's account, with the rights that the chart gives it in one namespace."""

    def __init__(self, api: Api, programs: Programs, namespace: str, folder: Path) -> None:
        self.namespace = namespace
        self.admin = Kubectl(api.program, api.kubeconfig, namespace)
        accounts.installed(self.admin, programs, namespace)
        self.kubeconfig = accounts.login(self.admin, folder).kubeconfig

    @contextmanager
    def without(self, resource: str, *verbs: str) -> Iterator[None]:
        """Take a right away from all of its Roles while the block runs."""
        before = self.admin.list("roles")
        for role in before:
            rules = [self._rule(rule, resource, verbs) for rule in role["rules"]]
            self._put(role, [rule for rule in rules if rule["resources"] and rule["verbs"]])
        try:
            yield
        finally:
            for role in before:
                self._put(role, role["rules"])

    def _rule(self, rule: Object, resource: str, verbs: tuple[str, ...]) -> Object:
        if resource not in rule["resources"]:
            return rule
        return {**rule, "verbs": [verb for verb in rule["verbs"] if verb not in verbs]}

    def _put(self, role: Object, rules: list[Object]) -> None:
        patch = json.dumps([{"op": "replace", "path": "/rules", "value": rules}])
        self.admin("patch", "role", role["metadata"]["name"], "--type=json", f"--patch={patch}")


@pytest.fixture
def account(api: Api, programs: Programs, tmp_path: Path) -> Iterator[Account]:
    with crd.installed(api) as namespace:
        yield Account(api, programs, namespace, tmp_path)


@pytest.mark.parametrize("resource", ["inferencemodels", "pods", "deployments"])
def test_a_right_to_watch_that_comes_late_is_waited_for(account: Account, resource: str) -> None:
    model = Model(account.admin).apply()
    operator = Operator(account.kubeconfig, (account.namespace,))
    try:
        with account.without(resource, "list", "watch"):
            operator.launch()
            until_logged(operator, f"waiting: watching {resource}", "manifests/base/rbac.yaml")
            assert operator.log().count(f"waiting: watching {resource}") == 1
        until_logged(operator, f"watching {resource}", "is back")
        model.until_children(*ALL)
        assert_calm(operator)
    finally:
        operator.stop()


@pytest.mark.parametrize(
    ("resource", "verb", "words"),
    [
        ("inferencemodels/status", "patch", "the right to apply status of InferenceModel"),
        ("deployments", "patch", "the right to rewrite Deployment"),
        ("services", "create", "the right to create Service"),
        ("events", "create", "the right to create Event"),
        ("leases", "update", "taking part in the election"),
    ],
)
def test_a_right_to_write_that_is_taken_away_is_said_once_and_waited_for(
    account: Account, resource: str, verb: str, words: str
) -> None:
    namespace = account.namespace
    arguments = ("--poller-access=direct", f"--lease-namespace={namespace}")
    with Operator(account.kubeconfig, (namespace,), arguments) as operator:
        model = Model(account.admin).apply(replicas=1)
        model.until_children(*ALL)
        model.until_reported()
        with account.without(resource, verb):
            other = nameless(account.admin)
            model.patch(replicas=4)
            until_logged(operator, f"waiting: {words}")
        account.admin.until(
            *("deployment", model.name),
            lambda o: o["spec"]["replicas"] == 4,
            what="4 replicas",
            within=90,
        )
        model.until(lambda o: o["status"]["observedGeneration"] == 2, what="its status", within=90)
        last = nameless(account.admin)
        until_logged(operator, words, "is back", within=90)
        assert operator.log().count(f"waiting: {words}") == 1
        assert_calm(operator)
        for one in (model, other, last):
            one.delete()
