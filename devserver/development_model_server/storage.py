"""Finding versions: what lies in a base path, and which of it a model's policy wants.

The rules are those of TensorFlow Serving's ``FileSystemStoragePathSource``. Two of them surprise:
an entry is a version by its name alone, even a file; and one base path that is missing ends the
look for every model of the server.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from development_model_server.errors import Code, ServingError, invalid_argument
from development_model_server.servable import ServableId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_logger = logging.getLogger(__name__)

Aspired = list[tuple[ServableId, str]]


@dataclass(frozen=True)
class LatestPolicy:
    """The highest ``num_versions`` versions; 0 means 1."""

    num_versions: int = 1


@dataclass(frozen=True)
class AllPolicy:
    """Every version."""


@dataclass(frozen=True)
class SpecificPolicy:
    """These versions, as far as they are there."""

    versions: tuple[int, ...] = ()


Policy = LatestPolicy | AllPolicy | SpecificPolicy


@dataclass(frozen=True)
class MonitoredModel:
    """A model whose base path is looked into."""

    name: str
    base_path: str
    policy: Policy = LatestPolicy()


def parse_version(entry: str) -> int | None:
    """Read a folder's name as absl's SimpleAtoi does: ``0001`` is 1, ``v1`` is none."""
    if not re.fullmatch(r"[ \t\n\v\f\r]*[+-]?[0-9]+[ \t\n\v\f\r]*", entry):
        return None
    version = int(entry)
    return version if -(2**63) <= version < 2**63 else None


def join(folder: str, entry: str) -> str:
    """Join paths with one slash between them."""
    return f"{folder.rstrip('/')}/{entry}"


def aspired_versions(model: MonitoredModel) -> Aspired:
    """Look into a base path; return what the policy wants of it.

    Raises:
        ServingError: the base path isn't there or can't be listed.
    """
    if not os.path.exists(model.base_path):  # noqa: PTH110 - the path is a string throughout
        raise invalid_argument(
            f"Could not find base path {model.base_path} for servable {model.name} with error"
            f" NOT_FOUND: {model.base_path} not found"
        )
    if isinstance(model.policy, SpecificPolicy):
        direct = _by_canonical_name(model, model.policy)
        if direct is not None:
            return direct
    entries = list_folder(model.base_path)
    found = _select(model, entries)
    if not found:
        _logger.warning(
            "No versions of servable %s found under base path %s. Did you forget to name your leaf"
            " directory as a number (eg. '/1/')?",
            model.name,
            model.base_path,
        )
    return found


def list_folder(path: str) -> list[str]:
    """The names in a folder, sorted by their bytes.

    Raises:
        ServingError: it can't be listed; the code and message are those of TensorFlow's file
            system.
    """
    try:
        return sorted(os.listdir(path), key=os.fsencode)  # noqa: PTH208
    except OSError as error:
        code = _ERRNO_CODES.get(type(error), Code.UNKNOWN)
        raise ServingError(code, f"{path}; {error.strerror}") from error


_ERRNO_CODES: dict[type[OSError], Code] = {
    FileNotFoundError: Code.NOT_FOUND,
    PermissionError: Code.PERMISSION_DENIED,
    NotADirectoryError: Code.FAILED_PRECONDITION,
    IsADirectoryError: Code.FAILED_PRECONDITION,
}


def _by_canonical_name(model: MonitoredModel, policy: SpecificPolicy) -> Aspired | None:
    """The versions of a specific policy, if each lies under its number without leading zeros."""
    if not policy.versions:
        _logger.warning("No specific versions requested for servable %s.", model.name)
        return []
    paths = [(version, join(model.base_path, str(version))) for version in policy.versions]
    if not all(os.path.exists(path) for _, path in paths):  # noqa: PTH110
        return None
    return [(ServableId(model.name, version), path) for version, path in paths]


def _select(model: MonitoredModel, entries: Sequence[str]) -> Aspired:
    numbered = [
        (version, entry) for entry in entries if (version := parse_version(entry)) is not None
    ]
    by_version: dict[int, str] = {}
    for version, entry in numbered:
        if version in by_version:
            _logger.warning(
                "Duplicate version directories detected. Version %d will be loaded from %s, %s will"
                " be ignored.",
                version,
                entry,
                by_version[version],
            )
        by_version[version] = entry
    chosen: Sequence[tuple[int, str]]
    match model.policy:
        case AllPolicy():
            chosen = numbered
        case LatestPolicy(count):
            highest = sorted(by_version, reverse=True)[: max(count, 1)]
            chosen = [(version, by_version[version]) for version in highest]
        case SpecificPolicy(versions):
            chosen = [item for item in sorted(by_version.items()) if item[0] in versions]
            for version in sorted(set(versions) - set(by_version)):
                _logger.warning(
                    "Version %d of servable %s, which was requested to be served as a 'specific'"
                    " version in the servable's version policy, was not found in the file system",
                    version,
                    model.name,
                )
    return [
        (ServableId(model.name, version), join(model.base_path, entry)) for version, entry in chosen
    ]


class FileSystemSource:
    """Looks into every model's base path again and again, and tells what is wanted."""

    def __init__(self, poll_wait_seconds: int, aspire: Callable[[str, Aspired], None]) -> None:
        """Make a source that is not started yet.

        Args:
            poll_wait_seconds: seconds between two looks; 0 looks once, negative never.
            aspire: is told each model's wanted versions.
        """
        self._poll_wait_seconds = poll_wait_seconds
        self._aspire = aspire
        self._lock = threading.Lock()
        self._models: tuple[MonitoredModel, ...] = ()
        self._thread = threading.Thread(target=self._loop, name="file-system", daemon=True)

    @property
    def names(self) -> set[str]:
        """The models that are looked for."""
        return {model.name for model in self._models}

    def update(self, models: Sequence[MonitoredModel]) -> None:
        """Look for other models from now on; those left out are wanted no more at once."""
        with self._lock:
            dropped = self.names - {model.name for model in models}
            self._models = tuple(models)
            for name in sorted(dropped):
                self._aspire(name, [])

    def start(self) -> None:
        """Start looking, at once."""
        if self._poll_wait_seconds >= 0:
            self._thread.start()

    def poll(self) -> None:
        """Look once. A failure at one model means that no model is told anything."""
        with self._lock:
            try:
                aspired = {model.name: aspired_versions(model) for model in self._models}
            except ServingError as error:
                _logger.error(  # noqa: TRY400 - the message says it all
                    "FileSystemStoragePathSource encountered a filesystem access error: %s",
                    error.message,
                )
                return
            for name in sorted(aspired):
                self._aspire(name, aspired[name])

    def _loop(self) -> None:
        due = time.monotonic()
        while True:
            self.poll()
            if not self._poll_wait_seconds:
                return
            due = max(due + self._poll_wait_seconds, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
