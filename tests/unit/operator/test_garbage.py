"""How often Python searches for garbage in the operator."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc
from inferencemodel_operator import garbage

class Link:
    pass

def leave() -> None:
    link = Link()
    link.itself = link

garbage.search_seldom()
searches = []
gc.callbacks.append(lambda phase, about: searches.append(about["generation"]))
kept = [[] for _ in range(5_000)]
early = len(searches)
leave()
del kept[:]
more = [[] for _ in range(20_000)]
print(early, len(searches) > 0, gc.get_freeze_count() > 1_000)
print(sum(isinstance(found, Link) for found in gc.get_objects()))
"""


def test_it_searches_after_many_new_objects_alone_and_still_finds_what_is_left() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.split() == ["0", "True", "True", "0"]
