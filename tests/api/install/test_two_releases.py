"""Two releases of the chart on one real API server: neither touches what is the other's."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from inferencemodel_operator import shards
from tests.support.kubectl import Kubectl
from tests.support.operators import Operator
from tests.support.rendering import CHART, Object, run
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.client import Api
    from tests.support.rendering import Programs

pytestmark = pytest.mark.api

CRD: Final = "inferencemodels.inferencemodel.dev"
NAME: Final = "inferencemodel-operator"
TEAMS: Final = ("blue", "green")
PLACE: Final = "vision"


class Releases:
    """helm on one API server."""

    def __init__(self, programs: Programs, api: Api) -> None:
        self.kubectl = Kubectl(api.program, api.kubeconfig)
        self._helm = programs.helm

    def __call__(self, *arguments: str | Path, namespace: str) -> str:
        return run(
            *(self._helm, *arguments),
            f"--namespace={namespace}",
            f"--kubeconfig={self.kubectl.kubeconfig}",
        )

    def install(self, release: str, *values: str, namespace: str) -> str:
        """Install a release; what helm printed."""
        options = [f"--set={value}" for value in values]
        return self("install", release, CHART, "--create-namespace", *options, namespace=namespace)

    def container(self, release: str, namespace: str) -> Object:
        """The operator's container, as it was installed."""
        place = self.kubectl.in_namespace(namespace)
        (deployment,) = place.list("deployment", f"app.kubernetes.io/instance={release}")
        found: Object = deployment["spec"]["template"]["spec"]["containers"][0]
        return found


@pytest.fixture(scope="module")
def releases(programs: Programs, fresh_api: Api) -> Releases:
    """Two releases of one name in two namespaces, each for the models of one team."""
    releases = Releases(programs, fresh_api)
    releases.kubectl("create", "namespace", PLACE)
    for team in TEAMS:
        releases.install("inferencemodel", f"selector=team={team}", namespace=team)
    return releases


def model(team: str) -> Object:
    return {
        "apiVersion": "inferencemodel.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": team, "labels": {"team": team}},
        "spec": {"model": {"storageUri": f"gs://models/{team}"}},
    }


def test_the_first_has_the_crd_and_the_second_says_so(releases: Releases) -> None:
    owner = releases.kubectl.get("crd", CRD)["metadata"]["annotations"]
    assert owner["meta.helm.sh/release-namespace"] == "blue"
    notes = releases("get", "notes", "inferencemodel", namespace="green")
    assert "The CRD belongs to release inferencemodel of namespace blue" in notes
    assert "belongs to release" not in releases("get", "notes", "inferencemodel", namespace="blue")


def test_each_operator_serves_its_own_models_with_the_rights_of_its_own_release(
    releases: Releases, tmp_path: Path
) -> None:
    place = releases.kubectl.in_namespace(PLACE)
    with ExitStack() as operators:
        for team in TEAMS:
            account = releases.kubectl.in_namespace(team).as_service_account(NAME, tmp_path / team)
            arguments = releases.container("inferencemodel", team)["args"][1:]
            lease = f"--lease-namespace={team}"
            operators.enter_context(
                Operator(account.kubeconfig, (), (*arguments, lease, "--poller-access=direct"))
            )
        for team in TEAMS:
            place.apply(model(team))
        for team in TEAMS:
            eventually(lambda team=team: place.get("deployment", team), what="a Deployment")  # type: ignore[misc]
            lease_name = shards.lease_name(f"team={team}")
            assert releases.kubectl.in_namespace(team).get("lease", lease_name)


def test_one_that_goes_leaves_the_rights_of_the_other_and_the_crd(releases: Releases) -> None:
    releases("uninstall", "inferencemodel", namespace="blue")
    assert may(releases.kubectl, "green", "patch", "pods")
    assert not may(releases.kubectl, "blue", "patch", "pods")
    assert releases.kubectl.get("crd", CRD)
    # Nobody has the CRD now: who takes it over says so once.
    taking = ("--take-ownership", "--force-conflicts")
    releases("upgrade", "inferencemodel", CHART, "--reuse-values", *taking, namespace="green")
    owner = releases.kubectl.get("crd", CRD)["metadata"]["annotations"]
    assert owner["meta.helm.sh/release-namespace"] == "green"


def test_two_in_one_namespace_are_no_trouble_to_each_other(releases: Releases) -> None:
    for team in TEAMS:
        values = (f"selector=team={team}", "crds.install=false", f"namespaces={{{PLACE}}}")
        releases.install(team, *values, namespace="shared")
    for team in TEAMS:
        assert f"--lease-name={team}-{NAME}" in releases.container(team, "shared")["args"]
    releases("uninstall", "blue", namespace="shared")
    place = releases.kubectl.in_namespace(PLACE)
    (role,) = place.list("role", "app.kubernetes.io/part-of=inferencemodel")
    assert role["metadata"]["name"] == f"shared:green-{NAME}"


def may(kubectl: Kubectl, namespace: str, verb: str, resource: str) -> bool:
    """What the API server says of a right of a release's service account."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{NAME}",
            "resourceAttributes": {"namespace": PLACE, "verb": verb, "resource": resource},
        },
    }
    answer = kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review))
    return bool(json.loads(answer)["status"]["allowed"])
