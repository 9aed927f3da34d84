"""The older form, which learns from messages where one model's versions are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from model_poller.errors import BucketNotFoundError
from model_poller.look import Looker
from model_poller.stores.credentials import Credentials
from model_poller.stores.learnt import LearntSource
from model_poller.stores.uri import Location
from model_poller.volume.places import learn, recall, remember
from tests.unit.poller.doubles import below, model, tarred, zipped
from tests.unit.poller.gcs_server import GcsServer
from tests.unit.poller.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_poller.status import SourceStatus

A, B = Location("models", "a/resnet"), Location("models", "a/bert")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsServer]:
    with GcsServer() as running:
        yield running


@pytest.fixture
def start(bucket: GcsServer, tmp_path: Path) -> Iterator[Callable[..., LearntSource]]:
    opened: list[LearntSource] = []
    memory = tmp_path / "locations"

    def start(name: str = "resnet") -> LearntSource:
        opened.append(
            LearntSource(
                name,
                recall(memory),
                lambda place: remember(memory, [place]),
                endpoint=bucket.url,
                anonymous=True,
                credentials=Credentials(),
            )
        )
        return opened[-1]

    yield start
    for source in opened:
        source.close()


def upload(bucket: GcsServer, source: LearntSource, files: dict[str, bytes]) -> None:
    """As Pub/Sub tells of it: every object, each with its name."""
    for name, content in files.items():
        bucket.put(name, content)
        if place := learn("models", name):
            source.hear(place, name)


def look(source: LearntSource) -> set[str]:
    return {stored.path.partition("/")[0] for stored in source.list()}


@pytest.mark.parametrize(
    "files",
    [
        below("a/resnet/0002", model()),
        {"a/resnet/0002.zip": zipped(below("0002", model()))},
        {"a/resnet/2.zip": zipped(model())},
        {"a/resnet/2.tar": tarred(below("./2", model()), "w")},
        {"a/resnet/2.tar.gz": tarred(dict(reversed(model().items())))},
    ],
)
def test_a_folder_with_a_saved_model_is_learnt_and_remembered(
    bucket: GcsServer, start: Callable[..., LearntSource], files: dict[str, bytes]
) -> None:
    source = start()
    assert look(source) == set()
    upload(bucket, source, files)
    assert look(source)
    assert source.locations == (A,)
    assert start().locations == (A,)


@pytest.mark.parametrize(
    "files",
    [
        {"logs/2024/05/today.txt": b"log"},
        {"logs/2024/05/01.zip": zipped({"today.txt": b"log"})},
        {"backups/2024.zip": b"no archive at all"},
        {"backups/2024.tar.gz": tarred({"notes/1.txt": b""})},
        {"a/resnet/2/variables/variables.index": b"the graph comes last"},
    ],
)
def test_nothing_is_learnt_from_what_is_no_model(
    bucket: GcsServer, start: Callable[..., LearntSource], files: dict[str, bytes]
) -> None:
    source = start()
    upload(bucket, source, files)
    assert look(source) == set()
    assert not source.locations
    upload(bucket, source, below("a/resnet/2", model()))
    assert look(source) == {"2"}
    assert source.locations == (A,)


@pytest.mark.parametrize("name", ["resnet", "served"])
def test_another_model_in_the_bucket_is_refused_by_name_and_nothing_is_mixed_up(
    bucket: GcsServer,
    start: Callable[..., LearntSource],
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = start(name)
    world = World(tmp_path / "pod", source=source)
    upload(bucket, source, below("a/resnet/1", model(b"resnet")))
    world.settle(6)
    served = world.base()
    assert list(served) == ["1"]
    with caplog.at_level(logging.WARNING):
        upload(bucket, source, below("a/bert/7", model(b"bert")))
        world.settle(6)
    assert "gs://models/a/bert is not looked into" in caplog.text
    assert "--storage-uri=gs://models/a/bert" in caplog.text
    assert world.base() == served
    assert source.locations == (A,)
    # Told once.
    caplog.clear()
    upload(bucket, source, below("a/bert/8", model(b"bert")))
    world.settle(3)
    assert not caplog.text


def test_the_folder_of_the_models_own_name_is_the_right_one(
    bucket: GcsServer, start: Callable[..., LearntSource]
) -> None:
    source = start()
    upload(bucket, source, below("a/bert/7", model()))
    look(source)
    assert source.locations == (B,)
    upload(bucket, source, below("a/resnet/1", model()))
    look(source)
    assert source.locations == (A,)
    # It was there all the time.
    other = start("bert")
    other._locations = ()
    upload(bucket, other, below("a/resnet/2", model()))
    assert look(other) == set()
    upload(bucket, other, below("a/bert/8", model()))
    assert look(other) == {"7", "8"}


def test_an_absent_bucket_blinds_nobody(
    bucket: GcsServer, start: Callable[..., LearntSource]
) -> None:
    source = start()
    source.hear(Location("absent", "a/resnet"), "a/resnet/1/saved_model.pb")
    assert look(source) == set()
    upload(bucket, source, below("a/resnet/1", model()))
    assert look(source) == {"1"}


def test_a_bucket_that_is_gone_is_left_for_the_next_also_after_a_restart(
    bucket: GcsServer, start: Callable[..., LearntSource], tmp_path: Path
) -> None:
    remember(tmp_path / "locations", [Location("gone", "a/resnet"), Location("gone", "b")])
    source = start()
    assert source.locations == (Location("gone", "a/resnet"),)
    with pytest.raises(BucketNotFoundError):
        look(source)
    upload(bucket, source, below("a/resnet/1", model()))
    assert look(source) == {"1"}
    assert start().locations == (A,)


def test_the_status_tells_which_folders_are_refused(
    bucket: GcsServer, start: Callable[..., LearntSource]
) -> None:
    source = start()
    told: list[SourceStatus] = []
    looker = Looker(source, 30, lambda status, _: told.append(status))
    upload(bucket, source, below("a/resnet/1", model()))
    looker.look()
    assert "another model" not in told[-1].message
    upload(bucket, source, below("a/bert/1", model()))
    looker.look()
    assert told[-1].message.endswith(
        "; gs://models/a/bert holds another model: give a poller of its own --storage-uri"
    )
    for number in range(200):
        upload(bucket, source, below(f"a/m{number:0190}/1", model()))
        if number % 50 == 49:
            looker.look()
    assert "and 97 more hold other models" in told[-1].message
    assert len(told[-1].message) < 1000
