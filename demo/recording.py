"""Records the demo for people who can't run it now: ``make record-demo``.

What it prints is written with its times as a cast (asciicast version 2,
https://docs.asciinema.org/manual/asciicast/v2/) and drawn as a moving picture that needs no player.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from demo.errors import OutcomeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DOCS = Path(__file__).parents[1] / "docs"
CAST = _DOCS / "demo.cast"
PICTURE = _DOCS / "images" / "demo.svg"

COLUMNS, ROWS = 128, 30
_LONGEST_SECONDS = 1.2
"""That the picture waits for a line; what takes minutes would lose its viewers. The cast has the
true times."""
_HOLD_SECONDS = 8.0
"""At the end, to read it."""
_LINE, _CHARACTER, _MARGIN, _BAR = 17, 7.25, 16, 30
"""Pixels: a line's height, a character's width at 12 pixels, around the text, above it."""


@dataclass(frozen=True)
class Line:
    """A line that was printed."""

    at: float
    """Seconds since the begin."""
    text: str


def main() -> int:
    """Run the demo, show what it prints, and write both files; the exit code is the demo's."""
    lines: list[Line] = []
    begin = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "demo", "up"], stdout=subprocess.PIPE, text=True
    ) as demo:
        for text in demo.stdout or ():
            print(text, end="", flush=True)
            lines.append(Line(time.monotonic() - begin, text.rstrip()))
    if demo.returncode:
        return demo.returncode
    CAST.write_text(cast(lines))
    PICTURE.write_text(picture(lines))
    print(f"written to {CAST.relative_to(_DOCS.parent)} and {PICTURE.relative_to(_DOCS.parent)}")
    return 0


def cast(lines: Iterable[Line]) -> str:
    """The lines as an asciicast with their own times."""
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "make demo"}
    events = [[round(line.at, 3), "o", f"{line.text}\r\n"] for line in lines]
    return "".join(f"{json.dumps(entry)}\n" for entry in [head, *events])


def paced(lines: Sequence[Line], longest: float = _LONGEST_SECONDS) -> list[Line]:
    """The same lines, none more than ``longest`` seconds behind the one before."""
    found: list[Line] = []
    before = at = 0.0
    for line in lines:
        at += min(line.at - before, longest)
        before = line.at
        found.append(Line(at, line.text))
    return found


def picture(lines: Sequence[Line]) -> str:
    """An SVG that shows the lines one after the other, scrolls, and begins again.

    Who wants less motion sees the end of it.

    Raises:
        OutcomeError: there is no line.
    """
    if not lines:
        raise OutcomeError("nothing was printed, so there is nothing to show")
    shown = paced(lines)
    seconds = shown[-1].at + _HOLD_SECONDS
    width = round(COLUMNS * _CHARACTER + 2 * _MARGIN)
    height = ROWS * _LINE + 2 * _MARGIN + _BAR
    rules, rows, scroll = [], [], []
    for number, line in enumerate(shown):
        share = f"{100 * line.at / seconds:.3f}%"
        rules.append(f"@keyframes l{number}{{0%{{opacity:0}}{share},100%{{opacity:1}}}}")
        y = _BAR + _MARGIN + (number + 1) * _LINE - 4
        rows.append(
            f'<text x="{_MARGIN}" y="{y}" class="{_kind(line.text)}" '
            f'style="animation-name:l{number}">{escape(_cropped(line.text))}</text>'
        )
        if number >= ROWS:
            scroll.append(f"{share}{{transform:translateY({(ROWS - 1 - number) * _LINE}px)}}")
    last = f"transform:translateY({min(0, ROWS - len(shown)) * _LINE}px)"
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}" role="img" aria-labelledby="title">
<title id="title">make demo, as it was recorded; long waits are shortened</title>
<style>
text {{ font: 12px "DejaVu Sans Mono", Menlo, Consolas, monospace }}
text {{ fill: #d7dae0; white-space: pre }}
.step {{ font-weight: bold; fill: #8ab4f8 }}
.command {{ fill: #81c995 }}
.time {{ fill: #9aa0a6 }}
.lines text {{ animation: {seconds:.2f}s step-end infinite }}
.lines {{ animation: scroll {seconds:.2f}s step-end infinite }}
{"".join(rules)}
@keyframes scroll{{0%{{transform:translateY(0)}}{"".join(scroll)}100%{{{last}}}}}
@media (prefers-reduced-motion: reduce) {{
  .lines, .lines text {{ animation: none }}
  .lines {{ {last} }}
}}
</style>
<clipPath id="screen">\
<rect y="{_BAR}" width="{width}" height="{height - _BAR - _MARGIN}"/></clipPath>
<rect width="{width}" height="{height}" rx="8" fill="#1e2127"/>
<g fill="#5f6368"><circle cx="18" cy="16" r="5"/><circle cx="36" cy="16" r="5"/>\
<circle cx="54" cy="16" r="5"/></g>
<text x="{width // 2}" y="20" text-anchor="middle" class="time">make demo</text>
<g clip-path="url(#screen)"><g class="lines">
{chr(10).join(rows)}
</g></g>
</svg>
"""


def _kind(text: str) -> str:
    """How a line looks: a step's title, a command, how long a step took, or what is left."""
    if text.startswith("["):
        return "step"
    words = text.lstrip()
    if words.startswith("$ "):
        return "command"
    return "time" if words.startswith("-- ") else "text"


def _cropped(text: str) -> str:
    return text if len(text) <= COLUMNS else f"{text[: COLUMNS - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
