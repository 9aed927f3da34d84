"""The routes of the Gateway API: REST by HTTPRoute, gRPC by GRPCRoute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import names
from inferencemodel_operator.children.manifest import Manifest, manifest, present
from inferencemodel_operator.children.paths import exact

if TYPE_CHECKING:
    from inferencemodel_operator.settings import Settings, Upstream
    from inferencemodel_operator.spec import Gateway, InferenceModel, ParentRef

_API_VERSION = "gateway.networking.k8s.io/v1"


def build_http(model: InferenceModel, settings: Settings) -> Manifest | None:
    """The HTTPRoute to the REST port, or to what counts requests; None without a Gateway."""
    gateway = model.spec.gateway
    if gateway is None:
        return None
    typed = [
        ("PathPrefix", gateway.path),
        *(("Exact", path) for path in exact(model, gateway.path)),
    ]
    matches = [{"path": {"type": kind, "value": path}} for kind, path in typed]
    backend = _backend(model, model.http_port)
    if model.scaled_by_requests:
        backend = _foreign_backend(settings.interceptor)
    rule = {"matches": matches, "backendRefs": [backend]}
    return _route(model, gateway, "HTTPRoute", gateway.hostnames, rule)


def build_grpc(model: InferenceModel) -> Manifest | None:
    """The GRPCRoute to the gRPC port; None without hosts of its own."""
    gateway = model.spec.gateway
    if gateway is None or not gateway.grpc_hostnames:
        return None
    rule = {"backendRefs": [_backend(model, model.grpc_port)]}
    return _route(model, gateway, "GRPCRoute", gateway.grpc_hostnames, rule)


def _route(
    model: InferenceModel, gateway: Gateway, kind: str, hostnames: tuple[str, ...], rule: Manifest
) -> Manifest:
    parents = [_parent(parent) for parent in gateway.parent_refs]
    spec = present(parentRefs=parents, hostnames=list(hostnames), rules=[rule])
    return manifest(model, _API_VERSION, kind, names.route(model.name), {"spec": spec})


def _parent(parent: ParentRef) -> Manifest:
    # An empty group is Kubernetes' core, where a Service can be a parent.
    return {
        "group": parent.group,
        **present(
            kind=parent.kind,
            namespace=parent.namespace,
            name=parent.name,
            sectionName=parent.section_name,
            port=parent.port,
        ),
    }


def _backend(model: InferenceModel, port: int) -> Manifest:
    return {
        "group": "",
        "kind": "Service",
        "name": names.service(model.name),
        "port": port,
        "weight": 1,
    }


def _foreign_backend(upstream: Upstream) -> Manifest:
    # Not the Service that the Ingress takes: Gateways follow no ExternalName. The other namespace
    # has to allow it by a ReferenceGrant.
    return {
        "group": "",
        "kind": "Service",
        "namespace": upstream.namespace,
        "name": upstream.service,
        "port": upstream.port,
        "weight": 1,
    }
