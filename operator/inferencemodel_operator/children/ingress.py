"""The Ingress: the model's REST API under a host name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import names
from inferencemodel_operator.children.manifest import Manifest, manifest, present
from inferencemodel_operator.children.paths import exact

if TYPE_CHECKING:
    from inferencemodel_operator.settings import Settings
    from inferencemodel_operator.spec import InferenceModel


def build(model: InferenceModel, settings: Settings) -> Manifest | None:
    """The Ingress, or None without a host: the model is then reached inside the cluster alone."""
    wanted = model.spec.ingress
    if wanted is None or wanted.host is None:
        return None
    backend = {"service": {"name": names.service(model.name), "port": {"name": "http"}}}
    if model.scaled_by_requests:
        port = {"number": settings.interceptor.port}
        backend = {"service": {"name": names.interceptor(model.name), "port": port}}
    typed = [(wanted.path, wanted.path_type)]
    if wanted.path_type == "Prefix":
        typed += [(path, "Exact") for path in exact(model, wanted.path)]
    rule = {
        "host": wanted.host,
        "http": {
            "paths": [{"path": path, "pathType": kind, "backend": backend} for path, kind in typed]
        },
    }
    tls = wanted.tls and [present(hosts=[wanted.host], secretName=wanted.tls.secret_name)]
    return manifest(
        model,
        "networking.k8s.io/v1",
        "Ingress",
        names.ingress(model.name),
        {"spec": present(ingressClassName=wanted.class_name, rules=[rule], tls=tls)},
        annotations=wanted.annotations,
    )
