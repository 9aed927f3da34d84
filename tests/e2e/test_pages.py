"""What pages tell to type is run as it stands there, where it needs a whole cluster."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import serving
from tests.support.kubectl import Kubectl
from tests.support.pages import ROOT, Block, programs, run, run_by, statements, to_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api
    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def namespace(
    request: pytest.FixtureRequest, cluster: Api, installed: Kubectl, exports: dict[int, Path]
) -> Iterator[Served]:
    """A reader's namespace, with nothing in it."""
    with serving(request, cluster, installed, exports) as served:
        served.name = "imagenet"
        yield served


@pytest.fixture(scope="module")
def environment(namespace: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The cluster, in whose namespace a reader works."""
    kubeconfig = tmp_path_factory.mktemp("reader") / "kubeconfig"
    shutil.copy(namespace.kubectl.kubeconfig, kubeconfig)
    own = Kubectl(namespace.kubectl.program, kubeconfig)
    own("config", "set-context", "--current", f"--namespace={namespace.namespace}")
    parts = ("plugin", "poller", "operator")
    return {
        "KUBECONFIG": str(kubeconfig),
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in parts),
    }


@pytest.fixture(scope="module")
def imagenet(namespace: Served) -> Served:
    """A model that pages tell of, and that answers."""
    namespace.upload(1, offset=2)
    namespace.apply(replicas=1)
    namespace.until_active(1, replicas=1)
    return namespace


def test_a_reader_of_the_readme_has_his_own_model_served(
    namespace: Served, environment: dict[str, str]
) -> None:
    (block,) = run_by("test_a_reader_of_the_readme_has_his_own_model_served")
    # One more says where the export is.
    assert len(statements(block.script)) + 1 < 10

    namespace.bucket.clear("mine/")
    environment = {**environment, "EXPORT": str(namespace.exports[2])}
    printed = run(block, ROOT, environment)

    assert "version 1 answers on 1/1 replicas" in printed
    assert printed.split()[-8:] == ["2.5", "3.0", "4.5", "by", "version", "1", "of", "mine"]


# One deletes the model.
BLOCKS = sorted(to_run("cluster"), key=lambda block: "delete" in block.script)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_commands_of_a_block_succeed_as_they_stand(
    imagenet: Served, environment: dict[str, str], block: Block, tmp_path: Path
) -> None:
    path = programs(tmp_path, kubectl=imagenet.kubectl.program)
    (pod,) = imagenet.kubectl.list("pods", imagenet.selector)
    run(
        block,
        tmp_path,
        {**environment, "PATH": path},
        NAME="imagenet",
        NAMESPACE=imagenet.namespace,
        POD=pod["metadata"]["name"],
    )
