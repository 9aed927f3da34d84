"""What is served, and the states that it goes through."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from development_model_server.errors import ServingError


@dataclass(frozen=True, order=True)
class ServableId:
    """One version of one model."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"


class State(enum.IntEnum):
    """Where a version stands; the numbers are those of ``ModelVersionStatus.State``."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class ServableState:
    """A version's state; ``error`` tells why a load failed (only with END)."""

    id: ServableId
    state: State
    error: ServingError | None = None


@dataclass(frozen=True)
class ServableRequest:
    """Which version a request asks for: a number, or the highest one available."""

    name: str
    version: int | None = None

    def __str__(self) -> str:
        if self.version is None:
            return f"Latest({self.name})"
        return f"Specific({self.name}, {self.version})"
