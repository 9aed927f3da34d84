"""The demo's own promises: real labels, a visible change of version, no failed request."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from demo import artifacts
from demo.cluster import TREE
from tests.support.browser import chromium, console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from tests.support.kubectl import Kubectl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def ran(cluster: Api, installed: Kubectl) -> Iterator[subprocess.CompletedProcess[str]]:
    """The demo, which leaves its model serving; that is gone at the end."""
    done = subprocess.run(
        [sys.executable, "-m", "demo", "run", f"--ingress={cluster.ingress}"],
        cwd=TREE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1100,
    )
    yield done
    installed("delete", "namespace", "vision", "--wait=false", "--ignore-not-found")


def test_the_demo_keeps_its_promises(ran: subprocess.CompletedProcess[str]) -> None:
    """The demo ends with an error when a request fails or a version is not where it should be."""
    assert ran.returncode == 0, ran.stdout
    # The photo is a cat's, and both versions see one.
    assert len(re.findall(r"tiger cat|tabby|Egyptian cat", ran.stdout)) >= 2


def test_the_console_shows_it_and_labels_its_photo(
    ran: subprocess.CompletedProcess[str], cluster: Api
) -> None:
    with (
        console(cluster.kubeconfig, "--namespace=vision") as link,
        chromium() as browser,
    ):
        page = browser.new_page()
        page.goto(link)
        expect(page.locator("#r-vision\\/imagenet")).to_contain_text("Serving", timeout=60_000)
        page.click("#r-vision\\/imagenet a")
        expect(page.locator("#pods tbody tr").first).to_contain_text("yes")
        page.select_option("#log-of", index=1)
        expect(page.locator("#log")).not_to_be_empty(timeout=30_000)
        page.click("text=Try it")
        page.set_input_files("[type=file]", artifacts.ensure(lambda _: None).photo)
        seen = re.compile("tiger cat|tabby|Egyptian cat")
        expect(page.locator(".labels .label", has_text=seen).first).to_be_visible(timeout=60_000)
        page.click("text=Compare")
        expect(page.locator("main")).to_contain_text("Interface")
