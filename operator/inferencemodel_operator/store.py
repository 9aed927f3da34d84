"""Which server a storage URI is asked of: on another one, the same URI names other objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferencemodel_operator.spec import Source

DEFAULT: Final = "default"
"""The provider's own server, that of the URI's scheme."""
_OPTIONS: Final = {
    "endpoint": "--endpoint=",
    "region": "--region=",
    "azure-account": "--azure-account=",
}
"""What tells it, and the poller's arguments that say so."""


def of_source(source: Source) -> str:
    """By ``spec.source``."""
    account = source.azure.account if source.azure is not None else None
    return _text({"endpoint": source.endpoint, "region": source.region, "azure-account": account})


def of_arguments(arguments: Iterable[str]) -> str:
    """By a poller's command line."""
    given = list(arguments)
    return _text(
        {
            name: next((a.removeprefix(flag) for a in given if a.startswith(flag)), None)
            for name, flag in _OPTIONS.items()
        }
    )


def same(one: str, other: str) -> bool:
    """Whether two may be the same: releases before this one told nothing, an empty text."""
    return one == other or not (one and other)


def _text(options: dict[str, str | None]) -> str:
    given = [f"{name}={value}" for name, value in options.items() if value]
    return " ".join(given) or DEFAULT
