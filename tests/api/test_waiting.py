"""What docs/waiting.md recommends ends when what is waited for is so, and not before."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import crd
from tests.support.kubectl import Kubectl
from tests.support.pages import arguments, to_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

RECIPES = [arguments(block) for block in to_run("waiting")]
IN_A_ROLLOUT = [arguments(block) for block in to_run("rolling")]


@pytest.fixture(scope="module")
def kubectl(api_server: Api) -> Iterator[Kubectl]:
    with crd.installed(api_server) as namespace:
        made = Kubectl(api_server.program, api_server.kubeconfig, namespace)
        made.apply(
            {
                "apiVersion": "inferencemodel.dev/v1alpha1",
                "kind": "InferenceModel",
                "metadata": {"name": "imagenet"},
                "spec": {"model": {"storageUri": "gs://models/imagenet"}},
            }
        )
        yield made


def tell(kubectl: Kubectl, *, arrived: bool, phase: str = "Completed") -> None:
    """Write the status of a version that is on its way, or there, by a rollout in some phase."""
    paused = ("True", "RolloutPaused") if phase == "Paused" else ("False", "NotPaused")
    conditions = {
        "RolloutPaused": paused,
        "Ready": ("True", "Serving") if arrived else ("False", "WaitingForVersion"),
        "Reconciling": ("False", "Settled") if arrived else ("True", "ChangingVersion"),
    }
    status = {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": kind,
                "status": state,
                "reason": reason,
                "message": "",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for kind, (state, reason) in conditions.items()
        ],
        "model": {
            "activeVersion": 2 if arrived else 1,
            "transitionStatus": "UpToDate" if arrived else "InProgress",
            "rollout": {"version": 2, "phase": phase, "startTime": "2026-01-01T00:00:00Z"},
        },
    }
    kubectl(
        *("patch", "inferencemodel", "imagenet", "--subresource=status", "--type=merge"),
        *("--patch", json.dumps({"status": status})),
    )


def start(kubectl: Kubectl, arguments: list[str], timeout: str) -> subprocess.Popen[str]:
    within = [a if not a.startswith("--timeout=") else f"--timeout={timeout}" for a in arguments]
    return subprocess.Popen(
        [str(kubectl.program), f"--namespace={kubectl.namespace}", *within],
        env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_there_are_recipes_and_each_has_a_deadline() -> None:
    assert len(RECIPES) == 5
    assert len(IN_A_ROLLOUT) == 2
    for recipe in (*RECIPES, *IN_A_ROLLOUT):
        assert [argument for argument in recipe if argument.startswith("--timeout=")]


@pytest.mark.parametrize("recipe", RECIPES, ids=" ".join)
def test_a_recipe_ends_when_the_version_has_arrived(kubectl: Kubectl, recipe: list[str]) -> None:
    tell(kubectl, arrived=False)
    with start(kubectl, recipe, "60s") as waiting:
        tell(kubectl, arrived=True)
        printed, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, printed
    assert "condition met" in printed


@pytest.mark.parametrize("recipe", RECIPES, ids=" ".join)
def test_a_recipe_does_not_end_before(kubectl: Kubectl, recipe: list[str]) -> None:
    tell(kubectl, arrived=False)
    with start(kubectl, recipe, "1s") as waiting:
        printed, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert "timed out waiting for the condition" in printed


@pytest.mark.parametrize("recipe", IN_A_ROLLOUT, ids=" ".join)
def test_a_recipe_for_a_rollout_ends_with_what_it_waits_for_and_not_before(
    kubectl: Kubectl, recipe: list[str]
) -> None:
    awaited = "Paused" if "RolloutPaused" in " ".join(recipe) else "Completed"
    other = "Completed" if awaited == "Paused" else "Paused"
    for phase in ("Progressing", other):
        tell(kubectl, arrived=False, phase=phase)
        with start(kubectl, recipe, "1s") as waiting:
            waiting.communicate(timeout=60)
        assert waiting.returncode == 1, phase
    with start(kubectl, recipe, "60s") as waiting:
        tell(kubectl, arrived=awaited == "Completed", phase=awaited)
        printed, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, printed
