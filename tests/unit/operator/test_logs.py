"""A fault that comes back all the time does not fill the log, and nothing is left out unsaid."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from inferencemodel_operator import logs
from inferencemodel_operator.logs import BURST, MOST_LINES, REPEAT_SECONDS, Repeats

if TYPE_CHECKING:
    import pytest


class Log:
    """What comes out of `Repeats`, at moments that the test gives."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.repeats = Repeats(lambda: self.now)
        self.lines: list[str] = []

    def add(
        self,
        text: str,
        at: float = 0.0,
        *,
        level: int = logging.ERROR,
        name: str = "inferencemodel_operator",
        line: int = 1,
        model: str = "",
    ) -> None:
        record = logging.LogRecord(name, level, "file.py", line, text, (), None)
        self.now = 1000.0 + at
        if model:
            record.namespace, record.inferencemodel = "vision", model
        self.lines += [taken.getMessage() for taken in self.repeats.take(record)]


def test_an_equal_line_is_logged_once_a_minute_with_its_count() -> None:
    log = Log()
    for tenth in range(10):
        log.add("out of files", tenth / 10)
    assert log.lines == ["out of files"]
    log.add("out of files", REPEAT_SECONDS)
    assert log.lines == ["out of files", "9 more like: out of files", "out of files"]


def test_a_clock_that_is_put_back_silences_nobody() -> None:
    repeats, taken = Repeats(), []
    for created in (10_000.0, 10_000.0 - 3600):
        for number in range(BURST // 2):
            record = logging.LogRecord("o", logging.ERROR, "file.py", 1, f"{number}", (), None)
            record.msg, record.created = f"{created} {number}", created
            taken += repeats.take(record)
    assert len(taken) == BURST


def test_the_count_is_told_with_whatever_is_logged_after_the_minute() -> None:
    log = Log()
    log.add("out of files")
    log.add("out of files")
    log.add("all is well", REPEAT_SECONDS, level=logging.INFO)
    assert log.lines == ["out of files", "1 more like: out of files", "all is well"]


def test_lines_about_different_things_are_all_logged() -> None:
    log = Log()
    log.add("no right", model="a")
    log.add("no right", model="b")
    log.add("no right", line=2)
    for number in range(1000):
        log.add("applied", level=logging.INFO, model=f"m{number}")
    assert len(log.lines) == 1003


def test_what_is_no_warning_may_come_again() -> None:
    log = Log()
    for text in ("on", "off", "on"):
        log.add(text, level=logging.INFO)
    assert log.lines == ["on", "off", "on"]
    for number in range(10_000):
        log.add(f"change {number}", level=logging.INFO, model="m")
    assert len(log.lines) == 3 + BURST


def test_of_one_place_that_warns_in_ever_other_words_some_lines_are_logged() -> None:
    log = Log()
    for number in range(1_000_000 // 100):
        log.add(f"attempt {number}", number / 1000)
    assert BURST < len(log.lines) < BURST + 12
    assert log.lines[0] == "attempt 0"
    log.add("attempt", 3 * REPEAT_SECONDS)
    left_out = sum(int(line.split()[0]) for line in log.lines if " more like: " in line)
    logged = sum(line.startswith("attempt ") for line in log.lines)
    assert left_out + logged == 10_000


def test_what_kopf_counts_in_its_words_is_one_line() -> None:
    log = Log()
    for number in range(100):
        log.add(f"Request attempt #{number} failed", name="kopf._cogs.clients.api")
    assert log.lines == ["Request attempt #0 failed"]


def test_no_more_lines_than_so_many_are_remembered() -> None:
    log = Log()
    for number in range(3 * MOST_LINES):
        log.add(f"line {number}", level=logging.INFO, line=number)
    assert len(log.repeats._lines) <= MOST_LINES


def test_the_operators_log_goes_through_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr(root, "handlers", [])
    try:
        logs.configure("json", "info")
        for _ in range(1000):
            logging.getLogger("asyncio").error("socket.accept() out of system resource")
        assert capsys.readouterr().err.count("out of system resource") == 1
    finally:
        root.handlers, root.level = handlers, level
