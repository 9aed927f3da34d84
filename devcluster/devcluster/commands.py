"""Runs the system's programs, each for moments only."""

from __future__ import annotations

import subprocess

from devcluster.errors import StartError

#: Seconds that one may take.
SECONDS = 60.0


def run(*argv: str, stdin: str | None = None) -> str:
    """Run a program and return what it printed.

    Raises:
        StartError: it failed, or took longer than ``SECONDS``.
    """
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise StartError(f"{' '.join(argv)}: not done within {SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise StartError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
