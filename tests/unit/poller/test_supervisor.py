from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from model_poller.process.supervisor import wants_json
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUPERVISE = (
    "import sys; from model_poller.process.supervisor import run; sys.exit(run(sys.argv[1:]))"
)
"""The supervisor around a program of the test's choice."""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervised program that notes its start, dies twice, and then waits to be ended."""
    program = f"""
import os, signal
with open({str(tmp_path / "starts")!r}, "a") as starts:
    starts.write("x")
if os.path.getsize({str(tmp_path / "starts")!r}) < 3:
    os.kill(os.getpid(), signal.SIGKILL)
received = signal.sigwait([signal.SIGTERM])
open({str(tmp_path / "ended")!r}, "w").write(received.name)
"""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, sys.executable, "-c", program],
        stderr=subprocess.DEVNULL,
    ) as process:
        yield process
        # Passed on, so that nothing of it stays behind.
        process.terminate()


def test_a_program_that_dies_is_started_again(
    started: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    eventually(
        lambda: (tmp_path / "starts").exists() and (tmp_path / "starts").read_text() == "xxx",
        what="the third start",
    )
    assert started.poll() is None


def test_sigterm_is_passed_on_and_ends_both(
    started: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    eventually(
        lambda: (tmp_path / "starts").exists() and (tmp_path / "starts").read_text() == "xxx",
        what="the third start",
    )

    started.send_signal(signal.SIGTERM)

    assert started.wait(timeout=30) == 0
    assert (tmp_path / "ended").read_text() == "SIGTERM"


@pytest.mark.parametrize("code", [0, 2])
def test_an_end_that_no_restart_would_change_is_final(code: int) -> None:
    ends = [sys.executable, "-c", f"raise SystemExit({code})"]
    done = subprocess.run([sys.executable, "-c", SUPERVISE, *ends], check=False, timeout=30)
    assert done.returncode == code


def test_what_is_asked_for_once_is_run_once(tmp_path: Path) -> None:
    """No version within the timeout, which is exit code 3."""
    (tmp_path / "bucket").mkdir()
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "model_poller.process.supervisor", "--once", "--timeout=0.1"),
            *(f"--storage-uri=file://{tmp_path}/bucket", "--model-name=resnet"),
            f"--models-dir={tmp_path}/models",
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 3, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--log-format=json"], True),
        (["--anonymous", "--log-format", "json"], True),
        (["--log-format", "text", "json"], False),
        (["json"], False),
    ],
)
def test_its_own_log_has_the_form_that_the_program_is_told(
    arguments: list[str], expected: bool
) -> None:
    assert wants_json(arguments) is expected
