"""What pages tell their readers to type: blocks of code and commands in README.md and docs/."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
ELSEWHERE = "…"
"""Stands for what a reader fills in, or for what isn't shown."""
_ENDS = {"|", ">", ">>", "&&", "||", ";", "&", "2>"}


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    line: int
    """The number of its first line, from 1."""
    language: str
    """What its fence says; empty for an indented one."""
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command line that a page tells its reader to type."""

    place: str
    """``page:line``"""
    words: tuple[str, ...]
    """What stands behind the program's own."""
    mentioned: bool
    """Whether it stands in the running text, which may leave out what is plain there."""

    @property
    def partial(self) -> bool:
        """Whether something may be left out of it."""
        return self.mentioned or ELSEWHERE in " ".join(self.words)

    def __str__(self) -> str:
        return f"{self.place}: {' '.join(self.words)}"


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of code of a page, fenced and indented ones."""
    lines = [*page.read_text().splitlines(), ""]
    number = 0
    blank = True
    while number < len(lines):
        line = lines[number]
        begin = number
        if fence := re.match(r"( *)(```+)(\S*)", line):
            number += 1
            while number < len(lines) and not re.match(rf" *{fence[2]}\s*$", lines[number]):
                number += 1
            inside = lines[begin + 1 : number]
            yield _block(page, begin + 1, fence[3], inside)
            number += 1
        elif blank and line.startswith("    ") and line.strip():
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number]):
                number += 1
            yield _block(page, begin, "", lines[begin:number])
        else:
            number += 1
        blank = not lines[number - 1].strip()


def _block(page: Path, begin: int, language: str, lines: Sequence[str]) -> Block:
    name = str(page.relative_to(ROOT))
    return Block(name, begin + 1, language, dedent("\n".join(lines)).strip("\n"))


def commands(program: Sequence[str]) -> list[Command]:
    """Every command of all pages that begins with these words, in blocks and in the running text.

    A command goes as far as the shell would take it: lines that end in a backslash go on, pipes
    and redirections end it.
    """
    found = []
    for page in PAGES:
        for block in blocks(page):
            joined = re.sub(r"\\\n\s*", lambda told: " " * len(told[0]), block.text)
            for offset, line in enumerate(joined.splitlines()):
                place = f"{block.page}:{block.line + offset}"
                found += _commands(place, line.removeprefix("$ "), program, mentioned=False)
        # Names in the running text are in backquotes; a command has more than its name.
        for number, line in enumerate(_prose(page), 1):
            for quoted in re.findall(r"`([^`]+ [^`]+)`", line):
                place = f"{page.relative_to(ROOT)}:{number}"
                found += _commands(place, quoted.removeprefix("$ "), program, mentioned=True)
    return found


def _prose(page: Path) -> list[str]:
    """The lines of a page, with nothing where a fenced block is."""
    lines, fenced = [], False
    for line in page.read_text().splitlines():
        if re.match(r" *```", line):
            fenced = not fenced
        lines.append("" if fenced or line.startswith("    ") else line)
    return lines


def _commands(place: str, line: str, program: Sequence[str], *, mentioned: bool) -> list[Command]:
    if not line.lstrip().startswith(program[0]) or line.split()[: len(program)] != list(program):
        return []
    try:
        words = list(shlex.split(line, comments=True))
    except ValueError:
        # A quote that goes on in the next lines.
        words = [*line.split("'")[0].split(), ELSEWHERE]
    for number, word in enumerate(words):
        if word in _ENDS:
            words = words[:number]
            break
    return [Command(place, tuple(words[len(program) :]), mentioned)]
