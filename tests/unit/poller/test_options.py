"""The pages about the commands tell of the options and exit codes that they have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_poller import main as poller
from model_poller.once import ExitCode
from model_poller.publishing import main as publishing

DOCS = Path(__file__).parents[3] / "docs"


def section(page: str, title: str) -> str:
    text = (DOCS / page).read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def documented(page: str) -> set[str]:
    rows = re.findall(r"^\|(.*?)\|", section(page, "Options"), re.MULTILINE)
    return {option for row in rows for option in re.findall(r"`(--[a-z-]+)`", row)}


def offered(text: str) -> set[str]:
    return set(re.findall(r"^  (?:-\w(?: \S+)?, )?(--[a-z-]+)", text, re.MULTILINE))


def shown(capsys: pytest.CaptureFixture[str], command: str) -> set[str]:
    with pytest.raises(SystemExit) as ended:
        (poller if command == "model_poller" else publishing).main(["--help"])
    assert ended.value.code == 0
    found = offered(capsys.readouterr().out) - {"--help"}
    assert len(found) > 10
    return found


@pytest.mark.parametrize(
    ("command", "page"), [("model_poller", "poller.md"), ("model_publish", "publishing.md")]
)
def test_the_page_lists_the_options_that_the_help_shows(
    command: str, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert documented(page) == shown(capsys, command)


@pytest.mark.parametrize(
    ("page", "codes"), [("poller.md", ExitCode), ("publishing.md", publishing.ExitCode)]
)
def test_the_page_lists_all_exit_codes(
    page: str, codes: type[ExitCode] | type[publishing.ExitCode]
) -> None:
    rows = re.findall(r"^\| (\d+) \|", section(page, "Exit codes"), re.MULTILINE)
    assert sorted(map(int, rows)) == sorted(map(int, codes))
