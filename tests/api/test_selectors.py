"""The operator reads label selectors as a real API server does."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from devcluster.client import KubectlError
from tests.support.selectors import BAD, GOOD

if TYPE_CHECKING:
    from devcluster.client import Api

pytestmark = pytest.mark.api


def takes(api: Api, selector: str) -> bool:
    """Whether the API server can read it."""
    path = f"/api/v1/namespaces?limit=1&labelSelector={quote(selector)}"
    with suppress(KubectlError):
        api.kubectl("get", "--raw", path)
        return True
    return False


def test_what_is_taken_and_what_is_refused_is_the_same(api_server: Api) -> None:
    assert [selector for selector in GOOD if not takes(api_server, selector)] == []
    assert [selector for selector, _ in BAD if takes(api_server, selector)] == []
