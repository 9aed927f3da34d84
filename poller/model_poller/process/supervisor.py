"""Keeps a poller running inside its container.

While a container of a pod restarts, the pod is not Ready: Kubernetes counts native sidecars in, and
takes the pod out of its Services although its model server goes on answering
(https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-readiness-status). So a
poller that dies is started again by this small parent, and the container stays.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from model_poller.errors import EXIT_USAGE
from model_poller.process import logs
from model_poller.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

RETRIES: Final = RetryPolicy(math.inf, first_seconds=0.1, longest_seconds=30.0)
SETTLED: Final = 60.0
"""Seconds after which an end is no longer counted to the ones before."""

_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Supervise ``model_poller`` with this program's arguments; returns the exit code."""
    arguments = sys.argv[1:]
    program = [sys.executable, "-m", "model_poller", *arguments]
    if "--once" in arguments:
        # Whoever asks once wants to know how it ended. What comes before the program has a handler
        # waits for it: to process 1 it would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        os.execv(program[0], program)  # noqa: S606
    logs.set_up("json" if wants_json(arguments) else "text")
    return run(program)


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the program's log is JSON: an option's value stands behind '=' or by itself."""
    return "--log-format=json" in arguments or ("--log-format", "json") in pairwise(arguments)


def run(command: Sequence[str]) -> int:
    """Run a program, again and again if need be, until it is told or chooses to end.

    SIGTERM and SIGINT are passed on. An end with 0 or a usage error is final; any other is followed
    by a restart, with backoff and jitter.

    Returns:
        The exit code of the program's last run.
    """
    # Blocked signals wait for sigwait; the program inherits this, and waits for them likewise.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING | {signal.SIGCHLD})
    ends = 0
    while True:
        started = time.monotonic()
        told, code = _run_once(command)
        if told or code in (0, EXIT_USAGE):
            return max(code, 0)
        if time.monotonic() - started > SETTLED:
            ends = 0
        ends += 1
        wait = RETRIES.pause(ends)
        _log.error("the poller ended with %d; starting it again in %.1f s", code, wait)
        if signal.sigtimedwait(_ENDING, wait) is not None:
            return 0


def _run_once(command: Sequence[str]) -> tuple[bool, int]:
    """Run to the end; returns whether it was told to end, and its exit code."""
    told, parent = False, os.getpid()
    # There is no other thread, whose locks the program could inherit.
    with subprocess.Popen(command, preexec_fn=lambda: _end_with(parent)) as program:
        while program.poll() is None:
            received = signal.sigwait(_ENDING | {signal.SIGCHLD})
            if received in _ENDING:
                told = True
                program.send_signal(received)
    return told, program.returncode


def _end_with(parent: int) -> None:
    """Let the kernel end this process with its parent, however that ends; see prctl(2).

    A poller without its supervisor would hear of no SIGTERM, and keep the volume for itself. Where
    it is killed does not matter: all that it does is safe to lose at any point.
    """
    # Imported in the child alone, whose memory the program replaces.
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
