"""Label selectors as the API server reads them: equality and sets.

The grammar is that of k8s.io/apimachinery/pkg/labels/selector.go. An API server that is asked with
one that it can't read refuses every listing and watch, so it is read before the first.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# White space is what the grammar says: a blank of another kind, as pages have it to copy, is a part
# of a word, which the API server refuses.
_TOKEN: Final = re.compile(r"==|!=|[=!(),<>]|[^ \t\r\n=!(),<>]+")
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_INTEGER: Final = re.compile(r"[0-9]{1,19}")
"""An int64 that is a label's value as well, so none with a sign."""
_LARGEST: Final = 2**63 - 1
_LONGEST_PREFIX: Final = 253
_SYMBOLS: Final = frozenset({"==", "!=", "=", "!", "(", ")", ",", "<", ">"})


Operator = Literal["in", "notin", "exists", "absent", "<", ">"]


class Requirement(NamedTuple):
    """What a label has to be."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels are so, as k8s.io/apimachinery's Requirement.Matches has it."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
        if value is None or not _is_integer(value):
            return False
        (limit,) = self.values
        return int(value) < int(limit) if self.operator == "<" else int(value) > int(limit)


def check(selector: str) -> None:
    """Read a label selector.

    Raises:
        ValueError: the API server would refuse it; why, in words.
    """
    parse(selector)


@functools.lru_cache(maxsize=64)
def parse(selector: str) -> tuple[Requirement, ...]:
    """What a label selector requires; all of it has to hold.

    Raises:
        ValueError: the API server would refuse it; why, in words.
    """
    tokens = _TOKEN.findall(selector)
    if not tokens:
        return ()
    first, rest = _requirement(tokens)
    found = [first]
    while rest:
        if rest[0] != ",":
            raise ValueError(f"{rest[0]!r} where a comma or the end is expected")
        more, rest = _requirement(rest[1:])
        found.append(more)
    return tuple(found)


def _requirement(tokens: list[str]) -> tuple[Requirement, list[str]]:
    """Read one requirement off the beginning; it and the rest."""
    if tokens[:1] == ["!"]:
        rest = _key(tokens[1:])
        return Requirement(tokens[1], "absent"), rest
    rest = _key(tokens)
    key = tokens[0]
    match rest:
        case ["=" | "==" | "!=" as operator, *values]:
            value, rest = _value(values)
            return Requirement(key, "notin" if operator == "!=" else "in", frozenset([value])), rest
        case ["in" | "notin" as among, *values]:
            chosen, rest = _values(among, values)
            return Requirement(key, "in" if among == "in" else "notin", chosen), rest
        case ["<" | ">" as order, *values]:
            rest = _integer(order, values)
            return Requirement(key, "<" if order == "<" else ">", frozenset(values[:1])), rest
        case _:
            return Requirement(key, "exists"), rest


def _key(tokens: list[str]) -> list[str]:
    if not tokens or tokens[0] in _SYMBOLS:
        raise ValueError(f"{_shown(tokens)} where a label's key is expected")
    prefix, slash, name = tokens[0].rpartition("/")
    prefixed = len(prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(prefix)
    if not _NAME.fullmatch(name) or (slash and not prefixed):
        raise ValueError(f"{tokens[0]!r} is no label key")
    return tokens[1:]


def _value(tokens: list[str]) -> tuple[str, list[str]]:
    """Read a value, which may be empty."""
    if not tokens or tokens[0] == ",":
        return "", tokens
    return tokens[0], _word(tokens)


def _word(tokens: list[str]) -> list[str]:
    if tokens[0] in _SYMBOLS or not _NAME.fullmatch(tokens[0]):
        raise ValueError(f"{tokens[0]!r} is no label value")
    return tokens[1:]


def _values(operator: str, tokens: list[str]) -> tuple[frozenset[str], list[str]]:
    if tokens[:1] != ["("]:
        raise ValueError(f"{_shown(tokens)} where ( is expected after {operator}")
    rest = tokens[1:]
    chosen = set()
    while True:
        value = ""
        if rest and rest[0] not in (",", ")"):
            value = rest[0]
            rest = _word(rest)
        chosen.add(value)
        match rest:
            case [",", *more]:
                rest = more
            case [")", *more]:
                return frozenset(chosen), more
            case _:
                raise ValueError(f"{_shown(rest)} where a comma or ) is expected after {operator}")


def _integer(operator: str, tokens: list[str]) -> list[str]:
    if not tokens or not _is_integer(tokens[0]):
        raise ValueError(f"{_shown(tokens)} where a number is expected after {operator}")
    return tokens[1:]


def _is_integer(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None and int(text) <= _LARGEST


def _shown(tokens: list[str]) -> str:
    return repr(tokens[0]) if tokens else "the end"
