"""What can be done about a model, and the commands that do the same."""

from __future__ import annotations

import json
import shlex

import pytest

from kubectl_inferencemodel.console.offers import Offer, find, offers
from kubectl_inferencemodel.errors import RefusedError
from tests.unit.plugin.views import arriving, model, rollout

ON_ITS_WAY = model(rollout=rollout("Paused"), **arriving(3, "Available", 1))
BREAKING = {"name": "signature", "result": "Failed", "message": "", "time": "2026-01-01T00:00:00Z"}
FAILED = [{"version": 4, "reason": "LoadFailed", "message": "it fails"}]


def keys(found: list[Offer]) -> list[tuple[str, int | None]]:
    return [(offer.key, offer.version) for offer in found]


def test_a_settled_model_can_be_paused_and_pinned() -> None:
    assert keys(offers(model())) == [("pause", None), ("pin", 2), ("pin", 1)]


def test_a_rollout_can_be_promoted_and_aborted() -> None:
    found = keys(offers(ON_ITS_WAY))
    assert found[:3] == [("promote", 3), ("promote --full", 3), ("abort", 3)]
    assert ("approve", 3) not in found


def test_what_breaks_clients_can_be_approved() -> None:
    found = model(rollout=rollout("Paused", checks=[BREAKING]), **arriving(3, "Fetched"))
    assert ("approve", 3) in keys(offers(found))


def test_a_version_that_is_being_taken_back_is_left_alone() -> None:
    found = keys(offers(model(rollout=rollout("RollingBack"))))
    assert not {"promote", "abort"} & {key for key, _ in found}


def test_a_suspended_model_takes_no_action_on_a_rollout() -> None:
    found = model(spec={"suspend": True}, rollout=rollout("Paused"), quarantined=FAILED)
    assert {key for key, _ in keys(offers(found))} == {"pause", "pin"}


def test_every_quarantined_version_can_be_tried_again() -> None:
    assert ("retry", 4) in keys(offers(model(quarantined=FAILED)))


def test_a_pin_can_be_taken_out_and_is_not_offered_again() -> None:
    found = keys(offers(model(spec={"model": {"version": 2}})))
    assert ("unpin", None) in found
    assert ("pin", 2) not in found


def test_a_paused_model_can_go_on() -> None:
    found = offers(model(spec={"rollout": {"paused": True}}))
    assert ("resume", None) in keys(found)
    assert ("pause", None) not in keys(found)


def test_the_commands_name_the_model_and_say_what_is_written() -> None:
    promote = find(ON_ITS_WAY, "promote", 3)
    own, plain = (shlex.split(command) for command in promote.commands)
    assert own == [
        *("kubectl", "inferencemodel", "promote", "imagenet", "--namespace=vision", "--version=3")
    ]
    assert "inferencemodel.dev/promote=3" in plain
    assert promote.change == {"metadata": {"annotations": {"inferencemodel.dev/promote": "3"}}}
    whole = find(ON_ITS_WAY, "promote --full", 3)
    assert shlex.split(whole.commands[0])[2:4] == ["promote", "--full"]


@pytest.mark.parametrize("key", ["pause", "pin"])
def test_a_patch_is_shown_as_it_is_written(key: str) -> None:
    offer = next(offer for offer in offers(model()) if offer.key == key)
    words = shlex.split(offer.commands[-1])
    (patch,) = [word for word in words if word.startswith("--patch=")]
    assert json.loads(patch.removeprefix("--patch=")) == offer.change


def test_what_can_not_be_done_any_more_is_refused_in_words() -> None:
    with pytest.raises(RefusedError, match="nothing of imagenet is being rolled out"):
        find(model(), "promote", 3)
    with pytest.raises(RefusedError, match="version 2 of imagenet is not being rolled out"):
        find(ON_ITS_WAY, "abort", 2)
    with pytest.raises(RefusedError, match="takes now"):
        find(model(), "pin", 99)
    with pytest.raises(RefusedError, match="takes now"):
        find(model(), "delete", None)
