"""Actions that are asked for twice."""

from __future__ import annotations

import pytest

from kubectl_inferencemodel.console.doing import Confirmations
from kubectl_inferencemodel.console.offers import offers
from kubectl_inferencemodel.errors import RefusedError
from tests.unit.plugin.views import model

MODEL = model()
OFFER = offers(MODEL)[0]


def test_an_action_is_confirmed_once() -> None:
    asked = Confirmations()
    word = asked.add(MODEL, OFFER)
    found = asked.take(word, "vision", "imagenet")
    assert (found.key, found.version) == (OFFER.key, OFFER.version)
    with pytest.raises(RefusedError, match="begin again"):
        asked.take(word, "vision", "imagenet")


def test_a_confirmation_is_for_its_own_model() -> None:
    asked = Confirmations()
    with pytest.raises(RefusedError, match="another model"):
        asked.take(asked.add(MODEL, OFFER), "vision", "other")


def test_a_confirmation_grows_old() -> None:
    now = [0.0]
    asked = Confirmations(lambda: now[0])
    word = asked.add(MODEL, OFFER)
    now[0] = 121.0
    with pytest.raises(RefusedError, match="too long ago"):
        asked.take(word, "vision", "imagenet")


def test_what_nobody_confirms_is_forgotten() -> None:
    asked = Confirmations()
    first = asked.add(MODEL, OFFER)
    last = [asked.add(MODEL, OFFER) for _ in range(100)][-1]
    with pytest.raises(RefusedError):
        asked.take(first, "vision", "imagenet")
    asked.take(last, "vision", "imagenet")
