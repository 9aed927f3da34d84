"""The command that opens the console."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import webbrowser
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kubectl_inferencemodel import output
from kubectl_inferencemodel.arguments import Context, Kubeconfig, is_name
from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.console.entry import Pass
from kubectl_inferencemodel.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

_LOCAL: Final = "127.0.0.1"
_PACKAGES: Final = ("jinja2", "starlette", "uvicorn")
"""What the extra ``ui`` has beyond what every command needs."""
_END_SECONDS: Final = 1
"""So long pages that are open have to end; they hold their connections."""


def _namespaces(given: list[str] | None) -> list[str]:
    for text in given or ():
        if not is_name(text):
            raise typer.BadParameter(f"{text!r} can't be a namespace")
    return given or []


def ui(
    *,
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace",
            "-n",
            help="Show those of this namespace; give it as often as there are. Without it, those"
            " of all, or where you may not list those, of the context's namespace.",
            callback=_namespaces,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 for one that is free.")
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the link, and open nothing.")
    ] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Open the console: the fleet and each model, live, in a browser on this machine.

    It listens on 127.0.0.1 alone, asks the API server with your own rights, and ends with Ctrl-C.
    """
    with _listen(port) as listening:
        serve(listening, namespace or [], context, kubeconfig, browser=not no_browser)


def serve(
    listening: socket.socket,
    namespaces: list[str],
    context: str | None,
    kubeconfig: Path | None,
    *,
    browser: bool,
) -> None:
    """Serve the console on a socket until the process is interrupted.

    Raises:
        RefusedError: packages are missing.
        ClusterError: there is no usable kubeconfig.
    """
    cluster = Cluster(kubeconfig, context, namespaces[0] if namespaces else None)
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise RefusedError(
            f"the console needs packages that are not installed ({', '.join(missing)}):"
            " pip install '.[ui]' in a checkout of the project"
        )
    from kubectl_inferencemodel.console.feed import Feed

    feed = Feed(cluster, namespaces)
    # What is imported stays: a thousand models come without a search for garbage through it.
    gc.freeze()
    # The list comes, and a browser starts, while the rest is imported.
    feed.start()
    shown = Pass(listening.getsockname()[1])
    output.write(f"{shown.link}\n")
    output.tell("the console of your models, until Ctrl-C; the link is for you alone")
    if browser and _has_screen():
        threading.Thread(target=webbrowser.open, args=(shown.link,), daemon=True).start()
    import uvicorn

    from kubectl_inferencemodel.console.app import Console

    config = uvicorn.Config(
        Console(cluster, feed, shown).app(),
        access_log=False,  # it would have the token
        log_level="warning",
        lifespan="off",
        loop="asyncio",
        http="h11",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_END_SECONDS,
    )

    class Server(uvicorn.Server):
        """Has pages that are open end with it."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            feed.end()
            await super().shutdown(sockets)

    Server(config).run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    """A socket that only this machine reaches.

    Raises:
        RefusedError: somebody else has the port.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Where a console has just ended, its port is free though connections to it are remembered.
    if sys.platform != "win32":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_LOCAL, port))
    except OSError as error:
        listening.close()
        raise RefusedError(f"port {port} of {_LOCAL} can't be had: {error.strerror}") from error
    listening.listen(64)
    return listening


def _has_screen() -> bool:
    """Whether a browser has a window to open in; one of the terminal would hide what is printed."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
