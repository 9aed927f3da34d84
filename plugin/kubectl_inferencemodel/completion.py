"""What may come next on a command line. Pure: from the commands' shapes and a cluster's names.

The answer has the form that kubectl asks of ``kubectl_complete-inferencemodel``, which is cobra's:
a line for each word, with a tab before what it means, and at last what a shell is to make of them.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from kubectl_inferencemodel import output
from kubectl_inferencemodel.arguments import command_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SAFE: Final = re.compile(r"[\w.:@/+=-]+", re.ASCII)
"""What a shell takes as it is: nothing else is offered, whoever may have named it."""
_STEPS: Final = 5
_SHORT: Final = 2


class Directive(IntEnum):
    """What a shell makes of the words; the numbers are cobra's ``ShellCompDirective``."""

    WORDS_OR_FILES = 0
    WORDS = 4


class Option(msgspec.Struct, frozen=True):
    """One option of a command."""

    name: str
    """What it is about, such as ``namespace``."""
    words: tuple[str, ...]
    help: str = ""
    takes_value: bool = True
    is_repeated: bool = False
    is_file: bool = False
    choices: tuple[str, ...] = ()


class Shape(msgspec.Struct, frozen=True):
    """What a command takes."""

    help: str = ""
    arguments: tuple[Option, ...] = ()
    options: tuple[Option, ...] = ()

    def option(self, word: str) -> Option | None:
        """The option that is written so."""
        return next((option for option in self.options if word in option.words), None)


class Line(msgspec.Struct, frozen=True):
    """What stands on the line already, in front of the word that is completed."""

    command: str
    arguments: tuple[str, ...]
    values: Mapping[str, str]
    """By the options' names; empty for those that take none."""
    open: Option | None
    """The option whose value comes next."""


class Names(Protocol):
    """What there is in the cluster that a line is about; nothing where that isn't known."""

    def models(self, line: Line) -> Iterable[str]:
        """InferenceModels of the namespace."""

    def namespaces(self, line: Line) -> Iterable[str]:
        """All namespaces."""

    def contexts(self, line: Line) -> Iterable[str]:
        """Contexts of the kubeconfig."""

    def versions(self, line: Line) -> Iterable[tuple[str, str]]:
        """The versions that are known of the model that is named, and what each is."""


Word = tuple[str, str]
"""A word and what it means."""


def complete(
    words: Sequence[str], shapes: Mapping[str, Shape], names: Names
) -> tuple[list[Word], Directive]:
    """What the last word may become.

    Args:
        words: all behind the program's name; the last one is what is completed, perhaps empty.
        shapes: the commands.
        names: what there is to be named.
    """
    *before, last = _joined(words) or [""]
    # Options may stand in front of the command: they are known by any that has them.
    ordered = command_first(before)
    command = ordered[0] if ordered and not ordered[0].startswith("-") else ""
    if command and command not in shapes:
        return [], Directive.WORDS
    line = _parsed(command, ordered[1:] if command else ordered, _shape(command, shapes))
    found, directive = _candidates(line, last, _shape(command, shapes), shapes, names)
    fitting = [word for word in found if word[0].startswith(last) and _SAFE.fullmatch(word[0])]
    return list(dict(fitting).items()), directive


def written(words: Iterable[Word], directive: Directive) -> str:
    """The answer as kubectl and the scripts of the shells read it."""
    lines = [f"{word}\t{output.line(help_)}" if help_ else word for word, help_ in words]
    return "".join(f"{line}\n" for line in [*lines, f":{int(directive)}"])


def _joined(words: Sequence[str]) -> list[str]:
    """The words without the cuts that bash makes at each ``=``."""
    found: list[str] = []
    for word in words:
        if found and (word == "=" or (found[-1].startswith("--") and found[-1].endswith("="))):
            found[-1] += word
        else:
            found.append(word)
    return found


def _shape(command: str, shapes: Mapping[str, Shape]) -> Shape:
    if command:
        return shapes[command]
    options = {option.name: option for shape in shapes.values() for option in shape.options}
    shared = ("namespace", "context", "kubeconfig", "output_")
    return Shape(options=tuple(options[name] for name in shared if name in options))


def _parsed(command: str, words: Sequence[str], shape: Shape) -> Line:
    arguments: list[str] = []
    values: dict[str, str] = {}
    open_: Option | None = None
    for word in words:
        if open_ is not None:
            values[open_.name], open_ = word, None
        elif not word.startswith("-") or word == "-":
            arguments.append(word)
        else:
            written_, is_whole, value = word.partition("=")
            option = shape.option(written_)
            if option is None and not word.startswith("--"):
                # Such as -nvision.
                option, is_whole, value = shape.option(word[:_SHORT]), "=", word[_SHORT:]
            if option is not None and option.takes_value and not is_whole:
                open_ = option
            elif option is not None:
                values[option.name] = value
    return Line(command, tuple(arguments), values, open_)


def _candidates(
    line: Line, last: str, shape: Shape, shapes: Mapping[str, Shape], names: Names
) -> tuple[list[Word], Directive]:
    if line.open is not None:
        return _values(line.open, line, names)
    written_, is_whole, _ = last.partition("=")
    if is_whole and last.startswith("-"):
        option = shape.option(written_)
        found, directive = _values(option, line, names) if option else ([], Directive.WORDS)
        return [(f"{written_}={value}", help_) for value, help_ in found], directive
    if last.startswith("-"):
        left = [o for o in shape.options if o.is_repeated or o.name not in line.values]
        words = [(word, option.help) for option in left for word in option.words]
        own = [] if line.command else [("--version", "Print the plugin's version.")]
        return [*words, *own, ("--help", "Show what it takes.")], Directive.WORDS
    if not line.command:
        return [(name, shape.help) for name, shape in shapes.items()], Directive.WORDS
    if len(line.arguments) < len(shape.arguments):
        return _values(shape.arguments[len(line.arguments)], line, names)
    return [], Directive.WORDS


def _values(option: Option, line: Line, names: Names) -> tuple[list[Word], Directive]:
    if option.is_file:
        return [], Directive.WORDS_OR_FILES
    if option.choices:
        return [(choice, "") for choice in option.choices], Directive.WORDS
    match option.name:
        case "name":
            return [(name, "") for name in names.models(line)], Directive.WORDS
        case "namespace":
            return [(name, "") for name in names.namespaces(line)], Directive.WORDS
        case "context":
            return [(name, "") for name in names.contexts(line)], Directive.WORDS
        case "version" | "before" | "after":
            return list(names.versions(line)), Directive.WORDS
        case "until_":
            steps = range(1, _STEPS + 1)
            return [(f"step={step}", f"step {step} of the rollout") for step in steps], (
                Directive.WORDS
            )
    return [], Directive.WORDS
