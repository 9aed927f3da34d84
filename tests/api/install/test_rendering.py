"""Helm and kustomize install the same objects."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.pages import ROOT, blocks
from tests.support.rendering import CHART, MANIFESTS, SYSTEM, WITH_MONITORING, Object, Objects, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.rendering import Programs

pytestmark = pytest.mark.api

HELMS_LABELS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}


CHARTS_NAMES = {
    f"{SYSTEM}:inferencemodel-operator": "inferencemodel-operator",
    f"{SYSTEM}:inferencemodel-operator-view": "inferencemodel-view",
    f"{SYSTEM}:inferencemodel-operator-edit": "inferencemodel-edit",
    "inferencemodel-operator-dashboard": "inferencemodel-dashboard",
    "inferencemodel-operator-pods": "inferencemodel-pods",
}
"""What the chart names after its release, so that there can be two, and kustomize doesn't."""


def comparable(objects: Objects) -> Objects:
    """Without what only one of the two tools has: Helm's labels and names, and the Namespace."""
    found: Objects = {}
    for (kind, namespace, _), original in objects.items():
        obj = without_helms_labels(copy.deepcopy(original))
        annotations = obj["metadata"].get("annotations", {})
        annotations.pop("helm.sh/resource-policy", None)
        if not annotations:
            obj["metadata"].pop("annotations", None)
        for named in (obj["metadata"], obj.get("roleRef", {})):
            if "name" in named:
                named["name"] = CHARTS_NAMES.get(named["name"], named["name"])
        found[kind, namespace, obj["metadata"]["name"]] = obj
    found.pop(("Namespace", "", SYSTEM), None)
    return found


def without_helms_labels(node: Any) -> Any:
    """The same, without them in labels and in what selects by labels."""
    if isinstance(node, dict):
        return {k: without_helms_labels(v) for k, v in node.items() if k not in HELMS_LABELS}
    if isinstance(node, list):
        return [without_helms_labels(item) for item in node]
    return node


def overlay(directory: Path, **content: object) -> Path:
    """A kustomization on top of the project's."""
    (directory / "kustomization.yaml").write_text(json.dumps(content))
    return directory


def same(chart: Objects, kustomize: Objects) -> None:
    ours, theirs = comparable(chart), comparable(kustomize)
    assert sorted(ours) == sorted(theirs)
    for name, obj in ours.items():
        assert obj == theirs[name], name


def test_the_chart_installs_what_the_base_installs(programs: Programs) -> None:
    same(programs.chart(), programs.kustomize(MANIFESTS / "base"))


def test_for_one_namespace_the_chart_installs_what_the_overlay_installs(
    programs: Programs,
) -> None:
    kustomized = programs.kustomize(MANIFESTS / "overlays" / "namespace-only")
    text = json.dumps([[*name, obj] for name, obj in kustomized.items()])
    told = json.loads(text.replace("$(POD_NAMESPACE)", SYSTEM))
    expected = {(kind, namespace, name): obj for kind, namespace, name, obj in told}
    same(programs.chart(f"namespaces={{{SYSTEM}}}", "crds.install=false"), expected)


def test_in_another_namespace_the_roles_are_those_of_the_operator_there(
    programs: Programs, tmp_path: Path
) -> None:
    from_here = "../" * len(tmp_path.parts[1:])
    for base in ("base", "overlays/namespace-only"):
        there = overlay(
            tmp_path,
            resources=[from_here + str(MANIFESTS / base).lstrip("/")],
            namespace="vision",
        )
        subjects = [s for o in programs.kustomize(there).values() for s in o.get("subjects", [])]
        assert [s["namespace"] for s in subjects] == ["vision", "vision"]


def test_both_install_the_same_monitoring(programs: Programs, tmp_path: Path) -> None:
    from_here = "../" * len(tmp_path.parts[1:])
    together = overlay(
        tmp_path,
        resources=[from_here + str(MANIFESTS / "base").lstrip("/")],
        components=[from_here + str(MANIFESTS / "components" / "monitoring").lstrip("/")],
    )
    same(programs.chart(*WITH_MONITORING), programs.kustomize(together))


def test_the_alerts_of_a_kustomization_can_lead_to_another_page(
    programs: Programs, tmp_path: Path
) -> None:
    (block,) = (b.text for b in blocks(ROOT / "docs" / "metrics.md") if "sourceValue" in b.text)
    from_here = "../" * len(tmp_path.parts[1:])
    there = overlay(
        tmp_path,
        components=[from_here + str(MANIFESTS / "components" / "monitoring").lstrip("/")],
        **yaml.safe_load(block),
    )
    rendered = json.dumps(list(programs.kustomize(there).values()))
    alerts = rendered.count('"alert":')
    page = '"runbook_url": "https://docs.example.com/runbooks.html#inferencemodel'
    assert rendered.count(page) == alerts > 0


def test_with_a_list_of_namespaces_there_is_a_role_in_each_and_no_cluster_role(
    programs: Programs,
) -> None:
    objects = programs.chart("namespaces={vision,speech}", namespace="ops")
    assert not [kind for kind, _, _ in objects if kind.startswith("ClusterRole")]
    for namespace in ("vision", "speech"):
        binding = objects["RoleBinding", namespace, "ops:inferencemodel-operator"]
        assert objects["Role", namespace, "ops:inferencemodel-operator"]["rules"]
        assert binding["roleRef"]["kind"] == "Role"
        assert [s["namespace"] for s in binding["subjects"]] == ["ops"]
    arguments = operator(objects, "ops")["args"]
    assert [a for a in arguments if a.startswith("--namespace")] == [
        "--namespace=vision",
        "--namespace=speech",
    ]


def test_the_chart_takes_images_by_digest(programs: Programs) -> None:
    digest = f"sha256:{'0' * 64}"
    objects = programs.chart(
        *("image.repository=r.example.com/operator", f"image.digest={digest}"),
        *("pollerImage.repository=r.example.com/poller", f"pollerImage.digest={digest}"),
    )
    container = operator(objects, SYSTEM)
    assert container["image"] == f"r.example.com/operator@{digest}"
    assert f"--poller-image=r.example.com/poller@{digest}" in container["args"]


def test_arguments_of_ones_own_come_last(programs: Programs) -> None:
    objects = programs.chart("args={--selector=team=vision,--lease-name=vision}")
    assert operator(objects, SYSTEM)["args"][-2:] == [
        "--selector=team=vision",
        "--lease-name=vision",
    ]


@pytest.mark.parametrize(
    "value", ["image.digest=sha256:short", "namespaces={Vision}", "replica=2", "args={run}"]
)
def test_a_value_that_means_nothing_is_refused(programs: Programs, value: str) -> None:
    run(programs.helm, "template", CHART, f"--set={value}", code=1)


def test_the_chart_passes_helms_own_lint_with_everything_on(
    programs: Programs, tmp_path: Path
) -> None:
    options = [f"--set={value}" for value in (*WITH_MONITORING, "namespaces={vision}")]
    run(programs.helm, "lint", "--strict", CHART)
    run(programs.helm, "lint", "--strict", CHART, *options)


def test_the_packaged_chart_is_whole(programs: Programs, tmp_path: Path) -> None:
    run(programs.helm, "package", CHART, f"--destination={tmp_path}")
    (package,) = tmp_path.glob("*.tgz")
    rendered = run(programs.helm, "template", "inferencemodel", package)
    assert "kind: CustomResourceDefinition" in rendered


def test_chart_project_and_images_have_one_version(programs: Programs) -> None:
    project = (MANIFESTS.parent / "pyproject.toml").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["version"]}"' in project
    assert chart["appVersion"] == chart["version"]
    container = operator(programs.kustomize(MANIFESTS / "base"), SYSTEM)
    assert container["image"].endswith(f":{chart['version']}")
    assert f"--poller-image=inferencemodel/poller:{chart['version']}" in container["args"]


def test_the_development_overlay_renders(programs: Programs) -> None:
    objects = programs.kustomize(MANIFESTS / "overlays" / "development")
    assert ("Deployment", SYSTEM, "inferencemodel-operator") in objects


def operator(objects: Objects, namespace: str) -> Object:
    """The operator's container."""
    deployment = objects["Deployment", namespace, "inferencemodel-operator"]
    container: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return container
