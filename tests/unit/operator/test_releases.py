"""A release takes nothing away from those who use the one before."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import released

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPTED: dict[str, str] = {}
"""What was taken away nevertheless, and why; each stands in CHANGELOG.md, too."""

SPEC = "v1alpha1.spec"


@pytest.mark.parametrize("release", released.releases())
def test_the_api_keeps_what_a_release_had(release: str) -> None:
    taken = released.taken_away(released.releases()[release], released.api())
    assert [text for text in taken if text not in ACCEPTED] == []


def test_what_is_accepted_was_really_taken_away() -> None:
    taken = {
        text
        for old in released.releases().values()
        for text in released.taken_away(old, released.api())
    }
    assert set(ACCEPTED) <= taken


def schema(api: dict[str, Any], *path: str) -> dict[str, Any]:
    found: dict[str, Any] = api["v1alpha1"]["schema"]
    for step in ("spec", *path):
        found = found["items"] if step == "[]" else found["properties"][step]
    return found


NARROWER: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda a: a.pop("v1alpha1"), "v1alpha1 is no longer served"),
    (lambda a: a["v1alpha1"].update(served=False), "v1alpha1 is no longer served"),
    (lambda a: schema(a)["properties"].pop("replicas"), f"{SPEC}.replicas is gone"),
    (
        lambda a: schema(a, "replicas").update(type="string"),
        f"{SPEC}.replicas: type is 'string', was 'integer'",
    ),
    (
        lambda a: schema(a, "replicas").update(default=2),
        f"{SPEC}.replicas: default is 2, was ",
    ),
    (
        lambda a: schema(a, "replicas").update(maximum=1),
        f"{SPEC}.replicas: maximum is 1, was ",
    ),
    (
        lambda a: schema(a, "replicas").update(minimum=3),
        f"{SPEC}.replicas: minimum is 3, was ",
    ),
    (
        lambda a: schema(a)["required"].append("server"),
        f"{SPEC}.server has to be there now",
    ),
    (
        lambda a: schema(a, "poller", "logLevel")["enum"].remove("Warning"),
        f"{SPEC}.poller.logLevel: 'Warning' is no longer taken",
    ),
    (
        lambda a: schema(a, "replicas").update(enum=[1]),
        f"{SPEC}.replicas: 'anything' is no longer taken",
    ),
    (
        lambda a: schema(a, "model")["x-kubernetes-validations"].append({"rule": "false"}),
        f"{SPEC}.model: the rule 'false' is new",
    ),
    (
        lambda a: schema(a, "server", "args", "[]").update(maxLength=1),
        f"{SPEC}.server.args[]: maxLength is 1, was ",
    ),
    (
        lambda a: schema(a, "template", "spec").pop("x-kubernetes-preserve-unknown-fields"),
        f"{SPEC}.template.spec: x-kubernetes-preserve-unknown-fields is gone",
    ),
    (
        lambda a: schema(a, "service", "labels").pop("additionalProperties"),
        f"{SPEC}.service.labels.* is gone",
    ),
]


@pytest.mark.parametrize(("change", "told"), NARROWER, ids=[told for _, told in NARROWER])
def test_each_way_to_take_something_away_is_seen(change: Any, told: str) -> None:
    old = released.api()
    new = copy.deepcopy(old)
    change(new)
    (found,) = released.taken_away(old, new)
    assert found.startswith(told)


WIDER: list[Callable[[dict[str, Any]], object]] = [
    lambda a: schema(a)["properties"].update(more={"type": "string"}),
    lambda a: schema(a, "poller", "logLevel")["enum"].append("Trace"),
    lambda a: schema(a, "server", "args", "[]").pop("maxLength"),
    lambda a: schema(a)["required"].remove("model"),
    lambda a: a.update(v1beta1={"served": True, "storage": False, "schema": {}}),
]


@pytest.mark.parametrize("change", WIDER)
def test_what_is_added_takes_nothing_away(change: Any) -> None:
    old = released.api()
    new = copy.deepcopy(old)
    change(new)
    assert released.taken_away(old, new) == []


def test_one_version_is_stored() -> None:
    assert [name for name, version in released.api().items() if version["storage"]] == ["v1alpha1"]
