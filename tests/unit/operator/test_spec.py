from __future__ import annotations

from typing import Any

import pytest

from inferencemodel_operator.errors import InvalidModelError
from inferencemodel_operator.spec import InferenceModel, Ingress, decode


def model(spec: dict[str, Any] | None = None, **parts: Any) -> InferenceModel:
    given = spec or {"model": {"storageUri": "gs://models/imagenet"}}
    metadata = {"name": "imagenet", "namespace": "vision", "uid": "u-1", "generation": 3}
    return decode({"metadata": metadata, "spec": {**given, **parts}})


def test_an_object_is_read_with_all_that_the_api_server_adds() -> None:
    read = decode(
        {
            "apiVersion": "inferencemodel.dev/v1alpha1",
            "kind": "InferenceModel",
            "metadata": {
                "name": "imagenet",
                "namespace": "vision",
                "uid": "u-1",
                "generation": 3,
                "resourceVersion": "17",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": "2026-01-02T00:00:00Z",
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"model": {"storageUri": "gs://models/imagenet"}},
            "status": {"observedGeneration": 2},
        }
    )
    assert read.key == ("vision", "imagenet")
    assert read.metadata.generation == 3
    assert read.metadata.deletion_timestamp == "2026-01-02T00:00:00Z"


def test_the_model_has_the_resources_name_unless_it_is_given_one() -> None:
    assert model().model_name == "imagenet"
    assert model({"model": {"storageUri": "gs://b/f", "name": "ResNet"}}).model_name == "ResNet"


def test_a_field_of_a_later_release_is_ignored() -> None:
    assert model(later={"a": 1}) == model()


def test_durations_are_seconds_and_quantities_canonical() -> None:
    read = model(
        source={"pollInterval": "1m30s"},
        server={"resources": {"limits": {"cpu": "1500m", "memory": 1073741824}}},
    )
    assert float(read.spec.source.poll_interval) == 90
    assert read.spec.server.resources.limits == {"cpu": "1500m", "memory": "1073741824"}


@pytest.mark.parametrize(
    ("cpu", "threads"), [("100m", 1), ("1", 1), ("1500m", 2), ("2.5", 3), (16, 16)]
)
def test_threads_follow_the_cpu_limit_rounded_up(cpu: str | int, threads: int) -> None:
    read = model(server={"resources": {"limits": {"cpu": cpu}}})
    assert read.spec.server.threads == threads


def test_without_a_cpu_limit_threads_are_left_to_the_model_server() -> None:
    read = model(server={"resources": {"requests": {"cpu": "2"}}})
    assert read.spec.server.threads is None


@pytest.mark.parametrize(
    ("parts", "field", "problem"),
    [
        ({"replicas": "3"}, "spec.replicas", "Expected `int`"),
        ({"source": {"pollInterval": "soon"}}, "spec.source.pollInterval", "no duration"),
        ({"source": {"pollInterval": 30}}, "spec.source.pollInterval", "Expected duration"),
        ({"source": {"secretRef": {}}}, "spec.source.secretRef", "`name`"),
        ({"server": {"args": [1]}}, "spec.server.args[0]", "Expected `str`"),
        (
            {"server": {"resources": {"limits": {"cpu": "two"}}}},
            "spec.server.resources.limits[]",
            "no quantity",
        ),
        ({"service": {"type": "ExternalName"}}, "spec.service.type", "ExternalName"),
        ({"model": {}}, "spec.model", "`storageUri`"),
    ],
)
def test_another_shape_is_refused_with_object_field_and_fix(
    parts: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(InvalidModelError) as refused:
        model(**parts)
    assert refused.value.field == field
    assert refused.value.name == "vision/imagenet"
    assert f"InferenceModel vision/imagenet: {field}: " in str(refused.value)
    assert problem in str(refused.value)
    assert "install the CRD" in str(refused.value)


def test_an_object_without_a_spec_is_refused_by_name() -> None:
    with pytest.raises(InvalidModelError, match=r"vision/imagenet.*`spec`"):
        decode({"metadata": {"name": "imagenet", "namespace": "vision"}})


@pytest.mark.parametrize(
    ("ingress", "url"),
    [
        (None, "http://imagenet.vision.svc:8501/v1/models/imagenet"),
        ({"className": "traefik"}, "http://imagenet.vision.svc:8501/v1/models/imagenet"),
        ({"host": "x.example.com"}, "http://x.example.com/v1/models/imagenet"),
        ({"host": "x.example.com", "tls": {}}, "https://x.example.com/v1/models/imagenet"),
        (
            {"host": "x.example.com", "path": "/v1/models/imagenet"},
            "http://x.example.com/v1/models/imagenet",
        ),
        ({"host": "x.example.com", "path": "/v1/"}, "http://x.example.com/v1/models/imagenet"),
        (
            {"host": "x.example.com", "path": "/v1/models/image"},
            "http://x.example.com/v1/models/image/v1/models/imagenet",
        ),
        (
            {"host": "x.example.com", "path": "/vision/"},
            "http://x.example.com/vision/v1/models/imagenet",
        ),
        (
            {"host": "x.example.com", "path": "/v1/models/imagenet:predict", "pathType": "Exact"},
            "http://x.example.com/v1/models/imagenet",
        ),
    ],
)
def test_the_url_is_where_a_client_reaches_the_model(
    ingress: dict[str, Any] | None, url: str
) -> None:
    assert model(ingress=ingress).url == url


@pytest.mark.parametrize(
    ("path", "in_front"),
    [
        ("/vision(/|$)(.*)", "/vision"),
        ("/vision/?(.*)", "/vision"),
        ("/vision.ai/.*", "/vision.ai"),
        ("/v1/models/imagenet.*", ""),
        ("/v1/models/[^/]+", ""),
        ("/(v1|v2)/models/imagenet", ""),
        ("/vision", "/vision"),
        ("/.*", ""),
    ],
)
def test_of_a_regular_expression_the_url_has_what_stands_in_front(path: str, in_front: str) -> None:
    ingress = {"host": "x.example.com", "path": path, "pathType": "ImplementationSpecific"}
    assert model(ingress=ingress).url == f"http://x.example.com{in_front}/v1/models/imagenet"


@pytest.mark.parametrize(
    ("hostnames", "url"),
    [
        (["a.example.com", "b.example.com"], "http://a.example.com/v1/models/imagenet"),
        (["*.example.com", "b.example.com"], "http://b.example.com/v1/models/imagenet"),
        (["*.example.com"], "http://imagenet.vision.svc:8501/v1/models/imagenet"),
    ],
)
def test_with_a_gateway_alone_the_url_has_its_first_host(hostnames: list[str], url: str) -> None:
    gateway = {"parentRefs": [{"name": "public"}], "hostnames": hostnames}
    assert model(gateway=gateway).url == url


def test_the_url_inside_the_cluster_has_the_services_port() -> None:
    assert model(service={"httpPort": 80}).url == "http://imagenet.vision.svc:80/v1/models/imagenet"


def test_only_an_ingress_with_a_host_counts() -> None:
    assert model(ingress={}).url.startswith("http://imagenet.vision.svc:8501/")


@pytest.mark.parametrize(
    ("ingress", "host"),
    [
        ({"hosts": ["b.example.com", "a.example.com"]}, "b.example.com"),
        ({"host": "x.example.com", "hosts": ["a.example.com"]}, "x.example.com"),
        ({"hosts": ["*.example.com", "a.example.com"]}, "a.example.com"),
        ({"hosts": ["*.example.com"]}, "g.example.com"),
    ],
)
def test_the_url_is_at_the_first_host_that_is_no_wildcard(ingress: Any, host: str) -> None:
    gateway = {"parentRefs": [{"name": "public"}], "hostnames": ["g.example.com"]}
    url = f"http://{host}/v1/models/imagenet"
    assert model(ingress=ingress, gateway=gateway).url == url


def test_what_is_read_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        setattr(Ingress(), "host", "other.example.com")  # noqa: B010 - the type checker sees it
