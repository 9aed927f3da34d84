"""Being told to end: whatever is under way is given up, and nothing of it is left behind."""

from __future__ import annotations

import signal
import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class EndedError(KeyboardInterrupt):
    """A signal said to end; like Python's own for SIGINT it is no `Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = 128 + number
        """What a shell shows of a program that a signal ended."""
        self.left = ""
        """Of what a part stays in the store, if of anything."""


class Signals:
    """Makes an EndedError of the first signal that says to end; further ones are ignored.

    In a container the program may be process 1, which no signal ends unless it is asked for.
    """

    def __init__(self, *, to_the_end: bool = False) -> None:
        """``to_the_end``: nothing but the process's end follows, so no signal changes how it ends.

        What was done is told by then, and Python takes a while to end.
        """
        self._to_the_end = to_the_end

    def __enter__(self) -> Self:
        # Only the main thread may, and only it would get them.
        mine = threading.current_thread() is threading.main_thread()
        self._before = {each: signal.signal(each, self._end) for each in _SIGNALS if mine}
        # Whoever starts programs may have blocked them, which is inherited.
        self._blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)
        return self

    def __exit__(self, *_: object) -> None:
        if self._to_the_end:
            self.ignore()
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)

    def ignore(self) -> None:
        """Let nothing disturb what cleans up."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def _end(self, number: int, _: FrameType | None) -> None:
        self.ignore()
        raise EndedError(number)


_T = TypeVar("_T")


def answer_within(seconds: float, question: Callable[[], _T]) -> _T | None:
    """What a question gives; None where it fails or takes longer, and nobody waits for it then."""
    answers: SimpleQueue[_T | None] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(question())
        except Exception:  # noqa: BLE001 - whatever it is, the answer isn't known
            answers.put(None)

    threading.Thread(target=ask, name="question", daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except Empty:
        return None


def in_threads(work: Callable[[_T], None], items: Iterable[_T], threads: int) -> None:
    """Do the same for each item, several at once; the first failure is raised.

    Neither a failure nor a signal waits for the other threads, which begin nothing more and end
    with the process at the latest; those of an executor would be waited for.
    """
    todo = deque(items)
    results: SimpleQueue[BaseException | None] = SimpleQueue()

    def run() -> None:
        while True:
            try:
                item = todo.popleft()
            except IndexError:
                results.put(None)
                return
            try:
                work(item)
            except BaseException as error:  # noqa: BLE001 - raised below
                results.put(error)
                return

    workers = [
        threading.Thread(target=run, name=f"upload-{i}", daemon=True)
        for i in range(min(threads, len(todo)))
    ]
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            if error := results.get():
                raise error
    finally:
        todo.clear()
