"""How the command begins: the link first, then all that takes long."""

from __future__ import annotations

import http.cookiejar
import re
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

from kubectl_inferencemodel import ui

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.unit.plugin.api import ApiServer

_LATER = """
kubectl_inferencemodel.answers kubectl_inferencemodel.delivery kubectl_inferencemodel.inspection
jinja2 starlette uvicorn
"""
"""What the link does without: other commands, and the console's packages."""
_UNTIL_THE_LINK = f"""
import sys
from kubectl_inferencemodel import cli, output

def write(text):
    print(text, sorted(set({_LATER.split()}) & set(sys.modules)))
    sys.exit()

output.write = write
cli.run(["ui", "--no-browser"])
"""

_GARBAGE = """
import gc
import sys
from kubectl_inferencemodel import cli, output

def write(text):
    print(gc.get_threshold()[0], gc.get_freeze_count() > len(gc.get_objects()))
    sys.exit()

output.write = write
cli.main(["ui", "--no-browser"])
"""


def test_the_link_is_there_before_the_packages_of_the_console(api: ApiServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNTIL_THE_LINK], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("http://127.0.0.1:")
    assert done.stdout.endswith("[]\n")


def opened(folder: Path) -> tuple[str, set[str]]:
    """The Fleet page of a console, and what its process has imported until it is there."""
    told = folder / "imports"
    command = (sys.executable, "-X", "importtime", "-m", "kubectl_inferencemodel")
    with (
        told.open("w") as errors,
        subprocess.Popen(
            [*command, "ui", "--no-browser"], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            link = process.stdout.readline().strip()
            jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
            with urllib.request.build_opener(jar).open(link) as answer:
                page = answer.read().decode()
            imported = told.read_text()
        finally:
            process.terminate()
    return page, set(re.findall(r"\| +([\w.]+)$", imported, re.MULTILINE))


def test_the_fleet_is_shown_before_there_is_what_other_pages_take(
    api: ApiServer, tmp_path: Path
) -> None:
    page, imported = opened(tmp_path)
    assert "imagenet" in page
    assert "jinja2" in imported
    assert (
        imported
        & {
            *("anyio._backends._asyncio", "google_crc32c", "rich", "rich.console"),
            *("kubectl_inferencemodel.comparison", "kubectl_inferencemodel.delivery"),
            *("kubectl_inferencemodel.console.models", "kubectl_inferencemodel.display"),
        }
        == set()
    )


def test_garbage_is_searched_for_seldom_and_not_in_what_was_imported(api: ApiServer) -> None:
    # Three quarters of the time that reading a thousand models takes are searches otherwise.
    done = subprocess.run(
        [sys.executable, "-c", _GARBAGE], capture_output=True, text=True, check=True
    )
    assert done.stdout == "10000 True\n"


def test_packages_that_are_missing_are_named_and_no_link_is(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui, "find_spec", lambda name: None if name == "jinja2" else name)
    code, out, err = shell("ui", "--no-browser")
    assert (code, out) == (1, "")
    assert "packages that are not installed (jinja2)" in err
