"""Where versions are, learnt from notifications and remembered on the volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from model_poller.stores.uri import Location
from model_poller.versions import split_path
from model_poller.volume.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def learn(bucket: str, name: str) -> Location | None:
    """The folder that an object's version lies in; None for an object that is no version's.

    ``models/imagenet/0002.zip`` and ``models/imagenet/2/saved_model.pb`` both tell of
    ``models/imagenet``.
    """
    parts = name.split("/")
    for index in range(len(parts)):
        if split_path("/".join(parts[index:])):
            return Location(bucket, "/".join(parts[:index]))
    return None


def recall(file: Path) -> list[Location]:
    """The folders of earlier runs; none when nothing was written."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Location])
    except (FileNotFoundError, msgspec.DecodeError):
        return []


def remember(file: Path, locations: Iterable[Location]) -> None:
    """Write the folders down for the next run."""
    write_atomically(file, msgspec.json.encode(list(locations)))
