"""Label selectors are read before the first request, as the API server would read them."""

from __future__ import annotations

import re

import pytest

from inferencemodel_operator import main, selectors
from tests.support.selectors import BAD, GOOD


@pytest.mark.parametrize(
    "selector",
    GOOD,
)
def test_what_the_api_server_takes_is_taken(selector: str) -> None:
    selectors.check(selector)


@pytest.mark.parametrize(
    ("selector", "problem"),
    BAD,
)
def test_what_the_api_server_refuses_is_refused_with_the_place(selector: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        selectors.check(selector)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--selector=team in (a", "--selector='team in (a': the end where a comma or )"),
        ("--namespace=Vision_1", "--namespace='Vision_1': not a name of a namespace"),
    ],
)
def test_an_option_that_can_not_be_meant_ends_it_with_one_line(
    option: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main.parse(["run", option])
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert problem in printed
    assert printed.count("\n") == 1
