"""The pictures of the console that the docs show are taken here, by `make pictures`.

Data and times are fixed; the cluster's address, which is another one each time, is set to a word.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, Final

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Circle, Polygon

from tests.support.crd import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.api

IMAGENET: Final = "/models/vision/imagenet"
PICTURES: Final = ROOT / "docs" / "pictures"
_DIFFERS: Final = 0.04
"""So much of its range may a picture's mean value be off: typefaces differ a little."""


def taken(page: Page, name: str, into: Path, *, height: int | None = None) -> Path:
    """A picture of what is shown."""
    page.evaluate("document.querySelector('.server').textContent = 'https://cluster.example:6443'")
    if height is not None:
        page.set_viewport_size({"width": 1280, "height": height})
    path = into / f"{name}.png"
    page.screenshot(path=path, animations="disabled", caret="hide")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_of_the_docs_are_as_the_console_looks(
    browser: Browser, link: str, home: str, scheme: Any, tmp_path: Path
) -> None:
    wanted = os.environ.get("PICTURES")
    into = ROOT / wanted if wanted else tmp_path
    into.mkdir(exist_ok=True)
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": 1280, "height": 760}, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(link)
    page.wait_for_selector("#live.on")
    made = [taken(page, f"console-fleet-{scheme}", into)]
    page.goto(f"{home}{IMAGENET}")
    page.wait_for_selector("#live.on")
    made.append(taken(page, f"console-model-{scheme}", into, height=1180))
    if scheme == "light":
        page.click("[data-ask=promote]")
        page.wait_for_selector("#asked[open]")
        made.append(taken(page, "console-promote", into, height=760))
        page.goto(f"{home}{IMAGENET}/try")
        page.check('[name=version][value="3"]')
        page.set_input_files("[type=file]", drawn(tmp_path / "cat.png"))
        page.wait_for_selector(".side:nth-child(2) .labels")
        made.append(taken(page, "console-try", into, height=760))
        page.goto(f"{home}{IMAGENET}/compare")
        made.append(taken(page, "console-compare", into, height=760))
        page.set_viewport_size({"width": 390, "height": 760})
        page.goto(f"{home}/")
        page.wait_for_selector("#live.on")
        made.append(taken(page, "console-phone", into))
    context.close()
    for path in made:
        assert _size(path) == _size(PICTURES / path.name), f"{path.name}: run make pictures"
        differs = abs(imread(path) - imread(PICTURES / path.name)).mean()
        assert differs < _DIFFERS, f"{path.name} is another picture by now: run make pictures"


def drawn(path: Path) -> Path:
    """A cat's face, for want of a photo that is free to be shown."""
    figure = Figure(figsize=(2, 2), dpi=100, facecolor="#f3d9b1")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-1, 1)
    axes.set_ylim(-1, 1)
    axes.axis("off")
    for side in (-1, 1):
        ear = [(side * 0.62, 0.78), (side * 0.15, 0.42), (side * 0.66, 0.1)]
        axes.add_patch(Polygon(ear, color="#6d5a4b"))
    axes.add_patch(Circle((0, -0.1), 0.66, color="#8a7361"))
    for side in (-1, 1):
        axes.add_patch(Circle((side * 0.26, 0.06), 0.13, color="#d8e07a"))
        axes.add_patch(Circle((side * 0.26, 0.06), 0.06, color="#20180f"))
    axes.add_patch(Polygon([(-0.09, -0.2), (0.09, -0.2), (0, -0.31)], color="#3c2c24"))
    figure.savefig(path)
    return path


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG file."""
    found = struct.unpack(">II", path.read_bytes()[16:24])
    return found[0], found[1]
