"""The commands about rollouts, as a command line on an API server's double."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from kubectl_inferencemodel import delivery, watching
from tests.unit.plugin.api import resource
from tests.unit.plugin.views import rollout

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.plugin.api import ApiServer, Object


@pytest.fixture(autouse=True)
def rolling(api: ApiServer) -> Object:
    """The one InferenceModel, in the middle of a rollout."""
    status = {
        "activeVersion": 2,
        "targetVersion": 3,
        "transitionStatus": "InProgress",
        "rollout": rollout("Paused", message="promote or abort it"),
    }
    found = resource(model=status)
    found["metadata"]["resourceVersion"] = "7"
    api.objects = [found]
    return found


def operator(**result: Any) -> Callable[[Object], None]:
    """Takes the annotation, and does this to the rollout."""

    def act(found: Object) -> None:
        for name in list(found["metadata"].get("annotations", {})):
            del found["metadata"]["annotations"][name]
        found["status"]["model"]["rollout"].update(result)

    return act


def test_a_promotion_is_written_and_what_became_of_it_is_told(api: ApiServer, shell: Any) -> None:
    api.after_patch = operator(phase="Progressing", step=2, replicasWanted=3, message="")
    code, out, err = shell("promote", "imagenet")
    assert (code, err) == (0, "")
    assert out == "version 3: step 2 of 2, 1 of 3 replicas answer with it, Progressing\n"
    assert api.patches == [
        {
            "metadata": {
                "annotations": {"inferencemodel.dev/promote": "3"},
                "uid": "u-1",
                "resourceVersion": "7",
            }
        }
    ]
    assert any("fieldManager=kubectl-inferencemodel" in request for request in api.requests)


def test_a_promotion_to_all_replicas_is_another_one(api: ApiServer, shell: Any) -> None:
    assert shell("promote", "imagenet", "--full", "--no-wait", "--version=3")[0] == 0
    assert api.patches[0]["metadata"]["annotations"] == {"inferencemodel.dev/promote-full": "3"}


def test_what_somebody_else_changed_meanwhile_is_read_again(api: ApiServer, shell: Any) -> None:
    answer = api.models

    def changing(path: str) -> tuple[int, bytes]:
        told = answer(path)
        # After the first look, so that its resource version is an old one.
        if path.endswith("/imagenet") and not api.patches:
            api.objects[0]["metadata"]["resourceVersion"] = "8"
        return told

    api.answer = changing
    code, out, _ = shell("abort", "imagenet", "--no-wait", "-ojson")
    assert code == 0
    assert [patch["metadata"]["resourceVersion"] for patch in api.patches] == ["7", "8"]
    assert json.loads(out) == {
        "name": "imagenet",
        "action": "abort",
        "version": 3,
        "outcome": "Arrived",
        "message": "asked for: abort, version 3",
    }


def test_a_version_that_has_been_superseded_meanwhile_is_not_replaced_by_the_next(
    api: ApiServer, shell: Any
) -> None:
    refused = api.patch

    def superseding(path: str, change: Object) -> tuple[int, bytes]:
        api.objects[0]["metadata"]["resourceVersion"] = "8"
        api.objects[0]["status"]["model"]["rollout"]["version"] = 4
        return refused(path, change)

    api.patch = superseding  # type: ignore[method-assign]
    code, _, err = shell("promote", "imagenet")
    assert code == 1
    assert "version 3 of imagenet is not being rolled out, version 4 is" in err
    assert len(api.patches) == 1


def test_a_resource_that_is_changed_all_the_time_is_given_up(api: ApiServer, shell: Any) -> None:
    api.patch = lambda *_: (409, b'{"message": "modified"}')  # type: ignore[method-assign]
    code, _, err = shell("promote", "imagenet")
    assert code == 1
    assert err == "error: InferenceModel vision/imagenet: modified\n"


@pytest.mark.parametrize("command", ["promote", "abort", "approve"])
def test_where_nothing_is_rolled_out_nothing_is_written(
    api: ApiServer, shell: Any, command: str
) -> None:
    api.objects = [resource()]
    code, out, err = shell(command, "imagenet")
    assert (code, out) == (1, "")
    assert "nothing of imagenet is being rolled out: version 2 answers" in err
    assert not api.patches


def test_an_operator_that_does_not_come_is_told_when_the_time_is_up(
    api: ApiServer, shell: Any
) -> None:
    code, _, err = shell("promote", "imagenet", "--timeout=300ms")
    assert code == 3
    assert err.splitlines()[-1].startswith("not within 0.3s: the operator has not taken it yet")


def test_an_action_that_was_dropped_is_told_with_the_operators_words(
    api: ApiServer, shell: Any
) -> None:
    why = "inferencemodel.dev/promote: no rollout of version 3 is in progress"
    event = {"message": why, "lastTimestamp": datetime.now(UTC).isoformat()}

    def answer(path: str) -> tuple[int, bytes]:
        if "/events?" in path:
            assert "involvedObject.uid%3Du-1" in path
            return 200, json.dumps({"items": [event]}).encode()
        return api.models(path)

    api.answer, api.after_patch = answer, operator()
    code, _, err = shell("promote", "imagenet")
    assert code == 4
    assert f"no: the operator did not act on it: {why}" in err


def test_an_action_that_does_not_show_is_told_to_be_taken(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_GRACE_SECONDS", 0.1)
    api.after_patch = operator()
    api.objects[0]["spec"]["rollout"] = {"paused": True}
    code, out, _ = shell("promote", "imagenet")
    assert code == 0
    assert "nothing has changed by it yet; rollouts stand still until" in out


def test_an_action_that_is_not_what_a_rollout_waits_for_is_told_what_that_is(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_GRACE_SECONDS", 0.1)
    api.after_patch = operator()
    waits = "version 3 breaks clients of version 2: …; approve it if that is meant"
    api.objects[0]["status"]["model"]["rollout"] |= {
        "step": 0,
        "replicasWanted": None,
        "message": waits,
    }
    code, out, _ = shell("promote", "imagenet")
    assert code == 0
    assert f"nothing has changed by it yet; version 3: Paused: {waits}" in out


def test_pausing_changes_the_spec_once(api: ApiServer, shell: Any) -> None:
    code, out, _ = shell("pause", "imagenet")
    assert code == 0
    assert "Paused: promote or abort it" in out
    assert api.patches[0]["spec"] == {"rollout": {"paused": True}}
    assert shell("pause", "imagenet")[0] == 0
    assert len(api.patches) == 1
    assert shell("resume", "imagenet")[0] == 0
    assert api.patches[1]["spec"] == {"rollout": {"paused": None}}


def test_a_field_that_a_repository_manages_is_told(api: ApiServer, shell: Any) -> None:
    api.objects[0]["metadata"]["managedFields"] = [
        {
            "manager": "argocd-controller",
            "operation": "Apply",
            "fieldsV1": {"f:spec": {"f:rollout": {"f:paused": {}}}},
        }
    ]
    code, _, err = shell("pause", "imagenet", "--no-wait")
    assert code == 0
    assert err == (
        "spec.rollout.paused is managed by argocd-controller, which may set it back: change it"
        " there, too\n"
    )


def with_pods(api: ApiServer, report: tuple[int, bytes]) -> None:
    pod = {
        "metadata": {
            "name": "imagenet-1",
            "annotations": {"inferencemodel.dev/target-version": "3"},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }

    def answer(path: str) -> tuple[int, bytes]:
        if "/imagenet-1:8502/proxy/status" in path:
            return report
        if "/pods?" in path:
            items = [pod] if "inferencemodel.dev%2Fname%3D" in path else []
            return 200, json.dumps({"items": items}).encode()
        return api.models(path)

    api.answer = answer


REPORT = {
    "revision": "1",
    "model": "imagenet",
    "source": {"uri": "gs://models/imagenet"},
    "served": [{"version": 3, "state": "AVAILABLE"}],
}


@pytest.mark.parametrize(
    ("status", "body", "answers"),
    [
        (200, json.dumps(REPORT).encode(), 3),
        (403, b'{"message": "forbidden"}', None),
        (503, b"no endpoints", None),
        (200, b"<html>", None),
    ],
)
def test_the_rollout_shows_what_pollers_say_where_they_may_be_asked(
    api: ApiServer, shell: Any, status: int, body: bytes, answers: int | None
) -> None:
    with_pods(api, (status, body))
    code, out, err = shell("rollout", "imagenet", "-ojson")
    assert (code, err) == (3, "")
    (replica,) = json.loads(out)["replicas"]
    assert (replica["pod"], replica["told"], replica["answers"]) == ("imagenet-1", 3, answers)
    code, out, _ = shell("rollout", "imagenet")
    assert code == 3
    assert "imagenet-1   True    3" in out


@pytest.mark.parametrize(
    ("phase", "code"), [("Completed", 0), ("RolledBack", 4), ("Superseded", 4), ("Checking", 3)]
)
def test_the_exit_code_tells_how_the_rollout_stands(
    api: ApiServer, shell: Any, phase: str, code: int
) -> None:
    api.objects[0]["status"]["model"]["rollout"]["phase"] = phase
    assert shell("rollout", "imagenet")[0] == code
    del api.objects[0]["status"]["model"]["rollout"]
    assert shell("rollout", "imagenet")[0] == 0


def by_look(api: ApiServer, *rollouts: Object) -> None:
    """Each look at the InferenceModel finds the next of these rollouts."""
    left = list(rollouts)

    def answer(path: str) -> tuple[int, bytes]:
        if path.endswith("/inferencemodels/imagenet"):
            api.objects[0]["status"]["model"]["rollout"] = left.pop(0)
        return api.models(path)

    api.answer = answer


BACK = rollout("RolledBack", message="NaN", endTime="2026-01-01T14:40:00Z")


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_rollout_is_watched_until_its_end(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr("kubectl_inferencemodel.watching.LOOK_SECONDS", 0.01)
    paused, going = rollout("Paused"), rollout("Progressing", step=2)
    by_look(api, paused, paused, going, going, BACK)
    code, out, err = shell("rollout", "imagenet", "--watch", f"-o{form}")
    assert (code, err) == (4, "")
    told = out.splitlines()
    assert len(told) == 3
    if form == "json":
        phases = [json.loads(line)["rollout"]["phase"] for line in told]
        assert phases == ["Paused", "Progressing", "RolledBack"]
    else:
        assert told[-1].endswith("RolledBack: NaN")


def test_a_terminal_shows_the_picture_anew_each_time(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, color_system=None, width=100)
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watching, "Console", lambda **_: terminal)
    by_look(api, rollout("Paused", message="promote or abort it"), rollout("Completed", step=2))
    assert shell("rollout", "imagenet", "--watch") == (0, "", "")
    first, _, last = screen.getvalue().rpartition("imagenet: version 3 (from 2) ")
    assert "promote or abort it" in first
    assert "▶ 1" in first
    assert last.startswith("Completed")
    assert "✔ 2" in last


def test_watching_waits_for_the_next_rollout_where_none_is_in_progress(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_inferencemodel.watching.LOOK_SECONDS", 0.01)
    later = rollout("Completed", version=4, startTime="2026-01-01T15:00:00Z")
    by_look(api, BACK, BACK, {**later, "endTime": "2026-01-01T15:01:00Z"})
    code, out, _ = shell("rollout", "imagenet", "-w")
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == ["version 3", "version 4"]


def test_watching_goes_on_while_the_api_server_can_not_be_asked(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_inferencemodel.watching.LOOK_SECONDS", 0.01)
    by_look(api, rollout("Paused"), BACK)
    looks, answer = [200, 503, 503, 200], api.answer

    def sometimes(path: str) -> tuple[int, bytes]:
        if path.endswith("/inferencemodels/imagenet") and looks.pop(0) == 503:
            return 503, b'{"message": "restarting"}'
        return answer(path)

    api.answer = sometimes
    code, out, err = shell("rollout", "imagenet", "-w")
    assert code == 4
    assert len(out.splitlines()) == 2
    assert err.count("restarting") == 1
    assert err.endswith("the API server answers again\n")
