"""Versions that are links to a mounted volume, on which somebody overwrites what was checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_poller.errors import UnreachableError
from model_poller.status import VersionState
from model_poller.stores.local import LocalSource
from model_poller.stores.uri import parse_uri
from tests.unit.poller.doubles import model
from tests.unit.poller.test_publishing import write
from tests.unit.poller.world import ALONE, TOLD, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_poller.planner import Policy
    from model_poller.stores import Entry, StoredObject


class Mounted(LocalSource):
    """A folder that can be looked into or not."""

    is_there = True

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        if not self.is_there:
            raise UnreachableError("it does not answer")
        yield from super().files(entry)


def started(tmp_path: Path, policy: Policy, *versions: int) -> World:
    (tmp_path / "pod").mkdir()
    for version in versions:
        write(tmp_path / "claim" / str(version), model(b"%d" % version))
    mount = tmp_path / "claim"
    return World(tmp_path / "pod", policy, source=Mounted(parse_uri(f"file://{mount}"), mount))


@pytest.fixture
def rolled_out(tmp_path: Path) -> World:
    """Version 2 is served, and 1 was before."""
    world = started(tmp_path, TOLD, 1, 2)
    for target in (1, 2):
        world.tell(target)
        world.settle()
    assert list(world.base()) == ["2"]
    assert world.retained() == ["1"]
    return world


def test_a_link_is_served_again_once_a_look_has_seen_that_it_is_the_same(rolled_out: World) -> None:
    looks: list[int] = []
    rolled_out.poller._look_now = lambda: looks.append(1)
    rolled_out.tell(1)
    rolled_out.step()
    rolled_out.step()
    assert list(rolled_out.base()) == ["2"]
    assert len(looks) == 1, "asked for at once, and once"
    rolled_out.turn()
    assert rolled_out.version(1).state is VersionState.AVAILABLE
    rolled_out.settle()
    assert list(rolled_out.base()) == ["1"]


@pytest.mark.parametrize("graph", [b"garbage", b""])
def test_what_a_link_leads_to_is_not_served_unchecked(
    rolled_out: World, tmp_path: Path, graph: bytes
) -> None:
    write(tmp_path / "claim" / "1", {"saved_model.pb": graph})
    rolled_out.tell(1)
    rolled_out.step()
    for _ in range(12):
        rolled_out.turn()
        assert list(rolled_out.base()) == ["2"]
    assert rolled_out.retained() == []
    assert rolled_out.version(1).state in (VersionState.QUARANTINED, VersionState.INCOMPLETE)


def test_what_a_link_leads_to_is_checked_anew_and_served(rolled_out: World, tmp_path: Path) -> None:
    write(tmp_path / "claim" / "1", model(b"other"))
    rolled_out.tell(1)
    rolled_out.settle()
    assert list(rolled_out.base()) == ["1"]
    shard = tmp_path / "pod" / "imagenet" / "1" / "variables" / "variables.data-00000-of-00001"
    assert shard.read_bytes().startswith(b"other")
    found = rolled_out.version(1)
    assert (found.state, found.reason) == (VersionState.AVAILABLE, None)


def test_a_link_that_nobody_can_look_behind_waits(rolled_out: World) -> None:
    source = rolled_out.looker._source
    assert isinstance(source, Mounted)
    source.is_there = False
    rolled_out.tell(1)
    rolled_out.settle()
    assert list(rolled_out.base()) == ["2"]
    source.is_there = True
    rolled_out.settle()
    assert list(rolled_out.base()) == ["1"]


def test_alone_the_next_link_takes_the_place_of_one_that_fails_to_load(tmp_path: Path) -> None:
    world = started(tmp_path, ALONE, 1, 2)
    world.settle()
    write(tmp_path / "claim" / "3", model(b"3"))
    world.server.bad = {3}
    world.settle()
    assert world.version(3).state is VersionState.QUARANTINED
    assert list(world.base()) == ["2"]
