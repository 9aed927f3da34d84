"""What is given back of the memory, and what must not be."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from model_poller.process import memory

if TYPE_CHECKING:
    import pytest

SMAPS = """\
55d0c0000000-55d0c0400000 r--p 00000000 fe:00 101    /usr/bin/python3
Rss:                1024 kB
Anonymous:             0 kB
55d0c0400000-55d0c0900000 r-xp 00400000 fe:00 101    /usr/bin/python3 (deleted)
Rss:                2048 kB
Anonymous:             0 kB
55d0c0900000-55d0c0a00000 r--p 00900000 fe:00 101    /usr/bin/python3
Rss:                1024 kB
Anonymous:            64 kB
55d0c0a00000-55d0c0b00000 rw-p 00a00000 fe:00 101    /usr/bin/python3
Rss:                1024 kB
Anonymous:             0 kB
55d0c2000000-55d0c2100000 rw-p 00000000 00:00 0      [heap]
Anonymous:             0 kB
7f0000000000-7f0000100000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000100000-7f0000200000 r--s 00000000 fe:00 102    /models/shared
Anonymous:             0 kB
"""


def test_only_what_lies_in_a_file_as_it_is_shown_is_given_back() -> None:
    assert list(memory.unwritten(SMAPS)) == [
        (0x55D0C0000000, 0x400000),
        (0x55D0C0400000, 0x500000),
    ]


def test_a_process_that_gave_back_works_on_with_less() -> None:
    program = """
import grpc, ssl
from model_poller.process import memory
memory.use_one_arena()
before = memory.resident()
thrift = memory.Thrift()
thrift.look()
between = memory.resident()
thrift.look()
after = memory.resident()
ssl.create_default_context()
channel = grpc.insecure_channel("127.0.0.1:9")
try:
    channel.unary_unary("/x/y")(b"", timeout=5)
except grpc.RpcError as error:
    print(error.code().name, before - between < 1 << 20, before - after > 2 << 20)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout.split() == ["UNAVAILABLE", "True", "True"]


def test_what_one_look_alone_shows_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is being loaded: its data is written over what is shown of its file."""
    loading = {(0x1000, 0x5000), (0x9000, 0x1000)}
    looks = iter([loading, {(0x1000, 0x1000), (0x9000, 0x1000)}])
    given: list[set[tuple[int, int]]] = []
    monkeypatch.setattr(memory, "unwritten", lambda _: next(looks))
    monkeypatch.setattr(memory, "give_back", lambda shown: given.append(set(shown)))
    thrift = memory.Thrift()
    thrift.look()
    assert given == []
    thrift.look()
    assert given == [{(0x9000, 0x1000)}]
    # Nothing has grown since.
    thrift.look()
    assert len(given) == 1
