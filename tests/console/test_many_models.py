"""The fleet with many models, in a real browser; an API server's double has them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.support.browser import console
from tests.support.waiting import eventually
from tests.unit.plugin.api import ApiServer, kubeconfig, resource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

MODELS: Final = 400
"""Far more than a browser looks after beyond the window's edge."""
_WAITING: Final = """
[...document.querySelectorAll("#fleet tbody a")]
  .filter((link) => !link.checkVisibility({ contentVisibilityAuto: true })).length
"""
"""How many rows are not laid out."""
_NOTE: Final = f"""
const painted = (then) => requestAnimationFrame(() => requestAnimationFrame(then));
addEventListener("DOMContentLoaded", () => painted(() => {{ window.waiting = {_WAITING}; }}));
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The link of a console with many models."""
    server = ApiServer()
    server.objects = [resource(f"model-{number:03}") for number in range(MODELS)]
    with server.run() as url:
        file: Path = tmp_path_factory.mktemp("many") / "kubeconfig"
        file.write_text(yaml.safe_dump(kubeconfig(url)))
        with console(file, "--namespace=vision") as link:
            yield link


def opened(browser: Browser, link: str, **how: Any) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 800}, **how).new_page()
    page.add_init_script(_NOTE)
    page.goto(link)
    return page


def read(page: Page) -> Counter[str]:
    """How many there are of each role of what a screen reader is told."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
    return Counter(node["role"]["value"] for node in tree["nodes"] if not node["ignored"])


def test_models_far_from_the_window_are_laid_out_after_the_first_paint(
    browser: Browser, many: str
) -> None:
    page = opened(browser, many)
    eventually(lambda: page.evaluate("window.waiting !== undefined"), what="the first paint")
    assert page.evaluate("window.waiting") > 0
    eventually(lambda: page.evaluate(_WAITING) == 0, what="all rows")
    page.context.close()


@pytest.mark.parametrize("scripts", [True, False])
def test_a_screen_reader_is_told_of_every_model(browser: Browser, many: str, scripts: bool) -> None:
    page = opened(browser, many, java_script_enabled=scripts)
    eventually(lambda: read(page)["rowheader"] == MODELS, what="each model")
    assert read(page)["table"] == 1
    assert read(page)["row"] == MODELS + 1
    assert read(page)["cell"] == 5 * MODELS
    page.context.close()


def test_a_model_far_from_the_window_is_found_and_reached_by_keys_at_once(
    browser: Browser, many: str
) -> None:
    page = opened(browser, many)
    page.keyboard.press("k")
    last = page.locator(f"#r-vision\\/model-{MODELS - 1:03} a")
    assert last.evaluate("(link) => link === document.activeElement")
    assert last.evaluate("(link) => link.getBoundingClientRect().bottom <= innerHeight")
    page.evaluate("scrollTo(0, 0)")
    assert page.evaluate("window.find('model-300')")
    page.context.close()
