"""What an InferenceModel wants: the objects around the pods."""

from __future__ import annotations

from typing import Any

import pytest

from inferencemodel_operator import names
from inferencemodel_operator.children import children
from inferencemodel_operator.children.manifest import Manifest, digest, present
from inferencemodel_operator.record import QuarantinedVersion, VersionsRecord
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import InferenceModel, decode

RECORD = VersionsRecord(target=15)


def model(**spec: Any) -> InferenceModel:
    return decode(
        {
            "metadata": {"name": "imagenet", "namespace": "vision", "uid": "u-1"},
            "spec": {"model": {"storageUri": "gs://models/imagenet"}, **spec},
        }
    )


def built(record: VersionsRecord = RECORD, **spec: Any) -> dict[str, Manifest]:
    """The children by kind and name."""
    made = children(model(**spec), record, Settings())
    return {f"{child['kind']}/{child['metadata']['name']}": child for child in made}


def test_children_come_in_the_order_in_which_they_are_applied() -> None:
    assert list(built(ingress={"host": "x.example.com"})) == [
        "ConfigMap/imagenet-versions",
        "Service/imagenet",
        "Service/imagenet-headless",
        "Deployment/imagenet",
        "Ingress/imagenet",
    ]


@pytest.mark.parametrize("ingress", [None, {}, {"className": "traefik"}])
def test_without_a_host_there_is_no_ingress(ingress: dict[str, Any] | None) -> None:
    assert "Ingress/imagenet" not in built(ingress=ingress)


def test_every_child_belongs_to_the_model_and_says_so() -> None:
    for child in built(ingress={"host": "x.example.com"}).values():
        metadata = child["metadata"]
        assert metadata["namespace"] == "vision"
        assert metadata["labels"] == names.labels("imagenet")
        assert metadata["ownerReferences"] == [
            {
                "apiVersion": "inferencemodel.dev/v1alpha1",
                "kind": "InferenceModel",
                "name": "imagenet",
                "uid": "u-1",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]


def test_the_desired_hash_is_that_of_the_child_without_it() -> None:
    for child in built(ingress={"host": "x.example.com"}).values():
        kept = child["metadata"]["annotations"].pop(names.DESIRED_HASH_ANNOTATION)
        assert kept == digest(child)


def test_equal_wishes_have_equal_hashes_and_a_change_touches_only_its_child() -> None:
    def hashes(**spec: Any) -> dict[str, str]:
        return {
            name: child["metadata"]["annotations"][names.DESIRED_HASH_ANNOTATION]
            for name, child in built(**spec).items()
        }

    assert hashes() == hashes()
    before, after = hashes(), hashes(replicas=3)
    assert [name for name in before if before[name] != after[name]] == ["Deployment/imagenet"]


def test_a_hash_depends_on_content_not_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})


def test_what_the_api_server_drops_is_not_wished_for() -> None:
    kept = present(a=None, b="", c=[], d={}, e=(), f=0, g=False, h="x")
    assert kept == {"f": 0, "g": False, "h": "x"}


def test_the_config_map_holds_the_record() -> None:
    broken = QuarantinedVersion(version=16, fingerprint="a", reason="LoadFailed")
    record = VersionsRecord(target=15, quarantined=(broken,))
    data = built(record)["ConfigMap/imagenet-versions"]["data"]
    assert VersionsRecord.from_config_map(data) == record


def test_the_service_translates_its_ports_to_the_pods() -> None:
    service = built(service={"httpPort": 80, "grpcPort": 9000, "type": "LoadBalancer"})[
        "Service/imagenet"
    ]["spec"]
    assert service["type"] == "LoadBalancer"
    assert service["selector"] == {"inferencemodel.dev/name": "imagenet"}
    assert {p["name"]: (p["port"], p["targetPort"]) for p in service["ports"]} == {
        "http": (80, "http"),
        "grpc": (9000, "grpc"),
    }


def test_the_headless_service_has_the_pods_own_ports_whatever_the_other_has() -> None:
    service = built(service={"httpPort": 80, "type": "NodePort"})["Service/imagenet-headless"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["type"] == "ClusterIP"
    assert {p["name"]: p["port"] for p in service["spec"]["ports"]} == {"http": 8501, "grpc": 8500}


def test_annotations_of_the_service_are_the_cluster_services_alone() -> None:
    made = built(service={"annotations": {"cloud/balancer": "internal"}})
    assert made["Service/imagenet"]["metadata"]["annotations"]["cloud/balancer"] == "internal"
    assert "cloud/balancer" not in made["Service/imagenet-headless"]["metadata"]["annotations"]


def test_labels_of_the_service_stand_beside_the_operators_and_never_replace_them() -> None:
    made = built(service={"labels": {"team": "vision", "inferencemodel.dev/name": "other"}})
    labels = made["Service/imagenet"]["metadata"]["labels"]
    assert labels == {"team": "vision", **names.labels("imagenet")}
    assert made["Service/imagenet-headless"]["metadata"]["labels"] == names.labels("imagenet")


def test_how_the_service_is_reached_is_handed_on() -> None:
    chosen = {
        "loadBalancerClass": "example.com/internal",
        "externalTrafficPolicy": "Local",
        "trafficDistribution": "PreferSameNode",
        "ipFamilyPolicy": "PreferDualStack",
        "ipFamilies": ["IPv6", "IPv4"],
    }
    made = built(service={"type": "LoadBalancer", **chosen})
    assert chosen.items() <= made["Service/imagenet"]["spec"].items()
    headless = made["Service/imagenet-headless"]["spec"]
    assert headless["ipFamilies"] == ["IPv6", "IPv4"]
    assert headless["ipFamilyPolicy"] == "PreferDualStack"
    assert not {"loadBalancerClass", "externalTrafficPolicy"} & headless.keys()
    assert not chosen.keys() & built()["Service/imagenet"]["spec"].keys()


def test_a_client_is_kept_for_a_time_that_is_always_written() -> None:
    plain = built()["Service/imagenet"]["spec"]
    assert not {"sessionAffinity", "sessionAffinityConfig"} & plain.keys()
    for config, seconds in ((None, 10800), ({"clientIP": {"timeoutSeconds": 60}}, 60)):
        given = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}
        spec = built(service=given)["Service/imagenet"]["spec"]
        assert spec["sessionAffinity"] == "ClientIP"
        assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": seconds}}


def test_the_ingress_leads_the_host_to_the_services_rest_port() -> None:
    made = built(
        ingress={"className": "traefik", "host": "x.example.com", "annotations": {"a/b": "c"}}
    )["Ingress/imagenet"]
    assert made["spec"] == {
        "ingressClassName": "traefik",
        "rules": [
            {
                "host": "x.example.com",
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "imagenet", "port": {"name": "http"}}},
                        }
                    ]
                },
            }
        ],
    }
    assert made["metadata"]["annotations"]["a/b"] == "c"


@pytest.mark.parametrize("path", ["/v1/models/imagenet", "/team/v1/models/imagenet"])
def test_a_models_own_path_takes_the_calls_whose_verb_is_in_the_last_element(path: str) -> None:
    made = built(ingress={"host": "x.example.com", "path": path})["Ingress/imagenet"]
    paths = made["spec"]["rules"][0]["http"]["paths"]
    assert [(found["path"], found["pathType"]) for found in paths] == [
        (path, "Prefix"),
        (f"{path}:predict", "Exact"),
        (f"{path}:classify", "Exact"),
        (f"{path}:regress", "Exact"),
    ]


@pytest.mark.parametrize("kind", ["Exact", "ImplementationSpecific"])
@pytest.mark.parametrize("path", ["/v1/models/imagenet", "/vision(/|$)(.*)"])
def test_a_path_that_is_no_prefix_is_handed_on_as_it_is(path: str, kind: str) -> None:
    made = built(ingress={"host": "x.example.com", "path": path, "pathType": kind})
    (found,) = made["Ingress/imagenet"]["spec"]["rules"][0]["http"]["paths"]
    assert (found["path"], found["pathType"]) == (path, kind)


@pytest.mark.parametrize("path", ["/", "/v1/models", "/team", "/v1/models/imagenet-b"])
def test_any_other_path_is_a_prefix_alone(path: str) -> None:
    made = built(ingress={"host": "x.example.com", "path": path})["Ingress/imagenet"]
    (found,) = made["spec"]["rules"][0]["http"]["paths"]
    assert (found["path"], found["pathType"]) == (path, "Prefix")


@pytest.mark.parametrize(
    ("tls", "wanted"),
    [
        ({"secretName": "cert"}, [{"hosts": ["x.example.com"], "secretName": "cert"}]),
        ({}, [{"hosts": ["x.example.com"]}]),
    ],
)
def test_tls_is_for_the_host_with_its_secret_or_the_controllers_certificate(
    tls: dict[str, str], wanted: list[Manifest]
) -> None:
    made = built(ingress={"host": "x.example.com", "tls": tls})["Ingress/imagenet"]
    assert made["spec"]["tls"] == wanted


def test_every_host_has_the_same_paths_and_one_certificate() -> None:
    given = {"host": "a.example.com", "hosts": ["*.b.example.com"], "tls": {"secretName": "cert"}}
    spec = built(ingress=given)["Ingress/imagenet"]["spec"]
    assert [rule["host"] for rule in spec["rules"]] == ["a.example.com", "*.b.example.com"]
    assert spec["rules"][0]["http"] == spec["rules"][1]["http"]
    assert spec["tls"] == [{"hosts": ["a.example.com", "*.b.example.com"], "secretName": "cert"}]
    alone = built(ingress={"hosts": ["c.example.com"]})["Ingress/imagenet"]["spec"]
    assert [rule["host"] for rule in alone["rules"]] == ["c.example.com"]


def test_without_class_or_tls_the_ingress_leaves_both_to_the_cluster() -> None:
    made = built(ingress={"host": "x.example.com"})["Ingress/imagenet"]
    assert made["spec"].keys() == {"rules"}
