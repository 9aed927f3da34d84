"""How much work a comparison is, whatever machine it runs on."""

from __future__ import annotations


class Compared(str):
    """A text that counts how often any of its kind is compared."""

    __slots__ = ()
    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return super().__eq__(other)

    __hash__ = str.__hash__
