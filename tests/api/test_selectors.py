"""The operator reads label selectors as a real API server does."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.support.selectors import BAD, GOOD

if TYPE_CHECKING:
    from devcluster.client import Api

pytestmark = pytest.mark.api


def ask(api: Api, selector: str) -> None:
    api.kubectl("get", "--raw", f"/api/v1/namespaces?limit=1&labelSelector={quote(selector)}")


def test_what_is_taken_and_what_is_refused_is_the_same(api_server: Api) -> None:
    for selector in GOOD:
        ask(api_server, selector)
    for selector, _ in BAD:
        with pytest.raises(Exception, match="unable to parse"):
            ask(api_server, selector)
