"""A volume that is used again with another storage URI."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from model_poller.status import VersionReason, VersionState
from model_poller.stores.uri import parse_uri
from tests.unit.poller.doubles import below, field, graph, model, zipped
from tests.unit.poller.world import TOLD, World

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def archive(number: int, content: bytes) -> bytes:
    marked = graph() + field(15, content)
    return zipped(below(str(number), {**model(content), "saved_model.pb": marked}))


def use(world: World, uri: str, *versions: int) -> None:
    """A new process on the same volume, with another storage URI."""
    world.source.locations = (parse_uri(uri),)
    world.source.objects.clear()
    for number in versions:
        world.source.put(f"{number}.zip", archive(number, uri.encode()))
    world.start()


def origins(world: World) -> dict[str, bool]:
    """Which versions lie in the base path, and whether each is the present URI's."""
    uri = world.source.locations[0].uri.encode()
    return {name: files["saved_model.pb"].endswith(uri) for name, files in world.base().items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    use(made, "gs://old/resnet", 6, 7)
    made.settle()
    assert made.status().active_version == 7
    return made


def test_the_former_model_serves_until_one_of_the_new_uri_does(world: World) -> None:
    use(world, "gs://new/resnet")
    world.settle()
    assert world.base().keys() == {"7"}
    told = world.version(7)
    assert told.reason is VersionReason.ANOTHER_SOURCE
    assert "gs://old/resnet" in told.message
    assert world.status().target is None
    for number in (1, 2):
        world.source.put(f"{number}.zip", archive(number, b"gs://new/resnet"))
    seen = set()
    for _ in range(30):
        world.clock.now += 2
        world.look()
        world.step()
        seen.add(frozenset(world.base()))
        world.server.poll()
        world.step()
        seen.add(frozenset(world.base()))
    assert {frozenset({"7", "2"}), frozenset({"2"})} <= seen
    assert frozenset() not in seen
    assert origins(world) == {"2": True}
    assert world.status().active_version == 2
    assert world.retained() == []


def test_the_same_number_of_the_new_uri_is_another_version(world: World) -> None:
    use(world, "gs://new/resnet", 7)
    # A real server unloads the last version, too, where its folder is there and empty.
    world.server.up = False
    world.settle()
    assert origins(world) == {"7": True}
    assert world.retained() == []


def test_told_versions_are_those_of_the_present_uri(tmp_path: Path) -> None:
    pod = World(tmp_path, TOLD)
    use(pod, "gs://old/resnet", 2, 3)
    pod.tell(3, 3, 2)
    pod.settle()
    use(pod, "gs://new/resnet", 2, 3)
    pod.server.up = False
    pod.settle()
    pod.server.up = True
    pod.server.restart()
    pod.settle()
    assert origins(pod) == {"3": True, "2": True}
    assert pod.status().active_version == 3


def test_a_volume_that_went_back_to_its_uri_keeps_its_versions(world: World) -> None:
    reads = len(world.source.requests)
    use(world, "gs://new/resnet")
    world.settle()
    use(world, "gs://old/resnet", 7)
    world.settle()
    assert world.version(7).state is VersionState.AVAILABLE
    assert len(world.source.requests) == reads


def test_what_somebody_put_there_is_everybodys(tmp_path: Path) -> None:
    world = World(tmp_path)
    for name, content in model().items():
        (world.store.base / "5" / name).parent.mkdir(parents=True, exist_ok=True)
        (world.store.base / "5" / name).write_bytes(content)
    use(world, "gs://new/resnet", 4)
    world.settle()
    assert world.status().active_version == 5


def test_once_publishes_what_the_present_uri_has(tmp_path: Path) -> None:
    def once(bucket: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "model_poller", "--once", "--timeout=30"),
                *(f"--storage-uri=file://{tmp_path}/{bucket}", f"--models-dir={tmp_path}/models"),
                *("--model-name=resnet", *arguments),
            ],
            env={"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def upload(bucket: str, versions: Iterable[int]) -> None:
        (tmp_path / bucket).mkdir()
        for number in versions:
            (tmp_path / bucket / f"{number}.zip").write_bytes(archive(number, bucket.encode()))

    def served() -> dict[str, bool]:
        folders = [f for f in (tmp_path / "models/resnet").iterdir() if f.name.isdigit()]
        return {f.name: (f / "saved_model.pb").read_bytes().endswith(b"new") for f in folders}

    upload("old", (7,))
    upload("new", (5, 7))
    ended = once("old")
    assert (ended.returncode, served()) == (0, {"7": False}), ended.stderr
    (tmp_path / "new" / "7.zip").rename(tmp_path / "7.zip")
    ended = once("new")
    assert (ended.returncode, served()) == (0, {"5": True}), ended.stderr
    assert f"it came from file://{tmp_path}/old" in ended.stderr
