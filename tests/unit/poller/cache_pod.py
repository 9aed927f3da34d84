"""A pod that brings one version, with a cache: as a program, which can be killed anywhere.

Usage: python -m tests.unit.poller.cache_pod CACHE FOLDER STORE_LOG [PHASE]

Each range that is asked of the store is a line in STORE_LOG. In PHASE the program says so and goes
no further.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_poller.bring import Bringer
from model_poller.cache import beats, copying, session, shared
from model_poller.cache.folder import Folder
from model_poller.cache.settings import CacheSettings
from model_poller.cache.shared import Cache
from model_poller.versions import StoredVersion, discover
from model_poller.volume.store import Store
from tests.unit.poller.doubles import MemorySource, model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHARD = "variables/variables.data-00000-of-00001"
FILES = {**model(), SHARD: b"0123456789abcdef" * 300_000}
"""4.8 MB, so that it takes several steps to copy."""


def hurry(put: Callable[[Any, str, object], None] = setattr) -> None:
    """Have less patience than in a cluster, in about the same proportions."""
    for module, name, value in (
        (beats, "BEAT_SECONDS", 0.1),
        (beats, "DEAD_SECONDS", 1.5),
        (beats, "IDLE_SECONDS", 3.0),
        (session, "LOOK_SECONDS", 0.05),
        (shared, "STUCK_SECONDS", 0.5),
        (shared, "AGAIN_SECONDS", 0.5),
    ):
        put(module, name, value)


class CountedStore(MemorySource):
    """A bucket that writes down what it is asked for."""

    def __init__(self, log: Path | None) -> None:
        super().__init__()
        self._log = log
        self.put_all({f"1/{name}": content for name, content in FILES.items()})

    @contextmanager
    def open_range(self, stored: Any, start: int, length: int) -> Iterator[Any]:
        if self._log:
            with self._log.open("a") as log:
                log.write(f"{stored.path} {start}\n")
        with super().open_range(stored, start, length) as body:
            yield body


def version(source: MemorySource, number: int = 1) -> StoredVersion:
    """The version as two looks show it."""
    found = discover(source.list(), {})
    return discover(source.list(), {n: v.fingerprint for n, v in found.items()})[number]


def pod(cache: Path, folder: Path, source: MemorySource, **settings: Any) -> Bringer:
    """What a pod has: a volume of its own, and the cache."""
    store = Store(folder / "models" / "imagenet", folder / "models")
    store.prepare()
    made = Cache(CacheSettings(cache, pod=folder.name, **settings))
    return Bringer(source, store, cache=made)


def bring(kit: Bringer, number: int = 1, *, seconds: float = 30.0) -> None:
    """Bring the version, and wait until the cache has it too."""
    kit.bring(
        version(kit.source, number),  # type: ignore[arg-type]
        stopped=threading.Event(),
        progress=lambda _: None,
    )
    assert kit.cache is not None
    until = time.monotonic() + seconds
    kit.cache.join(seconds)
    # On a busy machine a disk that is well takes longer for an answer than is waited for here.
    while kit.cache.status.storing and time.monotonic() < until:
        time.sleep(0.02)


def _stop_in(phase: str) -> None:
    """Go no further than that."""

    def stop(*_: object, **__: object) -> Any:
        sys.stdout.write("there\n")
        sys.stdout.flush()
        time.sleep(3600)

    published = Folder.publish

    def publish(self: Folder, incoming: Path, key: str) -> Any:
        published(self, incoming, key)
        return stop()

    def at_its_first_bytes(copy: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, progress, **more: copy(*given, progress=stop, **more)

    place: tuple[Any, str, Any] = {
        "fetching": (CountedStore, "open_range", stop),
        "storing": (session, "copy_in", at_its_first_bytes(copying.copy_in)),
        "describing": (Folder, "publish", stop),
        "published": (Folder, "publish", publish),
        "copying": (session, "copy_out", at_its_first_bytes(copying.copy_out)),
    }[phase]
    setattr(*place)


def main() -> None:
    """Bring it."""
    hurry()
    cache, folder, log = map(Path, sys.argv[1:4])
    if len(sys.argv) > 4:
        _stop_in(sys.argv[4])
    folder.mkdir(exist_ok=True)
    bring(pod(cache, folder, CountedStore(log)))
    sys.stdout.write("done\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
