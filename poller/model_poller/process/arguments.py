"""Reading a command line: what can't be is refused in one line that names option and value."""

from __future__ import annotations

import argparse
import math
import re
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

from model_poller.errors import InvalidSettingsError
from model_poller.stores.credentials import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SECONDS: Final = 365 * 24 * 3600
MAX_PORT: Final = 2**16 - 1
_MAX_SHOWN: Final = 100
"""Characters of a value in a message."""

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?")
_ADDRESS: Final = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+):(?P<port>[0-9]{1,5})")


class Parser(argparse.ArgumentParser):
    """One whose errors are one line, and whose values are never empty."""

    def __init__(self, program: str, *, description: str, epilog: str) -> None:
        """``description`` and ``epilog`` are shown by the help as they are."""
        super().__init__(
            program,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # For every option that names no type. An empty value is that of a variable which isn't
        # set, and would be taken for an option that wasn't given.
        self.register("type", None, text)

    def error(self, message: str) -> NoReturn:
        """Raise it.

        Raises:
            InvalidSettingsError
        """
        raise InvalidSettingsError(without_secrets(" ".join(message.splitlines())))


def shown(value: str) -> str:
    """A value as a message quotes it."""
    value = without_secrets(value)
    short = value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}…"
    return ascii(short) if not short.isprintable() else repr(short)


def text(value: str) -> str:
    """A value of any kind.

    Raises:
        ArgumentTypeError: it is empty, or no Unicode.
    """
    if not value.strip():
        raise _no(value, "a value: leave the option out, or write what it is to be")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _no(value, "text: it is not valid Unicode") from None
    return value


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """A reader of texts of one form; ``what`` says which in a message."""

    def read(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise _no(value, what)
        return value

    return read


def whole(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers."""

    def read(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII) or not least <= int(value) <= most:
            raise _no(value, f"a whole number that is at least {least} and at most {most}")
        return int(value)

    return read


def seconds(value: str) -> float:
    """A time.

    Raises:
        ArgumentTypeError
    """
    number = _number(value)
    if number is None or not 0 < number <= MAX_SECONDS:
        raise _no(value, f"a time: give more than 0 seconds and at most {MAX_SECONDS}, a year")
    return number


def rate(value: str) -> float:
    """Bytes a second; 0 for no limit.

    Raises:
        ArgumentTypeError
    """
    number = _number(value)
    if number is None or number < 0:
        raise _no(value, "a number of bytes a second; 0 is no limit, and it is not negative")
    return number


def address(value: str) -> str:
    """``HOST:PORT``, or the socket of a file, ``unix:PATH``, as gRPC has it.

    Raises:
        ArgumentTypeError
    """
    return value if value.startswith("unix:/") else host_and_port(value)


def host_and_port(value: str) -> str:
    """``HOST:PORT``.

    Raises:
        ArgumentTypeError
    """
    match = _ADDRESS.fullmatch(value)
    if not (match and 0 < int(match["port"]) <= MAX_PORT):
        raise _no(value, "an address: write HOST:PORT, with a port from 1 to 65535")
    return value


def url(value: str) -> str:
    """The URL of a server.

    Raises:
        ArgumentTypeError
    """
    origin = value.partition("://")[2].partition("/")[0]
    if "@" in origin or re.search(r"[?#]", value):
        # It may hold a secret.
        raise argparse.ArgumentTypeError(
            "a server's URL takes neither a user nor a query; give them as credentials"
        )
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise _no(value, "the URL of a server: write https://HOST or http://HOST:PORT")
    return value


def _number(value: str) -> float | None:
    # Python reads more as a number: 1_0, other scripts' digits, blanks around them.
    number = float(value) if _NUMBER.fullmatch(value) else math.nan
    return number if math.isfinite(number) else None


def _no(value: str, what: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{shown(value)} is not {what}")
