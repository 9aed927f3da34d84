"""What all tests of the poller share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_poller import fetch
from model_poller.stores import http_calls


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fetch, http_calls):
        hurried = replace(module.RETRIES, first_seconds=0.001)
        monkeypatch.setattr(module, "RETRIES", hurried)
