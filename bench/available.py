"""When a version becomes AVAILABLE, by the model servers' own GetModelStatus."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from demo.errors import OutcomeError
from model_poller.model_server.server import ModelServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

EVERY = 0.02
"""Seconds between two questions to one server, unless told otherwise: the resolution of what is
measured, and a tenth of a core for each server."""


class Arrival:
    """Watches servers from before a version is offered until all of them serve it.

    Args:
        addresses: ``host:port`` of each server's gRPC.
        model: the model's name.
        version: the awaited one.
        limit: seconds after which to give up.
        alone: whether no other one may be AVAILABLE there any more.
        every: seconds between two questions to one server.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        model: str,
        version: int,
        *,
        limit: float = 90.0,
        alone: bool = False,
        every: float = EVERY,
    ) -> None:
        self._version = version
        self._alone = alone
        self._every = every
        self._deadline = time.monotonic() + limit
        self._seen: dict[str, float] = {}
        self._threads = [
            threading.Thread(target=self._watch, args=(address, model), daemon=True)
            for address in addresses
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        return

    def wait(self) -> float:
        """The moment (monotonic seconds) at which the last server had it AVAILABLE.

        Raises:
            OutcomeError: a server does not have it within the limit.
        """
        for thread in self._threads:
            thread.join()
        if len(self._seen) < len(self._threads):
            raise OutcomeError(
                f"version {self._version} is AVAILABLE on {len(self._seen)} of "
                f"{len(self._threads)} servers only: {sorted(self._seen)}"
            )
        return max(self._seen.values())

    def _watch(self, address: str, model: str) -> None:
        server = ModelServer(address, model)
        while time.monotonic() < self._deadline:
            served = server.status() or ()
            answering = {s.version for s in served if s.state == "AVAILABLE"}
            if self._version in answering and not (self._alone and len(answering) > 1):
                self._seen[address] = time.monotonic()
                return
            time.sleep(self._every)
