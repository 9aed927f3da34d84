"""Sends a version's recorded requests to the model server next door, and compares its answers."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc

from model_poller.golden import recorded
from model_poller.golden.compare import Tally, compare
from model_poller.golden.recorded import MAX_MESSAGE
from model_poller.golden.tensors import UnsupportedError
from model_poller.model_server.records import FILE, FOLDER
from model_poller.status import CheckResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_poller.golden.recorded import Record
    from model_poller.status import GoldenTask

REQUEST_SECONDS: Final = 30.0
"""For one answer. The version is loaded and warmed up by now."""
ALL_SECONDS: Final = 300.0
FAILED_SECONDS: Final = 10.0
"""So long others are sent after one that failed, to tell how many do."""
NO_SERVABLE_SECONDS: Final = 10.0
"""So long a model server may say that it doesn't have the version that it said was AVAILABLE."""
_BUSY_PAUSES: Final = (0.1, 0.5)
"""Seconds before a request is sent again that a closed connection took with it."""
_LONGEST_PAUSE: Final = 1.0
_SERVICE: Final = "/tensorflow.serving.PredictionService/"
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    # An answer of that size is another one than was recorded.
    ("grpc.max_receive_message_length", 2 * MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
)
_NO_SERVABLE: Final = "Servable not found"
"""How TensorFlow Serving begins to say that it doesn't have a version."""
_TOO_LARGE: Final = "larger than max"
_MAX_DETAILS: Final = 500


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a version's recorded requests."""

    result: CheckResult
    records: int = 0
    message: str = ""


class InterruptedSendingError(Exception):
    """It was told to end before anything could be said."""


class ServerWentAwayError(InterruptedSendingError):
    """The model server did, over a request."""


@dataclass(slots=True)
class Stop:
    """Ends a run from another thread, also in the middle of a request."""

    _told: threading.Event = field(default_factory=threading.Event)
    _call: grpc.Future[bytes] | None = None

    def set(self) -> None:
        """End it."""
        self._told.set()
        if call := self._call:
            call.cancel()

    def watch(self, call: grpc.Future[bytes] | None) -> None:
        """Take in the request that runs."""
        self._call = call
        if call and self._told.is_set():
            call.cancel()

    def check(self) -> None:
        """Go on, unless it was told to end.

        Raises:
            InterruptedSendingError
        """
        if self._told.is_set():
            raise InterruptedSendingError("it was told to end")

    def wait(self, seconds: float) -> None:
        """Wait so long; raises as `check`."""
        self._told.wait(seconds)
        self.check()


class GoldenRequests:
    """Those of one model's versions, and its server."""

    def __init__(
        self, address: str, model: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``address`` is HOST:PORT of its gRPC port."""
        self._address = address
        self._model = model
        self._clock = clock

    def check(
        self, folder: Path, version: int, task: GoldenTask, stop: Stop, *, went_away: bool
    ) -> Result:
        """Send the requests that came with a version to this very version.

        ``went_away`` says that the model server did, over a request, in an earlier try.

        Raises:
            ServerWentAwayError: for the first time.
            InterruptedSendingError
        """
        try:
            path, found = recorded.find(folder)
        except (ValueError, OSError) as error:
            message = f"{FOLDER}/{FILE} can't be read: {error}"
            return Result(CheckResult.INCONCLUSIVE, message=message)
        tally = Tally(len(found), task)
        if all(record.obstacle for record in found):
            # Nothing to connect for.
            for record in found:
                tally.pass_over(record.obstacle)
            return _result(tally)
        with closing(grpc.insecure_channel(self._address, options=_OPTIONS)) as channel:
            run = _Run(channel, self._model, version, path, tally, stop, self._clock, went_away)
            return _result(tally, run.send(found))


def _result(tally: Tally, unfinished: str = "") -> Result:
    result, message = tally.verdict(unfinished)
    return Result(result, tally.records, message)


class _AnswerError(Exception):
    """The model server answers a request with an error."""


class _EndError(Exception):
    """No further request is sent; says why."""


@dataclass(slots=True)
class _Run:
    """One try to send all of them."""

    channel: grpc.Channel
    model: str
    version: int
    path: Path
    tally: Tally
    stop: Stop
    clock: Callable[[], float]
    went_away: bool

    def send(self, found: list[Record]) -> str:
        """Send them one after the other; returns why some were not sent, if so."""
        end = self.clock() + ALL_SECONDS
        for record in found:
            self.stop.check()
            try:
                self._compare(record, end)
            except _EndError as error:
                return str(error)
            except OSError as error:
                return f"record {record.number} can't be read: {error.strerror}"
            if self.tally.has_failed:
                end = min(end, self.clock() + FAILED_SECONDS)
        return ""

    def _compare(self, record: Record, end: float) -> None:
        tally = self.tally
        try:
            kind, request, response = recorded.load(self.path, record)
            wanted = kind.read(response)
            asked = recorded.addressed(record.kind, request, self.model, self.version)
        except UnsupportedError as error:
            tally.pass_over(str(error))
            return
        except ValueError as error:
            tally.pass_over(f"what was recorded can't be read: {error}")
            return
        try:
            answer = kind.read(self._ask(kind.method, asked, record.number, end))
        except _AnswerError as error:
            tally.fail(record.number, str(error))
        except ValueError as error:
            tally.fail(record.number, f"the answer can't be read: {error}")
        else:
            tally.add(record.number, compare(answer, wanted, tally.task))

    def _ask(self, method: str, request: bytes, number: int, end: float) -> bytes:
        """Send one request, again where it was not taken.

        Raises:
            _AnswerError: the answer is an error.
            _EndError: there is none, and the next one would get none.
        """
        begin = self.clock()
        limit = min(begin + REQUEST_SECONDS, end)
        gone = busy = 0
        refused = ""
        while (left := limit - self.clock()) > 0:
            self.stop.check()
            try:
                return self._call(method, request, left)
            except grpc.RpcError as error:
                code, details = error.code(), error.details() or ""
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                break
            if code is grpc.StatusCode.UNAVAILABLE:
                if gone == len(_BUSY_PAUSES):
                    self._has_gone(number, details)
                self.stop.wait(_BUSY_PAUSES[gone])
                gone += 1
            elif code is grpc.StatusCode.NOT_FOUND and details.startswith(_NO_SERVABLE):
                if self.clock() - begin > NO_SERVABLE_SECONDS:
                    raise _EndError(f"the model server doesn't know the version: {_cut(details)}")
                self.stop.wait(_BUSY_PAUSES[0])
            elif code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE not in details:
                # All of its threads have requests to answer, or a device has no memory left.
                refused, busy = f" ({_cut(details)})", busy + 1
                self.stop.wait(min(_BUSY_PAUSES[0] * busy, _LONGEST_PAUSE))
            else:
                raise _AnswerError(f"{code.name}: {_cut(details)}")
        if limit == end:
            raise _EndError(f"the rest was not answered within {ALL_SECONDS:.0f} s")
        self.tally.fail(number, f"no answer within {REQUEST_SECONDS:.0f} s{refused}")
        raise _EndError("the rest was not sent")

    def _call(self, method: str, request: bytes, seconds: float) -> bytes:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        ask = self.channel.unary_unary(f"{_SERVICE}{method}")
        call = ask.future(request, timeout=seconds)
        self.stop.watch(call)
        try:
            return call.result()
        except grpc.FutureCancelledError:
            raise InterruptedSendingError("it was told to end") from None
        finally:
            self.stop.watch(None)

    def _has_gone(self, number: int, details: str) -> None:
        """A crash by chance is no proof; a second one is.

        Raises:
            ServerWentAwayError: it is the first one.
            _EndError: it is another one.
        """
        if not self.went_away:
            raise ServerWentAwayError(details)
        self.tally.fail(number, f"the model server went away twice over it: {_cut(details)}")
        raise _EndError("the rest was not sent")


def _cut(details: str) -> str:
    line = " ".join(details.split())
    return line if len(line) <= _MAX_DETAILS else f"{line[:_MAX_DETAILS]}…"
