"""Programs are known by more than their id, and started and ended once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from devcluster.errors import StartError
from devcluster.processes import Identity, Processes, Program
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path / "records", tmp_path / "logs")
    yield processes
    processes.stop_all(processes.names(), seconds=0)


def program(name: str, *argv: str) -> Program:
    return Program(name, argv, {})


def test_a_running_program_is_not_started_again(processes: Processes) -> None:
    assert processes.ensure(program("sleeper", "sleep", "60"))
    first = processes.identity("sleeper")
    assert not processes.ensure(program("sleeper", "sleep", "60"))
    assert processes.identity("sleeper") == first


def test_a_program_with_other_arguments_replaces_the_running_one(processes: Processes) -> None:
    processes.ensure(program("sleeper", "sleep", "60"))
    first = processes.identity("sleeper")
    assert processes.ensure(program("sleeper", "sleep", "61"))
    assert first is not None
    assert not first.alive()


def test_a_changed_input_file_means_a_restart(processes: Processes, tmp_path: Path) -> None:
    configuration = tmp_path / "configuration"
    configuration.write_text("a")
    reader = Program("reader", ("sleep", "60"), {}, inputs=(configuration,))
    processes.ensure(reader)
    assert not processes.ensure(reader)
    configuration.write_text("b")
    assert processes.ensure(reader)


def test_a_program_that_died_is_started_again(processes: Processes) -> None:
    processes.ensure(program("sleeper", "sleep", "60"))
    first = processes.identity("sleeper")
    assert first is not None
    first.signal(signal.SIGKILL)
    eventually(lambda: not first.alive(), what="the program to end", within=10)
    assert processes.ensure(program("sleeper", "sleep", "60"))


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "an earlier boot"}])
def test_a_process_that_only_has_the_same_id_is_left_alone(
    processes: Processes, change: dict[str, int | str]
) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        mine = Identity.of(stranger.pid)
        assert mine is not None
        stale = replace(mine, **change)  # type: ignore[arg-type]
        record = {"identity": vars(stale), "fingerprint": ""}
        processes.records.mkdir()
        (processes.records / "sleeper.json").write_text(json.dumps(record))
        assert processes.identity("sleeper") is None
        stale.signal(signal.SIGKILL)
        processes.stop("sleeper")
        assert mine.alive()
        assert processes.names() == []
        stranger.kill()


def test_a_program_that_ignores_sigterm_is_killed(processes: Processes) -> None:
    processes.ensure(program("stubborn", "sh", "-c", STUBBORN))
    processes.wait(
        "stubborn", lambda: "ready" in processes.log("stubborn").read_text(), what="it was ready"
    )
    identity = processes.identity("stubborn")
    assert identity is not None
    processes.stop("stubborn", seconds=0)
    assert not identity.alive()


def test_an_early_end_is_told_with_the_last_lines_and_the_place_of_the_log(
    processes: Processes,
) -> None:
    def start() -> None:
        processes.ensure(program("broken", "sh", "-c", "echo no such flag; exit 3"))
        processes.wait("broken", lambda: False, what="it was ready")

    with pytest.raises(StartError, match="broken ended") as raised:
        start()
    assert "no such flag" in str(raised.value)
    assert str(processes.log("broken")) in str(raised.value)


def test_a_missed_deadline_says_what_was_waited_for(processes: Processes) -> None:
    processes.ensure(program("sleeper", "sleep", "60"))
    with pytest.raises(StartError, match="sleeper: an answer did not happen within 0 s"):
        processes.wait("sleeper", lambda: False, what="an answer", within=0)


def test_a_tied_program_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, os; from pathlib import Path;"
        "from devcluster.processes import Processes, Program;"
        "p = Processes(Path(sys.argv[1]), Path(sys.argv[1]), tied=True);"
        "p.ensure(Program('sleeper', ('sleep', '60'), {}));"
        "comm = Path(f'/proc/{p.identity(\"sleeper\").pid}/comm')\n"
        # It is tied by then.
        "while comm.read_text() != 'sleep\\n': pass\n"
        "os._exit(0)"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    processes = Processes(tmp_path, tmp_path)
    eventually(lambda: processes.identity("sleeper") is None, what="its end", within=10)
