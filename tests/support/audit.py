"""What the operator has asked of a real API server, as that server's audit log tells."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from inferencemodel_operator.cluster import USER_AGENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

Entry = dict[str, Any]


def entries(api: Api, namespace: str) -> Iterator[Entry]:
    """The operator's requests about one namespace that were answered, in their order."""
    assert api.audit_log is not None, "only the embedded API server has an audit log"
    for line in api.audit_log.read_text().splitlines():
        entry: Entry = json.loads(line)
        is_ours = entry.get("userAgent") == USER_AGENT
        if is_ours and entry.get("objectRef", {}).get("namespace") == namespace:
            yield entry


def received(entry: Entry) -> datetime:
    """When a request came."""
    return datetime.fromisoformat(entry["requestReceivedTimestamp"])
