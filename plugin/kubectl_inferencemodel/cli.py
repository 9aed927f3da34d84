"""The command line.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted, 141 the
reader of the output has gone; ``wait`` adds 3 (the time is up) and 4 (it will not come by waiting).
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from kubectl_inferencemodel import output
from kubectl_inferencemodel.arguments import COMPLETE, COMPLETER, command_first
from kubectl_inferencemodel.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED: Final = 130
READER_GONE: Final = 141
"""As a shell tells of a program that a signal ended: SIGINT, SIGPIPE."""
DEBUG: Final = "KUBECTL_INFERENCEMODEL_DEBUG"
"""The environment variable that brings tracebacks back."""
_NEW_OBJECTS: Final = 10_000
"""So many containers more than before start a search for garbage. Python's 700 are those of a few
objects of a list, and each search now and then goes through all that the imports made."""
_UsageError: type[BaseException] = typer.BadParameter.__mro__[2]
"""What every wrong usage is; typer's own copy of click has no public name for it."""
_COMMANDS: Final = {
    "list": "inspection:list_models",
    "why": "inspection:why",
    "versions": "inspection:versions",
    "predict": "answers:predict",
    "wait": "delivery:wait",
    "rollout": "delivery:rollout",
    "promote": "delivery:promote",
    "abort": "delivery:abort",
    "retry": "delivery:retry",
    "approve": "delivery:approve",
    "pause": "delivery:pause",
    "resume": "delivery:resume",
    "record": "answers:record",
    "diff": "answers:diff",
    "ui": "ui:ui",
    "completion": "shells:script",
}
"""Each command, in the order of the help, and its module and function."""


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        output.write(f"{version('inferencemodel')}\n")
        raise typer.Exit


def _plugin(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Print the plugin's version."
        ),
    ] = False,
) -> None:
    """What stands in front of every command."""


def program(asked: str = "") -> typer.Typer:
    """The command line: with the command that is asked for alone, as only that is imported then.

    Any other word brings all of them, for the help and what else might have been meant.
    """
    made = typer.Typer(
        name="kubectl inferencemodel",
        help="What InferenceModels serve, what they wait for, and what a model answers.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    made.callback()(_plugin)
    for name in [asked] if asked in _COMMANDS else _COMMANDS:
        module, _, function = _COMMANDS[name].partition(":")
        made.command(name)(getattr(import_module(f"kubectl_inferencemodel.{module}"), function))
    return made


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and end the process."""
    gc.set_threshold(_NEW_OBJECTS)
    given = sys.argv[1:] if arguments is None else arguments
    # kubectl asks what may come next by the name of the program.
    asks = Path(sys.argv[0]).name.startswith(COMPLETER)
    sys.exit(run([COMPLETE, *given] if asks else given))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; what goes wrong is one line on standard error.

    Returns:
        The exit code.
    """
    output.prepare()
    try:
        if list(arguments[:1]) == [COMPLETE]:
            from kubectl_inferencemodel import shells

            output.write(shells.answer(arguments[1:], program()))
            return 0
        words = command_first(arguments) or ["--help"]
        code = program(words[0])(words, prog_name="kubectl inferencemodel", standalone_mode=False)
    except output.ReaderGoneError:
        output.silence()
        return READER_GONE
    except KeyboardInterrupt:
        return _interrupted()
    except _UsageError as error:
        output.tell(f"error: {_usage(error)}")
        return 2
    except PluginError as error:
        output.tell(f"error: {error}")
        return 1
    except OSError as error:
        output.tell(f"error: the answer can't be printed: {error.strerror or error}")
        output.silence()
        return 1
    except Exception as error:  # noqa: BLE001  # the last place before a traceback
        if os.environ.get(DEBUG):
            traceback.print_exc()
        output.tell(
            f"error: a fault of this program, {type(error).__name__}: {error}; please report it,"
            f" with what {DEBUG}=1 prints"
        )
        return 1
    if code == INTERRUPTED:
        return _interrupted()
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    output.tell("interrupted")
    return INTERRUPTED


def _usage(error: BaseException) -> str:
    words = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    return f"{words} (see {context.command_path} --help)" if context else str(words)
