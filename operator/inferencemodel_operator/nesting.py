"""The API server's JSON, however deeply somebody has nested a part of it.

Whoever may write an object may set its ``metadata.managedFields``, and the API server takes them
nested thousands of levels deep. Every JSON reader gives up at some depth, and the listing or watch
of a whole kind with it: one object in one namespace would hide all others.

The kubectl plugin reads the same, so there is nothing here but the standard library.
"""

from __future__ import annotations

import re
from typing import Final

DEPTH: Final = 64
"""Levels that are kept where there are too many. No object has more than some thirty."""
_SAFE: Final = 500
"""As many levels are no reader's trouble: Python's own stops at about a thousand."""
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_OPENING: Final = b"{["


def shallow(text: bytes) -> bytes:
    """The same JSON with empty objects and lists below `DEPTH` levels.

    What can't be nested deeply, as it has few objects and lists, is not looked at.
    """
    if text.count(b"{") + text.count(b"[") <= _SAFE:
        return text
    parts, kept, level = [], 0, 0
    for token in _TOKEN.finditer(text):
        bracket = text[token.start()]
        if bracket == ord('"'):
            continue
        if bracket in _OPENING:
            level += 1
            if level == DEPTH + 1:
                parts.append(text[kept : token.end()])
        else:
            if level == DEPTH + 1:
                kept = token.start()
            level -= 1
    return b"".join([*parts, text[kept:]])
