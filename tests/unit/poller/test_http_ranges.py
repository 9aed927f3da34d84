"""Ranges of a web server's answers."""

from __future__ import annotations

import pytest

from model_poller.errors import UnreachableError
from model_poller.stores.http_ranges import HttpRanges
from tests.unit.poller.answering import Answering, Reply

CONTENT = b"0123456789"


def read(told: str | None) -> bytes:
    """Bytes 2 to 5 of the content from a server that says ``told`` of its answer."""
    headers = {"Content-Range": told} if told else {}
    with Answering(lambda _: Reply(206, CONTENT[2:6], headers)) as server:
        ranges = HttpRanges(server.url)
        try:
            with ranges.get("/file", {}, 2, 4) as body:
                buffer = memoryview(bytearray(10))
                return bytes(buffer[: body.readinto(buffer)])
        finally:
            ranges.close()


@pytest.mark.parametrize("told", [None, "bytes 2-5/10", "bytes 2-5/*"])
def test_the_range_that_was_asked_for_is_taken(told: str | None) -> None:
    assert read(told) == CONTENT[2:6]


@pytest.mark.parametrize("told", ["bytes 0-3/10", "bytes 2-9/10", "bytes 0-9/10"])
def test_another_range_than_the_one_that_was_asked_for_is_refused(told: str) -> None:
    with pytest.raises(
        UnreachableError, match=r"127\.0\.0\.1 answers with bytes .* 4 bytes from 2"
    ):
        read(told)
