"""A pod template that the operator changes by itself, with real rollouts of real pods."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.models import Operator, Served
    from tests.support.kubectl import Object

pytestmark = pytest.mark.e2e

ARGUMENTS = "/spec/template/spec/containers/0/args"
POLICY = "Never"
"""Of pulling the poller's image, which is on the node: another template, and pods that work."""


@contextmanager
def arguments(operator: Operator, *more: str) -> Iterator[None]:
    """The operator with more arguments while the block runs."""
    deployment = operator.kubectl.get("deployment", "inferencemodel-operator")
    before = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    _start(operator, [*before, *more])
    try:
        yield
    finally:
        _start(operator, before)


def _start(operator: Operator, given: list[str]) -> None:
    patch = json.dumps([{"op": "replace", "path": ARGUMENTS, "value": given}])
    name = "deployment/inferencemodel-operator"
    operator.kubectl("patch", name, "--type=json", "--patch", patch)
    operator.kubectl("rollout", "status", name, "--timeout=120s", timeout=150)


def is_new(deployment: Object) -> bool:
    (poller,) = deployment["spec"]["template"]["spec"]["initContainers"]
    return bool(poller["imagePullPolicy"] == POLICY)


def is_rolled_out(deployment: Object) -> bool:
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    numbers = ("replicas", "updatedReplicas", "availableReplicas")
    return status["observedGeneration"] == deployment["metadata"]["generation"] and all(
        status.get(number) == wanted for number in numbers
    )


def test_it_reaches_one_model_after_the_other_and_fails_no_request(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    names = [served.name, *(f"{served.name}-{letter}" for letter in "bc")]
    for name in names[1:]:
        copy = served.get()
        spec = {**copy["spec"], "ingress": {}}
        served.kubectl.apply(
            {"metadata": {"name": name}, "spec": spec}
            | {field: copy[field] for field in ("apiVersion", "kind")}
        )
    served.until_active(1, replicas=1)
    eventually(
        lambda: all(map(is_rolled_out, served.kubectl.list("deployments"))),
        what="all to be rolled out",
        within=120,
    )
    order: list[str] = []
    moving: list[int] = []

    def there() -> bool:
        found = sorted(served.kubectl.list("deployments"), key=lambda o: str(o["metadata"]["name"]))
        new = [o for o in found if is_new(o)]
        order.extend(n for o in new if (n := o["metadata"]["name"]) not in order)
        moving.append(sum(not is_rolled_out(o) for o in new))
        return len(new) == len(names) and all(map(is_rolled_out, new))

    more = (f"--poller-image-pull-policy={POLICY}", "--max-restarts=1")
    with served.traffic(rate=10) as traffic, arguments(served.operator, *more):
        seen = eventually(there, what="the new template everywhere", within=240)

    assert seen
    assert max(moving) == 1
    assert order == names
    assert traffic.failures == ()
