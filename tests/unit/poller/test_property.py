"""Never is a version visible that is not whole, and it always comes to rest at the right one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_poller.bring import Demands
from model_poller.checks import manifest
from model_poller.stores.local import LocalSource
from model_poller.stores.uri import Location
from tests.unit.poller.doubles import below, graph, model, tarred, zipped
from tests.unit.poller.world import ALONE, TOLD, World, killed_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORMS = ("folder", "zip", "tar.gz")
ARCHIVES: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zipped,
    "tar.gz": tarred,
    "tar.zst": lambda files: zstandard.compress(tarred(files, "w")),
}
CUTS_OF_A_FILE = 40


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
    return {f"{version:04d}.{form}": ARCHIVES[form](packed)}


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


def test_in_no_order_of_its_files_is_a_folder_shown_before_the_last_one_is_there(
    tmp_path: Path,
) -> None:
    """All orders, with looks that call the listing settled after every single file."""
    world = World(tmp_path)
    world.source.put_all(uploads(1, "folder"))
    world.settle(turns=4)
    orders = itertools.permutations(files_of(1))
    for version, order in enumerate(orders, start=2):
        files = files_of(version)
        for count, name in enumerate(order, start=1):
            assert world.base() == {f"{version - 1}": files_of(version - 1)}, order[:count]
            world.source.put(f"{version}/{name}", files[name])
            for _ in range(2):
                world.turn()
        world.turn()
        assert world.base() == {f"{version}": files}, order
        for path in [p for p in world.source.objects if not p.startswith(f"{version}/")]:
            world.source.delete(path)
    assert version == 121


@pytest.mark.parametrize("form", ARCHIVES)
def test_no_cut_of_an_archive_is_shown(tmp_path: Path, form: str) -> None:
    """Every length but the whole one."""
    world = World(tmp_path)
    world.source.put_all(uploads(1, form))
    world.settle(turns=4)
    ((path, content),) = uploads(2, form).items()
    for length in range(len(content)):
        world.source.put(path, content[:length])
        world.look()
        world.step()
        assert world.base() == {"1": files_of(1)}, length
    world.source.put(path, content)
    world.settle(turns=4)
    assert world.base() == {"2": files_of(2)}


def test_no_cut_of_a_file_is_shown_where_a_manifest_tells_what_is_whole(tmp_path: Path) -> None:
    """Also when the marker came too early, and no listing can tell."""
    folder = tmp_path / "export"
    for name, content in files_of(2).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    whole = {**files_of(2), manifest.NAME: manifest.write(folder).read_bytes(), "DONE": b""}
    world = World(tmp_path / "pod", demands=Demands(manifest=True, marker="DONE"))
    for name, content in whole.items():
        # Without the line feed at its end the manifest still says all.
        size = len(content) - (name == manifest.NAME)
        for cut in {*range(0, size, size // CUTS_OF_A_FILE + 1), size - 1} - {-1}:
            world.source.put_all(below("2", {**whole, name: content[:cut]}))
            world.look()
            world.step()
            assert world.base() == {}, (name, cut)
    world.source.put_all(below("2", whole))
    world.settle(turns=4)
    assert world.base() == {"2": whole}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_a_trainer_writes_to_a_volume_is_shown_only_when_it_is_done(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Files grow in any order and steps; between two steps pass less than 5 s."""
    root = tmp_path_factory.mktemp("world")
    folder = root / "claim"
    folder.mkdir()
    location = Location("claim", "", "pvc")
    world = World(root / "pod", source=LocalSource(location, folder))
    for version in (1, 2):
        form = data.draw(st.sampled_from(FORMS), label=f"form of {version}")
        files = uploads(version, form)
        for name in data.draw(st.permutations(sorted(files)), label="order"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            size = len(files[name])
            cuts = data.draw(st.sets(st.integers(1, size - 1), max_size=3), label="cuts")
            ends = [*sorted(cuts), size]
            for start, end in itertools.pairwise([0, *ends]):
                with (folder / name).open("ab") as growing:
                    growing.write(files[name][start:end])
                for _ in range(data.draw(st.integers(0, 2), label="turns")):
                    with killed_at(data.draw(st.integers(0, 60), label="kill at")) as fate:
                        world.turn()
                    if fate.dead:
                        world.start()
                    check_base_path(world)
        world.settle(turns=8)
        assert world.base() == {str(version): files_of(version)}
        assert world.status().active_version == version
    assert all(files in map(files_of, (1, 2)) for files in world.server.seen)


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
