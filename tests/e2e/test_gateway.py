"""REST and gRPC through a real Gateway: Traefik, with Gateway API's own definitions."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from model_poller.model_server import _tfs
from tests.e2e.models import predict
from tests.support.crd import until_served
from tests.support.kinds import gateway_api
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.models import Served
    from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.e2e

MANIFEST = Path(__file__).with_name("gateway.yaml")
REST_HOST, GRPC_HOST = "models.example.com", "grpc.example.com"


@pytest.fixture
def gateway(served: Served, installed: Kubectl) -> Iterator[str]:
    """A Gateway ``public`` in the model's namespace; where it listens."""
    definitions = str(gateway_api())
    system = installed.in_namespace("kube-system")
    (traefik,) = system.get("deployment", "traefik")["spec"]["template"]["spec"]["containers"]
    manifest = string.Template(MANIFEST.read_text()).substitute(
        namespace=served.namespace, image=traefik["image"]
    )
    try:
        installed("apply", "--server-side", "-f", definitions)
        until_served(installed.kubeconfig, "gatewayclasses", "gateways", "httproutes", "grpcroutes")
        served.kubectl("apply", "-f", "-", stdin=manifest)
        served.kubectl("rollout", "status", "deployment/gateway", "--timeout=90s")
        (port,) = served.kubectl.get("service", "gateway")["spec"]["ports"]
        yield f"127.0.0.1:{port['nodePort']}"
    finally:
        served.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=manifest)
        installed("delete", "--ignore-not-found", "--wait=false", "-f", definitions)


def served_version(address: str, name: str) -> int:
    options = [("grpc.default_authority", GRPC_HOST), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        ask = channel.unary_unary(
            "/tensorflow.serving.ModelService/GetModelStatus",
            request_serializer=_tfs.GetModelStatusRequest.SerializeToString,
            response_deserializer=_tfs.GetModelStatusResponse.FromString,
        )
        request = _tfs.GetModelStatusRequest()
        request.model_spec.name = name
        (found,) = ask(request, timeout=10).model_version_status
        return int(found.version)


def test_rest_and_grpc_come_through_a_gateway(served: Served, gateway: str) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.patch(
        {
            "ingress": None,
            "gateway": {
                "parentRefs": [{"name": "public"}],
                "hostnames": [REST_HOST],
                "path": f"/v1/models/{served.name}",
                "grpcHostnames": [GRPC_HOST],
            },
        }
    )
    served.until_active(1, replicas=1)

    eventually(
        lambda: predict(gateway, REST_HOST, served.name, 1.0) == 2.5,
        what="REST through the Gateway",
        within=60,
    )

    def grpc_answers() -> bool:
        try:
            return served_version(gateway, served.name) == 1
        except grpc.RpcError as error:
            raise AssertionError(error) from error

    eventually(grpc_answers, what="gRPC through the Gateway", within=60)

    served.patch({"gateway": None})
    for kind in ("httproutes", "grpcroutes"):
        eventually(
            lambda kind=kind: not served.kubectl("get", kind, "-o", "name").strip(),  # type: ignore[misc]
            what=f"no {kind}",
            within=30,
        )
