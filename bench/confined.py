"""A program in a memory cgroup of its own, as in a container with a limit."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Confinement:
    """Where the program has to go, and what is known of it then."""

    folder: Path
    prefix: tuple[str, ...]
    """What stands in front of the program's arguments."""
    peak_file: str

    @property
    def peak_mb(self) -> float:
        """The most that was counted: its own memory and what the system keeps of its files."""
        return int((self.folder / self.peak_file).read_text()) / 1e6


@contextmanager
def limited(limit: int) -> Iterator[Confinement | None]:
    """A cgroup for so many bytes; None where this user can't have one."""
    is_second = (_ROOT / "cgroup.controllers").exists()
    parent = _ROOT if is_second else _ROOT / "memory"
    folder = parent / f"inferencemodel-{os.getpid()}"
    names = (
        ("memory.max", "memory.peak")
        if is_second
        else (
            "memory.limit_in_bytes",
            "memory.max_usage_in_bytes",
        )
    )
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    try:
        try:
            (folder / names[0]).write_text(str(limit))
        except OSError:
            yield None
            return
        into = f'echo $$ > {folder}/cgroup.procs && exec "$@"'
        yield Confinement(folder, ("/bin/sh", "-c", into, "sh"), names[1])
    finally:
        with suppress(OSError):
            folder.rmdir()
