"""A cluster that nothing is installed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubectl_inferencemodel.errors import ClusterError, NotFoundError
from tests.api.test_plugin import Plugin
from tests.support.kubectl import Kubectl

if TYPE_CHECKING:
    from devcluster.client import Api

pytestmark = pytest.mark.api


def test_the_plugin_says_that_the_crd_is_missing(fresh_api: Api) -> None:
    plugin = Plugin(Kubectl(fresh_api.program, fresh_api.kubeconfig, "default"))
    for command in (["list"], ["why", "imagenet"], ["wait", "imagenet", "--timeout=1"]):
        with pytest.raises(ClusterError, match="has no CRD of InferenceModels") as told:
            plugin(*command)
        assert not isinstance(told.value, NotFoundError)
