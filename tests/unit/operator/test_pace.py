"""Token buckets."""

from __future__ import annotations

from inferencemodel_operator.pace import Bucket, Pace


def passed(pace: Bucket | Pace, moments: list[float]) -> int:
    """How many may happen, of those that are tried at some moments."""
    count = 0
    for now in moments:
        if pace.wait(now) == 0:
            pace.take(now)
            count += 1
    return count


def test_the_first_happen_at_once_and_what_goes_on_less_often() -> None:
    bucket = Bucket(burst=5, seconds=10.0)
    assert passed(bucket, [0.0] * 9) == 5
    assert bucket.wait(0.0) == 10.0
    assert passed(bucket, [tenth / 10 for tenth in range(1, 1000)]) == 9


def test_a_rest_fills_it_again_and_not_above_its_burst() -> None:
    bucket = Bucket(burst=5, seconds=10.0)
    assert not bucket.wait(0.0)
    passed(bucket, [0.0] * 5)
    assert not bucket.is_full(49.0)
    assert bucket.is_full(50.0)
    assert passed(bucket, [10_000.0] * 9) == 5


def test_of_several_buckets_each_has_to_let_it_happen() -> None:
    pace = Pace(Bucket(burst=1, seconds=0.2), Bucket(burst=12, seconds=3.0))
    assert pace.wait(0.0) == 0
    pace.take(0.0)
    assert pace.wait(0.0) == 0.2
    # Ten attempts a second for twenty seconds.
    assert passed(pace, [tenth / 10 for tenth in range(1, 201)]) == 11 + 6
