"""The demo's own promises: real labels, a visible change of version, no failed request."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from demo.cluster import TREE

if TYPE_CHECKING:
    from devcluster.client import Api
    from tests.support.kubectl import Kubectl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def test_the_demo_keeps_its_promises(cluster: Api, installed: Kubectl) -> None:
    """The demo ends with an error when a request fails or a version is not where it should be."""
    done = subprocess.run(
        [sys.executable, "-m", "demo", "run", f"--ingress={cluster.ingress}"],
        cwd=TREE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1100,
    )
    try:
        assert done.returncode == 0, done.stdout
        # The photo is a cat's, and both versions see one.
        assert len(re.findall(r"tiger cat|tabby|Egyptian cat", done.stdout)) >= 2
    finally:
        installed("delete", "namespace", "vision", "--wait=false", "--ignore-not-found")
