"""When a problem that waiting should heal is told as one that lasts."""

from __future__ import annotations

from inferencemodel_operator.errors import (
    ApiUnavailableError,
    ConflictError,
    LastingError,
    NamespaceTerminatingError,
    RefusedError,
)
from inferencemodel_operator.patience import LASTING_SECONDS, Patience

DEAD = ApiUnavailableError("the webhook is dead", retry_after=7)
REFUSED = RefusedError("Service", "vision/m", "no", "change it")


def test_what_passes_is_not_told_as_lasting() -> None:
    patience = Patience()
    assert patience.judge([DEAD, REFUSED], 0) == [DEAD, REFUSED]
    assert patience.judge([], LASTING_SECONDS) == []
    assert patience.judge([DEAD], LASTING_SECONDS + 1) == [DEAD]


def test_what_lasts_is_told_with_its_words_and_what_a_person_has_to_change_stays_that() -> None:
    patience = Patience()
    patience.judge([ConflictError("looking again")], 0)
    lasting, refused = patience.judge([DEAD, REFUSED], LASTING_SECONDS)
    assert isinstance(lasting, LastingError)
    assert (str(lasting), lasting.retry_after) == ("the webhook is dead", 7)
    assert refused is REFUSED


def test_a_namespace_that_goes_is_no_trouble() -> None:
    patience, going = Patience(), NamespaceTerminatingError("it goes")
    patience.judge([going], 0)
    assert patience.judge([going], 10 * LASTING_SECONDS) == [going]
