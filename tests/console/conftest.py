"""A console on a real API server, with a fleet whose pods are stand-ins, and a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import crd, shown
from tests.support.browser import chromium, console
from tests.support.kubectl import Kubectl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from devcluster.client import Api


@pytest.fixture(scope="session")
def kubectl(api_server: Api) -> Iterator[Kubectl]:
    """The fleet, on an API server."""
    with crd.installed(api_server), shown.servers():
        found = Kubectl(api_server.program, api_server.kubeconfig)
        shown.create(found)
        yield found
        shown.delete(found)


@pytest.fixture(scope="session")
def link(kubectl: Kubectl) -> Iterator[str]:
    """A console that shows the fleet alone."""
    namespaces = [f"--namespace={name}" for name in shown.NAMESPACES]
    with console(kubectl.kubeconfig, *namespaces) as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def home(link: str) -> str:
    """The console's address, without its token."""
    return link.partition("/?")[0]


@pytest.fixture
def page(browser: Browser, link: str) -> Iterator[Page]:
    """The Fleet page, as the link opens it; no page may fail in its script."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(link)
    yield opened
    context.close()
    assert errors == []
