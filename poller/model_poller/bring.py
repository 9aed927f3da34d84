"""One version's way from the source to the volume."""

from __future__ import annotations

import io
import logging
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import msgspec

from model_poller.archives import archive, decoding
from model_poller.archives.paths import Names
from model_poller.archives.unpacking import Limits
from model_poller.checks import version_files
from model_poller.errors import (
    AccessDeniedError,
    BrokenVersionError,
    CorruptDownloadError,
    IncompleteVersionError,
    InsufficientDiskError,
    StoppedError,
    UnreachableError,
    WarmupUnavailableError,
)
from model_poller.fetch import Download, FetchLimits, download
from model_poller.metrics import METRICS
from model_poller.model_server import warmup
from model_poller.planner import fetch_size
from model_poller.volume.journal import Journal
from model_poller.volume.store import FULL, RESERVE_FILES, Record

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_poller.cache.shared import Cache
    from model_poller.cache.shared import Visit as Cached
    from model_poller.checks.signature import PublicKey
    from model_poller.model_server.warmup import WarmupRequests
    from model_poller.stores import Source
    from model_poller.versions import StoredVersion
    from model_poller.volume.store import Store

_log = logging.getLogger(__name__)

_RESUMABLE = (
    UnreachableError,
    StoppedError,
    WarmupUnavailableError,
    AccessDeniedError,
    CorruptDownloadError,
)
"""After these, what is on the disk already is worth keeping for the next try."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What a version has to come with, and what it gets."""

    manifest: bool = False
    """Whether it needs a SHA256SUMS; one that is there is always checked."""
    public_key: PublicKey | None = None
    """Which has to have signed it."""
    marker: str | None = None
    """The file that ends an upload, which the manifest can't list."""
    warmup: WarmupRequests | None = None
    model: str = ""
    """The name that it is served under; a signature may be for this one, wherever it is stored."""


@dataclass(frozen=True, slots=True)
class Bringer:
    """Brings versions from a source to a store, one at a time."""

    source: Source
    store: Store
    demands: Demands = field(default_factory=Demands)
    fetch_limits: FetchLimits = field(default_factory=FetchLimits)
    archive_limits: Limits = field(default_factory=Limits)
    cache: Cache | None = None
    """What other pods have fetched, and where this one puts what it fetches."""
    files: dict[str, int] = field(default_factory=dict)
    """The least inodes that an archive needs, by fingerprint: what a try took that had too few."""

    @property
    def links(self) -> bool:
        """Whether a folder version is shown by a link to the mounted volume that it is on.

        What a link shows can be changed after the check, so what is signed is copied.
        """
        return self.source.mount is not None and not self.demands.public_key

    def bring(
        self,
        stored: StoredVersion,
        *,
        stopped: threading.Event,
        progress: Callable[[int], None],
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Fetch, check and keep one version; afterwards it is complete on the volume.

        After a failure that heals, the next call for the same objects goes on where this one ended,
        in this process or another. ``progress`` is told how many bytes came, from any thread, and
        ``note`` what else goes on.

        Raises:
            BrokenVersionError: these objects will never do.
            IncompleteVersionError: a folder lacks a file.
            InsufficientDiskError, CorruptDownloadError, ObjectChangedError, AccessDeniedError,
            UnreachableError, StoppedError, WarmupUnavailableError, OSError
        """
        begin = time.monotonic()
        try:
            staged = self.store.stage(stored.version, stored.fingerprint)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise self._full(stored) from error
        try:
            if self.cache is None or self.source.mount is not None:
                _Visit(self, stored, staged, stopped, progress).run()
            else:
                for left in staged.glob("cached-*"):
                    self.store.discard(left)
                room = self.store.require
                with self.cache.visit(stored, staged, room, stopped, progress, note) as cached:
                    _Visit(self, stored, staged, stopped, cached.fetched, cached).run()
        except _RESUMABLE:
            self.store.leave(staged)
            raise
        except InsufficientDiskError as error:
            if error.needed:
                self.store.discard(staged)
            else:
                self._keep_archive(stored, staged)
            raise
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise self._full(stored, staged) from error
            self.store.discard(staged)
            raise
        self.store.discard(staged)
        _log.info(
            "fetched version %d: %d bytes in %.2f s",
            stored.version,
            stored.size,
            time.monotonic() - begin,
        )

    def _full(self, stored: StoredVersion, staged: Path | None = None) -> InsufficientDiskError:
        """The error for a volume that became full; what the next try can't use is gone then."""
        inodes, counted = self.store.inodes()
        if not counted or inodes >= RESERVE_FILES:
            if staged is not None:
                self.store.discard(staged)
            return InsufficientDiskError(
                f"the model volume became full while version {stored.version} was written; it"
                " is tried again when there is room: enlarge the volume or retain fewer"
                " versions",
                fetch_size(stored),
            )
        if staged is not None:
            self._keep_archive(stored, staged)
        try:
            self.store.require(0, self.files.get(stored.fingerprint, len(stored.objects)))
        except InsufficientDiskError as error:
            return error
        return InsufficientDiskError("the model volume had no inodes left; it is tried again", 0)

    def _keep_archive(self, stored: StoredVersion, staged: Path) -> None:
        """Where inodes lack: only what comes out of an archive needs them."""
        tree = staged / "tree"
        count = sum(1 for _ in tree.rglob("*")) + 1
        self.files[stored.fingerprint] = max(count, self.files.get(stored.fingerprint, 0))
        self.store.discard(tree)
        self.store.leave(staged)


@dataclass(frozen=True, slots=True)
class _Visit:
    """One call of `Bringer.bring`."""

    kit: Bringer
    stored: StoredVersion
    staged: Path
    stopped: threading.Event
    progress: Callable[[int], None]
    cached: Cached | None = None
    """The same version in the cache, if there is a cache."""

    def run(self) -> None:
        store, stored = self.kit.store, self.stored
        places = self.kit.source.locations
        # The list of a web server names objects beside itself, where nobody was told to look.
        place = places[0] if len(places) == 1 else stored.objects[0].root
        record = Record(stored.version, stored.fingerprint, place.uri)
        mount = self.kit.source.mount
        if mount and self.kit.links and not stored.is_archive:
            self._link(mount / stored.folder, msgspec.structs.replace(record, linked=True))
            return
        model = self._obtain() or self._fetch()
        if self.kit.demands.warmup:
            self.kit.demands.warmup.put(model, room=store.require, stopped=self.stopped)
        # Of no use any more, so the disk needn't write it.
        for used in ("archive", "decoded"):
            (self.staged / used).unlink(missing_ok=True)
        with _step("sync"):
            store.adopt(model, record)

    def _obtain(self) -> Path | None:
        """The version from the cache, checked as what is fetched is."""
        if self.cached is None or (model := self.cached.obtain()) is None:
            return None
        try:
            with _step("verify"):
                self._check(model)
        except (BrokenVersionError, IncompleteVersionError) as error:
            # Of a version only what the source itself gives is believed.
            _log.info("what the cache has isn't taken, and the source is asked: %s", error)
            self.cached.distrust(model)
            return None
        return model

    def _fetch(self) -> Path:
        model = self._archive() if self.stored.is_archive else self._folder()
        if self.cached is not None:
            # Before anything is put into it for this pod alone.
            self.cached.keep(model)
        return model

    def _link(self, folder: Path, record: Record) -> None:
        names = Names(self.stored.folder)
        for member in self.stored.objects:
            names.add_file(member.path.partition("/")[2])
        with _step("verify"):
            self._check(folder)
            for member in self.stored.objects:
                # What was checked is what was listed, and still there.
                self.kit.source.describe(member)
        if not self.kit.demands.warmup:
            self.kit.store.adopt_link(folder, record)
            return
        shown = self.staged / "tree"
        shutil.rmtree(shown, ignore_errors=True)
        warmup.overlay(folder, shown)
        self.kit.demands.warmup.put(shown, room=self.kit.store.require, stopped=self.stopped)
        self.kit.store.adopt(shown, record)

    def _archive(self) -> Path:
        stored, store = self.stored, self.kit.store
        bundle, tree = self.staged / "archive", self.staged / "tree"
        # Unpacking is faster than knowing how far it came.
        shutil.rmtree(tree, ignore_errors=True)
        there = bundle.stat().st_blocks * 512 if bundle.exists() else 0
        store.require(fetch_size(stored) - there, self.kit.files.get(stored.fingerprint, 0))
        origin = stored.objects[0].url
        with (
            Journal(self.staged) as journal,
            Download(
                self.kit.source,
                {bundle: stored.objects[0]},
                stopped=self.stopped,
                progress=self.progress,
                limits=self.kit.fetch_limits,
                journal=journal,
                tail_first=origin.endswith(".zip"),
            ) as running,
        ):
            try:
                with io.BufferedReader(running.arriving(bundle)) as arriving:
                    self._unpack(arriving, stored.size, tree)
            except BrokenVersionError:
                # Only if the bytes are the stored ones is it the version's fault.
                running.finish()
                # Of an archive that is gzip by its own name, often just that is said.
                if not (running.described(bundle).is_gzipped and decoding.is_gzip(bundle)):
                    raise
                plain = self.staged / "decoded"
                self._decode(bundle, plain, origin)
                shutil.rmtree(tree, ignore_errors=True)
                with plain.open("rb") as decoded:
                    self._unpack(decoded, plain.stat().st_size, tree)
            except InsufficientDiskError as error:
                if not error.needed:
                    raise
                raise InsufficientDiskError(str(error), error.needed + stored.size) from error
            with _step("download"):
                running.finish()
        model = archive.find_model(tree, stored.version, origin)
        with _step("verify"):
            self._check(model)
        return model

    def _folder(self) -> Path:
        stored = self.stored
        model = self.staged / "tree"
        there = sum(file.stat().st_blocks * 512 for file in model.rglob("*") if file.is_file())
        self.kit.store.require(fetch_size(stored) - there, len(stored.objects))
        names = Names(stored.folder)
        targets = {}
        for member in stored.objects:
            name = member.path.partition("/")[2]
            names.add_file(name)
            targets[model / name] = member
        for path in model.rglob("*"):
            expected = targets.get(path)
            if path.is_file() and (not expected or path.stat().st_size > expected.size):
                # What an earlier try added or unpacked, perhaps not to its end.
                path.unlink()
        with _step("download"), Journal(self.staged) as journal:
            described = download(
                self.kit.source,
                targets,
                stopped=self.stopped,
                progress=self.progress,
                limits=self.kit.fetch_limits,
                journal=journal,
            )
        with _step("unpack"):
            packed = self.staged / "packed"
            for path, member in described.items():
                if member.is_gzipped:
                    path.rename(packed)
                    self._decode(packed, path, member.url)
                    packed.unlink()
        with _step("verify"):
            self._check(model)
        return model

    def _unpack(self, bundle: IO[bytes], size: int, tree: Path) -> None:
        with _step("unpack"):
            archive.unpack(
                bundle,
                size,
                tree,
                origin=self.stored.objects[0].url,
                room=self.kit.store.require,
                stopped=self._is_stopped,
                limits=self.kit.archive_limits,
            )

    def _decode(self, packed: Path, plain: Path, origin: str) -> None:
        decoding.decode(
            packed,
            plain,
            origin=origin,
            room=self.kit.store.require,
            stopped=self._is_stopped,
            limits=self.kit.archive_limits,
        )

    def _is_stopped(self) -> bool:
        """Asked at each step of unpacking and checking, so others see by it that these go on."""
        if self.cached is not None:
            self.cached.goes_on()
        return self.stopped.is_set()

    def _check(self, model: Path) -> None:
        demands, stored = self.kit.demands, self.stored
        first = stored.objects[0]
        where = first.url if stored.is_archive else first.root.child(stored.folder)
        claim = version_files.Claim(
            stored.version,
            {first.root.model, demands.model},
            demands.manifest,
            demands.public_key,
            demands.marker,
        )
        # An archive is uploaded whole: what it lacks will not come later.
        may_grow = not stored.is_archive
        try:
            version_files.check(model, claim, may_grow=may_grow, stopped=self._is_stopped)
        except IncompleteVersionError as error:
            kind = IncompleteVersionError if may_grow else BrokenVersionError
            raise kind(error.reason, f"{where}: {error}") from error
        except BrokenVersionError as error:
            raise BrokenVersionError(error.reason, f"{where}: {error}") from error


@contextmanager
def _step(name: str) -> Iterator[None]:
    with METRICS.step_seconds.labels(name).time():
        yield
