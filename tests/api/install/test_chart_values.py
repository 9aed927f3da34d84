"""The chart's values: names that don't collide, what each value does, and what is refused."""

from __future__ import annotations

import itertools
import json
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.support.rendering import CHART, SYSTEM, WITH_MONITORING, Object, Objects, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.rendering import Programs

pytestmark = pytest.mark.api

NAME: Final = "inferencemodel-operator"
OWN_CRD: Final = ("CustomResourceDefinition", "", "inferencemodels.inferencemodel.dev")
RELEASES: Final = (
    ("inferencemodel", "a"),
    ("inferencemodel", "b"),
    ("blue", "a"),
    ("a-blue", "b"),
    ("b", "a-b"),
)
"""Names of releases, and their namespaces."""
MAPS: Final = (
    "commonLabels",
    "monitoring.labels",
    "nodeSelector",
    "podAnnotations",
    "podLabels",
    "serviceAccount.annotations",
)
"""The values that are maps of strings."""


def deployment(objects: Objects) -> Object:
    (found,) = [obj for (kind, _, _), obj in objects.items() if kind == "Deployment"]
    return found


def pod(objects: Objects) -> Object:
    template: Object = deployment(objects)["spec"]["template"]
    return template


def error(programs: Programs, *options: str) -> str:
    """What helm prints when it refuses to render."""
    done = subprocess.run(
        [str(programs.helm), "template", "inferencemodel", str(CHART), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout
    return done.stderr


@pytest.mark.parametrize(
    ("one", "other"),
    list(itertools.combinations(RELEASES, 2)),
)
@pytest.mark.parametrize("values", [(), ("namespaces={vision,speech}",)])
def test_two_releases_have_no_object_in_common_but_the_crd(
    programs: Programs, one: tuple[str, str], other: tuple[str, str], values: tuple[str, ...]
) -> None:
    sets = [
        set(programs.chart(*WITH_MONITORING, *values, release=release, namespace=namespace))
        for release, namespace in (one, other)
    ]
    assert sets[0] & sets[1] == {OWN_CRD}


def test_two_releases_in_one_namespace_select_their_own_pods_and_have_a_lease_each(
    programs: Programs,
) -> None:
    blue, green = (programs.chart(*WITH_MONITORING, release=name) for name in ("blue", "green"))
    assert set(blue) & set(green) == {OWN_CRD}
    leases = {
        argument
        for objects in (blue, green)
        for argument in pod(objects)["spec"]["containers"][0]["args"]
        if argument.startswith("--lease-name=")
    }
    assert leases == {f"--lease-name=blue-{NAME}", f"--lease-name=green-{NAME}"}
    for objects, others in ((blue, green), (green, blue)):
        labels = pod(objects)["metadata"]["labels"].items()
        for (kind, _, _), obj in objects.items():
            selector = selected(kind, obj)
            if selector is not None:
                assert selector.items() <= labels
                assert not selector.items() <= pod(others)["metadata"]["labels"].items()


def selected(kind: str, obj: Object) -> dict[str, str] | None:
    """The labels by which an object picks the operator's pods, or its Service."""
    spec: dict[str, Any] = obj.get("spec", {})
    if kind == "Service":
        labels: dict[str, str] = spec["selector"]
        return labels
    if kind in {"Deployment", "PodDisruptionBudget", "ServiceMonitor"}:
        found: dict[str, str] = spec["selector"]["matchLabels"]
        return found
    return None


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("inferencemodel", (), NAME),
        (NAME, (), NAME),
        ("blue", (), f"blue-{NAME}"),
        ("blue.1", (), f"blue-1-{NAME}"),
        ("x" * 53, (), ("x" * 53 + f"-{NAME}")[:63]),
        ("blue", ("nameOverride=serving",), "blue-serving"),
        ("blue", ("fullnameOverride=serving",), "serving"),
        ("1", ("fullnameOverride=serving",), "serving"),
    ],
)
def test_what_a_release_is_called(
    programs: Programs, release: str, values: tuple[str, ...], name: str
) -> None:
    objects = programs.chart(*values, release=release, namespace="ops")
    for kind in ("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"):
        assert (kind, "ops", name) in objects
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        assert (kind, "", f"ops:{name}") in objects
    assert pod(objects)["spec"]["serviceAccountName"] == name


@pytest.mark.parametrize("release", ["true", "null", "1e3", "0x10"])
def test_names_that_look_like_something_else_stay_strings(programs: Programs, release: str) -> None:
    objects = programs.chart("fullnameOverride=no", release=release, namespace="123")
    for obj in objects.values():
        assert isinstance(obj["metadata"]["name"], str)
        assert isinstance(obj["metadata"].get("namespace", ""), str)
        assert obj["metadata"]["labels"]["app.kubernetes.io/instance"] == release


def test_a_release_whose_name_no_service_can_have_is_refused_with_the_way_out(
    programs: Programs,
) -> None:
    done = subprocess.run(
        [str(programs.helm), "template", "1blue", str(CHART)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "set fullnameOverride" in done.stderr


@pytest.mark.parametrize("value", MAPS)
@pytest.mark.parametrize(("given", "kind"), [("true", "boolean"), ("1", "number")])
def test_a_map_takes_strings_alone_and_says_where_another_is(
    programs: Programs, value: str, given: str, kind: str
) -> None:
    where = f"/{value.replace('.', '/')}/gpu"
    refusal = error(programs, f"--set={value}.gpu={given}")
    assert f"at '{where}': got {kind}, want string" in refusal


@pytest.mark.parametrize("value", MAPS)
def test_a_map_is_rendered_as_strings_even_where_the_schema_is_not_asked(
    programs: Programs, value: str
) -> None:
    rendered = run(
        *(programs.helm, "template", "inferencemodel", CHART, "--skip-schema-validation"),
        *(f"--set={part}" for part in WITH_MONITORING),
        f"--set-json={value}={json.dumps({'gpu': True, 'count': 7})}",
    )
    found = [
        node
        for obj in yaml.safe_load_all(rendered)
        if obj is not None and obj["kind"] != "CustomResourceDefinition"
        for node in maps(obj)
        if "gpu" in node
    ]
    assert found
    for node in found:
        assert (node["gpu"], node["count"]) == ("true", "7")


def maps(node: Any) -> list[dict[str, Any]]:
    """Every object inside an object."""
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in maps(value))]
    if isinstance(node, list):
        return [found for value in node for found in maps(value)]
    return []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set=serviceAccount.create=false",), "serviceAccount.name has to name"),
        (("--set=serviceAccount.creat=false",), "'creat' not allowed"),
        (("--set=podLabels.app\\.kubernetes\\.io/name=x",), "podLabels: app.kubernetes.io/name"),
        (("--set=commonLabels.helm\\.sh/chart=x",), "commonLabels: helm.sh/chart"),
        (("--set=monitoring.labels.app\\.kubernetes\\.io/instance=x",), "monitoring.labels: app"),
        (("--set=commonLabels.a b=x",), "'a b' does not match pattern"),
        (("--set=podLabels.a=not a label",), "/podLabels/a"),
        (('--set-json=extraEnv=[{"name": "A", "value": 1}]',), "got number, want string"),
        (('--set-json=extraEnv=[{"value": "a"}]',), "missing property 'name'"),
        (("--set=extraEnv[0].name=POD_NAME",), "extraEnv: POD_NAME is set by the chart"),
        (
            ('--set-json=extraEnv=[{"name": "A", "value": "a", "valueFrom": {"x": {}}}]',),
            "extraEnv: A has value and valueFrom",
        ),
        (("--set=securityContext.privilege=true",), "'privilege' not allowed"),
        (("--set=podSecurityContext.runAsUser=root",), "want integer"),
        (("--set=affinity.podAffinty.x=y",), "'podAffinty' not allowed"),
        (("--set=tolerations[0].value=true",), "got boolean, want string"),
        (("--set=topologySpreadConstraints[0].maxSkew=1",), "missing properties"),
        (("--set=imagePullSecrets={registry}",), "got string, want object"),
        (("--set=priorityClassName=7",), "got number, want string"),
        (("--set=image.tag=1",), "got number, want string"),
        (("--set=nameOverride=Serving",), "/nameOverride"),
        (("--set=monitoring.label.a=b",), "'label' not allowed"),
        (("--set=rbac.creat=false",), "'creat' not allowed"),
        (("--set=resources.limit.memory=1Gi",), "'limit' not allowed"),
        (("--set-json=maxRestarts=null",), "at '': missing property 'maxRestarts'"),
        (("--set-json=image.repository=null",), "at '/image': missing property 'repository'"),
        (("--set-json=serviceAccount.create=null",), "at '/serviceAccount': missing property"),
        (("--set-json=rbac.create=null",), "at '/rbac': missing property 'create'"),
        (("--set-json=crds.install=null",), "at '/crds': missing property 'install'"),
    ],
)
def test_a_value_that_can_not_be_meant_is_refused_by_its_name(
    programs: Programs, options: tuple[str, ...], message: str
) -> None:
    assert message in error(programs, *options)


SECTIONS: Final = (
    "image",
    "pollerImage",
    "kedaHttp",
    "crds",
    "rbac",
    "serviceAccount",
    "monitoring",
)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_which_nothing_is_left_is_refused_by_its_name(
    programs: Programs, section: str, tmp_path: Path
) -> None:
    """In a file whose lines below it are comments, say: Helm takes away what has no value."""
    file = tmp_path / "values.yaml"
    file.write_text(f"{section}:\n  # none\n")
    assert f"at '': missing property '{section}'" in error(programs, f"--values={file}")


def test_a_service_account_of_ones_own_gets_the_rights_and_none_is_made(programs: Programs) -> None:
    objects = programs.chart("serviceAccount.create=false", "serviceAccount.name=mine")
    assert not [kind for kind, _, _ in objects if kind == "ServiceAccount"]
    assert pod(objects)["spec"]["serviceAccountName"] == "mine"
    subjects = [s for obj in objects.values() for s in obj.get("subjects", [])]
    assert {(s["name"], s["namespace"]) for s in subjects} == {("mine", SYSTEM)}


def test_a_service_account_gets_another_name_and_annotations(programs: Programs) -> None:
    objects = programs.chart("serviceAccount.name=mine", "serviceAccount.annotations.role=reader")
    account = objects["ServiceAccount", SYSTEM, "mine"]
    assert account["metadata"]["annotations"] == {"role": "reader"}
    assert pod(objects)["spec"]["serviceAccountName"] == "mine"


def test_without_rbac_no_role_of_the_operator_is_made(programs: Programs) -> None:
    kinds = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    less = {"rbac.create=false", "rbac.aggregateClusterRoles=false"}
    assert not [kind for kind, _, _ in programs.chart(*less) if kind in kinds]
    left = [name for kind, _, name in programs.chart("rbac.create=false") if kind in kinds]
    assert sorted(left) == [f"{SYSTEM}:{NAME}-edit", f"{SYSTEM}:{NAME}-view"]


def test_common_labels_are_on_every_object_and_pod(programs: Programs) -> None:
    objects = programs.chart(*WITH_MONITORING, "commonLabels.team=serving")
    for name, obj in objects.items():
        assert obj["metadata"]["labels"]["team"] == "serving", name
    assert pod(objects)["metadata"]["labels"]["team"] == "serving"
    assert "team" not in deployment(objects)["spec"]["selector"]["matchLabels"]


def test_monitoring_labels_are_on_what_prometheus_and_grafana_select(programs: Programs) -> None:
    values = (*WITH_MONITORING, "monitoring.labels.release=prometheus", "commonLabels.release=x")
    found = {
        kind: obj["metadata"]["labels"]["release"]
        for (kind, _, _), obj in programs.chart(*values).items()
    }
    theirs = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap"}
    assert {kind for kind, label in found.items() if label == "prometheus"} == theirs


def test_what_a_pod_can_be_given(programs: Programs) -> None:
    objects = programs.chart(
        "podLabels.team=serving",
        "podAnnotations.note=here",
        "extraEnv[0].name=HTTPS_PROXY",
        "extraEnv[0].value=http://proxy.example.com",
        "podSecurityContext.runAsUser=null",
        "podSecurityContext.fsGroup=7",
        "securityContext.runAsUser=8",
        "topologySpreadConstraints[0].maxSkew=1",
        "topologySpreadConstraints[0].topologyKey=zone",
        "topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
        "imagePullSecrets[0].name=registry",
        "priorityClassName=high",
        "nodeSelector.disk=ssd",
        "tolerations[0].operator=Exists",
        "affinity=null",
    )
    template = pod(objects)
    container = template["spec"]["containers"][0]
    assert template["metadata"]["labels"]["team"] == "serving"
    assert template["metadata"]["annotations"] == {"note": "here"}
    assert container["env"][-1] == {"name": "HTTPS_PROXY", "value": "http://proxy.example.com"}
    assert "runAsUser" not in template["spec"]["securityContext"]
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert template["spec"]["securityContext"]["fsGroup"] == 7
    assert container["securityContext"]["runAsUser"] == 8
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert template["spec"]["topologySpreadConstraints"] == [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    ]
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert template["spec"]["priorityClassName"] == "high"
    assert template["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert template["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert "affinity" not in template["spec"]


def test_with_a_list_of_namespaces_just_their_pods_are_scraped(programs: Programs) -> None:
    objects = programs.chart("monitoring.monitors=true", "namespaces={vision,speech}")
    monitor = objects["PodMonitor", SYSTEM, f"{NAME}-pods"]
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["vision", "speech"]}


def test_an_alert_names_the_namespace_of_the_release(programs: Programs) -> None:
    objects = programs.chart("monitoring.alerts=true", namespace="ops")
    text = json.dumps(objects["PrometheusRule", "ops", NAME])
    assert "--namespace=ops " in text
    assert SYSTEM not in text


def test_the_page_of_the_runbooks_is_a_value(programs: Programs) -> None:
    page = "https://docs.example.com/runbooks.html"
    written, moved = (
        json.dumps(programs.chart("monitoring.alerts=true", *more)["PrometheusRule", SYSTEM, NAME])
        for more in ((), (f"monitoring.runbooks={page}",))
    )
    assert written.count("/docs/runbooks.md#inferencemodel") == written.count('"alert":')
    assert moved.count(f'"runbook_url": "{page}#inferencemodel') == moved.count('"alert":')
    assert "/monitoring/runbooks" in error(programs, "--set=monitoring.runbooks=runbooks.html")


def test_where_kedas_http_add_on_is_is_an_argument_of_the_operator(programs: Programs) -> None:
    plain = pod(programs.chart())["spec"]["containers"][0]["args"]
    given = ("kedaHttp.interceptor=a/proxy:80", "kedaHttp.scaler=a/scaler:81", "clusterDomain=k.x")
    args = pod(programs.chart(*given))["spec"]["containers"][0]["args"]
    assert set(args) - set(plain) == {
        "--keda-http-interceptor=a/proxy:80",
        "--keda-http-scaler=a/scaler:81",
        "--cluster-domain=k.x",
    }
    assert "/kedaHttp/scaler" in error(programs, "--set=kedaHttp.scaler=scaler.a:81")


def test_selector_and_lease_are_arguments_of_the_operator(programs: Programs) -> None:
    container = pod(programs.chart("selector=team=vision", "leaseName=vision"))["spec"][
        "containers"
    ]
    assert {"--selector=team=vision", "--lease-name=vision"} <= set(container[0]["args"])
