"""What is shown for as long as somebody looks: in a terminal, in lines, and for programs."""

from __future__ import annotations

import copy
import io
import json
import queue
import re
from typing import Any

import pytest
from rich.console import Console

from kubectl_inferencemodel import watching
from tests.support.command import Command
from tests.unit.plugin.api import ApiServer, merge, resource

Object = dict[str, Any]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of fifteen lines is sent."""
    screen = io.StringIO()
    made = Console(file=screen, force_terminal=True, color_system=None, width=120, height=15)
    monkeypatch.setattr(watching, "Console", lambda **_: made)
    return screen


class Looks:
    """Each look at the InferenceModel finds the next status; after the last one comes Ctrl-C."""

    def __init__(self, api: ApiServer, *statuses: Object | int) -> None:
        self._api = api
        self._left = list(statuses)
        api.answer = self

    def __call__(self, path: str) -> tuple[int, bytes]:
        if path.endswith("/inferencemodels/imagenet"):
            if not self._left:
                raise AssertionError("it looks although it was interrupted")
            found = self._left.pop(0)
            if isinstance(found, int):
                return found, b'{"message": "restarting"}'
            merge(self._api.objects[0]["status"], copy.deepcopy(found))
        return self._api.models(path)

    def interrupt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have Ctrl-C come in the pause after the last look."""

        def pause(seconds: float) -> None:
            if not self._left:
                raise KeyboardInterrupt

        monkeypatch.setattr("time.sleep", pause)


WAITS: Object = {"observedGeneration": 0, "model": {"targetVersion": 3}}
SERVES: Object = {"observedGeneration": 1, "model": {"activeVersion": 3}}


def watched(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str, looks: list[Any]
) -> tuple[list[str], str]:
    """What is printed while these looks go on, which Ctrl-C ends."""
    Looks(api, *looks).interrupt(monkeypatch)
    code, out, err = shell(*arguments, "--watch")
    assert code == 130
    assert err.endswith("interrupted\n")
    return out.splitlines(), err


def test_why_tells_a_line_for_each_change(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [{}, {}, WAITS, WAITS, SERVES]
    out, _ = watched(api, shell, monkeypatch, "why", "imagenet", looks=looks)
    summaries = [line for line in out if "answers on" in line]
    assert [line.split(" answers")[0] for line in summaries] == ["Version 2"] * 2 + ["Version 3"]


def test_why_tells_programs_an_object_for_each_change(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [{}, {}, WAITS, WAITS, SERVES]
    out, _ = watched(api, shell, monkeypatch, "why", "imagenet", "-ojson", looks=looks)
    assert [json.loads(line)["name"] for line in out] == ["imagenet"] * 3


def test_versions_tells_those_that_change(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_(*states: tuple[int, str, int]) -> Object:
        return {
            "model": {"versions": [{"version": v, "state": s, "replicas": r} for v, s, r in states]}
        }

    looks = [
        with_((2, "Available", 3)),
        with_((3, "Fetching", 0), (2, "Available", 3)),
        with_((3, "Available", 3)),
    ]
    out, _ = watched(api, shell, monkeypatch, "versions", "imagenet", looks=looks)
    assert out == [
        "version 2: Available, 3 replicas: active, target",
        "version 3: Fetching, 0 replicas",
        "version 2: gone",
        "version 3: Available, 3 replicas",
    ]


@pytest.mark.parametrize("command", ["why", "versions"])
def test_an_api_server_that_is_away_is_told_once_and_waited_for(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    looks = [{}, 503, 503, SERVES]
    _, err = watched(api, shell, monkeypatch, command, "imagenet", looks=looks)
    assert err.count("restarting") == 1
    assert "the API server answers again" in err


def test_an_api_server_that_is_away_from_the_beginning_is_an_error(
    api: ApiServer, shell: Any
) -> None:
    Looks(api, 503)
    code, out, err = shell("why", "imagenet", "-w")
    assert (code, out) == (1, "")
    assert "restarting" in err


def test_a_terminal_shows_why_below_what_is_old(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch, terminal: io.StringIO
) -> None:
    out, err = watched(api, shell, monkeypatch, "why", "imagenet", looks=[{}, 503])
    assert (out, err) == ([], "interrupted\n")
    assert "Version 2 answers on 3/3 replicas" in terminal.getvalue()
    last = terminal.getvalue().rpartition("Version 2 answers")[2]
    assert re.search(r"not up to date since [0-9:]{8}Z: .*restarting", last)
    # The cursor is there again.
    assert terminal.getvalue().rstrip("\n").endswith("\x1b[?25h")


class Watches:
    """An API server whose watches tell what a test has them tell, each one thing and its end."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self.told: queue.Queue[tuple[int, bytes]] = queue.Queue()
        self.watches: list[str] = []
        api.answer = self

    def __call__(self, path: str) -> tuple[int, bytes]:
        if "watch=1" not in path:
            return self._api.models(path)
        self.watches.append(path)
        return self.told.get()

    def tell(self, *events: tuple[str, Object]) -> None:
        """Have the present watch tell these, and end."""
        lines = [json.dumps({"type": kind, "object": found}) for kind, found in events]
        self.told.put((200, "\n".join([*lines, ""]).encode()))


def test_list_tells_a_line_for_each_change(api: ApiServer) -> None:
    server = Watches(api)
    with Command("list", "--watch", "-lteam=vision") as command:
        command.until("imagenet   2   2   True   3/3   UpToDate")
        changed = resource(model={"activeVersion": 2, "targetVersion": 3})
        server.tell(("MODIFIED", changed), ("MODIFIED", changed), ("ADDED", resource("resnet")))
        command.until("resnet   2")
        server.tell(("DELETED", resource("resnet")))
        command.until("resnet is deleted")
        err = command.interrupt()
        assert err == "interrupted\n"
        names = [line.split()[0] for line in command.shown.splitlines()]
        assert names == ["NAME", "imagenet", "imagenet", "resnet", "resnet"]
        assert all("labelSelector=team%3Dvision" in path for path in server.watches)


def test_list_tells_programs_an_object_for_each_change(api: ApiServer) -> None:
    server = Watches(api)
    with Command("list", "--watch", "-ojson") as command:
        command.until("\n")
        server.tell(("DELETED", resource()))
        command.until("deleted")
        command.interrupt()
        first, last = (json.loads(line) for line in command.shown.splitlines())
        assert first["activeVersion"] == 2
        assert last == {"namespace": "vision", "name": "imagenet", "deleted": True}


def test_list_goes_on_after_a_watch_that_breaks_off_and_says_why(api: ApiServer) -> None:
    server = Watches(api)
    with Command("list", "--watch") as command:
        command.until("imagenet")
        api.objects.append(resource("later"))
        server.told.put((500, b""))
        command.until("later")
        err = command.interrupt()
        assert "not up to date since" in err
        assert "a watch is answered by 500" in err
        assert "the API server answers again" in err


def test_a_terminal_shows_as_many_models_as_it_has_room_for(api: ApiServer) -> None:
    api.objects = [resource(f"m-{number:02}") for number in range(30)]
    server = Watches(api)
    with Command("list", "--watch", terminal=True) as command:
        command.until("and 20 more")
        server.tell(("DELETED", resource("m-29")))
        command.until("and 19 more")
        command.interrupt()
        assert "m-09" in command.shown
        assert "m-10" not in command.shown
        assert command.shown.count("\x1b[?25l") == command.shown.count("\x1b[?25h") == 1


def test_models_that_can_not_be_listed_at_all_are_an_error(api: ApiServer, shell: Any) -> None:
    api.answer = lambda path: (403, b'{"message": "you may not"}')
    code, out, err = shell("list", "--watch")
    assert (code, out) == (1, "")
    assert "you may not" in err


def test_models_that_may_be_listed_and_not_watched_are_an_error_after_the_list(
    api: ApiServer, shell: Any
) -> None:
    """As with kubectl; it would be refused again and again."""

    def answer(path: str) -> tuple[int, bytes]:
        return (403, b'{"message": "no watch"}') if "watch=1" in path else api.models(path)

    api.answer = answer
    code, out, err = shell("list", "--watch")
    assert code == 1
    assert "imagenet   2   2   True" in out
    assert err == "error: a watch is answered by 403: no watch\n"
