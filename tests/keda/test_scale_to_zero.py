"""A request to a model at zero, with KEDA and its HTTP add-on as they are."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.kubectl import condition
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from devcluster.client import Api
    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e

COLD = "X-KEDA-HTTP-Cold-Start"
"""What the interceptor says of an answer: whether a pod had to be waited for."""
AUTOSCALING: dict[str, Any] = {
    "minReplicas": 0,
    "maxReplicas": 2,
    "keda": {
        "cooldownPeriod": 5,
        "pollingInterval": 2,
        "http": {"concurrency": 5, "timeout": "3m"},
    },
}
ROUNDS = 3


def asked(address: str, host: str, model: str) -> tuple[str | None, float]:
    """What the interceptor says of a prediction, and the seconds that it took."""
    connection = http.client.HTTPConnection(address, timeout=200)
    start = time.monotonic()
    try:
        headers = {"Host": host, "Content-Type": "application/json"}
        content = json.dumps({"instances": [1.0]})
        connection.request("POST", f"/v1/models/{model}:predict", content, headers)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    assert response.status == http.HTTPStatus.OK, (response.status, answer)
    assert json.loads(answer) == {"predictions": [2.5]}
    return response.getheader(COLD), time.monotonic() - start


def until_zero(served: Served) -> None:
    """Wait until the status and the pods say that nothing runs."""
    served.until(
        lambda o: condition(o, "Ready").get("reason") == "ScaledToZero", what="no replica wanted"
    )
    served.until_pods(0)


@pytest.mark.timeout(900)
def test_a_request_to_a_model_at_zero_is_answered_when_its_pod_is_there(
    served: Served, requests_counted: None, cluster: Api
) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)
    template = served.kubectl.get("deployment", served.name)["spec"]["template"]
    served.patch({"autoscaling": AUTOSCALING})
    until_zero(served)
    ready = condition(served.get(), "Ready")
    assert (ready["status"], "a request to status.url waits" in ready["message"]) == ("True", True)

    waited = []
    for _ in range(ROUNDS):
        cold, seconds = asked(served.ingress, served.host, served.name)
        assert cold == "true"
        waited.append(seconds)
        served.until_active(1, replicas=1)
        warm, at_once = asked(served.ingress, served.host, served.name)
        assert warm == "false"
        until_zero(served)
    told = ", ".join(f"{seconds:.1f} s" for seconds in waited)
    print(f"a request to a model at zero waited {told}; with a pod there {at_once * 1000:.0f} ms")

    # In the cluster, by a name of the model's own namespace.
    service = f"keda-http-{served.name}"
    outside = served.kubectl.get("service", service)["spec"]["externalName"]
    there, namespace, *_ = outside.split(".")
    proxy = served.kubectl.in_namespace(namespace).get("service", there)["spec"]["clusterIP"]
    host = f"{service}.{served.namespace}.svc:8080"
    assert asked(f"{proxy}:8080", host, served.name)[0] == "true"

    # Without it again, requests go to the pods.
    served.patch({"autoscaling": None, "replicas": 1})
    served.until_active(1, replicas=1)
    eventually(
        lambda: asked(served.ingress, served.host, served.name)[0] is None,
        what="an answer that no interceptor has seen",
        within=30,
    )
    assert served.kubectl.get("deployment", served.name)["spec"]["template"] == template
