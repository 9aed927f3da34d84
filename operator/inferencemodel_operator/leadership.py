"""Which of the operator's replicas works: the one that holds a Lease.

The rules are those of Kubernetes' own components (client-go, tools/leaderelection): a holder renews
the Lease all the time; whoever has watched it unchanged for its duration, by the own clock, takes
it; a holder that can't renew writes nothing more before anybody else may take it. Unlike them it
does not end then: it goes on when it has renewed the Lease, which shows whether somebody else has
led meanwhile.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final

from inferencemodel_operator import shards
from inferencemodel_operator.cluster import LEASES
from inferencemodel_operator.errors import (
    ApiUnavailableError,
    ConflictError,
    LostLeadershipError,
    NotFoundError,
    OperatorError,
)
from inferencemodel_operator.shards import Scope
from inferencemodel_operator.waits import Wait

if TYPE_CHECKING:
    from inferencemodel_operator.cluster import Cluster, Object

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 12
"""Unchanged for so long, a Lease is anybody's."""
RENEW_SECONDS: Final = 8.0
"""Without a renewal for so long, the holder stops writing."""
RETRY_SECONDS: Final = 2.0
"""Between two renewals, and between two looks at somebody else's Lease."""


class Leadership:
    """One replica's part in the election."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        scope: Scope = Scope(),  # noqa: B008  a value
    ) -> None:
        """Start without the Lease.

        Args:
            cluster: where the Lease is.
            namespace: the Lease's.
            name: the Lease's.
            identity: of this replica; another one's must differ.
            scope: what it serves, for other operators to see.
        """
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._scope = scope
        self._lease: Object | None = None
        self._seen_at = 0.0
        self._valid_until = 0.0
        self._wait = Wait(f"taking part in the election by Lease {namespace}/{name}")
        self._renewed = asyncio.Event()
        self.acquired = asyncio.Event()
        """Set once this replica is the leader; it stays one until `run` ends."""

    def holds(self) -> bool:
        """Whether nobody else can be the leader now."""
        return self._holder() == self._identity and time.monotonic() < self._valid_until

    async def confirmation(self) -> None:
        """Return when nobody else can be the leader."""
        while not self.holds():
            self._renewed.clear()
            await self._renewed.wait()

    async def run(self) -> None:
        """Become the leader when it is this replica's turn, and stay it.

        A leader that can't renew stays one, and may write nothing until it has: as long as nobody
        else has taken the Lease, nobody else has led.

        Raises:
            LostLeadershipError: the Lease is somebody else's by now.
        """
        leader = ""
        while not await self._attempt():
            holder = self._holder()
            if holder != leader:
                logger.info("standing by: %s leads", holder or "nobody")
            leader = holder
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311
        logger.info("leading as %s", self._identity)
        self.acquired.set()
        pause = RETRY_SECONDS
        while True:
            await asyncio.sleep(pause)
            renewed = await self._attempt()
            if not renewed and self._lease is not None and self._holder() != self._identity:
                raise LostLeadershipError(f"Lease {self._namespace}/{self._name}", self._holder())
            pause = RETRY_SECONDS if renewed else RETRY_SECONDS / 4

    async def release(self) -> None:
        """Leave the Lease to the next one; without it, that one waits for its duration."""
        if self._lease is None or not self.holds():
            return
        self._valid_until = 0.0
        spec = {**self._spec, "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            await self._cluster.replace(LEASES, {**self._lease, "spec": spec})
        except OperatorError as error:
            logger.warning("the Lease was not released: %s", error)

    @property
    def _spec(self) -> Object:
        """The Lease's; a Lease that a person has made may be without."""
        return (self._lease or {}).get("spec") or {}

    def _holder(self) -> str:
        holder: str = self._spec.get("holderIdentity") or ""
        return holder

    async def _attempt(self) -> bool:
        """Take or renew the Lease; whether it is this replica's now."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                if self._lease is None or self._holder() != self._identity:
                    await self._look()
                    if self._lease is not None and not self._free():
                        self._wait.worked()
                        return False
                self._lease = await self._write()
        except (ConflictError, NotFoundError):
            # Somebody else was there first, or has deleted it; the next attempt sees who.
            await self._forget()
            return False
        except (OperatorError, TimeoutError) as error:
            self._wait.failed(_problem(error))
            return False
        self._wait.worked()
        self._valid_until = started + RENEW_SECONDS
        self._renewed.set()
        return True

    async def _look(self) -> None:
        found = await self._cluster.get(LEASES, self._namespace, self._name)
        if found is None or self._lease is None or _version(found) != _version(self._lease):
            self._seen_at = time.monotonic()
        self._lease = found

    async def _forget(self) -> None:
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                await self._look()
        except (OperatorError, TimeoutError) as error:
            self._wait.failed(_problem(error))

    def _free(self) -> bool:
        if self._lease is None or self._holder() in ("", self._identity):
            return True
        duration: int = self._spec.get("leaseDurationSeconds") or LEASE_SECONDS
        return time.monotonic() >= self._seen_at + duration

    async def _write(self) -> Object:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": now,
        }
        if self._lease is None:
            spec |= {"acquireTime": now, "leaseTransitions": 0}
            return await self._cluster.create(
                LEASES,
                {
                    "apiVersion": LEASES.api_version,
                    "kind": LEASES.kind,
                    "metadata": self._told({"namespace": self._namespace, "name": self._name}),
                    "spec": spec,
                },
            )
        before = self._spec
        if self._holder() == self._identity:
            spec |= {name: before.get(name) for name in ("acquireTime", "leaseTransitions")}
        else:
            spec |= {
                "acquireTime": now,
                "leaseTransitions": (before.get("leaseTransitions") or 0) + 1,
            }
        told = {**self._lease, "metadata": self._told(self._lease["metadata"]), "spec": spec}
        return await self._cluster.replace(LEASES, told)

    def _told(self, metadata: Object) -> Object:
        """The Lease's metadata, with what its holder serves."""
        told = shards.metadata(self._scope)
        return {**metadata, **{field: (metadata.get(field) or {}) | told[field] for field in told}}


def _version(lease: Object) -> str:
    version: str = lease["metadata"]["resourceVersion"]
    return version


def _problem(error: OperatorError | TimeoutError) -> OperatorError:
    if isinstance(error, OperatorError):
        return error
    return ApiUnavailableError(f"no answer within {RENEW_SECONDS:.0f} s; trying again")
