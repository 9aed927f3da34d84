"""What the model server counts of predictions, as its Prometheus page tells; the page is read here.

Of TensorFlow Serving's metrics two are about requests (see docs/metrics.md). Both know every GET of
the REST API, too, so also the readiness probe:

    :tensorflow:serving:request_latency   OK alone, in µs; a GET has an empty label API
    :tensorflow:serving:request_count     by status; a GET can't be told from a prediction

So what went well is taken of the first, what failed of the second, where the probe counts only
while no version answers. No series has the version.
"""

from __future__ import annotations

import http.client
import logging
import math
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model_poller.process.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

PATH: Final = "/monitoring/prometheus/metrics"
"""TensorFlow Serving's default, which the ``monitoring.config`` that the poller writes leaves."""
MAX_BYTES: Final = 16 << 20
"""Each name of a model that anybody asked for makes dozens of lines."""
_SECONDS: Final = 5.0
_DIGITS: Final = 6
"""TensorFlow Serving writes a sum with so many significant digits."""
_ROUGH: Final = 0.02
"""Above this part of it, a difference of two sums says less than the histogram does."""

_LATENCY: Final = ":tensorflow:serving:request_latency"
_COUNT: Final = ":tensorflow:serving:request_count"
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")

_log = logging.getLogger(__name__)


class UnreadableFiguresError(Exception):
    """The page can't be had, or isn't one of a model server that counts predictions."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Counters since the server's start, of one model's predictions."""

    good: int = 0
    """Those that were answered with OK."""
    bad: int = 0
    """Those that ended with any other status."""
    micros: float = 0.0
    """The time that the good ones took altogether."""
    slack: float = 0.0
    """By so much ``micros`` may be wrong, for it was written rounded."""
    buckets: tuple[tuple[float, int], ...] = ()
    """How many of the good ones took at most so many µs; the limits rise."""

    def is_before(self, later: Figures) -> bool:
        """Whether both may be of one life of the server: no counter ever falls."""
        counts = dict(later.buckets)
        return (
            self.good <= later.good
            and self.bad <= later.bad
            and all(count <= counts.get(limit, 0) for limit, count in self.buckets)
        )

    def seconds_until(self, later: Figures) -> float:
        """The time that the good ones between the two took altogether.

        After millions of requests the sum is too coarse for a minute's; then the histogram counts.
        """
        micros = later.micros - self.micros
        if micros < 0 or self.slack + later.slack > _ROUGH * micros:
            micros = _estimated(dict(self.buckets), later.buckets)
        return micros / 1e6


def _estimated(before: dict[float, int], after: Iterable[tuple[float, int]]) -> float:
    """The sum of what came between the two histograms, each sample as its bucket's middle."""
    total = below = 0.0
    counted = 0
    for limit, count in after:
        here = count - before.get(limit, 0)
        top = limit if math.isfinite(limit) else 2 * below
        middle = math.sqrt(below * top) if below else top / 2
        total += (here - counted) * middle
        counted, below = here, top
    return total


def parse(page: str, model: str) -> Figures:
    """Read what a page tells of one model.

    Raises:
        UnreadableFiguresError: it doesn't have the metrics.
    """
    good = bad = 0
    micros = slack = 0.0
    buckets: dict[float, int] = {}
    known: set[str] = set()
    try:
        for line in page.split("\n"):
            if line.startswith(("# TYPE " + _LATENCY + " ", "# TYPE " + _COUNT + " ")):
                known.add(line.split(" ")[2])
            if not line.startswith((_LATENCY, _COUNT)) or not (found := _SAMPLE.match(line)):
                continue
            name, value = found[1], found[3]
            labels = {key: _ESCAPED.sub(r"\1", text) for key, text in _LABEL.findall(found[2])}
            if labels.get("model_name") != model:
                continue
            if name == _COUNT and labels.get("status") != "OK":
                bad += int(value)
            elif not labels.get("API"):
                continue
            elif name == f"{_LATENCY}_count":
                good += int(value)
            elif name == f"{_LATENCY}_sum":
                micros += float(value)
                slack += _slack(value)
            elif name == f"{_LATENCY}_bucket":
                limit = float(labels["le"])
                buckets[limit] = buckets.get(limit, 0) + int(value)
    except (ValueError, KeyError) as error:
        raise UnreadableFiguresError(f"it can't be understood: {error}") from None
    if missing := {_LATENCY, _COUNT} - known:
        raise UnreadableFiguresError(f"it has no {' and no '.join(sorted(missing))}")
    return Figures(good, bad, micros, slack, tuple(sorted(buckets.items())))


def _slack(text: str) -> float:
    """Half a unit of the last digit of a number that was written with six."""
    value = float(text)
    digits = len(text.partition("e")[0].replace(".", "").strip("+-0"))
    if value < 10**_DIGITS or digits > _DIGITS:
        return 0.0
    return 0.5 * 10.0 ** (math.floor(math.log10(value)) + 1 - _DIGITS)


def fetch(address: str, seconds: float = _SECONDS) -> str:
    """The page of the server at HOST:PORT.

    Raises:
        UnreadableFiguresError: it can't be had within ``seconds``.
    """
    connection = http.client.HTTPConnection(address, timeout=seconds)
    late = threading.Event()
    opened: list[socket.socket] = []

    def cut() -> None:
        late.set()
        for one in opened:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    # However slowly an answer comes, and whatever part of it: no read lasts longer than this.
    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        connection.connect()
        opened.append(connection.sock)
        connection.request("GET", PATH, headers={"Connection": "close"})
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise UnreadableFiguresError(f"the answer is {answer.status} {answer.reason}")
        body = answer.read(MAX_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        what = f"it didn't come within {seconds:g} s" if late.is_set() else str(error)
        raise UnreadableFiguresError(what or type(error).__name__) from None
    finally:
        timer.cancel()
        connection.close()
    if len(body) > MAX_BYTES:
        raise UnreadableFiguresError(f"it has more than {MAX_BYTES >> 20} MiB")
    if late.is_set() or answer.length:
        raise UnreadableFiguresError("it came in part")
    return body.decode(errors="replace")


class FiguresWatch:
    """Asks for figures now and then, as long as somebody wants them, and at once for a new reason.

    While nobody does, it asks nothing.
    """

    IDLE_SECONDS = 60.0

    def __init__(
        self, page: Callable[[], str], model: str, report: Callable[[float, Figures], None]
    ) -> None:
        """``report`` gets when it asked, in monotonic seconds, and what was told; on its thread."""
        self._page = page
        self._model = model
        self._report = report
        self._reason: Hashable = None
        self._seconds = 0.0
        self._changed = threading.Event()
        self._last_error = ""
        self.worker = Worker("figures watch", self._turn)

    def start(self) -> None:
        """Begin to wait for who wants any."""
        self.worker.start()

    def want(self, reason: Hashable, seconds: float) -> None:
        """Ask each so many seconds from now on; without a reason, ask no more."""
        if (reason, seconds) != (self._reason, self._seconds):
            self._reason, self._seconds = reason, seconds
            self._changed.set()

    def stop(self) -> None:
        """Ask no more."""
        self.worker.stop()
        self._changed.set()

    def _turn(self) -> None:
        self._changed.clear()
        if self._reason is None:
            self.worker.pause(self.IDLE_SECONDS, self._changed)
            return
        begun = time.monotonic()
        try:
            figures = parse(self._page(), self._model)
        except UnreadableFiguresError as error:
            if str(error) != self._last_error:
                _log.warning("the model server's metrics can't be read: %s", error)
            self._last_error = str(error)
        else:
            self._last_error = ""
            self._report(begun, figures)
        self.worker.pause(self._seconds, self._changed)
