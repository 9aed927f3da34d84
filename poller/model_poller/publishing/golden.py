"""Golden records that a pipeline gives beside an export: put into the version that is published."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from model_poller.errors import InvalidSettingsError
from model_poller.model_server import records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def put(golden: Path, staged: Path) -> str:
    """Put records into a staged version, behind those that it has, each of them once.

    What is staged as a link is replaced: the export itself stays as it is. The version's own file
    has been checked.

    Returns:
        What was done, for a person.

    Raises:
        InvalidSettingsError: they can't be used, or are too many; says why.
        OSError
    """
    try:
        if golden.stat().st_size > records.MAX_BYTES:
            raise ValueError(f"it has more than {records.MAX_BYTES >> 20} MiB")
        answered = records.check(golden)
        if not answered:
            raise ValueError(
                "no record in it carries an answer; make them with `kubectl inferencemodel record`"
            )
        given = list(_contents(golden))
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise InvalidSettingsError(f"--golden={golden} can't be used: {told}") from error
    target = staged / records.FOLDER / records.FILE
    own = list(_contents(target)) if target.exists() else []
    whole = [*own, *(content for content in dict.fromkeys(given) if content not in set(own))]
    made = b"".join(records.framed(content) for content in whole)
    if len(whole) > records.MAX_RECORDS or len(made) > records.MAX_BYTES:
        raise InvalidSettingsError(
            f"--golden={golden} can't be used: with the {len(own)} warm-up requests of the export"
            f" there are {len(whole)} records of {len(made)} bytes; a model server takes"
            f" {records.MAX_RECORDS}, a poller {records.MAX_BYTES} bytes: give fewer"
        )
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    target.write_bytes(made)
    # By the poller's own eyes.
    total = records.check(target)
    return (
        f"{len(whole) - len(own)} records of {golden} are put into {records.FOLDER}/{records.FILE},"
        f" which has {len(whole)} now, {total} of them with an answer"
    )


def _contents(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for place in records.records(data):
            yield data[place.start : place.stop]
