"""Looks again and again which other operators there are, by the Leases beside one's own."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from inferencemodel_operator import shards
from inferencemodel_operator.cluster import LEASES
from inferencemodel_operator.errors import OperatorError, PermanentError
from inferencemodel_operator.leadership import LEASE_SECONDS
from inferencemodel_operator.waits import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inferencemodel_operator.cluster import Cluster
    from inferencemodel_operator.observe.objects import Key
    from inferencemodel_operator.shards import Lease, Scope

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = LEASE_SECONDS * 1.25
"""A Lease that stays the same for so long has run out."""

RETRY_SECONDS: Final = 1.0
"""Until it has worked once, for InferenceModels are listed after that."""


class Rivals:
    """The operators that would serve what this one would."""

    def __init__(
        self, cluster: Cluster, lease: tuple[str, str] | None, scope: Scope, identity: str = ""
    ) -> None:
        """Know of none yet.

        Args:
            cluster: where the Leases are.
            lease: namespace and name of this operator's; None where it has none and knows of
                nobody.
            scope: what it serves.
            identity: of this replica.
        """
        self._cluster = cluster
        self._lease = lease
        self._scope = scope
        self._identity = identity
        self._leases: dict[str, Lease] = {}
        self._first: tuple[Lease, ...] = ()
        self._after: tuple[Lease, ...] = ()
        self._left: dict[Key, str] = {}
        """InferenceModels that are left to another operator, and by which Lease."""
        self._shared: dict[Key, str] = {}
        """Those that another operator leaves to this one."""
        self._named: frozenset[tuple[str, bool]] = frozenset()
        """What was last told of."""
        self._mismatch = ""
        self.changed: Callable[[], object] = lambda: None
        """Called when other operators come, go or serve something else."""
        self.looked = asyncio.Event()
        """Set once it is known who there is, as far as it can be."""
        if lease is None:
            self.looked.set()

    def serves(self, key: Key, labels: Mapping[str, str]) -> bool:
        """Whether an InferenceModel is this operator's; remembered until the next time."""
        self.forget(key)
        winner = shards.covering(self._first, key[0], labels)
        if winner is not None:
            self._left[key] = winner.name
            return False
        other = shards.covering(self._after, key[0], labels)
        if other is not None:
            self._shared[key] = other.name
        return True

    def forget(self, key: Key) -> None:
        """Take in that an InferenceModel is gone."""
        self._left.pop(key, None)
        self._shared.pop(key, None)

    @property
    def left(self) -> int:
        """How many InferenceModels are left to others."""
        return len(self._left)

    @property
    def shared(self) -> int:
        """How many InferenceModels others leave to this operator."""
        return len(self._shared)

    async def run(self) -> None:
        """Look again and again; ends only by being cancelled."""
        if self._lease is None:
            await asyncio.Event().wait()
            return
        namespace, _ = self._lease
        wait = Wait(f"listing the Leases of operators in {namespace}")
        while True:
            pause = LOOK_SECONDS
            try:
                await self._look(*self._lease)
            except OperatorError as error:
                wait.failed(error)
                if not self.looked.is_set():
                    pause = RETRY_SECONDS
                if isinstance(error, PermanentError):
                    # Without the right to see them, it serves what it is told to.
                    self.looked.set()
            else:
                wait.worked()
                self.looked.set()
            await asyncio.sleep(pause * random.uniform(1.0, 1.1))  # noqa: S311

    async def give_way(self) -> None:
        """Return when those who serve InferenceModels of this operator have let go of them."""
        await self.looked.wait()
        if self._shared:
            logger.info("waiting for %s to let go", ", ".join(sorted({*self._shared.values()})))
            await asyncio.sleep(2 * LOOK_SECONDS)

    def tell(self) -> None:
        """Log which InferenceModels two operators would serve, when that has changed."""
        named = frozenset(
            (name, is_left)
            for names, is_left in ((self._left, True), (self._shared, False))
            for name in names.values()
        )
        for name, is_left in sorted(named - self._named):
            mine = self._left if is_left else self._shared
            keys = sorted(key for key, lease in mine.items() if lease == name)
            logger.warning(
                "%d InferenceModels, such as %s, are also those of the operator with Lease %s (%s),"
                " which %s: let the selectors or namespaces exclude each other",
                len(keys),
                "/".join(keys[0]),
                name,
                self._leases[name].scope if name in self._leases else "gone",
                "serves them" if is_left else "leaves them to this one",
            )
        self._named = named

    async def _look(self, namespace: str, name: str) -> None:
        found = []
        async for page in self._cluster.list(LEASES, namespace):
            found += [shards.lease(obj) for obj in page.get("items") or ()]
        leases = {one.name: one for one in found if one is not None}
        first, after = shards.others(name, self._leases, leases.values())
        before = _scopes(self._first), _scopes(self._after)
        self._leases, self._first, self._after = leases, first, after
        self._compare(leases.get(name))
        if before != (_scopes(first), _scopes(after)):
            self.changed()

    def _compare(self, own: Lease | None) -> None:
        """Say when this replica would stand by for an operator that serves something else."""
        differs = own is not None and own.holder not in ("", self._identity)
        mismatch = str(own.scope) if own and differs and own.scope != self._scope else ""
        if mismatch and mismatch != self._mismatch:
            logger.warning(
                "Lease %s is held by an operator that serves %s, and this one serves %s: only one "
                "of them works at a time; give each a --lease-name of its own",
                own.name if own else "",
                mismatch,
                self._scope,
            )
        self._mismatch = mismatch


def _scopes(leases: tuple[Lease, ...]) -> tuple[tuple[str, Scope], ...]:
    return tuple((one.name, one.scope) for one in leases)
