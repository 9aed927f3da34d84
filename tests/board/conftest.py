"""The operator and a bucket on a whole cluster, for a Prometheus to watch."""

from __future__ import annotations

from tests.e2e.conftest import exports, installed

__all__ = ["exports", "installed"]
