"""The simulated pods' pollers in processes of their own: none of their work is the operator's.

Run as a program, it answers for all pods and takes a line ``NUMBER VERSION`` for each model whose
pods serve another version; what a line asked for is done when its number is printed.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bench import measured, operator_fleet
from demo.errors import OutcomeError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TREE = Path(__file__).parent.parent
_PODS_EACH_PROCESS = 12_000
"""A connection each, and 20,000 files are allowed on many machines."""
_STOP_SECONDS = 10.0


class Pods:
    """The processes; each is told everything, for any of them may get a pod's connection."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def tell(self, number: int, version: int) -> None:
        """Have all pods of a model report that they serve a version, the only one."""
        for process in self._processes:
            pipe(process.stdin).write(f"{number} {version}\n")
            pipe(process.stdin).flush()
        for process in self._processes:
            if pipe(process.stdout).readline() != f"{number}\n":
                raise OutcomeError("simulated pods ended")

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all of them."""
        return sum(measured.cpu_seconds(process.pid) for process in self._processes)


def pipe(stream: IO[str] | None) -> IO[str]:
    """One of the streams that every process here has."""
    assert stream is not None
    return stream


@contextmanager
def pods(models: int) -> Iterator[Pods]:
    """Pollers on every address of 127/8, in as many processes as so many models need."""
    count = -(-models * operator_fleet.PODS_EACH // _PODS_EACH_PROCESS)
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.operator_pods"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=_TREE,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{_TREE}:{_TREE / 'operator'}:{_TREE / 'poller'}",
                },
            )
            stack.callback(_stop, process)
            processes.append(process)
        for process in processes:
            if pipe(process.stdout).readline() != "ready\n":
                raise OutcomeError("simulated pods do not start")
        yield Pods(processes)


def _stop(process: subprocess.Popen[str]) -> None:
    pipe(process.stdin).close()
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    pipe(process.stdout).close()


async def _serve() -> None:
    async with operator_fleet.pollers(shared=True) as fleet:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        print("ready", flush=True)
        while line := await reader.readline():
            number, version = line.split()
            fleet.tell(int(number), int(version))
            print(int(number), flush=True)


if __name__ == "__main__":
    _, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    asyncio.run(_serve())
