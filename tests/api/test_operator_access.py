"""The operator as a pod's service account on a real API server, with a token of its issuer."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import yaml

from inferencemodel_operator import access, cluster
from inferencemodel_operator.access import Access
from inferencemodel_operator.cluster import CONFIG_MAPS, SERVICES, Cluster
from inferencemodel_operator.errors import RefusedError
from tests.support import crd
from tests.support.kubectl import Kubectl

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.client import Api

pytestmark = pytest.mark.api


async def test_a_pods_own_credentials_reach_the_api_server(
    api_server: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crd.installed(api_server) as namespace:
        kubectl = Kubectl(api_server.program, api_server.kubeconfig, namespace)
        kubectl("create", "serviceaccount", "reader")
        kubectl("create", "role", "reader", "--verb=get,create,patch", "--resource=configmaps")
        kubectl(
            *("create", "rolebinding", "reader", "--role=reader"),
            f"--serviceaccount={namespace}:reader",
        )
        token = kubectl("create", "token", "reader")
        (tmp_path / "token").write_text(token)
        config = yaml.safe_load(api_server.kubeconfig.read_text())["clusters"][0]["cluster"]
        trusted = base64.b64decode(config["certificate-authority-data"])
        (tmp_path / "ca.crt").write_bytes(trusted)
        monkeypatch.setattr(access, "SERVICE_ACCOUNT", tmp_path)
        url = urlsplit(api_server.url)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(url.hostname))
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(url.port))

        own = Access()
        async with cluster.connect(own, watches=0) as pool, cluster.session(pool, own) as session:
            api = Cluster(own, session)
            wanted = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"namespace": namespace, "name": "made"},
                "data": {"by": "reader"},
            }
            await api.apply(CONFIG_MAPS, wanted, uid=None)
            with pytest.raises(RefusedError, match="give the operator's service account"):
                await api.get(SERVICES, namespace, "any")
        assert json.loads(kubectl("get", "configmap", "made", "-o", "json"))["data"] == {
            "by": "reader"
        }
