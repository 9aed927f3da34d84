"""TCP connections whose other end may vanish without a word: a node that dies, a cut network.

A long poll or a watch is silent most of the time, so nothing else would tell for a minute. The
kernels ask each other instead, at no cost to either process.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp.connector import AddrInfoType

SILENT_SECONDS: Final = 20
"""How long the other kernel may leave a question unanswered, or bytes unacknowledged."""
_OPTIONS: Final = {
    "TCP_KEEPIDLE": SILENT_SECONDS // 2,
    "TCP_KEEPINTVL": SILENT_SECONDS // 4,
    "TCP_KEEPCNT": 2,
    "TCP_USER_TIMEOUT": SILENT_SECONDS * 1000,
}
"""As in tcp(7)."""


def open_watched(info: AddrInfoType) -> socket.socket:
    """A socket for what `socket.getaddrinfo` gave; it fails when the other end is gone."""
    family, kind, protocol, *_ = info
    made = socket.socket(family, kind, protocol)
    watch(made)
    return made


def watch(connection: socket.socket) -> None:
    """Have a socket fail when the other end is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        option = getattr(socket, name, None)
        # Not every system has all of them.
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
