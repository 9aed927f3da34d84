"""What is mounted below the cluster's directories, and how to be rid of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.errors import DevclusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOUNTINFO = Path("/proc/self/mountinfo")
#: A mount point may be stacked on itself; more rounds than this mean that it can't be undone.
_ROUNDS = 10


def below(directories: Sequence[Path], mountinfo: str) -> list[str]:
    """The mount points in or at the directories, the deepest first."""
    found = [_unescaped(line.split()[4]) for line in mountinfo.splitlines()]
    return sorted(
        (
            point
            for point in found
            if any(Path(point).is_relative_to(directory) for directory in directories)
        ),
        key=lambda point: (point.count("/"), point),
        reverse=True,
    )


def is_mounted(place: Path) -> bool:
    """Whether something is mounted just there."""
    return str(place) in below([place], _MOUNTINFO.read_text())


def unmount_below(*directories: Path) -> None:
    """Unmount all that is mounted in or at the directories.

    Raises:
        DevclusterError: something stays mounted.
    """
    for _ in range(_ROUNDS):
        points = below(directories, _MOUNTINFO.read_text())
        if not points:
            return
        # Lazily: a mount point that something still looks into goes as soon as that ends.
        subprocess.run(["umount", "--lazy", *points], capture_output=True, check=False)
    left = below(directories, _MOUNTINFO.read_text())
    if left:
        raise DevclusterError(f"can't unmount {', '.join(left)}: see `findmnt`")


def _unescaped(point: str) -> str:
    # The kernel writes blanks and the like as three octal digits.
    return point.encode().decode("unicode_escape") if "\\" in point else point
