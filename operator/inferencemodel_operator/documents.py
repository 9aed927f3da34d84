"""The API server's JSON, decoded however deeply somebody has nested a part of it."""

from __future__ import annotations

from typing import Any

import orjson

from inferencemodel_operator import nesting


def loads(text: bytes) -> Any:
    """Decode it, without what is nested too deeply.

    Raises:
        orjson.JSONDecodeError: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return orjson.loads(nesting.shallow(text))
