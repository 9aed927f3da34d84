"""An API server that can't be reached for a while, on a real one behind a cable that is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.api.models import Model
from tests.support import crd
from tests.support.cable import Cable
from tests.support.kubectl import Kubectl
from tests.support.operators import Operator
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.client import Api

pytestmark = pytest.mark.api


def test_an_api_server_that_was_away_is_picked_up_where_it_was(
    api_server: Api, tmp_path: Path
) -> None:
    port = urlsplit(api_server.url).port
    assert port is not None
    with crd.installed(api_server) as namespace, Cable(port) as cable:
        kubectl = Kubectl(api_server.program, api_server.kubeconfig, namespace)
        through_cable = tmp_path / "kubeconfig"
        through_cable.touch(mode=0o600)
        through_cable.write_text(
            api_server.kubeconfig.read_text().replace(f":{port}", f":{cable.port}")
        )
        model = Model(kubectl).apply(replicas=1)
        with Operator(through_cable, (namespace,)) as operator:
            model.until_children("configmap", "deployment", "service", "service")
            operator.until_quiet()

            cable.cut()
            eventually(lambda: "will retry" in operator.log(), what="the loss to be noticed")
            model.patch(replicas=3)
            kubectl("delete", "service", model.name)
            assert operator.get("/livez") == "ok\n", "starting anew would not help"
            cable.mend()

            model.until_children("configmap", "deployment", "service", "service")
            model.until_child("deployment", lambda o: o["spec"]["replicas"] == 3, what="3 replicas")
            assert operator.log().count("Operator is stopping") == 0
        model.delete()
