"""The two Services: one cluster address, and one name that resolves to the pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inferencemodel_operator import names
from inferencemodel_operator.children.manifest import Manifest, manifest, present
from inferencemodel_operator.spec import SessionAffinityConfig

if TYPE_CHECKING:
    from inferencemodel_operator.spec import InferenceModel, Service


def build(model: InferenceModel) -> Manifest:
    """The Service with a cluster address, on the ports that the spec names."""
    service = model.spec.service
    return manifest(
        model,
        "v1",
        "Service",
        names.service(model.name),
        {
            "spec": {
                "type": service.type,
                "selector": names.selector(model.name),
                "ports": [
                    _port("http", service.http_port),
                    _port("grpc", service.grpc_port) | _H2C,
                ],
                **_families(service),
                **present(
                    loadBalancerClass=service.load_balancer_class,
                    externalTrafficPolicy=service.external_traffic_policy,
                    trafficDistribution=service.traffic_distribution,
                ),
                **_affinity(service),
            }
        },
        labels=service.labels,
        annotations=service.annotations,
    )


def build_headless(model: InferenceModel) -> Manifest:
    """The headless Service, for gRPC clients that balance over the pods themselves.

    A gRPC connection stays on the pod that it met first, so a cluster address spreads
    connections and not requests. Its ports are the pods' own: nothing translates them.
    """
    return manifest(
        model,
        "v1",
        "Service",
        names.headless_service(model.name),
        {
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "None",
                "selector": names.selector(model.name),
                "ports": [
                    _port("http", names.HTTP_PORT),
                    _port("grpc", names.GRPC_PORT) | _H2C,
                ],
                **_families(model.spec.service),
            }
        },
    )


def _families(service: Service) -> Manifest:
    return present(ipFamilyPolicy=service.ip_family_policy, ipFamilies=list(service.ip_families))


def _affinity(service: Service) -> Manifest:
    if service.session_affinity == "None":
        return {}
    # With the time also where it is Kubernetes' default: what isn't the operator's would stay when
    # the affinity goes, and a Service with the one and without the other is refused.
    wanted = service.session_affinity_config or SessionAffinityConfig()
    return {
        "sessionAffinity": service.session_affinity,
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": wanted.client_ip.timeout_seconds}},
    }


_H2C: Final[Manifest] = {"appProtocol": "kubernetes.io/h2c"}
"""Tells a gateway to speak HTTP/2 without TLS to the gRPC port
(https://kubernetes.io/docs/concepts/services-networking/service/#application-protocol)."""


def _port(name: str, port: int) -> Manifest:
    return {"name": name, "protocol": "TCP", "port": port, "targetPort": name}
