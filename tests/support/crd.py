"""The CustomResourceDefinition on an API server, and a namespace to try it in."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
    # A condition can't be waited for while the status has none.
    api.kubectl("wait", "-f", str(CRD), "--for=jsonpath={.status.conditions}", "--timeout=30s")
    api.kubectl("wait", "-f", str(CRD), "--for=condition=Established", "--timeout=30s")
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    api.kubectl("create", "namespace", namespace)
    try:
        yield namespace
    finally:
        api.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
