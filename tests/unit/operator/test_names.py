from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from inferencemodel_operator import names

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = "m" * 50
"""The longest name that the CRD allows an InferenceModel."""


def test_a_pods_selector_is_part_of_its_labels() -> None:
    assert names.selector("imagenet").items() <= names.labels("imagenet").items()


def test_the_selector_text_selects_what_the_selector_does() -> None:
    (selected,) = names.selector("imagenet").items()
    assert names.selector_text("imagenet") == "=".join(selected)


def test_every_child_is_found_by_the_managed_selector() -> None:
    key, value = names.MANAGED_SELECTOR.split("=")
    assert names.labels("imagenet")[key] == value


@pytest.mark.parametrize(
    "child",
    [
        names.deployment,
        names.service,
        names.headless_service,
        names.interceptor,
        names.ingress,
        names.versions_config_map,
    ],
)
def test_children_of_the_longest_name_still_have_dns_labels(child: Callable[[str], str]) -> None:
    assert len(child(LONGEST)) <= 63


def test_the_two_services_have_different_names() -> None:
    assert names.service("imagenet") != names.headless_service("imagenet")


BY_KIND: dict[str, list[Callable[[str], str]]] = {
    "Deployment": [names.deployment],
    "Service": [names.service, names.headless_service, names.interceptor],
    "Ingress": [names.ingress],
    "ConfigMap": [names.versions_config_map],
    "HorizontalPodAutoscaler": [names.autoscaler, lambda name: f"keda-hpa-{name}"],
    "ScaledObject": [names.autoscaler],
    "PodDisruptionBudget": [names.disruption_budget],
    "Route": [names.route],
    "NetworkPolicy": [names.network_policy],
}
"""What one InferenceModel has of each kind; KEDA names the autoscaler of a ScaledObject itself."""

RESERVED = re.compile(r"keda-hpa-.*|keda-http-.*|.*-headless")
"""Names that the CRD refuses (crds/inferencemodel.yaml)."""


@pytest.mark.parametrize("kind", BY_KIND)
def test_no_two_models_have_a_child_of_one_kind_and_name(kind: str) -> None:
    children = BY_KIND[kind]
    one = {child("imagenet") for child in children}
    # Only a model that is called like a child can have a child that is called so.
    for other in (child("imagenet") for group in BY_KIND.values() for child in group):
        if other != "imagenet" and not RESERVED.fullmatch(other):
            assert one.isdisjoint(child(other) for child in children)


def test_the_reserved_names_are_those_that_would_collide() -> None:
    for reserved in ("imagenet-headless", "keda-hpa-imagenet", "keda-http-imagenet"):
        assert RESERVED.fullmatch(reserved)
        assert any(
            {child("imagenet") for child in group} & {child(reserved) for child in group}
            for group in BY_KIND.values()
        )
