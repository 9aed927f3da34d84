"""Pollers that bring versions from a bucket on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from pathlib import Path

    from demo.storage import Storage


class Pods:
    """Pollers, each with a volume of its own."""

    def __init__(self, storage: Storage, root: Path) -> None:
        self._storage = storage
        self._root = root
        self._all: list[Program] = []

    def start(self, *more: str, name: str = "pod") -> Program:
        folder = self._root / name
        folder.mkdir(exist_ok=True)
        program = Program(
            folder,
            f"--models-dir={folder}/models",
            "--model-name=imagenet",
            "--storage-uri=gs://models/imagenet",
            f"--endpoint={self._storage.url}",
            "--anonymous",
            "--server-address=127.0.0.1:9",
            f"--pubsub-endpoint={self._storage.pubsub}",
            *more,
        )
        self._all.append(program)
        return program

    def base(self, name: str = "pod") -> Path:
        return self._root / name / "models/imagenet"

    def stop(self) -> None:
        for program in self._all:
            program.kill()
