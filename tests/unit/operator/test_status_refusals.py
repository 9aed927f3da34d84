"""Why statuses are refused is said once, however many are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferencemodel_operator.errors import StatusRefusedError
from inferencemodel_operator.status_refusals import StatusRefusals

if TYPE_CHECKING:
    from inferencemodel_operator.observe.objects import Key

KEYS: tuple[Key, ...] = (("n", "m"), ("n", "o"), ("p", "m"))
UNKNOWN = "failed to create typed patch object ({}; Kind=InferenceModel): .status.url: unknown"
INVALID = 'InferenceModel.inferencemodel.dev "{}" is invalid: status.url: too long'


def refused(key: Key, words: str) -> StatusRefusedError:
    name = "/".join(key)
    return StatusRefusedError(name, words.format(name))


@pytest.mark.parametrize("words", [UNKNOWN, INVALID])
def test_one_reason_is_said_once_for_all_and_again_when_it_comes_back(
    words: str, caplog: pytest.LogCaptureFixture
) -> None:
    refusals = StatusRefusals()
    assert all(refusals.refused(key, refused(key, words)) for key in KEYS)
    assert not any(refusals.refused(key, refused(key, words)) for key in KEYS)
    assert len(caplog.records) == 1

    for key in KEYS:
        refusals.forget(key)
    assert refusals.refused(KEYS[0], refused(KEYS[0], words))
    assert len(caplog.records) == 2


def test_another_reason_is_said_as_well(caplog: pytest.LogCaptureFixture) -> None:
    refusals = StatusRefusals()
    for words in (UNKNOWN, INVALID):
        assert refusals.refused(KEYS[0], refused(KEYS[0], words))
    assert len(caplog.records) == 2
