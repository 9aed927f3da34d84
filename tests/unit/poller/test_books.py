"""What is remembered of the versions in the base path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_poller.books import LEFT_SECONDS, Books, Publication
from model_poller.status import ServedVersion
from model_poller.volume.store import Disk, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

LOADING = (ServedVersion(version=1, state="LOADING"),)
AVAILABLE = (ServedVersion(version=1, state="AVAILABLE"),)
ENDED = (ServedVersion(version=1, state="END", error_code="UNKNOWN", error_message="old"),)


def disk(*published: int, retained: tuple[int, ...] = (), proven: bool = False) -> Disk:
    def records(versions: tuple[int, ...]) -> Mapping[int, Record]:
        return {v: Record(v, "f", proven=proven) for v in versions}

    return Disk(records(published), records(retained), {})


def one(books: Books) -> Publication:
    (publication,) = books.publications.values()
    return publication


def test_time_counts_while_the_model_server_answers_and_does_not_have_the_version() -> None:
    books = Books(0.0).after(disk(), (), 0.0).published(1, 10.0, end_is_stale=False)
    for now, served, loading in (
        (10.0, None, 0.0),
        (500.0, None, 0.0),
        (600.0, (), 0.0),
        (610.0, LOADING, 10.0),
        (615.0, LOADING, 15.0),
        (620.0, None, 15.0),
        (900.0, None, 15.0),
        (901.0, LOADING, 15.0),
        (904.0, AVAILABLE, 18.0),
        (990.0, LOADING, 18.0),
    ):
        books = books.after(disk(1), served, now)
        assert one(books).loading == loading
    assert one(books).served


def test_a_server_that_goes_away_is_noted_once_it_had_the_version_to_load() -> None:
    books = Books(0.0).after(disk(), None, 0.0).published(1, 1.0, end_is_stale=False)
    never = books.after(disk(1), None, 5.0).after(disk(retained=(1,)), None, 9.0)
    assert never.suspects == {}
    there = books.after(disk(1), LOADING, 5.0)
    assert one(there).silent_since is None
    away = there.after(disk(1), None, 6.0).after(disk(1), None, 7.0)
    assert one(away).silent_since == 5.0
    assert one(away.after(disk(1), LOADING, 8.0)).silent_since is None
    left = away.after(disk(retained=(1,)), None, 9.0)
    assert left.suspects == {1: 1}
    again = left.published(1, 10.0, end_is_stale=False)
    assert again.after(disk(1), LOADING, 11.0).suspects == {1: 1}
    assert again.after(disk(1), AVAILABLE, 11.0).suspects == {}
    assert left.after(disk(), None, 10.0).suspects == {}, "it was removed"
    twice = again.after(disk(1), LOADING, 11.0).after(disk(1), None, 12.0)
    assert twice.after(disk(retained=(1,)), None, 13.0).suspects == {1: 2}


@pytest.mark.parametrize("proven", [True, False])
def test_what_lies_there_at_the_start_has_served_if_it_is_proven(proven: bool) -> None:
    books = Books(0.0).after(disk(1, proven=proven), None, 0.0)
    assert one(books).served is proven
    assert one(books).end_is_stale
    later = Books(0.0).after(disk(), None, 0.0).after(disk(1, proven=proven), None, 1.0)
    assert not one(later).served, "somebody put it there, or it has come back"


def test_an_end_is_news_once_the_server_said_anything_else() -> None:
    books = Books(0.0).after(disk(), None, 0.0).published(1, 0.0, end_is_stale=True)
    assert one(books.after(disk(1), ENDED, 1.0)).end_is_stale
    assert one(books.after(disk(1), None, 1.0)).end_is_stale
    heard = books.after(disk(1), LOADING, 1.0)
    assert not one(heard).end_is_stale
    assert not one(heard.after(disk(1), ENDED, 2.0)).end_is_stale


def test_when_a_version_left_is_forgotten_in_the_end() -> None:
    books = Books(0.0).after(disk(1), None, 0.0).after(disk(), None, 5.0)
    assert books.left == {1: 5.0}
    assert books.after(disk(), None, 5.0 + LEFT_SECONDS).left == {}
