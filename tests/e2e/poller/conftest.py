"""These tests need the programs that the cluster is built with, but no cluster."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def told_on_failure() -> None:
    """In place of the one that asks the cluster."""
