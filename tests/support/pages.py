"""What pages tell their readers to type: blocks of code and commands in README.md and docs/.

Each block of commands is marked by a comment in front of it, which the site leaves out:

``<!-- run -->``
    A test runs it as it stands; ``<!-- run: WORDS -->`` names what it finds there, or where.
``<!-- run by FILE::TEST -->``
    That test does the same, with more around it.
``<!-- not run: REASON -->``
    It can't be run by tests.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
ELSEWHERE = "…"
"""Stands for what a reader fills in, or for what isn't shown."""
MARK = re.compile(r"<!-- ((?:not )?run)(?: (by) |: )?(.*?) ?-->")
"""What a block is marked with; docs/generated.py keeps it from the site."""
STATES = ("ends", "store", "done", "installed", "empty")
"""What a block can ask tests/api/test_pages.py for, beside a fleet of models of which one waits in
a rollout: another end than with 0; a bucket as well; its rollout done, and of which version; the
chart alone; nothing."""
OTHERS = ("cluster", "waiting", "rolling")
"""For tests/e2e/test_pages.py, and in tests/api/test_waiting.py before and after what is waited for
has come."""
_SHELLS = {"bash", "sh"}
_ENDS = {"|", "<<<", ">", ">>", "&&", "||", ";", "&", "2>"}


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    line: int
    """The number of its first line, from 1."""
    language: str
    """What its fence says; empty for an indented one."""
    text: str
    mark: Mark | None = None

    @property
    def is_typed(self) -> bool:
        """Whether it is for a shell: whatever doesn't say, or show, that it is something else."""
        if self.language:
            return self.language in _SHELLS
        try:
            return not isinstance(yaml.safe_load(self.text), dict)
        except yaml.YAMLError:
            return True

    @property
    def script(self) -> str:
        """What a reader types, without the answers that are shown."""
        lines = self.text.splitlines()
        typed = [line[2:] for line in lines if line.startswith("$ ")]
        return "\n".join(typed or lines)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Mark:
    """Who runs a block of commands."""

    kind: str
    """``run``, ``run by`` or ``not run``."""
    words: str


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
            yield _block(page, begin + 1, fence[3], inside, _mark(lines, begin))
            number += 1
        elif blank and line.startswith("    ") and line.strip() and not MARK.search(line):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number]):
                number += 1
            yield _block(page, begin, "", lines[begin:number], _mark(lines, begin))
        else:
            number += 1
        blank = not lines[number - 1].strip()


def _block(page: Path, begin: int, language: str, lines: Sequence[str], mark: Mark | None) -> Block:
    name = str(page.relative_to(ROOT))
    return Block(name, begin + 1, language, dedent("\n".join(lines)).strip("\n"), mark)


def _mark(lines: Sequence[str], begin: int) -> Mark | None:
    """The mark that stands before a line, with nothing but blank lines between."""
    before = next((line for line in reversed(lines[:begin]) if line.strip()), "")
    found = MARK.fullmatch(before.strip())
    return Mark(" ".join(filter(None, found.group(1, 2))), found[3]) if found else None


def typed() -> list[Block]:
    """Every block of commands of all pages."""
    return [block for page in PAGES for block in blocks(page) if block.is_typed]


def to_run(*places: str) -> list[Block]:
    """The blocks that are marked to be run, and whose words' first one is one of these."""
    return [
        block
        for block in typed()
        if block.mark and block.mark.kind == "run"
        if (block.mark.words.split() or [""])[0] in places
    ]


def run_by(test: str) -> list[Block]:
    """The blocks that are marked as run by a test of this name."""
    return [
        block
        for block in typed()
        if block.mark and block.mark.kind == "run by" and block.mark.words.endswith(f"::{test}")
    ]


def arguments(block: Block) -> list[str]:
    """The arguments of a block's only command, without the program."""
    (statement,) = statements(block.script)
    return shlex.split(statement)[1:]


def statements(script: str) -> list[str]:
    """The commands of a script, each with its here-document, as one counts what one types."""
    found: list[str] = []
    end = ""
    for line in script.replace("\\\n", " ").splitlines():
        if end:
            found[-1] += f"\n{line}"
            end = "" if line == end else end
            continue
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        if not list(words):
            continue
        found.append(line)
        if here := re.search(r"<<-?\s*['\"]?(\w+)['\"]?$", line):
            end = here[1]
    return found


def run(
    block: Block, folder: Path, environment: Mapping[str, str], *, code: int = 0, **given: str
) -> str:
    """Run a block in a shell, where each line but the last has to succeed.

    Args:
        block: the block.
        folder: where it is run.
        environment: beside that of the tests.
        code: what it has to end with.
        given: what the reader has to put in, by its name in capitals.

    Returns:
        What it printed.
    """
    script = block.script
    for name, value in given.items():
        script = re.sub(rf"(?<![\w-]){name}(?![\w-])", value, script)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == code, f"{block}: {done.returncode}: {done.stdout}"
    return done.stdout


def programs(folder: Path, **more: Path | str) -> str:
    """Have the project's own programs, and others by their names, in a folder; the PATH with it."""
    for name, module in (
        ("kubectl-inferencemodel", "kubectl_inferencemodel"),
        ("model_publish", "model_poller.publishing"),
    ):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    for name, path in more.items():
        (folder / name).symlink_to(path)
    return f"{folder}:{os.environ['PATH']}"


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
