"""Where versions are, learnt from notifications and remembered on the volume."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from model_poller.stores.uri import Location
from model_poller.versions import split_path
from model_poller.volume.journal import UNREADABLE
from model_poller.volume.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_log = logging.getLogger(__name__)


def learn(bucket: str, name: str) -> Location | None:
    """The folder that an object's version lies in; None for an object that is no version's.

    ``models/imagenet/0002.zip`` and ``models/imagenet/2/saved_model.pb`` both tell of
    ``models/imagenet``. So may logs: whether versions are there, only a look tells.
    """
    parts = name.split("/")
    for index in range(len(parts)):
        if split_path("/".join(parts[index:])):
            return Location(bucket, "/".join(parts[:index]))
    return None


def recall(file: Path) -> list[Location]:
    """The folders of earlier runs; none when nothing can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Location])
    except FileNotFoundError:
        return []
    except (OSError, *UNREADABLE) as error:
        _log.warning("%s can't be read (%s); where versions are is learnt anew", file, error)
        return []


def remember(file: Path, locations: Iterable[Location]) -> None:
    """Write the folders down for the next run; where that can't be, they are learnt anew."""
    try:
        write_atomically(file, msgspec.json.encode(list(locations)))
    except OSError as error:
        _log.warning("%s can't be written (%s); it is learnt anew", file, error)
