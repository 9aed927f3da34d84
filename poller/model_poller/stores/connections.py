"""Connections to one server, shared by threads and kept open between requests.

A socket's own time limit begins anew with every byte that comes. So what a connection receives has
a deadline too, which whoever asks sets: a server that sends a byte now and then ends no wait by it.
"""

from __future__ import annotations

import base64
import http.client
import io
import math
import os
import re
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import SplitResult, unquote, urlsplit

from model_poller.errors import (
    AccessDeniedError,
    InvalidSettingsError,
    InvalidSourceError,
    UnreachableError,
)
from model_poller.stores import trust
from model_poller.stores.credentials import shown_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONDITIONS = ("If-Match", "If-Unmodified-Since")
"""What they hold was listed by a store, and proves nobody."""
_TARGET = re.compile(r"[!-~]+")
_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})
"""Also of no body."""
_WITHOUT_BODY = frozenset({204, 304})
_MAX_FIELDS, _MAX_LINE = 100, 65536
"""Of the headers of an answer, as `http.client` has it."""
_MAX_DIGITS = 19
"""Of a length: more bytes than 64 bits can count are nowhere."""
_SLICE_SECONDS = 1
"""After so long a read gives what it has: whoever reads looks at the clock and goes on."""
_SLICE = struct.pack("ll", _SLICE_SECONDS, 0)
_LARGE_BYTES = 64 << 10
_SHORT_BYTES = 64 << 10
"""A body that is sent with the head, in one packet if it fits."""
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: ([^\r\n]*))?")


@dataclass(slots=True)
class _Clock:
    """When what a connection receives has to be there."""

    timeout: float
    end: float = math.inf
    """Monotonic seconds."""

    def limit(self, sock: socket.socket) -> None:
        """Let the next receive end in time.

        Raises:
            TimeoutError
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        sock.settimeout(min(left, self.timeout))


def _waits_in_system(sock: socket.socket) -> bool:
    # Where there is TLS, its own library reads.
    return type(sock) is socket.socket


class _Receiver(io.RawIOBase):
    """A socket's bytes, as long as the clock allows."""

    def __init__(self, sock: socket.socket, clock: _Clock, *, in_system: bool) -> None:
        """``in_system``: let the system wait, which changes the socket for good."""
        super().__init__()
        self._sock = sock
        # Keeps the socket open for an answer that is read when its connection is closed.
        self._inner = sock.makefile("rb", buffering=0)
        self._clock = clock
        self._in_system = in_system
        self._slice_end = math.inf
        self._got = False
        self._is_over = False
        if in_system:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SLICE)

    def begin(self) -> None:
        """A read begins that may return early, if only with a byte."""
        self._slice_end, self._got = time.monotonic() + _SLICE_SECONDS, False

    def end(self) -> None:
        """An answer is over, so nothing is to come."""
        self._is_over = True

    def go_on(self) -> None:
        """Another answer is asked for."""
        self._is_over, self._slice_end = False, math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._is_over or (self._got and time.monotonic() > self._slice_end):
            return None
        self._got = True
        if self._in_system:
            return self._wait_in_system(buffer)
        self._clock.limit(self._sock)
        return self._sock.recv_into(buffer)

    def _wait_in_system(self, buffer: Any) -> int:
        """Leave it to the system to wait, a second at a time: by one call instead of three.

        Of a large buffer until it is full, too: no other thread is kept from its work meanwhile, as
        by a call for each packet.
        """
        sock, flags = self._sock, socket.MSG_WAITALL if len(buffer) >= _LARGE_BYTES else 0
        now = time.monotonic()
        end = min(self._clock.end, now + self._clock.timeout)
        while (left := end - now) > 0:
            # What is nearer than a second is left to Python, which ends it to the moment.
            timeout = left if left < _SLICE_SECONDS else None
            if sock.gettimeout() != timeout:
                sock.settimeout(timeout)
            try:
                return sock.recv_into(buffer, 0, flags)
            except BlockingIOError:
                now = time.monotonic()
        raise TimeoutError("it took too long")

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


class _Reader(io.BufferedReader):
    """What a connection receives, one answer after the other."""

    def __init__(self, sock: socket.socket, clock: _Clock, *, in_system: bool) -> None:
        self.receiver = _Receiver(sock, clock, in_system=in_system)
        super().__init__(self.receiver)

    def is_empty(self) -> bool:
        """Whether all that came was read, and with it the answer."""
        self.receiver.end()
        return not self.peek()


class Response(http.client.HTTPResponse):
    """What a server answers, by a deadline."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        *,
        clock: _Clock,
        reader: _Reader | None = None,
    ) -> None:
        """``reader`` is that of a connection, which is left open when all is read."""
        # Not what `http.client` does here, which makes a reader for each answer.
        self.debuglevel = debuglevel
        self._method = method
        self._lent = reader is not None
        # Without one it is a proxy's answer, and TLS begins behind it on the same socket.
        self.fp: _Reader = reader or _Reader(sock, clock, in_system=False)
        self._receiver = self.fp.receiver
        self._clock = clock
        self.fields: dict[str, str] = {}
        """The headers by names in lower case; of one that comes twice, the first."""
        self.chunked = False
        self.chunk_left: int | None = None
        self.length: int | None = None
        self.will_close = True

    def own(self) -> None:
        """Close the reader when all is read: nobody else will."""
        self._lent = False

    def _close_conn(self) -> None:
        # What `http.client` calls at an answer's end.
        reader, self.fp = self.fp, None  # type: ignore[assignment]
        if not self._lent:
            reader.close()

    def begin(self) -> None:
        """Read what comes before the body.

        As `http.client` does, but that has the email package read the headers: a quarter of all
        work that a small object makes.
        """
        if self.fields:
            return
        while True:
            status = self._begin_at_once()
            if status is None:
                version, status, reason = self._read_status()  # type: ignore[attr-defined]
                if not version.startswith("HTTP/1."):
                    raise http.client.UnknownProtocol(version)
                self.reason = reason.strip()
                self.version = 10 if version == "HTTP/1.0" else 11
                self.fields = _read_fields(self.fp)
            if status != http.client.CONTINUE:
                break
        self.code = self.status = status
        self.headers = self.msg = self.fields  # type: ignore[assignment]
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        if self.chunked:
            self.chunk_left = None
        self.will_close = self._check_close()  # type: ignore[attr-defined]
        length = self.fields.get("content-length", "")
        if len(length) > _MAX_DIGITS:
            raise http.client.HTTPException(f"a Content-Length of {len(length)} characters")
        self.length = int(length) if length.isdecimal() and not self.chunked else None
        if status < 200 or status in _WITHOUT_BODY or self._method == "HEAD":
            self.length = 0
        if not self.chunked and self.length is None:
            self.will_close = True

    def _begin_at_once(self) -> int | None:
        """Take a head that came in one piece and in the plainest form, as nearly all do.

        Returns its status; None for any other, of which nothing is read then.
        """
        came = self.fp.peek()
        end = came.find(b"\r\n\r\n")
        told = _STATUS.match(came)
        if end < 0 or not told or told.end() > end:
            return None
        lines = came[told.end() + 2 : end].decode("iso-8859-1").split("\r\n")
        if len(lines) > _MAX_FIELDS:
            return None
        found: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or "\n" in line or name[:1] in ("", " ", "\t"):
                return None
            found.setdefault(name.strip().lower(), value.strip())
        self.fp.read(end + 4)
        self.fields = found
        self.version = 11 if told[1] == b"1" else 10
        self.reason = (told[3] or b"").decode("iso-8859-1").strip()
        return int(told[2])

    def receive(self, buffer: memoryview, seconds: float) -> int:
        """Fill ``buffer``, or what comes of it in a second if anything does; 0 at the end.

        Raises:
            OSError: nothing came in ``seconds``.
            http.client.HTTPException
        """
        self._clock.end = time.monotonic() + seconds
        if not self.chunked:
            self._receiver.begin()
        return self.readinto(buffer)


def _read_fields(lines: io.BufferedReader) -> dict[str, str]:
    """The headers of an answer, to the empty line behind them.

    Raises:
        http.client.HTTPException: they are more or longer than any server's are, or none.
    """
    found: dict[str, str] = {}
    name = ""
    for _ in range(_MAX_FIELDS):
        line = lines.readline(_MAX_LINE + 1)
        if len(line) > _MAX_LINE:
            raise http.client.LineTooLong("header line")
        if line in (b"\r\n", b"\n", b""):
            return found
        text = line.decode("iso-8859-1")
        if text[0] in " \t":
            # It goes on with the one before; an older form.
            found[name] = f"{found.get(name, '')} {text.strip()}".strip()
            continue
        name, colon, value = text.partition(":")
        if not colon:
            raise http.client.HTTPException(f"{text[:80]!r} is no header")
        name = name.strip().lower()
        found.setdefault(name, value.strip())
    raise http.client.HTTPException(f"more than {_MAX_FIELDS} headers")


def origin(endpoint: str) -> str:
    """The server of a URL, named as requests to it name it: a signature is over that name.

    Raises:
        InvalidSettingsError: it names no host with a port.
    """
    parts, host, port = _address(endpoint)
    return f"{parts.scheme}://{_shown_host(parts.scheme, host, port)}"


def _shown_host(scheme: str, host: str, port: int | None) -> str:
    """A server as the header ``Host`` has it."""
    name = host.encode("idna").decode() if not host.isascii() else host
    name = f"[{name}]" if ":" in name else name
    return name if port in (None, 443 if scheme == "https" else 80) else f"{name}:{port}"


class Connection(http.client.HTTPConnection):
    """One to a server, by TLS or without."""

    reader: _Reader | None = None

    def close(self) -> None:
        """Close it with what it still receives."""
        super().close()
        if self.reader:
            self.reader.close()


class _Tls(Connection, http.client.HTTPSConnection):
    pass


def _clock(connection: Connection) -> _Clock:
    clock: _Clock = connection.response_class.keywords["clock"]  # type: ignore[attr-defined]
    return clock


class Connections:
    """Hands out each connection to one user at a time."""

    def __init__(self, endpoint: str, timeout: float) -> None:
        """``endpoint`` is a URL; ``timeout`` in seconds, for connecting and for each read.

        Of ``https``, the proxy that HTTPS_PROXY names is asked for the way, unless NO_PROXY names
        the host.

        Raises:
            InvalidSettingsError: the endpoint names no host with a port, HTTPS_PROXY no proxy, or
                REQUESTS_CA_BUNDLE or EXTRA_CA_FILE no certificates.
        """
        parts, self.host, self._port = _address(endpoint)
        self._timeout = timeout
        self._shown = _shown_host(parts.scheme, self.host, self._port)
        self._proxy = None
        self._tls = parts.scheme == "https"
        if self._tls:
            trust.context()
            self._proxy = _proxy(self.host)
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def kept(self) -> Connection | None:
        """One that is open, unless the server has closed it meanwhile; None without any."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def new(self) -> Connection:
        """One that connects when it is used."""
        connection: Connection
        if self._tls and self._proxy:
            connection = _Tls(
                self._proxy.hostname or "",
                self._proxy.port or 80,
                timeout=self._timeout,
                context=trust.context(),
            )
            connection.set_tunnel(self.host, self._port or 443, _proves(self._proxy))
        elif self._tls:
            connection = _Tls(self.host, self._port, timeout=self._timeout, context=trust.context())
        else:
            connection = Connection(self.host, self._port, timeout=self._timeout)
        # Also of a proxy's answer.
        connection.response_class = partial(  # type: ignore[assignment]
            Response, clock=_Clock(self._timeout)
        )
        return connection

    def request(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        seconds: float,
    ) -> Response:
        """Ask, and get what the answer begins with; the connection is closed where this fails.

        All of the answer has to be there in ``seconds``, but for what is read by `receive`.

        Raises:
            As `ask` and `answer`.
        """
        self.ask(connection, method, target, headers, body, seconds=seconds)
        return self.answer(connection, method, target, headers)

    def ask(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        seconds: float,
    ) -> None:
        """Send a request, whose answer `answer` reads; see `request`.

        Raises:
            UnreachableError: the server can't be reached.
            AccessDeniedError: what proves who asks can't be sent.
            InvalidSourceError: the path can't be sent, or the validator that was listed.
        """
        clock = _clock(connection)
        clock.end = time.monotonic() + seconds
        try:
            head = self._head(method, target, headers, len(body))
            if connection.reader:
                connection.reader.receiver.go_on()
            else:
                connection.connect()
                in_system = _waits_in_system(connection.sock)
                connection.reader = _Reader(connection.sock, clock, in_system=in_system)
            if len(body) > _SHORT_BYTES:
                self._send(connection.sock, head)
                self._send(connection.sock, body)
            else:
                self._send(connection.sock, head + body)
        except (OSError, ValueError, http.client.HTTPException) as error:
            connection.close()
            self._fail(error, target, headers)

    def answer(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        seconds: float | None = None,
    ) -> Response:
        """Read what the answer to the request that was sent begins with; see `request`.

        ``seconds`` begin now; None: what `ask` allowed.

        Raises:
            UnreachableError: the server did not answer.
        """
        if seconds is not None:
            _clock(connection).end = time.monotonic() + seconds
        try:
            response = self._answer(connection, method)
        except (OSError, ValueError, http.client.HTTPException) as error:
            connection.close()
            self._fail(error, target, headers)
        if response.will_close:
            # The answer keeps the socket as long as it needs it.
            connection.reader = None
            response.own()
            connection.close()
        return response

    def _fail(self, error: Exception, target: str, headers: Mapping[str, str]) -> NoReturn:
        """Say what kept a request from its answer.

        Raises:
            As `ask` and `answer`.
        """
        if isinstance(error, ssl.SSLCertVerificationError):
            # Which Python counts among the ValueErrors, too.
            raise UnreachableError(
                f"the certificate of {self.host} is not trusted ({error.verify_message}); if it is"
                " to be, name its authority by EXTRA_CA_FILE (in a pod of the operator:"
                " spec.poller.extraCAs)"
            ) from error
        if not isinstance(error, ValueError | http.client.InvalidURL):
            raise UnreachableError(f"{self.host} does not answer ({error})") from error
        if not _TARGET.fullmatch(target):
            path = ascii(target.partition("?")[0])
            raise InvalidSourceError(
                f"the path {path} on {self.host} holds characters that no URL has; correct the"
                " endpoint or the URI: %20 is a space"
            ) from None
        for name in _CONDITIONS:
            value = headers.get(name, "")
            if any(character in "\r\n\0" or character > "\xff" for character in value):
                raise InvalidSourceError(
                    f"{target.partition('?')[0]} on {self.host} is listed with an ETag or a"
                    f" time that no header can hold, {value[:100]!a}; correct it where it is"
                    " listed"
                ) from None
        # From None: what can't be sent is in the message, and may be a secret.
        raise AccessDeniedError(
            f"the credentials for {self.host} hold characters that can't be sent; write them anew"
        ) from None

    def _send(self, sock: socket.socket, data: bytes) -> None:
        rest = memoryview(data)
        if _waits_in_system(sock):
            sent = 0
            # The system takes a short request at once, and nothing has to be waited for.
            with suppress(BlockingIOError):
                sent = sock.send(rest, socket.MSG_DONTWAIT)
            if sent == len(rest):
                return
            rest = rest[sent:]
        # What the last answer left of it.
        sock.settimeout(self._timeout)
        sock.sendall(rest)

    def _answer(self, connection: Connection, method: str) -> Response:
        response = Response(
            connection.sock, method=method, clock=_clock(connection), reader=connection.reader
        )
        try:
            response.begin()
        except BaseException:
            response.close()
            raise
        return response

    def _head(self, method: str, target: str, headers: Mapping[str, str], body_bytes: int) -> bytes:
        """What goes before the body.

        `http.client` takes several times as long for it.

        Raises:
            ValueError: it holds what can't be sent.
        """
        if not _TARGET.fullmatch(target):
            raise http.client.InvalidURL
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._shown}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        named = {name.lower() for name in headers}
        if "accept-encoding" not in named:
            lines.append("Accept-Encoding: identity")
        # Who signs it has named it: twice, servers refuse it.
        if (body_bytes or method in _WITH_LENGTH) and "content-length" not in named:
            lines.append(f"Content-Length: {body_bytes}")
        text = "\r\n".join(lines)
        if text.count("\r") + text.count("\n") != 2 * len(lines) - 2 or "\0" in text:
            raise ValueError("a header of two lines")
        return text.encode("iso-8859-1") + b"\r\n\r\n"

    def keep(self, connection: Connection) -> None:
        """Take one back whose last answer was read to its end.

        One that brought more than that is closed: the next answer would begin with it.
        """
        if not connection.reader or not connection.reader.is_empty():
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def check_address(url: str) -> SplitResult:
    """Judge host and port of a URL, before anything connects to them.

    Raises:
        ValueError: it names none; says why.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    # What connecting does later, where it would look like a fault of what is sent.
    host.encode("idna")
    if not host or port == 0 or not url.isprintable() or " " in url:
        raise ValueError("")
    return parts


def _address(endpoint: str) -> tuple[SplitResult, str, int | None]:
    try:
        parts = check_address(endpoint)
    except ValueError as error:
        why = f": {error}" if str(error) else ""
        raise InvalidSettingsError(
            f"{shown_uri(endpoint)} names no host with a port{why}"
        ) from None
    return parts, parts.hostname or "", parts.port


def check_environment() -> None:
    """Judge what https will be spoken with, before anything is asked.

    Raises:
        InvalidSettingsError: HTTPS_PROXY names no proxy, or REQUESTS_CA_BUNDLE or EXTRA_CA_FILE no
            certificates.
    """
    trust.check()
    _proxy("")


def proxy(host: str) -> str | None:
    """The URL of the proxy by which gRPC is to reach a host; None for none.

    gRPC itself reads the variable in lower case alone.

    Raises:
        InvalidSettingsError: HTTPS_PROXY names no proxy.
    """
    found = _proxy(host)
    return found.geturl() if found else None


def _proxy(host: str) -> SplitResult | None:
    if not (os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")):
        return None
    # Imported only when asked for: a poller pays memory for what it uses.
    from urllib.request import getproxies, proxy_bypass

    named = getproxies().get("https", "")
    if not named or proxy_bypass(host):
        return None
    # The port is a number only when it is asked for.
    with suppress(ValueError):
        proxy = urlsplit(named if "://" in named else f"http://{named}")
        if proxy.scheme == "http" and proxy.hostname and proxy.port != 0:
            return proxy
    raise InvalidSettingsError("HTTPS_PROXY names no proxy; write http://HOST:PORT")


def _proves(proxy: SplitResult) -> dict[str, str]:
    """What tells a proxy who asks."""
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
