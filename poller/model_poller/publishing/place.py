"""Whether a storage URI is a folder for versions, or already one of another model's."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from model_poller.checks.integrity import GRAPH_FILES
from model_poller.errors import InvalidSettingsError, PollerError
from model_poller.stores import Entry
from model_poller.versions import ARCHIVE_ENDINGS, parse_number, split_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_poller.publishing.destination import Destination
    from model_poller.stores.uri import Location


def check_place(destination: Destination, opened: Callable[[Location], Destination]) -> None:
    """Refuse a URI below which no poller would look for the versions.

    ``opened`` is the destination at another place; asked only where the URI's last part is a
    number, for the folder above it.

    Raises:
        InvalidSettingsError
        Whatever listing ``destination`` raises.
    """
    (location,) = destination.locations
    above, _, last = location.prefix.rpartition("/")
    if last.lower().endswith(ARCHIVE_ENDINGS):
        raise InvalidSettingsError(
            f"{location.uri} is the name of an archive; give the folder that holds the versions,"
            f" {replace(location, prefix=above).uri}, and --version=N for a number of your own"
        )
    parent = replace(location, prefix=above)
    number, beside = parse_number(last), None
    if number is not None:
        # Who may not look there, or finds nothing, has a folder that is called so.
        with suppress(PollerError), closing(opened(parent)) as there:
            beside = next(filter(_is_version, _paths(there)), None)
    if beside:
        raise InvalidSettingsError(
            f"{location.uri} is where version {number} of {parent.uri} would be, which holds"
            f" {beside.partition('/')[0]}; give {parent.uri} and --version={number}"
        )
    if any(name in GRAPH_FILES for name in _names(destination)):
        raise InvalidSettingsError(
            f"{location.uri} is a SavedModel itself; give the folder that holds the versions"
        )


def _names(destination: Destination) -> Iterator[str]:
    """What lies right below the place."""
    if destination.mount:
        yield from (name for name in GRAPH_FILES if (destination.mount / name).is_file())
    for item in destination.survey():
        yield item.name if isinstance(item, Entry) else item.path


def _paths(destination: Destination) -> Iterator[str]:
    """What may belong to versions."""
    for item in destination.survey():
        if not isinstance(item, Entry):
            yield item.path
        elif not item.is_folder:
            yield item.name
        elif split_path(f"{item.name}/file"):
            yield from (stored.path for stored in destination.files(item))


def _is_version(path: str) -> bool:
    """Whether an object makes its folder one of versions: an archive, or a version's graph."""
    _, _, rest = path.partition("/")
    return split_path(path) is not None and (not rest or rest in GRAPH_FILES)
