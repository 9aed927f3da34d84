"""JSON read and written as RapidJSON 1.1 does."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from development_model_server import json_text
from development_model_server.errors import ServingError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(values)
def test_what_python_writes_is_read_by_both_readers(value: Any) -> None:
    for ascii_only in (True, False):
        body = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert json_text.parse(body) == value
        assert json_text._Reader(body).read() == value


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":18446744073709551615}', {"a": 2**64 - 1}),
        (b'{"a":18446744073709551616}', {"a": 2.0**64}),
        (b'{"a":-9223372036854775809}', {"a": -(2.0**63)}),
        (b'{"a":1,"a":2}', {"a": 1}),
        (b'{"a":Inf}', {"a": math.inf}),
        (b'{"a":-Infinity}', {"a": -math.inf}),
        (b"\xef\xbb\xbf{}", {}),
        (b"{}{", {}),
        (b"nullx", None),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\xff"', "\udcff"),
        (b"[" * 5000 + b"]" * 5000, ...),
    ],
)
def test_what_rapidjson_takes_is_taken(body: bytes, value: Any) -> None:
    parsed = json_text.parse(body)
    assert value is ... or parsed == value


@pytest.mark.parametrize(
    ("body", "reason", "offset"),
    [
        (b"\0", "The document is empty.", 0),
        (b"}", "The document is empty.", 0),
        (b"[", "Invalid value.", 1),
        (b"[1,]", "Invalid value.", 3),
        (b'{"a":}', "Invalid value.", 5),
        (b'{"a":tru}', "Invalid value.", 8),
        (b'{"a":-}', "Invalid value.", 6),
        (b'{"a":Infinit}', "Invalid value.", 12),
        (b"{", "Missing a name for object member.", 1),
        (b'{"a":1,}', "Missing a name for object member.", 7),
        (b'{"a" 1}', "Missing a colon after a name of object member.", 5),
        (b'{"a":01}', "Missing a comma or } after an object member.", 6),
        (b"[1 2]", "Missing a comma or ] after an array element.", 3),
        (b'["x', "Missing a closing quotation mark in string.", 3),
        (b'["\\x"]', "Invalid escape character in string.", 2),
        (b'["\x01"]', "Invalid escape character in string.", 2),
        (b'["\\u12g4"]', "Incorrect hex digit after \\u escape in string.", 2),
        (b'["\\ud800"]', "The surrogate pair in string is invalid.", 2),
        (b"[1e400]", "Number too big to be stored in double.", 1),
        (b"[1.]", "Miss fraction part in number.", 3),
        (b"[1e]", "Miss exponent in number.", 3),
        (b"\xc3\xa4", "Invalid value.", 0),
        (b'{"\xc3\xa4" 1}', "Missing a colon after a name of object member.", 6),
    ],
)
def test_an_error_has_rapidjsons_words_and_byte_offset(
    body: bytes, reason: str, offset: int
) -> None:
    with pytest.raises(ServingError) as caught:
        json_text.parse(body)
    assert caught.value.message == f"JSON Parse error: {reason} at offset: {offset}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (2.5, "2.5"),
        (1e20, "100000000000000000000.0"),
        (1e22, "1e22"),
        (1.5e-7, "1.5e-7"),
        (0.000001, "0.000001"),
    ],
)
def test_numbers_in_messages_look_as_rapidjson_prints_them(value: float, text: str) -> None:
    assert json_text.debug_string([value]) == f"[{text}]"


def test_a_value_in_a_message_is_cut_off_behind_256_bytes() -> None:
    text = json_text.debug_string({"instances": list(range(1000))})
    assert text.startswith('{\n    "instances": [0, 1, 2')
    assert 256 <= len(text) < 265


@given(st.binary())
def test_a_quoted_string_is_json(value: bytes) -> None:
    quoted = json_text.quote(value)
    assert json.loads(quoted, strict=True) == value.decode("latin-1")
