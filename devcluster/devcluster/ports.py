"""Ports on this machine for servers that are about to start."""

from __future__ import annotations

import random
import socket

# Below the range that Linux takes the ports of outgoing connections from (32768 up) and below
# NodePorts (30000 up): a port of those may be gone before the server has it, and whoever waits for
# the server may connect to himself, from that port to that port.
_RANGE = range(12_000, 29_000)
_TRIES = 1_000
# Tests seed the module's own generator; processes with one seed would choose alike.
_random = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on.

    Raises:
        OSError: none was found.
    """
    for _ in range(_TRIES):
        port = _random.choice(_RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {_RANGE.start} and {_RANGE.stop}")
