"""The operator's word to try a version again that this pod has quarantined."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from model_poller.actions import TryAgain
from model_poller.planner import plan
from model_poller.status import RolloutTask, VersionReason, VersionState
from model_poller.volume import store
from model_poller.volume.assignment import Assignment
from tests.unit.poller.doubles import below, model, zipped
from tests.unit.poller.test_planner import TOLD as POLICY
from tests.unit.poller.test_planner import seen
from tests.unit.poller.world import TOLD, World

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pod(tmp_path: Path) -> World:
    """Told to serve version 2, which its server doesn't load."""
    pod = World(tmp_path, TOLD)
    for version in (1, 2):
        files = model(str(version).encode())
        pod.source.put(f"{version}.zip", zipped(below(str(version), files)))
    pod.tell(1)
    pod.settle()
    pod.server.bad = {2}
    pod.tell(2)
    pod.settle()
    assert pod.version(2).state is VersionState.QUARANTINED
    return pod


def ask(pod: World, text: str) -> None:
    pod.ask(RolloutTask(version=2, retry=text))


def loads(pod: World) -> int:
    """How often the server has tried to load version 2."""
    return sum(
        files["variables/variables.data-00000-of-00001"] == b"2\0" for files in pod.server.seen
    )


def test_a_quarantined_version_is_tried_again_as_it_is(pod: World) -> None:
    pod.server.bad = set()
    ask(pod, f"2@{pod.version(2).fingerprint}#a")
    assert pod.settle().active_version == 2


def test_it_is_tried_once_for_each_token_also_after_a_restart(pod: World) -> None:
    fingerprint = pod.version(2).fingerprint
    before = loads(pod)
    for tries, token in enumerate(("a", "a", "b"), 1):
        ask(pod, f"2@{fingerprint}#{token}")
        pod.settle(turns=40)
        wanted = before + (1 if tries < 3 else 2)
        assert (loads(pod), pod.version(2).state) == (wanted, VersionState.QUARANTINED)
        assert pod.version(2).reason is VersionReason.LOAD_FAILED
        pod.start()
        pod.settle()
        assert loads(pod) == wanted


@pytest.mark.parametrize("text", ["1@{}#a", "2@other#a", "2@{}", "2#a", "#", "x@y#z", "2@#a"])
def test_other_objects_stay_where_they_are(pod: World, text: str) -> None:
    before = loads(pod)
    ask(pod, text.format(pod.version(2).fingerprint))
    pod.settle()
    assert (loads(pod), pod.version(2).state) == (before, VersionState.QUARANTINED)


def test_what_fails_after_the_word_was_heard_was_not_meant_by_it(pod: World) -> None:
    """A pod that had nothing to try again hears the same word as one that had."""
    entry = pod.version(2)
    pod.store.release(2)
    ask(pod, f"2@{entry.fingerprint}#a")
    before = loads(pod)
    pod.settle(turns=40)
    assert (loads(pod), pod.version(2).state) == (before + 1, VersionState.QUARANTINED)


def test_a_fetch_that_was_given_up_is_begun_again(tmp_path: Path) -> None:
    pod = World(tmp_path, TOLD)
    pod.source.put_all(below("1", {"saved_model.pb": model()["saved_model.pb"]}))
    pod.tell(1)
    pod.settle()
    assert pod.version(1).reason is VersionReason.MISSING_VARIABLES
    reads = len(pod.source.requests)
    pod.settle()
    assert len(pod.source.requests) == reads
    ask(pod, f"1@{pod.version(1).fingerprint}#a")
    pod.settle()
    assert len(pod.source.requests) > reads


def test_a_volume_that_can_not_be_written_forgets_the_word_with_the_process(
    pod: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = store.write_atomically

    def full(path: Path, content: bytes) -> None:
        if path.name == ".retried":
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(store, "write_atomically", full)
    before = loads(pod)
    ask(pod, f"2@{pod.version(2).fingerprint}#a")
    pod.settle(turns=60)
    assert loads(pod) == before + 1
    assert "No space left" in caplog.text


def test_the_word_is_followed_first_and_then_rests() -> None:
    task = RolloutTask(version=2, retry="2@f#a")
    asked = seen(assignment=Assignment(1, rollout=task))
    assert plan(asked, POLICY) == [TryAgain("2@f#a")]
    assert plan(replace(asked, retried="2@f#a"), POLICY) == []
    assert plan(replace(asked, retried="2@f#b"), POLICY) == [TryAgain("2@f#a")]
