"""Texts of which many say nearly the same, kept small: each as how it differs from the first."""

from __future__ import annotations

import zlib
from typing import Final

_WINDOW_BITS: Final = 13
"""Of 8 kB: a Deployment and the first one together. A larger window and zlib's usual memory for
hashing would be cleared for each text, which takes many times as long as the text itself."""
_HASHING: Final = 4
_SHORT: Final = 256
"""Bytes of a text that says too little to be like others: a status that is still empty."""

_firsts: dict[str, bytes] = {}
"""The end of the first text of each kind, for as long as the process lives. What it says is of no
consequence but for the memory that the others take."""


def deflate(kind: str, text: bytes) -> bytes:
    """A text of a kind, of which there are few; equal texts of one kind give equal bytes."""
    is_short = len(text) < _SHORT
    first = b"" if is_short else _firsts.setdefault(kind, text[-(1 << _WINDOW_BITS) :])
    deflating = zlib.compressobj(
        zlib.Z_BEST_SPEED, zlib.DEFLATED, _WINDOW_BITS, _HASHING, zdict=first
    )
    return deflating.compress(text) + deflating.flush()


def inflate(kind: str, deflated: bytes) -> bytes:
    """The text again, in the process that has deflated it."""
    return zlib.decompressobj(zdict=_firsts.get(kind, b"")).decompress(deflated)
