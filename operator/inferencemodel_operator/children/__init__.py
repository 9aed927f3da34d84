"""The children of an InferenceModel: a pure function from what is wanted to objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator.children import (
    autoscaler,
    config_map,
    deployment,
    disruption_budget,
    ingress,
    interceptor,
    network_policy,
    routes,
    service,
)

if TYPE_CHECKING:
    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.record import VersionsRecord
    from inferencemodel_operator.settings import Settings
    from inferencemodel_operator.spec import InferenceModel


def children(
    model: InferenceModel, record: VersionsRecord, settings: Settings
) -> tuple[Manifest, ...]:
    """All objects that the InferenceModel owns, in the order in which they are to be applied.

    Each is in the form in which the API server gives it back, so that where nothing is to be
    done, the desired object is a subset of the live one.

    Raises:
        InvalidModelError: ``spec.template.spec`` takes away what the pods can't be without.
    """
    return _all(model, record, settings, deployment.build(model, settings))


def beside_pods(
    model: InferenceModel, record: VersionsRecord, settings: Settings
) -> tuple[Manifest, ...]:
    """The same without the Deployment, where that can't be told."""
    return _all(model, record, settings, None)


def _all(
    model: InferenceModel, record: VersionsRecord, settings: Settings, pods: Manifest | None
) -> tuple[Manifest, ...]:
    wanted = (
        config_map.build(model, record),
        service.build(model),
        service.build_headless(model),
        pods,
        interceptor.build_route(model, settings),
        interceptor.build_service(model, settings),
        autoscaler.build(model, settings),
        disruption_budget.build(model),
        ingress.build(model, settings),
        routes.build_http(model, settings),
        routes.build_grpc(model),
        network_policy.build(model, settings),
    )
    return tuple(child for child in wanted if child is not None)
