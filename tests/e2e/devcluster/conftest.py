"""The embedded cluster by itself: nothing is installed in it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def told_on_failure() -> None:
    """Stands in for the fixture that tells of the operator, which is not there."""
