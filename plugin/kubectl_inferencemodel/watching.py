"""Something that is shown for as long as somebody looks: painted anew, or told line by line."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kubectl_inferencemodel import output
from kubectl_inferencemodel.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from rich.console import RenderableType

V = TypeVar("V")
LOOK_SECONDS: Final = 1.0
"""The pause between two looks."""


@dataclass(frozen=True)
class Form(Generic[V]):
    """What is shown of a view."""

    render: Callable[[V], RenderableType]
    """For a terminal."""
    lines: Callable[[V], Mapping[str, str]]
    """For who reads lines, each by a name of its own: those that have changed are told."""
    objects: Callable[[V], Mapping[str, object]]
    """The same for programs."""
    gone: Callable[[str], tuple[str, object]] | None = None
    """What is told of a name that is no longer there, as a line and for programs."""


class Screen(Generic[V]):
    """Where views are shown: a terminal that is painted anew, or lines of what has changed."""

    def __init__(self, form: Form[V], *, as_json: bool) -> None:
        self._form = form
        self._as_json = as_json
        self._console = Console(highlight=False)
        is_painted = self._console.is_terminal and not as_json
        self._live = Live(console=self._console, auto_refresh=False) if is_painted else None
        self._told: dict[str, object] = {}
        self._problem = ""
        self._last: RenderableType = ""

    def __enter__(self) -> Screen[V]:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def room(self) -> int | None:
        """So many lines fit; None where there may be any number."""
        return None if self._live is None else self._console.size.height

    def show(self, view: V) -> None:
        """Show how things are."""
        if self._live is not None:
            self._last, self._problem = self._form.render(view), ""
            self._live.update(self._last, refresh=True)
            return
        if self._problem:
            self._problem = ""
            output.tell("the API server answers again")
        told: dict[str, object] = {
            **(self._form.objects(view) if self._as_json else self._form.lines(view))
        }
        for name in self._told.keys() - told.keys():
            if self._form.gone is not None:
                line, value = self._form.gone(name)
                self._tell(value if self._as_json else line)
        for name, value in told.items():
            if name not in self._told or self._told[name] != value:
                self._tell(value)
        self._told = told

    def fail(self, words: str) -> None:
        """Say why what is shown is no longer up to date."""
        if self._problem:
            return
        self._problem = f"not up to date since {datetime.now(UTC):%H:%M:%SZ}: {output.line(words)}"
        if self._live is None:
            output.tell(self._problem)
        else:
            self._live.update(Group(self._last, "", Text(self._problem, style="red")), refresh=True)

    def _tell(self, value: object) -> None:
        if self._as_json:
            output.write(json.dumps(msgspec.to_builtins(value), ensure_ascii=False) + "\n")
        else:
            # As one line, with the spaces that are between columns.
            output.write(" ".join(output.plain(str(value)).splitlines()) + "\n")


def polled(
    look: Callable[[], V], screen: Screen[V], ended: Callable[[V], bool] = lambda _: False
) -> V:
    """Look again and again, and show it, until it has ended; the last view.

    Raises:
        UnavailableError: the first look fails.
        PluginError: a later one fails in a way that doesn't heal by waiting.
    """
    is_first, failures = True, 0
    while True:
        try:
            found = look()
        except UnavailableError as error:
            if is_first:
                raise
            failures += 1
            screen.fail(str(error))
        else:
            is_first, failures = False, 0
            screen.show(found)
            if ended(found):
                return found
        time.sleep(LOOK_SECONDS * 2 ** min(failures, 4))
