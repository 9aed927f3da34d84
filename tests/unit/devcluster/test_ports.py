"""Ports that are chosen before a server listens on them."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from devcluster import ports


def test_no_outgoing_connection_takes_a_chosen_port() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not any(first <= ports.free_port() <= last for _ in range(200))


def test_processes_with_one_seed_choose_differently() -> None:
    chosen = []
    for _ in range(2):
        random.seed(1)
        chosen.append([ports.free_port() for _ in range(5)])
    assert chosen[0] != chosen[1]


def test_a_port_that_is_listened_on_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.free_port()))
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_RANGE", range(port, port + 1))
        with pytest.raises(OSError, match=f"no free port between {port} and {port + 1}"):
            ports.free_port()
