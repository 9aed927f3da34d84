"""How InferenceModels are followed where the API server is away."""

from __future__ import annotations

from kubectl_inferencemodel.following import FIRST_PAUSE, LONGEST_PAUSE, Pauses


def test_each_pause_is_longer_up_to_a_bound_however_long_the_api_server_is_away() -> None:
    pauses = Pauses()
    found = [pauses.after(0.1) for _ in range(2000)]
    assert FIRST_PAUSE <= found[0] <= 2 * FIRST_PAUSE
    assert all(0.7 * LONGEST_PAUSE <= pause <= LONGEST_PAUSE for pause in found[10:])


def test_after_one_that_went_on_for_long_the_next_comes_soon() -> None:
    pauses = Pauses()
    for _ in range(10):
        pauses.after(0.1)
    assert pauses.after(LONGEST_PAUSE + 1) <= FIRST_PAUSE
