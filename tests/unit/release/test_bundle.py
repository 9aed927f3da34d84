"""The bundle for OLM installs what the manifests do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from release import olm
from release.errors import ReleaseError
from release.install import References
from tests.support.crd import ROOT

BASE = ROOT / "manifests" / "base"
REFERENCES = References(
    "registry.example.com/x", "1.2.3", {"operator": "sha256:" + "a" * 64, "poller": "sha256:b"}
)
FILES = (
    *("namespace", "service-account", "rbac", "user-roles", "deployment"),
    *("pod-disruption-budget", "service"),
)
RENDERED = "\n---\n".join(
    [(BASE / f"{name}.yaml").read_text() for name in FILES]
    + [(ROOT / "crds" / "inferencemodel.yaml").read_text()]
)
EXAMPLE = (ROOT / "examples" / "minimal.yaml").read_text()


def bundle(rendered: str = RENDERED) -> dict[str, bytes]:
    return olm.bundle(
        rendered, REFERENCES, repository="https://example.com/x", epoch=0, example=EXAMPLE
    )


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    content = bundle()["manifests/inferencemodel-operator.clusterserviceversion.yaml"]
    return dict(yaml.safe_load(content))


def objects(kind: str, name: str) -> dict[str, Any]:
    found = [
        each
        for each in yaml.safe_load_all(RENDERED)
        if each and (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return dict(found[0])


def test_it_runs_the_same_deployment_with_the_same_rights(service: dict[str, Any]) -> None:
    made = service["spec"]["install"]["spec"]
    (deployment,) = made["deployments"]
    assert deployment["spec"] == objects("Deployment", "inferencemodel-operator")["spec"]
    (cluster,) = made["clusterPermissions"]
    assert cluster["rules"] == objects("ClusterRole", "inferencemodel-operator")["rules"]
    (own,) = made["permissions"]
    role = objects("Role", "inferencemodel-operator-leader-election")
    assert own["rules"] == role["rules"]
    assert {cluster["serviceAccountName"], own["serviceAccountName"]} == {"inferencemodel-operator"}


def test_it_owns_the_definition_and_shows_an_example_of_it(service: dict[str, Any]) -> None:
    (owned,) = service["spec"]["customresourcedefinitions"]["owned"]
    definition = yaml.safe_load(bundle()[f"manifests/{owned['name']}.crd.yaml"])
    assert definition == objects("CustomResourceDefinition", owned["name"])
    (example,) = json.loads(service["metadata"]["annotations"]["alm-examples"])
    assert example == yaml.safe_load(EXAMPLE)
    assert example["kind"] == owned["kind"]


def test_it_has_peoples_roles_but_nothing_that_olm_makes_itself() -> None:
    made = [yaml.safe_load(content) for name, content in bundle().items() if name.endswith(".yaml")]
    kinds = {(each.get("kind"), each.get("metadata", {}).get("name")) for each in made}
    assert ("ClusterRole", "inferencemodel-view") in kinds
    assert ("ClusterRole", "inferencemodel-edit") in kinds
    assert ("ClusterRole", "inferencemodel-operator") not in kinds
    assert not {kind for kind, _ in kinds} & {"Namespace", "ServiceAccount", "Deployment", "Role"}


def test_its_images_are_those_of_the_release(service: dict[str, Any]) -> None:
    assert {each["name"]: each["image"] for each in service["spec"]["relatedImages"]} == {
        name: f"registry.example.com/x/{name}@{digest}"
        for name, digest in REFERENCES.digests.items()
    }


def test_what_it_has_no_place_for_is_not_left_out_in_silence() -> None:
    strange = "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\n"
    with pytest.raises(ReleaseError, match="Secret key has no place in the bundle"):
        bundle(f"{RENDERED}\n---\n{strange}")
