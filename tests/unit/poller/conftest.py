"""What all tests of the poller share."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from model_poller import fetch
from model_poller.stores import http_calls

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fetch, http_calls):
        hurried = replace(module.RETRIES, first_seconds=0.001)
        monkeypatch.setattr(module, "RETRIES", hurried)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A program that runs in a test's own process sets up the log of the whole process."""
    loggers = [logging.getLogger(), logging.getLogger("model_poller")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
