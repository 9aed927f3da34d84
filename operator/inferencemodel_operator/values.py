"""Textual values, parsed: Kubernetes' durations and quantities, and shares."""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, Decimal
from typing import Final

import msgspec

_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")


class Duration(float):
    """Seconds, written in the spec as ``90s``, ``1.5m`` or ``1h30m``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read a duration.

        Raises:
            ValueError: not a sequence of numbers with the units ms, s, m or h.
        """
        if not _DURATION.fullmatch(text):
            raise ValueError(f"{text!r} is no duration such as 30s, 5m or 1h30m")
        return cls(
            sum(
                float(number) * _DURATION_UNITS[unit]
                for number, unit in _DURATION_PART.findall(text)
            )
        )

    def __str__(self) -> str:
        return f"{float(self):g}"


_DECIMAL_SUFFIXES: Final = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
_DECIMAL_BY_EXPONENT: Final = {exponent: text for text, exponent in _DECIMAL_SUFFIXES.items()}
_BINARY_SUFFIXES: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_QUANTITY: Final = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))"
    r"(?:(?P<binary>[KMGTPE]i)|(?P<decimal>[numkMGTPE]?)|[eE](?P<exponent>[+-]?\d+))"
)
_MILLI: Final = Decimal("0.001")


class Quantity(str):
    """A resource quantity in canonical form, which the API server gives back as it is.

    So that a desired object can be compared with a live one: ``1000m`` is ``1``, ``0.5`` is
    ``500m``, ``1024Mi`` is ``1Gi``. The rules are those of Kubernetes'
    apimachinery/pkg/api/resource.Quantity, and what is finer than a thousandth is rounded up as in
    the defaults of a container's resources (pkg/apis/core/v1/defaults.go).
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str | int) -> Quantity:
        """Read a quantity in any form that Kubernetes accepts.

        Raises:
            ValueError: not a quantity.
        """
        match = _QUANTITY.fullmatch(str(text))
        if match is None:
            raise ValueError(f"{text!r} is no quantity such as 500m, 2 or 4Gi")
        try:
            value = _amount(match).quantize(_MILLI, rounding=ROUND_CEILING)
        except ArithmeticError:
            raise ValueError(
                f"{text!r} is a quantity beyond all bounds; it is at most 8E"
            ) from None
        whole = value == value.to_integral_value()
        if match["binary"] and whole and abs(value) >= 1024:
            return cls(_binary(int(value)))
        return cls(_decimal(value, scientific=match["exponent"] is not None))

    @property
    def value(self) -> Decimal:
        """The amount in the resource's own unit: cores, bytes, pieces."""
        match = _QUANTITY.fullmatch(self)
        if match is None:
            raise ValueError(f"{str(self)!r} is no quantity; make it with Quantity.parse")
        return _amount(match)


def same_amount(one: str | int, other: str | int) -> bool:
    """Whether both are quantities, in whatever form, and of one amount."""
    try:
        return Quantity(one).value == Quantity(other).value
    except (ValueError, ArithmeticError):
        return False


def _amount(match: re.Match[str]) -> Decimal:
    number = Decimal(match["number"])
    if match["binary"]:
        return number * Decimal(1024 ** _BINARY_SUFFIXES.index(match["binary"]))
    return number.scaleb(int(match["exponent"] or _DECIMAL_SUFFIXES[match["decimal"] or ""]))


def _binary(value: int) -> str:
    power = 0
    while value % 1024 == 0 and power + 1 < len(_BINARY_SUFFIXES):
        value //= 1024
        power += 1
    return f"{value}{_BINARY_SUFFIXES[power]}"


def _decimal(value: Decimal, *, scientific: bool) -> str:
    mantissa, exponent = int(value.scaleb(3)), -3
    if mantissa == 0:
        return "0"
    while mantissa % 1000 == 0 and exponent < 18:
        mantissa //= 1000
        exponent += 3
    if scientific:
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{_DECIMAL_BY_EXPONENT[exponent]}"


class Share(msgspec.Struct, frozen=True):
    """So many of all, as a number or in percent."""

    amount: int
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read ``5`` or ``10%``.

        Raises:
            ValueError: it is neither, or less than one.
        """
        match = re.fullmatch(r"([1-9][0-9]{0,5})(%?)", text, re.ASCII)
        if match is None or (match[2] and int(match[1]) > 100):
            raise ValueError(f"{text!r} is neither a number such as 5 nor a share such as 10%")
        return cls(int(match[1]), percent=bool(match[2]))

    def of(self, whole: int) -> int:
        """How many that is of a whole, rounded up; at least one."""
        return max(1, math.ceil(whole * self.amount / 100)) if self.percent else self.amount
