"""A command of the plugin that goes on until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Self

from tests.support.waiting import eventually


class Command:
    """A process of its own, as Ctrl-C is a signal and a terminal is a file."""

    def __init__(self, *arguments: str, terminal: bool = False) -> None:
        self._near, far = os.openpty() if terminal else os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kubectl_inferencemodel", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=far,
            stderr=subprocess.PIPE,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "15"},
        )
        os.close(far)
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *of: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._reader.join()
        os.close(self._near)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while part := os.read(self._near, 1 << 16):
                self.shown += part.decode()

    def until(self, words: str) -> None:
        """Wait until it has shown something."""
        eventually(lambda: words in self.shown, what=f"{words!r} in {self.shown!r}", within=30)

    def interrupt(self) -> str:
        """Press Ctrl-C; what it has printed on standard error."""
        self._process.send_signal(signal.SIGINT)
        return self.end(130)

    def end(self, code: int) -> str:
        """Wait until it has ended with a code; what it has printed on standard error."""
        _, err = self._process.communicate(timeout=30)
        assert self._process.returncode == code, err
        self._reader.join()
        return err.decode()
