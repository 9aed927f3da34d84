from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_poller.process.supervisor import wants_json
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_the_program_does_not_outlive_a_supervisor_that_is_killed(
    started: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    eventually(
        lambda: (tmp_path / "starts").exists() and (tmp_path / "starts").read_text() == "xxx",
        what="the third start",
    )
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text()
    program = os.pidfd_open(int(children))

    started.kill()

    # A file of a process can be read once that has ended.
    ended, _, _ = select.select([program], [], [], 30)
    if not ended:
        signal.pidfd_send_signal(program, signal.SIGKILL)
    os.close(program)
    assert ended


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


@pytest.fixture
def namespace() -> list[str]:
    """The command that makes a program process 1 of its own, as that of a container is."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no PID namespace for this user: {tried.stderr.decode()}")
    return command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_once_obeys_signals_also_as_process_1(
    namespace: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "bucket").mkdir()
    with subprocess.Popen(
        [
            *(*namespace, sys.executable, "-m", "model_poller.process.supervisor", "--once"),
            *(f"--storage-uri=file://{tmp_path}/bucket", "--model-name=resnet"),
            f"--models-dir={tmp_path}/models",
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path)},
        stderr=subprocess.PIPE,
    ) as outer:
        try:
            eventually(
                lambda: (tmp_path / "models/.staging").exists(), what="the start", every=0.01
            )
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
            os.kill(int(children), number)
            assert outer.wait(timeout=30) == 128 + number
            assert outer.stderr is not None
            assert b"Traceback" not in outer.stderr.read()
        finally:
            outer.kill()


def test_a_signal_before_the_program_is_ready_is_not_lost(
    namespace: list[str], tmp_path: Path
) -> None:
    """It is blocked when the supervisor gives way to the program."""
    (tmp_path / "bucket").mkdir()
    program = f"""
import os, signal, sys
from model_poller.process import supervisor
execv = os.execv
def late(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    execv(*arguments)
os.execv = late
sys.argv = ["x", "--once", "--storage-uri=file://{tmp_path}/bucket", "--models-dir={tmp_path}/m",
            "--model-name=m"]
supervisor.main()
"""
    ended = subprocess.run(
        [*namespace, sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
