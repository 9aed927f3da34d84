"""One version's way from the source to the volume."""

from __future__ import annotations

import errno
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from model_poller import archive, integrity
from model_poller.core import fetch_size
from model_poller.errors import BrokenVersionError, IncompleteVersionError, InsufficientDiskError
from model_poller.fetch import download
from model_poller.metrics import METRICS
from model_poller.paths import Names
from model_poller.store import Record

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_poller.sources import Source
    from model_poller.store import Store
    from model_poller.versions import StoredVersion

_log = logging.getLogger(__name__)


def bring(
    source: Source,
    store: Store,
    stored: StoredVersion,
    *,
    stopped: threading.Event,
    progress: Callable[[int], None],
    limits: archive.Limits,
) -> None:
    """Fetch, check and keep one version; afterwards it is complete on the volume.

    Raises:
        BrokenVersionError: these objects will never do.
        IncompleteVersionError: a folder lacks a file.
        InsufficientDiskError, CorruptDownloadError, ObjectChangedError, AccessDeniedError,
        UnreachableError, StoppedError, OSError
    """
    begin = time.monotonic()
    store.require(fetch_size(stored))
    staged = store.stage(stored.version)
    try:
        model = (_bring_archive if stored.is_archive else _bring_folder)(
            source, store, stored, staged, stopped, progress, limits
        )
        with _step("sync"):
            store.adopt(model, Record(stored.version, stored.fingerprint))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InsufficientDiskError(
            f"the model volume became full while version {stored.version} was written; it is"
            " tried again when there is room: enlarge the volume or retain fewer versions",
            fetch_size(stored),
        ) from error
    finally:
        store.discard(staged)
    _log.info(
        "fetched version %d: %d bytes in %.2f s",
        stored.version,
        stored.size,
        time.monotonic() - begin,
    )


def _bring_archive(
    source: Source,
    store: Store,
    stored: StoredVersion,
    staged: Path,
    stopped: threading.Event,
    progress: Callable[[int], None],
    limits: archive.Limits,
) -> Path:
    bundle, tree = staged / "archive", staged / "tree"
    origin = stored.objects[0].url
    with _step("download"):
        download(source, {bundle: stored.objects[0]}, stopped=stopped, progress=progress)
    try:
        with _step("unpack"), bundle.open("rb") as packed:
            archive.unpack(
                packed,
                stored.size,
                tree,
                origin=origin,
                room=store.require,
                stopped=stopped.is_set,
                limits=limits,
            )
    except InsufficientDiskError as error:
        raise InsufficientDiskError(str(error), error.needed + stored.size) from error
    bundle.unlink()
    model = archive.find_model(tree, stored.version, origin)
    try:
        with _step("verify"):
            integrity.check_folder(model, may_grow=False)
    except IncompleteVersionError as error:
        # An archive is uploaded whole: what it lacks will not come later.
        raise BrokenVersionError(error.reason, f"{origin}: {error}") from error
    return model


def _bring_folder(
    source: Source,
    store: Store,  # noqa: ARG001
    stored: StoredVersion,
    staged: Path,
    stopped: threading.Event,
    progress: Callable[[int], None],
    limits: archive.Limits,  # noqa: ARG001
) -> Path:
    model = staged / "tree"
    model.mkdir()
    names = Names(stored.folder)
    targets = {}
    for member in stored.objects:
        name = member.path.partition("/")[2]
        names.add_file(name)
        targets[model / name] = member
    with _step("download"):
        download(source, targets, stopped=stopped, progress=progress)
    with _step("verify"):
        integrity.check_folder(model, may_grow=True)
    return model


@contextmanager
def _step(name: str) -> Iterator[None]:
    with METRICS.step_seconds.labels(name).time():
        yield
