"""Fixtures for all tests: a real API server and a real cluster (see devcluster.testing)."""

from __future__ import annotations

pytest_plugins = ["devcluster.testing"]
