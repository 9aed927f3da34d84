"""Fixtures for all tests: a real API server and a real cluster (see devcluster.testing)."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["devcluster.testing"]

# What a shell starts in the background ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# By default an example may take 0.2 s, and no test asserts a time.
hypothesis.settings.register_profile("any time", deadline=None)
hypothesis.settings.load_profile("any time")


@pytest.fixture(autouse=True)
def _unblocked_signals() -> Iterator[None]:
    """Undo what a program's ``main`` blocks: processes that later tests start would inherit it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
