"""JSON as TensorFlow Serving reads and writes it, which is as RapidJSON does.

Reading differs from Python's ``json`` in that NaN and Infinity are numbers, whatever follows the
first value is ignored, the first of two equal names counts, and errors have RapidJSON's words and
byte offsets. Python's fast reader is used first; what it refuses is read again, slowly, to find the
right error (or that RapidJSON would have accepted it).

Writing follows RapidJSON's ``PrettyWriter``, single-line arrays included.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any

from development_model_server.errors import invalid_argument

# str, int (64 bits), float, bool, None, list, dict
Value = Any

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DEBUG_BYTES = 256


def parse(body: bytes) -> Value:
    """Read the first JSON value of a request's body.

    Raises:
        ServingError: INVALID_ARGUMENT with RapidJSON's reason and the byte offset.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if "\\u" not in text or not _SURROGATE.search(text):
        try:
            return _DECODER.raw_decode(text.lstrip(" \n\r\t"))[0]
        except (ValueError, RecursionError):
            pass
    return _Reader(body).read()


def _first_wins(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else dict(reversed(pairs))


def _whole(text: str) -> int | float:
    if len(text) < 19:
        return int(text)
    value = int(text)
    return value if -(2**63) <= value < 2**64 else _finite(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("too big: the slow reader tells where")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_first_wins, parse_int=_whole, parse_float=_finite)


class _ParseError(Exception):
    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")
_LITERALS = {"n": ("null", None), "t": ("true", True), "f": ("false", False)}
_ESCAPES = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_STRUCTURE = set("{}[],:")


class _Reader:
    """Reads byte by byte, without recursion, and stops after the first value."""

    def __init__(self, body: bytes) -> None:
        # One character a byte, so that positions are RapidJSON's offsets; a NUL ends the text.
        self._text = body.decode("latin-1").partition("\0")[0]
        self._position = 3 if self._text.startswith("\xef\xbb\xbf") else 0

    def read(self) -> Value:
        try:
            return self._value()
        except _ParseError as error:
            raise invalid_argument(
                f"JSON Parse error: {error.reason} at offset: {error.offset}"
            ) from None

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _skip(self) -> str:
        while (character := self._peek()) and character in " \n\r\t":
            self._position += 1
        return character

    def _fail(self, reason: str) -> _ParseError:
        return _ParseError(reason, self._position)

    def _value(self) -> Value:
        stack: list[list[Value] | dict[str, Value]] = []
        keys: list[str] = []
        missing = "The document is empty."
        while True:
            character = self._skip()
            value: Value
            if character in ("{", "["):
                self._position += 1
                opened: list[Value] | dict[str, Value] = {} if character == "{" else []
                closing = "}" if character == "{" else "]"
                if self._skip() == closing:
                    self._position += 1
                    value = opened
                else:
                    stack.append(opened)
                    if isinstance(opened, dict):
                        keys.append(self._key())
                    missing = "Invalid value."
                    continue
            elif not character or character in _STRUCTURE:
                raise self._fail(missing)
            else:
                value = self._scalar(character)
            while stack:
                container = stack[-1]
                if isinstance(container, dict):
                    container.setdefault(keys.pop(), value)
                else:
                    container.append(value)
                if not self._closes(container):
                    if isinstance(container, dict):
                        keys.append(self._key())
                    break
                value = stack.pop()
            else:
                return value
            missing = "Invalid value."

    def _closes(self, container: list[Value] | dict[str, Value]) -> bool:
        character = self._skip()
        is_object = isinstance(container, dict)
        if character == ("}" if is_object else "]"):
            self._position += 1
            return True
        if character != ",":
            raise self._fail(
                "Missing a comma or } after an object member."
                if is_object
                else "Missing a comma or ] after an array element."
            )
        self._position += 1
        return False

    def _key(self) -> str:
        if self._skip() != '"':
            raise self._fail("Missing a name for object member.")
        key = self._string()
        if self._skip() != ":":
            raise self._fail("Missing a colon after a name of object member.")
        self._position += 1
        return key

    def _scalar(self, character: str) -> Value:
        if character == '"':
            return self._string()
        if character in _LITERALS:
            word, value = _LITERALS[character]
            self._take_word(word)
            return value
        return self._number()

    def _take_word(self, word: str) -> None:
        for letter in word:
            if self._peek() != letter:
                raise self._fail("Invalid value.")
            self._position += 1

    def _number(self) -> float:
        start = self._position
        match = _NUMBER.match(self._text, start)
        if match is None:
            return self._not_finite()
        self._position = match.end()
        whole = True
        if self._peek() == ".":
            self._position += 1
            whole = False
            self._digits("Miss fraction part in number.")
        if self._peek() in ("e", "E"):
            self._position += 1
            whole = False
            if self._peek() in ("+", "-"):
                self._position += 1
            self._digits("Miss exponent in number.")
        text = self._text[start : self._position]
        if whole and len(text) <= 20 and -(2**63) <= int(text) < 2**64:
            return int(text)
        value = float(text)
        if math.isinf(value):
            raise _ParseError("Number too big to be stored in double.", start)
        return value

    def _digits(self, reason: str) -> None:
        start = self._position
        while (character := self._peek()) and character in "0123456789":
            self._position += 1
        if self._position == start:
            raise self._fail(reason)

    def _not_finite(self) -> float:
        sign = 1.0
        if self._peek() == "-":
            self._position += 1
            sign = -1.0
        if self._peek() == "N":
            self._take_word("NaN")
            return math.nan
        if self._peek() != "I":
            raise self._fail("Invalid value.")
        self._take_word("Inf")
        if self._peek() == "i":
            self._take_word("inity")
        return math.copysign(math.inf, sign)

    def _string(self) -> str:
        self._position += 1
        parts: list[str] = []
        while True:
            character = self._peek()
            if not character:
                raise self._fail("Missing a closing quotation mark in string.")
            if character == '"':
                self._position += 1
                return "".join(parts).encode("latin-1").decode("utf-8", "surrogateescape")
            if character == "\\":
                parts.append(self._escape())
                continue
            if character < " ":
                raise self._fail("Invalid escape character in string.")
            parts.append(character)
            self._position += 1

    def _escape(self) -> str:
        start = self._position
        self._position += 1
        character = self._peek()
        self._position += 1
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character != "u":
            raise _ParseError("Invalid escape character in string.", start)
        code = self._hexadecimal(start)
        if 0xD800 <= code <= 0xDBFF:
            surrogate = "The surrogate pair in string is invalid."
            if self._text[self._position : self._position + 2] != "\\u":
                raise _ParseError(surrogate, start)
            self._position += 2
            low = self._hexadecimal(start)
            if not 0xDC00 <= low <= 0xDFFF:
                raise _ParseError(surrogate, start)
            code = 0x10000 + (code - 0xD800 << 10) + (low - 0xDC00)
        # The second half of a pair alone is taken as it is, which makes it no valid UTF-8.
        return chr(code).encode("utf-8", "surrogatepass").decode("latin-1")

    def _hexadecimal(self, start: int) -> int:
        digits = self._text[self._position : self._position + 4]
        if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
            raise _ParseError("Incorrect hex digit after \\u escape in string.", start)
        self._position += 4
        return int(digits, 16)


class _Level:
    __slots__ = ("count", "in_array")

    def __init__(self, *, in_array: bool) -> None:
        self.in_array = in_array
        self.count = 0


class PrettyWriter:
    """Writes JSON with four spaces a level; ``single_line`` may change while writing."""

    def __init__(self) -> None:
        self.single_line = False
        self.size = 0
        self._parts: list[str] = []
        self._levels: list[_Level] = []

    def _put(self, text: str) -> None:
        self._parts.append(text)
        self.size += len(text)

    def _indent(self) -> str:
        return "\n" + "    " * len(self._levels)

    def _separate(self) -> None:
        if not self._levels:
            return
        level = self._levels[-1]
        if level.in_array:
            if level.count:
                self._put(", " if self.single_line else ",")
            if not self.single_line:
                self._put(self._indent())
        elif level.count % 2:
            self._put(": ")
        else:
            self._put(("," if level.count else "") + self._indent())
        level.count += 1

    def raw(self, text: str) -> None:
        """Write a value that is JSON already."""
        self._separate()
        self._put(text)

    def raw_elements(self, texts: list[str]) -> None:
        """Write values that are JSON already into an array."""
        if not texts:
            return
        self.raw(texts[0])
        if len(texts) > 1:
            separator = ", " if self.single_line else "," + self._indent()
            self._put(separator + separator.join(texts[1:]))
            self._levels[-1].count += len(texts) - 1

    def string(self, value: bytes) -> None:
        """Write a string, a member's name included."""
        self.raw(quote(value))

    def start(self, bracket: str) -> None:
        """Begin an array or an object."""
        self.raw(bracket)
        self._levels.append(_Level(in_array=bracket == "["))

    def end(self) -> None:
        """End the array or object that was begun last."""
        level = self._levels.pop()
        if level.count and not (level.in_array and self.single_line):
            self._put(self._indent())
        self._put("]" if level.in_array else "}")

    def getvalue(self) -> bytes:
        """What was written."""
        return "".join(self._parts).encode("latin-1")


_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quote(value: bytes) -> str:
    """A JSON string, one character a byte."""
    return '"{}"'.format(
        _ESCAPED.sub(
            lambda match: _SHORT.get(match[0], f"\\u{ord(match[0]):04X}"), value.decode("latin-1")
        )
    )


def encode_string(value: str) -> bytes:
    """The bytes that a string had in the request's body, valid UTF-8 or not."""
    return value.encode("utf-8", "surrogateescape")


class _LimitReachedError(Exception):
    pass


def debug_string(value: Value) -> str:
    """A value for a message: pretty, and cut off once it is longer than 256 bytes."""
    writer = PrettyWriter()
    writer.single_line = True
    with contextlib.suppress(_LimitReachedError):
        _write_limited(writer, value)
    return writer.getvalue().decode("utf-8", "surrogateescape")


def _write_limited(writer: PrettyWriter, value: Value) -> None:
    def check() -> None:
        if writer.size >= _DEBUG_BYTES:
            raise _LimitReachedError

    check()
    match value:
        case dict():
            writer.start("{")
            for key, member in value.items():
                check()
                writer.string(encode_string(key))
                _write_limited(writer, member)
            check()
            writer.end()
        case list():
            writer.start("[")
            for element in value:
                _write_limited(writer, element)
            check()
            writer.end()
        case str():
            writer.string(encode_string(value))
        case None:
            writer.raw("null")
        case bool():
            writer.raw("true" if value else "false")
        case float():
            if not math.isfinite(value):
                raise _LimitReachedError
            writer.raw(_double(value))
        case _:
            writer.raw(str(value))


def _double(value: float) -> str:
    """The shortest form, laid out as RapidJSON's ``Prettify`` does: no exponent up to 1e21."""
    mantissa, _, exponent = f"{value!r}".partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + ("" if fraction == "0" else fraction)).lstrip("0")
    if not digits:
        return f"{sign}0.0"
    point = len(whole) + int(exponent or 0)
    if whole == "0":
        point -= len(fraction) - len(fraction.lstrip("0")) + 1
    digits = digits.rstrip("0") or "0"
    if len(digits) <= point <= 21:
        return f"{sign}{digits.ljust(point, '0')}.0"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1}"
