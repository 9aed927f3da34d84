"""Two operators: one works, the other takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import SYSTEM
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.models import Served
    from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.e2e

NAME = "inferencemodel-operator"


@pytest.fixture
def two(installed: Kubectl) -> Iterator[Kubectl]:
    """Two ready operators; one again afterwards."""
    system = installed.in_namespace(SYSTEM)
    system("scale", f"deployment/{NAME}", "--replicas=2")
    system("rollout", "status", f"deployment/{NAME}", "--timeout=120s", timeout=150)
    yield system
    system("scale", f"deployment/{NAME}", "--replicas=1")
    system("rollout", "status", f"deployment/{NAME}", "--timeout=120s", timeout=150)


def leader(system: Kubectl) -> str:
    """The pod that holds the Lease, empty while none does."""
    holder: str = system.get("lease", NAME)["spec"].get("holderIdentity") or ""
    pods = [pod["metadata"]["name"] for pod in system.list("pods")]
    return next((pod for pod in pods if holder.startswith(pod)), "")


def test_another_operator_takes_over_from_one_that_is_killed(served: Served, two: Kubectl) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)
    killed = leader(two)
    assert killed

    two("delete", "pod", killed, "--grace-period=0", "--force", "--wait=false")
    served.upload(2, offset=3)

    eventually(lambda: leader(two) not in ("", killed), what="another leader", within=20, every=0.5)
    served.until_active(2, replicas=1)
    assert served.predict(1.0) == 3.5
