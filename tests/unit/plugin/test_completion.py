"""What may come next on a command line, and real shells that ask for it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kubectl_inferencemodel import cli, shells
from kubectl_inferencemodel.completion import Directive, complete
from tests.support.waiting import eventually
from tests.unit.plugin.api import ApiServer, resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kubectl_inferencemodel.completion import Line

SHAPES = shells.shapes(cli.program())


class There:
    """A cluster in which somebody has called things as he liked."""

    def __init__(self) -> None:
        self.line: Line | None = None

    def models(self, line: Line) -> Iterable[str]:
        self.line = line
        return ["imagenet", "resnet", "$(reboot)", "two words", ""]

    def namespaces(self, line: Line) -> Iterable[str]:
        return ["vision", "speech"]

    def contexts(self, line: Line) -> Iterable[str]:
        return ["kind-here", "arn:aws:eks:eu-west-1:1:cluster/there", "`reboot`"]

    def versions(self, line: Line) -> Iterable[tuple[str, str]]:
        self.line = line
        return [("3", "Available"), ("2", "Retired")]


def words(*typed: str) -> list[str]:
    return [word for word, _ in complete(typed, SHAPES, There())[0]]


def test_commands_come_first() -> None:
    assert {"list", "why", "rollout", "ui", "completion"} <= set(words(""))
    assert words("ver") == ["versions"]
    assert words("-n", "vision", "pre") == ["predict"]
    assert words("nothing", "") == []


def test_options_are_those_of_the_command_that_are_not_there_yet() -> None:
    assert words("why", "--") == [
        *("--watch", "--namespace", "--output", "--context", "--kubeconfig", "--help")
    ]
    assert words("why", "-nvision", "--na") == []
    assert words("why", "--namespace=vision", "--na") == []
    assert words("record", "imagenet", "--image", "a", "--im") == ["--image"]
    assert words("--co") == ["--context"]
    assert words("--v") == ["--version"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("why", "im"), ["imagenet"]),
        (("why", ""), ["imagenet", "resnet"]),
        (("why", "--watch", "im"), ["imagenet"]),
        (("-n", "vision", "why", "im"), ["imagenet"]),
        (("why", "imagenet", ""), []),
        (("list", "-n", "v"), ["vision"]),
        (("-n", ""), ["vision", "speech"]),
        (("list", "--namespace=s"), ["--namespace=speech"]),
        # As bash cuts it.
        (("list", "--namespace", "=", "s"), ["--namespace=speech"]),
        (("list", "--namespace", "="), ["--namespace=vision", "--namespace=speech"]),
        (("list", "--context", "k"), ["kind-here"]),
        (("list", "--context", ""), ["kind-here", "arn:aws:eks:eu-west-1:1:cluster/there"]),
        (("why", "imagenet", "-o", ""), ["table", "json"]),
        (("predict", "imagenet", "--via="), ["--via=proxy", "--via=url"]),
        (("promote", "imagenet", "--version", ""), ["3", "2"]),
        (("diff", "imagenet", ""), ["3", "2"]),
        (("wait", "imagenet", "--for", "step=1"), ["step=1"]),
        (("list", "-l", ""), []),
        (("completion", "z"), ["zsh"]),
    ],
)
def test_values_are_those_that_there_are(typed: tuple[str, ...], expected: list[str]) -> None:
    assert words(*typed) == expected


def test_names_are_asked_where_the_line_says() -> None:
    there = There()
    typed = ("--context=there", "why", "-n", "speech", "--kubeconfig", "file", "i")
    complete(typed, SHAPES, there)
    assert there.line is not None
    assert there.line.values == {"context": "there", "namespace": "speech", "kubeconfig": "file"}


def test_files_are_left_to_the_shell() -> None:
    for typed in (("predict", "a", "--image", ""), ("list", "--kubeconfig=/e")):
        assert complete(typed, SHAPES, There()) == ([], Directive.WORDS_OR_FILES)
    assert complete(("why", ""), SHAPES, There())[1] is Directive.WORDS


def test_a_word_comes_with_what_it_means(api: ApiServer, shell: Any) -> None:
    api.objects = [
        resource(
            model={
                "versions": [{"version": 2, "state": "Available", "replicas": 3}],
                "quarantined": [{"version": 3, "reason": "LoadFailed", "message": "a\tb\nc"}],
            }
        )
    ]
    assert shell("__complete", "promote", "imagenet", "--version", "")[1] == (
        "3\tQuarantined: LoadFailed\n2\tAvailable\n:4\n"
    )
    code, out, err = shell("__complete", "why", "")
    assert (code, out, err) == (0, "imagenet\n:4\n", "")


def test_contexts_are_those_of_all_files(
    tmp_path: Path, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        contexts = [{"name": f"in-{name}", "context": {}}]
        (tmp_path / name).write_text(yaml.safe_dump({"contexts": contexts}))
    (tmp_path / "broken").write_text("contexts: {")
    files = [str(tmp_path / name) for name in ("one", "broken", "two", "missing")]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(files))
    assert shell("__complete", "list", "--context", "")[1] == "in-one\nin-two\n:4\n"


@pytest.mark.parametrize("answer", [(403, b'{"message": "no"}'), (200, b"<html>"), (500, b"")])
def test_what_can_not_be_known_is_no_message(
    api: ApiServer, shell: Any, answer: tuple[int, bytes]
) -> None:
    api.answer = lambda path: answer
    assert shell("__complete", "why", "im") == (0, ":4\n", "")
    assert shell("__complete", "--kubeconfig=/nowhere", "why", "im") == (0, ":4\n", "")


def test_kubectls_program_is_known_by_its_name(
    api: ApiServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kubectl_complete-inferencemodel", "why", "im"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().out) == (0, "imagenet\n:4\n")


class Terminal:
    """A shell in which somebody types."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self._pid, self._near = pty.fork()
        if self._pid == 0:
            path = f"{folder}{os.pathsep}{os.environ['PATH']}"
            home = {"HOME": str(folder), "PATH": path, "TERM": "xterm", "PS1": "> "}
            os.execvpe(argv[0], argv, {**os.environ, **home})
        self.shown = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while part := os.read(self._near, 1 << 16):
                self.shown += part.decode(errors="replace")

    def type(self, keys: str) -> None:
        self.shown = ""
        os.write(self._near, keys.encode())

    def until(self, words: str) -> None:
        eventually(lambda: words in self.shown, what=f"{words!r} in {self.shown!r}", within=60)

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._near)


STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <({})"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u; source <({})"),
    "fish": (["fish", "--no-config", "-i"], "{} | source"),
}


@pytest.fixture(params=STARTS)
def terminal(request: pytest.FixtureRequest, api: ApiServer, tmp_path: Path) -> Iterator[Terminal]:
    argv, load = STARTS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"there is no {argv[0]} here")
    program = tmp_path / "kubectl-inferencemodel"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m kubectl_inferencemodel "$@"\n')
    program.chmod(0o755)
    made = Terminal(argv, tmp_path)
    try:
        made.type(load.format(f"kubectl-inferencemodel completion {request.param}"))
        made.type("; echo is-loa''ded\n")
        made.until("is-loaded")
        yield made
    finally:
        made.close()


def test_a_shell_completes_commands_names_and_values(api: ApiServer, terminal: Terminal) -> None:
    api.objects = [resource("imagenet-of-cats")]
    terminal.type("kubectl-inferencemodel versi\t")
    terminal.until("versions")
    terminal.type("imagenet-of\t")
    terminal.until("imagenet-of-cats")
    terminal.type("--outp\t")
    terminal.until("--output")
    terminal.type("js\t")
    terminal.until("json")
    terminal.type("\n")
    terminal.until('"activeVersion": 2')


def test_a_shell_completes_what_stands_behind_an_equals_sign(
    api: ApiServer, terminal: Terminal
) -> None:
    terminal.type("kubectl-inferencemodel list --output=js\t")
    terminal.until("json")
    terminal.type("\n")
    terminal.until('"name": "imagenet"')


def test_names_are_asked_for_without_the_rest_of_the_objects(api: ApiServer, shell: Any) -> None:
    shell("__complete", "list", "-n", "")
    assert json.dumps(api.requests) == '["/api/v1/namespaces?limit=500"]'
