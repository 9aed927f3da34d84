"""What brings requests to a model by way of KEDA's HTTP add-on, which counts them and holds them.

Its interceptor, a proxy in a namespace of its own, tells the models of all namespaces apart by host
and path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import names
from inferencemodel_operator.children.manifest import Manifest, manifest, present
from inferencemodel_operator.children.paths import exact

if TYPE_CHECKING:
    from inferencemodel_operator.settings import Settings
    from inferencemodel_operator.spec import InferenceModel


def build_route(model: InferenceModel, settings: Settings) -> Manifest | None:
    """The InterceptorRoute: which requests are counted for the model, and where they go."""
    wanted = model.scaled_by_requests
    if wanted is None:
        return None
    service = f"{names.interceptor(model.name)}.{model.namespace}"
    inner = [service, f"{service}.svc", f"{service}.svc.{settings.cluster_domain}"]
    rule = {
        "hosts": list(dict.fromkeys([*outer_hosts(model), *inner])),
        "paths": [{"value": path} for path in paths(model)],
    }
    metric = present(
        concurrency=wanted.concurrency and {"targetValue": wanted.concurrency},
        requestRate=wanted.request_rate and {"targetValue": wanted.request_rate},
    )
    spec = {
        "target": {"service": names.service(model.name), "port": model.http_port},
        "rules": [rule],
        "scalingMetric": metric,
        "timeouts": {"readiness": f"{wanted.timeout}s"},
    }
    name = names.route(model.name)
    return manifest(model, "http.keda.sh/v1beta1", "InterceptorRoute", name, {"spec": spec})


def build_service(model: InferenceModel, settings: Settings) -> Manifest | None:
    """The Service that stands for the interceptor: an Ingress can name none of other namespaces."""
    if model.scaled_by_requests is None:
        return None
    upstream = settings.interceptor
    port = {"name": "http", "protocol": "TCP", "port": upstream.port, "targetPort": upstream.port}
    spec = {
        "type": "ExternalName",
        "externalName": f"{upstream.service}.{upstream.namespace}.svc.{settings.cluster_domain}",
        "ports": [port],
    }
    return manifest(model, "v1", "Service", names.interceptor(model.name), {"spec": spec})


def triggers(model: InferenceModel, settings: Settings) -> list[Manifest]:
    """What KEDA follows: the interceptor's figures, told by the add-on's scaler."""
    if model.scaled_by_requests is None:
        return []
    scaler = settings.scaler
    metadata = {
        "scalerAddress": f"{scaler.service}.{scaler.namespace}:{scaler.port}",
        "interceptorRoute": names.route(model.name),
    }
    return [{"type": "external-push", "metadata": metadata}]


def outer_hosts(model: InferenceModel) -> list[str]:
    """The hosts by which requests come in that are to be counted, each once."""
    wanted, gateway, ingress = model.scaled_by_requests, model.spec.gateway, model.spec.ingress
    if wanted is None:
        return []
    found = [
        *(ingress.every_host if ingress else ()),
        *(gateway.hostnames if gateway else ()),
        *wanted.hosts,
    ]
    return list(dict.fromkeys(found))


def paths(model: InferenceModel) -> list[str]:
    """The paths of the model's REST API, whatever an Ingress or a Gateway takes off before."""
    api = f"/v1/models/{model.model_name}"
    return [api, *exact(model, api)]
