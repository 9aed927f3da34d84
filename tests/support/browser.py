"""A real browser, and the console that it looks at."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from devcluster import packages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser, Page

_SERIOUS: Final = frozenset({"serious", "critical"})


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium without a window, installed where it is missing."""
    packages.ensure(packages.BROWSER)
    program = shutil.which("chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=program,
            args=[
                # Tests run as root, which its sandbox refuses.
                "--no-sandbox",
                "--disable-dev-shm-usage",
                # What a picture looks like doesn't depend on the machine.
                "--force-device-scale-factor=1",
                "--font-render-hinting=none",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def console(kubeconfig: Path, *arguments: str) -> Iterator[str]:
    """A console as a user starts it; its link."""
    command = (sys.executable, "-m", "kubectl_inferencemodel", "ui", "--no-browser")
    with subprocess.Popen(
        [*command, f"--kubeconfig={kubeconfig}", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            link = process.stdout.readline().strip()
            assert link.startswith("http://127.0.0.1:"), "it has printed no link"
            yield link
        finally:
            process.terminate()


def faults(page: Page) -> Sequence[str]:
    """What axe finds that keeps people from using a page."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{fault['impact']}: {fault['help']}: {node['html'][:200]}"
        for fault in found
        if fault["impact"] in _SERIOUS
        for node in fault["nodes"]
    ]
