"""The command line's values, and options in any order, as kubectl takes them."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNITS: Final = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}
_NUMBER: Final = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_DURATION: Final = re.compile(rf"{_NUMBER}|(?:{_NUMBER}(?:ms|s|m|h))+")
_PARTS: Final = re.compile(rf"({_NUMBER})(ms|s|m|h|)")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_WITH_VALUE: Final = frozenset(
    ("-n", "--namespace", "-o", "--output", "-l", "--selector", "--context", "--kubeconfig")
)
_SHORT: Final = re.compile(r"-[nol]=")
_STEP: Final = re.compile(r"step=([1-9][0-9]{0,3})")
MAX_VERSION: Final = 2**63 - 1
COMPLETE: Final = "__complete"
"""The command that the scripts of shells run; kubectl runs a program of its own."""
COMPLETER: Final = "kubectl_complete-"
"""How the programs' names begin that kubectl runs."""


class Output(StrEnum):
    """How the answer is printed."""

    TABLE = "table"
    JSON = "json"


class Via(StrEnum):
    """The way to the model server."""

    PROXY = "proxy"
    URL = "url"


def command_first(arguments: Sequence[str]) -> list[str]:
    """The same arguments, with the options that stand in front of the command behind it."""
    rest = [_as_click_takes_it(argument) for argument in arguments]
    leading = []
    while rest and rest[0].startswith("-") and rest[0] not in ("--", "--help"):
        option = rest.pop(0)
        leading.append(option)
        if option in _WITH_VALUE and rest:
            leading.append(rest.pop(0))
    if rest[:1] == ["--help"]:
        return rest[:1]
    return [*rest[:1], *leading, *rest[1:]]


def _as_click_takes_it(argument: str) -> str:
    if argument == "-h":
        return "--help"
    return f"{argument[:2]}{argument[3:]}" if _SHORT.match(argument) else argument


def seconds(text: str) -> float:
    """A duration as kubectl takes it: ``90s``, ``5m``, ``1h30m``, or plain seconds.

    Raises:
        typer.BadParameter: it is none.
    """
    if not _DURATION.fullmatch(text):
        raise typer.BadParameter(f"{text[:50]} is no duration such as 90s, 5m or 1h30m")
    return float(sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text)))


def is_name(text: str) -> bool:
    """Whether an object may be called so: it becomes a part of URLs and selectors."""
    return _NAME.fullmatch(text) is not None


def _name(text: str | None) -> str | None:
    if text is not None and not is_name(text):
        raise typer.BadParameter(
            f"{text!r} can't be a name: lower-case letters, digits, '-' and '.' only"
        )
    return text


def _given(text: str | None) -> str | None:
    """Nothing for what is empty, such as a script's variable that nobody has set; as kubectl."""
    return text or None


def _namespace(text: str | None) -> str | None:
    return _name(_given(text))


def _file(path: Path | None) -> Path | None:
    return None if path == Path() else path


def _selector(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise typer.BadParameter("a selector has labels in ASCII alone, such as team=vision")
    return text


def _step(text: str | None) -> int | None:
    """The number of ``step=N``.

    Raises:
        typer.BadParameter: it is something else.
    """
    if text is None:
        return None
    found = _STEP.fullmatch(text)
    if found is None:
        raise typer.BadParameter(
            f"{text[:50]!r} is nothing to wait for; write step=1, for instance"
        )
    return int(found[1])


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The InferenceModel's name.", callback=_name)
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="Default: the context's namespace.", callback=_namespace
    ),
]
Context = Annotated[
    str | None, typer.Option(help="The kubeconfig's context to use.", callback=_given)
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(help="Default: KUBECONFIG, or ~/.kube/config; as with kubectl.", callback=_file),
]
Selector = Annotated[
    str,
    typer.Option(
        "--selector",
        "-l",
        help="Those with these labels, such as team=vision.",
        callback=_selector,
    ),
]
As = Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")]
Timeout = Annotated[
    float, typer.Option(parser=seconds, help="Such as 90s or 10m.", metavar="DURATION")
]
Until = Annotated[
    int | None,
    typer.Option(
        "--for",
        parser=_step,
        metavar="step=N",
        help="Step N of the rollout, with its replicas answering; without it, all replicas.",
    ),
]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it until Ctrl-C, as it changes.")]
