"""The model server next door: its configuration files and its answer to GetModelStatus."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError

from model_poller.checks.wire import delimited, fields, written
from model_poller.model_server import _tfs
from model_poller.process.threads import Worker
from model_poller.status import ServedVersion
from model_poller.volume.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

_METHOD = "/tensorflow.serving.ModelService/GetModelStatus"
_TIMEOUT_SECONDS = 2.0
_BUSY_SECONDS = 30.0
"""So long a server's last words count while it refuses calls because all its threads have one: it
is there, and answers requests. Longer, and they may be threads that hang."""
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    # A server that starts is noticed as soon as its port opens.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
)

Served = tuple[ServedVersion, ...]


class ModelServer:
    """Asks one model server about one model."""

    def __init__(
        self, address: str, model: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``address`` is HOST:PORT of its gRPC port."""
        self._clock = clock
        self._heard: tuple[float, Served] | None = None
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._call = self._channel.unary_unary(
            _METHOD,
            request_serializer=_tfs.GetModelStatusRequest.SerializeToString,
            response_deserializer=_decoded,
        )
        self._request = _tfs.GetModelStatusRequest()
        self._request.model_spec.name = model

    def status(self) -> Served | None:
        """The server's words, newest version first; None when it does not answer.

        Empty when the server answers that it knows no version of the model. One that has as many
        calls as threads refuses this one like any other (``--grpc_max_threads``), which is no
        silence: its last words count.
        """
        served, is_busy = self._ask()
        now = self._clock()
        if served is not None:
            self._heard = now, served
        elif is_busy and self._heard and now - self._heard[0] < _BUSY_SECONDS:
            return self._heard[1]
        return served

    def _ask(self) -> tuple[Served | None, bool]:
        """Its words, or none and whether it is merely busy."""
        for last_try in (False, True):
            try:
                response = self._call(self._request, timeout=_TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    return (), False
                is_busy = error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                # A server that limits a connection's age may close it under a call.
                if last_try or is_busy:
                    return None, is_busy
                continue
            served = tuple(
                ServedVersion(
                    version=entry.version,
                    state=_state_name(entry.state),
                    error_code=grpc_code_name(entry.status.error_code),
                    error_message=entry.status.error_message,
                )
                for entry in sorted(
                    response.model_version_status, key=lambda e: e.version, reverse=True
                )
            )
            return served, False
        return None, False


def _decoded(answer: bytes) -> Any:
    """A GetModelStatusResponse, also where a message in it is no UTF-8.

    C++ writes such a text, and Python refuses all of the answer for it: a server that can't load
    one version would be taken for one that isn't there.
    """
    try:
        return _tfs.GetModelStatusResponse.FromString(answer)
    except DecodeError:
        # One field of each is a message: the versions' and, of a version, its status.
        return _tfs.GetModelStatusResponse.FromString(_readable(answer, range(len(answer)), (1, 3)))


def _readable(answer: bytes, where: range, path: tuple[int, ...]) -> bytes:
    """The same message with texts as Python shows them; numbers stay, all else is left out."""
    rewritten = bytearray()
    for number, value in fields(answer, where.start, where.stop):
        if isinstance(value, int):
            rewritten += written(number << 3) + written(value)
        elif not path:
            text = answer[value.start : value.stop].decode(errors="backslashreplace")
            rewritten += delimited(number, text.encode())
        elif number == path[0]:
            rewritten += delimited(number, _readable(answer, value, path[1:]))
    return bytes(rewritten)


def _state_name(number: int) -> str:
    """The name of a version's state; of one that only a newer server knows, its number."""
    known = _tfs.ModelVersionStatus.State.DESCRIPTOR.values_by_number.get(number)
    return known.name if known else str(number)


_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def grpc_code_name(number: int) -> str:
    """The name of a status code; TensorFlow's codes are gRPC's."""
    return _CODE_NAMES.get(number, "UNKNOWN")


class ServerWatch:
    """Asks the model server over and over, quickly while a version change is under way."""

    FAST_SECONDS = 0.075
    SHUT_SECONDS = 0.25
    """While a change is under way and the port is closed, as it is during the first load."""
    SLOW_SECONDS = 3.0
    """A call by gRPC takes 4 ms of CPU, of three threads: this is most of what rest costs."""

    def __init__(
        self, ask: Callable[[], Served | None], report: Callable[[Served | None], None]
    ) -> None:
        """``report`` gets every answer, on this watch's own thread."""
        self._ask = ask
        self._report = report
        self._hurry = threading.Event()
        self.worker = Worker("server watch", self._turn, failed=lambda _: report(None))

    def start(self) -> None:
        """Begin to ask."""
        self.worker.start()

    def hurry(self, fast: bool) -> None:
        """Ask quickly from now on, or slowly again."""
        if fast:
            self._hurry.set()
        else:
            self._hurry.clear()

    def stop(self) -> None:
        """Ask no more."""
        self.worker.stop()
        self._hurry.set()

    def _turn(self) -> None:
        served = self._ask()
        self._report(served)
        if self._hurry.is_set():
            self.worker.pause(self.FAST_SECONDS if served is not None else self.SHUT_SECONDS)
        else:
            # Returns at once when a change begins.
            self.worker.pause(self.SLOW_SECONDS, self._hurry)


def write_configuration(folder: Path, model: str, base: Path, batching: str | None) -> None:
    """Write what the model server reads once at its start; see its ``--*_config_file`` flags.

    The version policy is ``all``: what lies in the base path is what is served.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = (
        "model_config_list {\n"
        "  config {\n"
        f'    name: "{_escape(model)}"\n'
        f'    base_path: "{_escape(str(base))}"\n'
        '    model_platform: "tensorflow"\n'
        "    model_version_policy { all {} }\n"
        "  }\n"
        "}\n"
    )
    monitoring = "prometheus_config { enable: true }\n"
    files = {"models.config": config, "monitoring.config": monitoring}
    if batching is not None:
        files["batching.config"] = batching
    for name, text in files.items():
        path, content = folder / name, text.encode()
        # What is there already needs no room.
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
