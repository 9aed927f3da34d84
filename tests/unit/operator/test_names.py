from __future__ import annotations

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
        names.ingress,
        names.versions_config_map,
    ],
)
def test_children_of_the_longest_name_still_have_dns_labels(child: Callable[[str], str]) -> None:
    assert len(child(LONGEST)) <= 63


def test_the_two_services_have_different_names() -> None:
    assert names.service("imagenet") != names.headless_service("imagenet")
