"""Never is a version visible that is not whole, and it always comes to rest at the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.poller.doubles import below, graph, model, tarred, zipped
from tests.unit.poller.world import ALONE, TOLD, World, killed_at

if TYPE_CHECKING:
    from pathlib import Path

FORMS = ("folder", "zip", "tar.gz")


def files_of(version: int) -> dict[str, bytes]:
    """Every file is needed: the graph names the asset and restores the variables."""
    return {
        **model(b"weights of %d " % version * 40, shards=2),
        "saved_model.pb": graph(assets=("labels.txt",)),
        "assets/labels.txt": b"cat\ndog %d\n" % version,
    }


def uploads(version: int, form: str) -> dict[str, bytes]:
    if form == "folder":
        return below(f"{version:04d}", files_of(version))
    packed = below(f"{version:04d}", files_of(version))
    content = zipped(packed) if form == "zip" else tarred(packed)
    return {f"{version:04d}.{form}": content}


def check_base_path(world: World) -> None:
    for name, files in world.base().items():
        assert name == str(int(name))
        assert files == files_of(int(name))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [False, True])
def test_a_kill_before_any_single_change_of_the_disk_harms_nothing(
    tmp_path: Path, form: str, bad: bool
) -> None:
    """Every kill point of a whole version change, one after the other, with a restart after it."""
    right = {"1": files_of(1)} if bad else {"2": files_of(2)}
    for point in range(1000):
        world = World(tmp_path / str(point))
        world.source.put_all(uploads(1, form))
        world.settle(turns=4)
        world.source.put_all(uploads(2, form))
        world.server.bad = {2} if bad else set()
        with killed_at(point) as fate:
            for _ in range(5):
                world.turn()
                check_base_path(world)
        if not fate.dead:
            break
        check_base_path(world)
        world.start()
        check_base_path(world)
        world.settle(turns=20)
        assert world.base() == right
        assert world.status().active_version == (1 if bad else 2)
        assert [name for name in world.staged() if not name.startswith("trash.")] == []
    assert point > 5


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_order_of_uploads_cuts_and_kills_shows_a_version_that_is_not_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    alone = data.draw(st.booleans(), label="standalone")
    world = World(tmp_path_factory.mktemp("world"), ALONE if alone else TOLD)
    versions = data.draw(st.integers(1, 3), label="versions")
    waiting: list[tuple[str, bytes]] = []
    for version in range(1, versions + 1):
        form = data.draw(st.sampled_from(FORMS), label=f"form of {version}")
        puts = list(data.draw(st.permutations(sorted(uploads(version, form).items()))))
        if data.draw(st.booleans(), label="first upload is cut"):
            path, content = puts[0]
            cut = data.draw(st.integers(0, len(content) - 1), label="at")
            # A cut file of a folder is overwritten before the folder is whole; a cut archive may
            # lie there for long.
            waiting.append((path, content[:cut]))
        waiting += puts
    # Several trainers upload at once: their puts mix, each one's own order stays.
    for _ in range(data.draw(st.integers(0, 25), label="events")):
        match data.draw(st.sampled_from(["put", "turn", "step", "kill", "wait", "server dies"])):
            case "put" if waiting:
                world.source.put(*waiting.pop(0))
            case "turn":
                world.turn()
            case "step":
                world.look()
                world.step()
            case "kill":
                with killed_at(data.draw(st.integers(0, 30), label="at operation")):
                    world.turn()
                check_base_path(world)
                world.start()
            case "wait":
                world.clock.now += 3.0
            case "server dies":
                world.server.restart()
        check_base_path(world)
        if not alone and data.draw(st.booleans(), label="tell"):
            world.tell(data.draw(st.integers(1, versions), label="target"))
    for path, content in waiting:
        world.source.put(path, content)
    if not alone:
        world.tell(versions)
    for _ in range(25):
        world.turn(seconds=40.0)
        check_base_path(world)
    assert world.status().active_version == versions
    assert world.base() == {str(versions): files_of(versions)}
    assert all(files in map(files_of, range(1, versions + 1)) for files in world.server.seen)
    leftovers = [name for name in world.staged() if not name.startswith("trash.")]
    assert leftovers == []
