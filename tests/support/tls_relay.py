"""TLS in front of a server that has none; also a program, of Python's own library alone."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def relay(port: int, pem: str) -> Iterator[int]:
    """Lead to a port of 127.0.0.1; ``pem`` is a file with key and certificate. The port of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop = asyncio.new_event_loop()
        serving = loop.create_task(_serve(listener, "127.0.0.1", port, pem))

        def run() -> None:
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(serving)
            loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            loop.call_soon_threadsafe(serving.cancel)
            thread.join()


async def _serve(listener: socket.socket, host: str, port: int, pem: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far, there = await asyncio.open_connection(host, port)
            await asyncio.gather(_pass_on(reader, there), _pass_on(far, writer))

    server = await asyncio.start_server(take, sock=listener, ssl=context)
    await server.serve_forever()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(1 << 16):
            target.write(piece)
            await target.drain()
    target.close()


if __name__ == "__main__":
    here, to_host, to_port, file = sys.argv[1:]
    asyncio.run(_serve(socket.create_server(("", int(here))), to_host, int(to_port), file))
