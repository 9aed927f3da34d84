"""The ways in which pods' pollers are asked, for tests that have to hold for each."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from inferencemodel_operator.access import Access
from inferencemodel_operator.observe import pollers
from inferencemodel_operator.observe.channels import Direct, Proxied
from tests.support.api_double import kubeconfig

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from inferencemodel_operator.observe.channels import Channel

WAYS = ("direct", "proxied")


@asynccontextmanager
async def reached(
    way: str, folder: Path
) -> AsyncIterator[Callable[[str, asyncio.Semaphore], Channel]]:
    """How each pod is asked, one way or the other.

    Args:
        way: one of `WAYS`.
        folder: for a kubeconfig. What is asked is taken for the API server's own.
    """
    if way == "direct":
        yield Direct
        return
    own = Access(kubeconfig(folder, "http://127.0.0.1:1", {"token": "precious"}))

    async with pollers.session(own) as session, pollers.session(own, reuse=False) as single:

        def proxied(address: str, turns: asyncio.Semaphore) -> Proxied:
            own.server = address
            return Proxied(address, turns, session, single)

        yield proxied
