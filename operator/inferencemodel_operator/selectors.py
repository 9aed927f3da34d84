"""Label selectors as the API server reads them: equality and sets.

The grammar is that of k8s.io/apimachinery/pkg/labels/selector.go. An API server that is asked with
one that it can't read refuses every listing and watch, so it is read before the first.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(r"==|!=|[=!(),<>]|[^\s=!(),<>]+")
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}")
_LONGEST_PREFIX: Final = 253
_SYMBOLS: Final = frozenset({"==", "!=", "=", "!", "(", ")", ",", "<", ">"})


def check(selector: str) -> None:
    """Read a label selector.

    Raises:
        ValueError: the API server would refuse it; why, in words.
    """
    tokens = _TOKEN.findall(selector)
    if not tokens:
        return
    rest = _requirement(tokens)
    while rest:
        if rest[0] != ",":
            raise ValueError(f"{rest[0]!r} where a comma or the end is expected")
        rest = _requirement(rest[1:])


def _requirement(tokens: list[str]) -> list[str]:
    """Read one requirement off the beginning; the rest."""
    if tokens[:1] == ["!"]:
        return _key(tokens[1:])
    rest = _key(tokens)
    match rest:
        case ["=" | "==" | "!=", *values]:
            return _value(values)
        case ["in" | "notin" as operator, *values]:
            return _values(operator, values)
        case ["<" | ">" as operator, *values]:
            return _integer(operator, values)
        case _:
            return rest


def _key(tokens: list[str]) -> list[str]:
    if not tokens or tokens[0] in _SYMBOLS:
        raise ValueError(f"{_shown(tokens)} where a label's key is expected")
    prefix, slash, name = tokens[0].rpartition("/")
    prefixed = len(prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(prefix)
    if not _NAME.fullmatch(name) or (slash and not prefixed):
        raise ValueError(f"{tokens[0]!r} is no label key")
    return tokens[1:]


def _value(tokens: list[str]) -> list[str]:
    """Read a value, which may be empty."""
    if not tokens or tokens[0] == ",":
        return tokens
    return _word(tokens)


def _word(tokens: list[str]) -> list[str]:
    if tokens[0] in _SYMBOLS or not _NAME.fullmatch(tokens[0]):
        raise ValueError(f"{tokens[0]!r} is no label value")
    return tokens[1:]


def _values(operator: str, tokens: list[str]) -> list[str]:
    if tokens[:1] != ["("]:
        raise ValueError(f"{_shown(tokens)} where ( is expected after {operator}")
    rest = tokens[1:]
    while True:
        if rest and rest[0] not in (",", ")"):
            rest = _word(rest)
        match rest:
            case [",", *more]:
                rest = more
            case [")", *more]:
                return more
            case _:
                raise ValueError(f"{_shown(rest)} where a comma or ) is expected after {operator}")


def _integer(operator: str, tokens: list[str]) -> list[str]:
    if not tokens or not _INTEGER.fullmatch(tokens[0]):
        raise ValueError(f"{_shown(tokens)} where a number is expected after {operator}")
    return tokens[1:]


def _shown(tokens: list[str]) -> str:
    return repr(tokens[0]) if tokens else "the end"
