"""Missing rights are the cluster's business: said once each, however many objects need them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from inferencemodel_operator.answers import Target
from inferencemodel_operator.errors import NoRightError
from inferencemodel_operator.rights import Rights

if TYPE_CHECKING:
    import pytest


def target(name: str, verb: str = "apply") -> Target:
    return Target(verb=verb, kind="Deployment", name=name)


def test_a_right_is_missed_once_and_welcomed_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rights = Rights()
    for name in ("a/one", "a/two", "b/one"):
        rights.refused(target(name), NoRightError(f"{name}: may not"))
    assert [record.getMessage() for record in caplog.records] == [
        "waiting: the right to apply Deployment: a/one: may not"
    ]

    rights.granted(target("a/one"))
    rights.granted(target("b/one", verb="delete"))
    assert len(caplog.records) == 1, "it is missing in b still"
    rights.granted(target("b/two"))
    assert "the right to apply Deployment goes on" not in caplog.text
    assert "the right to apply Deployment is back" in caplog.text
