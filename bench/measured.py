"""What a program takes: seconds, CPU seconds, memory.

A process inherits the peak of the one that started it (Linux keeps ru_maxrss over execve), so a
small launcher stands between.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.errors import OutcomeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LIMIT_SECONDS = 180
_LAUNCHER = """
import json, os, sys, time
began = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
took = time.monotonic() - began
cpu = usage.ru_utime + usage.ru_stime
told = [os.waitstatus_to_exitcode(status), took, cpu, usage.ru_maxrss * 1024]
os.write(int(sys.argv[1]), json.dumps(told).encode())
"""


@dataclass(frozen=True)
class Taken:
    """What one run of a program took.

    Attributes:
        seconds: of wall time.
        cpu_seconds: of it and of the programs it waited for.
        memory_mb: resident at most, of the largest of them.
        output: its standard output.
        synced_seconds: of waiting for the disk, not in ``seconds``.
    """

    seconds: float
    cpu_seconds: float
    memory_mb: float
    output: str
    synced_seconds: float = 0.0


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used, with all of its threads."""
    # The clock of clock_getcpuclockid(3), which Python lacks; /proc counts in whole ticks.
    return time.clock_gettime(~pid << 3 | 2)


def run(argv: Sequence[str], environment: Mapping[str, str]) -> Taken:
    """Run a program to its end, with nothing in its environment but PATH, HOME and what is given.

    Raises:
        OutcomeError: it failed, or took longer than three minutes.
    """
    told, tell = os.pipe()
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with (
        os.fdopen(told) as answer,
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(tell), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**kept, **environment},
            pass_fds=(tell,),
            start_new_session=True,
        ) as launcher,
    ):
        os.close(tell)
        try:
            output, errors = launcher.communicate(timeout=_LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            os.killpg(launcher.pid, signal.SIGKILL)
            raise OutcomeError(f"{argv[0]} took more than {_LIMIT_SECONDS} s") from error
        written = answer.read()
    status, seconds, cpu, memory = json.loads(written) if written else (None, 0, 0, 0)
    if status != 0:
        raise OutcomeError(f"{' '.join(argv)[:200]}: exit code {status}\n{errors[-2000:]}")
    return Taken(seconds, cpu, memory / 1e6, output)
