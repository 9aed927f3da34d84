"""Whose a child is, and what is told about those of others."""

from __future__ import annotations

import json
import shlex

import pytest

from inferencemodel_operator import bounds, ownership
from inferencemodel_operator.errors import (
    Claim,
    NameConflictError,
    NameConflictsError,
    OperatorError,
    TransientError,
)

CLAIM = Claim("vision", "m", "1f0c8c1e-93f4-4a1b-8f43-5d3f0f7c9a11")
KINDS = (
    *("ConfigMap", "Service", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"),
    *("Ingress", "HTTPRoute", "GRPCRoute", "NetworkPolicy"),
)


def told(*problems: OperatorError) -> str:
    first, *_ = ownership.merge(problems)
    assert isinstance(first, NameConflictsError)
    return str(first)


def orphan(kind: str, name: str = "m", claim: Claim = CLAIM) -> NameConflictError:
    return NameConflictError(kind, f"{claim.namespace}/{name}", claim=claim)


def test_all_conflicts_are_told_at_once() -> None:
    text = told(NameConflictError("Service", "vision/m"), NameConflictError("Ingress", "vision/m"))
    assert text.startswith("Service vision/m and Ingress vision/m exist and do not belong to this")
    assert "kubectl" not in text


def test_one_conflict_is_told_as_it_is() -> None:
    alone = NameConflictError("Service", "vision/m")
    assert told(alone) == str(alone)


def test_other_problems_stay_beside_the_conflicts() -> None:
    other = TransientError("later")
    conflicts, same = ownership.merge([other, orphan("Service"), orphan("Deployment")])
    assert isinstance(conflicts, NameConflictsError)
    assert same is other
    assert ownership.merge([other]) == [other]


def test_orphans_are_told_with_one_command_for_all_of_them() -> None:
    text = told(*map(orphan, ("ConfigMap", "Service", "Deployment")))
    assert "ConfigMap vision/m, Service vision/m and Deployment vision/m belong to no" in text
    command = shlex.split(text.split("`")[1])
    assert command[:6] == [
        *("kubectl", "--namespace=vision", "patch"),
        *("configmap/m", "service/m", "deployment/m"),
    ]
    (owner,) = json.loads(command[-1].removeprefix("--patch="))["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (CLAIM.uid, True)


def test_what_is_somebody_elses_is_not_handed_over_with_the_orphans() -> None:
    text = told(orphan("Service"), NameConflictError("Ingress", "vision/m"))
    assert "ingress/m" not in text.split("`")[1]
    assert "delete or rename the Ingress" in text


@pytest.mark.parametrize("length", [1, 25, 50])
@pytest.mark.parametrize("foreign", [0, 2])
def test_the_command_is_whole_however_long_the_names_are(length: int, foreign: int) -> None:
    name, namespace = "m" * length, "n" * 63
    claim = Claim(namespace, name, CLAIM.uid)
    others = [NameConflictError(kind, f"{namespace}/{name}") for kind in KINDS[:foreign]]
    text = told(*others, *(orphan(kind, name, claim) for kind in KINDS[foreign:]))
    assert len(text.encode()) <= bounds.MESSAGE
    command = shlex.split(text.split("`")[1])
    assert command[-1].endswith("}")
    named = [part for part in command if part.endswith(f"/{name}")]
    left = len(KINDS) - foreign - len(named)
    assert named
    assert left == 0 or f"then the other {left}" in text
