"""Which versions leave a cache, whatever is in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_poller.cache.eviction import Held, victims

sizes = st.integers(0, 1000)
entries = st.lists(
    st.builds(Held, st.uuids().map(str), sizes, st.floats(0, 100), st.booleans()),
    max_size=12,
    unique_by=lambda held: held.key,
)


@given(entries, sizes, st.none() | st.integers(0, 4000), sizes, st.integers(0, 2000))
def test_what_leaves_is_enough_and_no_more_and_never_in_use(
    held: list[Held], needed: int, room: int | None, other: int, free: int
) -> None:
    chosen = victims(held, needed=needed, room=room, other=other, free=free)

    def lacks(gone: list[Held]) -> int:
        left = sum(entry.size for entry in held) + other - sum(entry.size for entry in gone)
        excess = 0 if room is None else left + needed - room
        return max(excess, needed - free - sum(entry.size for entry in gone))

    idle = [entry for entry in held if not entry.in_use]
    if chosen is None:
        assert lacks(idle) > 0
        return
    assert lacks(chosen) <= 0
    assert not any(entry.in_use for entry in chosen)
    # The last one was needed as well.
    assert not chosen or lacks(chosen[:-1]) > 0
    oldest = sorted(idle, key=lambda entry: (entry.used, entry.key))
    assert chosen == oldest[: len(chosen)]


def test_nothing_leaves_for_what_would_not_fit_all_the_same() -> None:
    held = [Held("a", 10, 1.0, False), Held("b", 10, 2.0, True)]

    assert victims(held, needed=15, room=20, other=0, free=100) is None


def test_a_disk_that_others_fill_has_less_room_than_is_allowed() -> None:
    held = [Held("a", 10, 1.0, False), Held("b", 10, 2.0, False)]

    chosen = victims(held, needed=8, room=None, other=0, free=0)

    assert chosen == held[:1]
