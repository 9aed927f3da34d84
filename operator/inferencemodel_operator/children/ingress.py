"""The Ingress: the model's REST API under its host names."""

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
    if wanted is None or not wanted.every_host:
        return None
    backend = {"service": {"name": names.service(model.name), "port": {"name": "http"}}}
    if model.scaled_by_requests:
        port = {"number": settings.interceptor.port}
        backend = {"service": {"name": names.interceptor(model.name), "port": port}}
    typed = [(wanted.path, wanted.path_type)]
    if wanted.path_type == "Prefix":
        typed += [(path, "Exact") for path in exact(model, wanted.path)]
    paths = [{"path": path, "pathType": kind, "backend": backend} for path, kind in typed]
    rules = [{"host": host, "http": {"paths": paths}} for host in wanted.every_host]
    tls = wanted.tls and [present(hosts=list(wanted.every_host), secretName=wanted.tls.secret_name)]
    return manifest(
        model,
        "networking.k8s.io/v1",
        "Ingress",
        names.ingress(model.name),
        {"spec": present(ingressClassName=wanted.class_name, rules=rules, tls=tls)},
        annotations=wanted.annotations,
    )
