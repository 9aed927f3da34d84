"""How often Python looks for objects that only refer to each other."""

from __future__ import annotations

import gc
from typing import Final

NEW_OBJECTS: Final = 10_000
"""So many more containers than before start a search. Python's 700 are those of a few requests, and
the searches of a thousand InferenceModels' creation a tenth of its processor time; nearly all that
the operator makes goes without one."""


def search_seldom() -> None:
    """Search only after many new objects, and never again through what the imports made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
