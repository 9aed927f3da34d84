"""The CustomResourceDefinition on an API server, and a namespace to try it in."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.objects import Objects
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "inferencemodel.yaml"
EXAMPLES = ROOT / "examples"


@contextmanager
def installed(api: Api) -> Iterator[str]:
    """Install the definition, and give the name of a namespace that is deleted at the end."""
    api.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    until_served(api.kubeconfig, "inferencemodels")
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    api.kubectl("create", "namespace", namespace)
    try:
        yield namespace
    finally:
        api.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")


def until_served(kubeconfig: Path, *kinds: str) -> None:
    """Wait until kinds may be asked for.

    A definition is Established a moment before the API server lists its kind, and serves it.
    """
    objects = Objects(kubeconfig)

    def asked() -> bool:
        for kind in kinds:
            objects.list(kind)
        return True

    eventually(asked, what=f"{', '.join(kinds)} to be served", within=30, every=0.1)
