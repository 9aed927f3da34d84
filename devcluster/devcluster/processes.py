"""Programs that outlive the command that starts them, and are only ever ended by their identity.

A process id alone says nothing after a reboot or once ids have wrapped around, so each record
holds the boot and the kernel's start time of the process too, and a process that does not match
all three is somebody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.errors import StartError, with_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: How often a condition is looked at while waiting for it, in seconds.
LOOK_EVERY = 0.1
#: Seconds that a program gets to end by itself before it is killed.
STOP_SECONDS = 20.0
#: Seconds that the kernel gets to end a killed program.
KILL_SECONDS = 10.0


@dataclass(frozen=True)
class Identity:
    """What tells one process from every other one, before and after a reboot."""

    pid: int
    started: int
    """Start time in clock ticks since the boot (``/proc/PID/stat``, field 22)."""
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of a running process; None for one that has ended (zombies have)."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        # The second field, the program's name, may itself hold blanks and parentheses.
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[0] in "ZX":
            return None
        return cls(pid=pid, started=int(fields[19]), boot=_boot())

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Identity.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process, never to another one that got its id."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # Looked at while the handle is held: the id can't pass to another process any more.
            if self.alive():
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def reap(pid: int) -> None:
    """Take note of an ended child, so that it does not stay behind as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


@dataclass(frozen=True)
class Program:
    """A program as it shall run."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """Added to the environment of the caller."""
    inputs: tuple[Path, ...] = ()
    """Files that it reads once, at its start: a change of theirs means a restart."""

    def fingerprint(self) -> str:
        """Changes when the running program would have to be another one."""
        digest = hashlib.sha256(json.dumps([self.argv, sorted(self.environment.items())]).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Record:
    """What is kept of a started program."""

    identity: Identity
    fingerprint: str


class Processes:
    """The programs of one cluster: a directory of records and one of logs.

    With ``tied``, the programs end with the process that started them, however that ends.
    """

    def __init__(self, records: Path, logs: Path, *, tied: bool = False) -> None:
        self.records = records
        self.logs = logs
        self._tied = tied

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self.logs / f"{name}.log"

    def names(self) -> list[str]:
        """The programs that were started and not stopped."""
        return sorted(path.stem for path in self.records.glob("*.json"))

    def identity(self, name: str) -> Identity | None:
        """The process of a program, or None when it does not run."""
        record = self._record(name)
        return record.identity if record and record.identity.alive() else None

    def ensure(self, program: Program) -> bool:
        """Have a program run as described; False when it already did."""
        fingerprint = program.fingerprint()
        record = self._record(program.name)
        if record and record.fingerprint == fingerprint and record.identity.alive():
            return False
        self.stop(program.name)
        self.records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        argv = ["setpriv", "--pdeathsig", "KILL", *program.argv] if self._tied else program.argv
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawnp(
            argv[0],
            argv,
            {**os.environ, **program.environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log(program.name)), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        if self._tied:
            _wait_for_tie(pid)
        identity = Identity.of(pid)
        if identity is None:
            reap(pid)
            raise StartError(with_log(f"{program.name} ended at once", self.log(program.name)))
        written = self.records / f"{program.name}.json.new"
        written.write_text(json.dumps(asdict(_Record(identity, fingerprint))))
        written.replace(self.records / f"{program.name}.json")
        return True

    def wait(
        self, name: str, ready: Callable[[], bool], *, what: str, within: float = 60.0
    ) -> None:
        """Wait until ``ready`` holds, for as long as the program runs.

        Raises:
            StartError: the program ended, or the deadline (seconds) passed.
        """
        deadline = time.monotonic() + within
        while not ready():
            if self.identity(name) is None:
                raise StartError(with_log(f"{name} ended before {what}", self.log(name)))
            if time.monotonic() > deadline:
                problem = f"{name}: {what} did not happen within {within:.0f} s"
                raise StartError(with_log(problem, self.log(name)))
            time.sleep(LOOK_EVERY)

    def stop(self, name: str, seconds: float = STOP_SECONDS) -> None:
        """End a program, kindly at first, and forget it."""
        self.stop_all([name], seconds)

    def stop_all(self, names: Sequence[str], seconds: float = STOP_SECONDS) -> None:
        """End programs at the same time; one that does not listen is killed after ``seconds``."""
        running = {name: identity for name in names if (identity := self.identity(name))}
        for identity in running.values():
            identity.signal(signal.SIGTERM)
        self._kill(_wait_ended(running, seconds))
        self._forget(names)

    def kill_all(self, names: Sequence[str]) -> None:
        """End programs as if the machine had lost its power."""
        self._kill({name: identity for name in names if (identity := self.identity(name))})
        self._forget(names)

    def _kill(self, running: Mapping[str, Identity]) -> None:
        for identity in running.values():
            identity.signal(signal.SIGKILL)
        left = _wait_ended(running, KILL_SECONDS)
        if left:
            raise StartError(
                f"still running {KILL_SECONDS:.0f} s after SIGKILL: "
                + ", ".join(f"{name} (pid {identity.pid})" for name, identity in left.items())
            )

    def _forget(self, names: Sequence[str]) -> None:
        for name in names:
            (self.records / f"{name}.json").unlink(missing_ok=True)

    def _record(self, name: str) -> _Record | None:
        try:
            record = json.loads((self.records / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return _Record(Identity(**record["identity"]), record["fingerprint"])


def _wait_for_tie(pid: int) -> None:
    """Wait the milliseconds until setpriv has become the program: from then on the tie holds."""
    with contextlib.suppress(OSError):
        while Path(f"/proc/{pid}/comm").read_text() == "setpriv\n":
            time.sleep(0.002)


def _wait_ended(running: Mapping[str, Identity], seconds: float) -> dict[str, Identity]:
    """Wait until all have ended, and return those that have not when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        for identity in running.values():
            reap(identity.pid)
        left = {name: identity for name, identity in running.items() if identity.alive()}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(LOOK_EVERY / 4)
