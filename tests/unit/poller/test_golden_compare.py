"""When two answers are the same, and what is said of those that aren't."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_poller.golden import tensors
from model_poller.golden.compare import Difference, Outcome, Tally, compare
from model_poller.golden.tensors import Tensor
from model_poller.status import CheckResult, GoldenTask

if TYPE_CHECKING:
    from collections.abc import Sequence

TASK = GoldenTask(absolute=0.01, relative=0.1, min_agreement=0.99)
INF, NAN = math.inf, math.nan
INT32, INT64, FLOAT16 = 3, 9, tensors.HALF


def floats(values: Sequence[float], *shape: int, dtype: int = tensors.FLOAT) -> Tensor:
    code = "d" if dtype in (tensors.DOUBLE, tensors.COMPLEX128) else "f"
    return Tensor(dtype, shape or (len(values),), array(code, values))


def ints(values: Sequence[int], dtype: int = INT64) -> Tensor:
    return Tensor(dtype, (len(values),), array("q", values))


def texts(*values: bytes) -> Tensor:
    return Tensor(tensors.STRING, (len(values),), list(values))


def said(answer: Tensor, recorded: Tensor, task: GoldenTask = TASK) -> str:
    """What is said of the one output of an answer; nothing where it agrees."""
    outcome = compare({"y": answer}, {"y": recorded}, task)
    return outcome.difference.text if outcome.difference else ""


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1.0, 1.0),
        (1.109, 1.0),
        (0.891, 1.0),
        (0.0, 0.0),
        (0.0099, 0.0),
        (-0.0, 0.0),
        (-50.0, -45.5),
        (INF, INF),
        (-INF, -INF),
        (NAN, NAN),
        (1e-30, -1e-30),
    ],
)
def test_numbers_agree_within_both_tolerances_together(a: float, b: float) -> None:
    assert said(floats([a]), floats([b])) == ""


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1.111, 1.0),
        (0.889, 1.0),
        (0.0101, 0.0),
        (1.0, -1.0),
        (NAN, 1.0),
        (1.0, NAN),
        (INF, 1.0),
        (-INF, 1e30),
        (1.0, INF),
        (1e30, -INF),
        (INF, -INF),
        (INF, NAN),
        (NAN, INF),
    ],
)
def test_numbers_differ_beyond_them_and_where_one_is_none(a: float, b: float) -> None:
    assert said(floats([0.0, a]), floats([0.0, b])) == (
        f'the output "y"[1] is {a:.6g}, and {b:.6g} was recorded'
    )


def test_without_a_tolerance_only_the_same_number_agrees() -> None:
    exact = GoldenTask(absolute=0.0, relative=0.0)
    assert said(floats([0.5, -0.0]), floats([0.5, 0.0]), exact) == ""
    assert 'y"[0] is 0.500001,' in said(floats([0.500001]), floats([0.5]), exact)


@pytest.mark.parametrize("dtype", [tensors.FLOAT, tensors.DOUBLE, FLOAT16, tensors.BFLOAT16])
def test_all_kinds_of_floats_are_compared_by_their_distance(dtype: int) -> None:
    one, near, far = (floats([value], dtype=dtype) for value in (1.0, 1.05, 1.5))
    assert said(near, one) == ""
    assert said(far, one) == 'the output "y"[0] is 1.5, and 1 was recorded'


def test_of_several_values_and_outputs_the_furthest_is_named() -> None:
    recorded = {"a": floats([1.0, 1.0, 1.0, 1.0], 2, 2), "b": floats([100.0])}
    answer = {"a": floats([1.0, 1.2, 9.0, 2.0], 2, 2), "b": floats([300.0])}
    found = compare(answer, recorded, TASK).difference
    assert found
    assert found.text == 'the output "a"[1, 0] is 9, and 1 was recorded'
    assert found.size == pytest.approx(8 / 0.11)


def test_nothing_is_further_than_what_is_no_number() -> None:
    answer = floats([1e30, NAN, 1e35, INF])
    assert said(answer, floats([0.0] * 4)) == 'the output "y"[1] is nan, and 0 was recorded'


@pytest.mark.parametrize(
    ("answer", "recorded", "text"),
    [
        (ints([1, 2, 3]), ints([1, 2, 3]), ""),
        (ints([1, 5, 4]), ints([1, 2, 3]), 'the output "y"[1] is 5, and 2 was recorded'),
        (texts(b"cat", b"dog"), texts(b"cat", b"dog"), ""),
        (
            texts(b"cat", b"fox \xff"),
            texts(b"cat", b"dog"),
            'the output "y"[1] is "fox \\xff", and "dog" was recorded',
        ),
        (
            Tensor(tensors.BOOL, (2,), array("B", [1, 2])),
            Tensor(tensors.BOOL, (2,), array("B", [2, 1])),
            "",
        ),
        (
            Tensor(tensors.BOOL, (2,), array("B", [1, 0])),
            Tensor(tensors.BOOL, (2,), array("B", [1, 1])),
            'the output "y"[1] is false, and true was recorded',
        ),
    ],
)
def test_all_else_has_to_be_equal(answer: Tensor, recorded: Tensor, text: str) -> None:
    assert said(answer, recorded) == text


def test_long_texts_are_cut() -> None:
    text = said(texts(b"x" * 10_000), texts(b"y" * 10_000))
    assert len(text) < 250
    assert "xxx…" in text


def test_complex_numbers_differ_by_one_of_their_parts() -> None:
    recorded = Tensor(tensors.COMPLEX64, (2,), array("f", [1.0, 2.0, 3.0, 4.0]))
    near = Tensor(tensors.COMPLEX64, (2,), array("f", [1.0, 2.0, 3.0, 4.1]))
    far = Tensor(tensors.COMPLEX64, (2,), array("f", [1.0, 2.0, 3.0, 9.0]))
    assert said(near, recorded) == ""
    assert said(far, recorded) == 'the output "y"[1] (imaginary part) is 9, and 4 was recorded'


def test_a_single_number_has_no_index() -> None:
    one, two = (Tensor(tensors.FLOAT, (), array("f", [value])) for value in (1.0, 2.0))
    assert said(two, one) == 'the output "y" is 2, and 1 was recorded'


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"a": floats([1.0])}, "the outputs are a, and a, b were recorded"),
        ({"a": floats([1.0]), "c": floats([1.0])}, "the outputs are a, c, and a, b were recorded"),
        ({}, "the outputs are none, and a, b were recorded"),
        (
            {f"output{i}": floats([1.0]) for i in range(7)},
            "the outputs are output0, output1, output2, output3, output4 and 2 more, and a, b were"
            " recorded",
        ),
        (
            {"a": floats([1.0]), "b": floats([2.0], dtype=tensors.DOUBLE)},
            'the output "b" is float64, and float32 was recorded',
        ),
        ({"a": floats([1.0]), "b": ints([2])}, 'the output "b" is int64, and float32 was recorded'),
        (
            {"a": floats([1.0]), "b": floats([2.0], 1, 1)},
            'the output "b" is of shape [1, 1], and of shape [1] was recorded',
        ),
    ],
)
def test_other_outputs_types_and_shapes_are_told(answer: dict[str, Tensor], text: str) -> None:
    outcome = compare(answer, {"a": floats([1.0]), "b": floats([2.0])}, TASK)
    assert outcome.difference == Difference(INF, text)


def test_an_empty_output_agrees() -> None:
    empty = Tensor(tensors.FLOAT, (0, 5), array("f"))
    assert compare({"y": empty}, {"y": empty}, TASK) == Outcome()
    wide = Tensor(tensors.FLOAT, (5, 0), array("f"))
    assert compare({"y": wide}, {"y": wide}, TASK) == Outcome()


LOOSE = GoldenTask(absolute=10.0, relative=0.0, min_agreement=0.99)
"""Whatever the scores are, so long as their order is the same."""


def test_the_highest_score_of_each_row_has_its_place() -> None:
    recorded = floats([0.1, 0.9, 0.0, 0.7, 0.2, 0.1], 2, 3)
    moved = floats([0.1, 0.9, 0.0, 0.2, 0.7, 0.1], 2, 3)
    outcome = compare({"y": moved}, {"y": recorded}, LOOSE)
    assert outcome.difference is None
    assert outcome.agreement == 0.5
    assert outcome.moved == 'the output "y"[1] has it at 1, and 0 was recorded'
    assert compare({"y": recorded}, {"y": recorded}, LOOSE).agreement == 1.0


def test_a_row_without_others_is_named_by_its_output_alone() -> None:
    outcome = compare({"y": floats([1.0, 0.0])}, {"y": floats([0.0, 1.0])}, LOOSE)
    assert (outcome.agreement, outcome.moved) == (
        0.0,
        'the output "y" has it at 0, and 1 was recorded',
    )


def test_which_of_equal_scores_is_the_highest_is_chance_whatever_the_tolerance() -> None:
    recorded = floats([0.5, 0.5 - 1e-5, 0.0])
    assert compare({"y": floats([0.5, 0.5 + 1e-5, 0.0])}, {"y": recorded}, LOOSE).agreement == 1.0
    assert compare({"y": floats([0.5, 0.4, 0.6])}, {"y": recorded}, LOOSE).agreement == 0.0
    exact = GoldenTask(absolute=0.0, relative=0.0)
    other = compare({"y": floats([0.5, 0.5 + 1e-5, 0.0])}, {"y": recorded}, exact)
    assert other.agreement == 0.0


@pytest.mark.parametrize(
    "tensor",
    [floats([1.0, 2.0], 2, 1), ints([1, 2]), texts(b"a", b"b"), Tensor(1, (), array("f", [1.0]))],
)
def test_what_is_no_row_of_scores_has_no_highest_one(tensor: Tensor) -> None:
    assert compare({"y": tensor}, {"y": tensor}, LOOSE).agreement is None


def tally(*outcomes: Outcome, task: GoldenTask = TASK, records: int | None = None) -> Tally:
    made = Tally(len(outcomes) if records is None else records, task)
    for number, outcome in enumerate(outcomes, 1):
        made.add(number, outcome)
    return made


def test_all_that_agree_pass() -> None:
    assert tally(Outcome(), Outcome(agreement=1.0)).verdict() == (
        CheckResult.PASSED,
        "2 of 2 recorded answers agree",
    )


def test_the_worst_record_is_named_with_how_many_differ() -> None:
    few = tally(Outcome(Difference(2.0, "near")), Outcome(), Outcome(Difference(3.0, "far")))
    assert few.verdict() == (CheckResult.FAILED, "record 3 of 3: far; 2 of 3 differ")
    few.fail(2, "INTERNAL: no")
    few.fail(3, "INTERNAL: later")
    assert few.verdict()[1] == "record 2 of 3: INTERNAL: no; 4 of 5 differ"
    assert tally(Outcome(Difference(2.0, "x"))).verdict()[1] == "record 1 of 1: x"


def test_too_few_highest_scores_in_their_place_fail() -> None:
    good, bad = Outcome(agreement=1.0), Outcome(agreement=0.0, moved="MOVED")
    assert tally(*[good] * 99, bad).verdict()[0] is CheckResult.PASSED
    result, message = tally(*[good] * 49, bad, Outcome()).verdict()
    assert result is CheckResult.FAILED
    assert message == (
        "the highest score stands where it was recorded in 98 % of 50 records, and 99 % are"
        " wanted; record 50: MOVED"
    )
    loose = GoldenTask(min_agreement=0.0)
    assert tally(bad, task=loose).verdict()[0] is CheckResult.PASSED


def test_a_part_that_is_just_too_small_is_not_rounded_up() -> None:
    outcomes = [Outcome(agreement=0.98999, moved="m")]
    assert "in 98.9 % of 1 records, and 99 % are wanted" in tally(*outcomes).verdict()[1]


def test_what_is_not_compared_is_counted_by_its_reason() -> None:
    some = tally(Outcome(), records=4)
    for why in ("session_run_log", "session_run_log", "too large"):
        some.pass_over(why)
    assert some.verdict() == (
        CheckResult.PASSED,
        "1 of 4 recorded answers agree; 2 not compared: session_run_log; 1 not compared: too large",
    )


def test_nothing_to_compare_by_is_skipped() -> None:
    assert tally().verdict() == (
        CheckResult.SKIPPED,
        "the version comes with no recorded answers",
    )
    other = tally(records=1)
    other.pass_over("session_run_log")
    assert other.verdict() == (CheckResult.SKIPPED, "1 not compared: session_run_log")


def test_what_was_not_finished_is_inconclusive_unless_it_failed() -> None:
    assert tally(Outcome(), records=9).verdict("the rest took too long") == (
        CheckResult.INCONCLUSIVE,
        "1 of 9 recorded answers agree; the rest took too long",
    )
    failed = tally(Outcome(Difference(2.0, "x")), records=9)
    assert failed.verdict("the rest took too long") == (CheckResult.FAILED, "record 1 of 9: x")


NUMBERS = st.floats(width=32)
TASKS = st.builds(GoldenTask, absolute=st.floats(0, 10), relative=st.floats(0, 2))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20), TASKS)
def test_the_rule_holds_for_all_numbers(pairs: list[tuple[float, float]], task: GoldenTask) -> None:
    answer, recorded = (floats(list(values)) for values in zip(*pairs, strict=True))
    differ = [
        not (
            a == b
            or (a != a and b != b)
            or (
                math.isfinite(a)
                and math.isfinite(b)
                and abs(a - b) <= task.absolute + task.relative * abs(b)
            )
        )
        for a, b in zip(answer.values, recorded.values, strict=True)
    ]
    text = said(answer, recorded, task)
    assert bool(text) == any(differ)
    if text:
        assert differ[int(text.partition("[")[2].partition("]")[0])]


@given(st.lists(NUMBERS, min_size=1, max_size=20), TASKS)
def test_an_answer_agrees_with_itself(values: list[float], task: GoldenTask) -> None:
    outcome = compare({"y": floats(values)}, {"y": floats(list(values))}, task)
    assert outcome.difference is None
    assert outcome.agreement in (None, 1.0)


@pytest.mark.parametrize("places", [(0,), (1,), (0, 1), (0, 1, 2)])
def test_what_is_no_number_is_nobodys_highest_score(places: tuple[int, ...]) -> None:
    recorded = floats([NAN if i in places else float(i) for i in range(3)])
    other = floats([NAN if i in places else float(i) + 1e-5 for i in range(3)])
    assert compare({"y": other}, {"y": recorded}, LOOSE).difference is None
    assert compare({"y": other}, {"y": recorded}, LOOSE).agreement == 1.0
    assert compare({"y": floats([1.0, 2.0, 3.0])}, {"y": recorded}, LOOSE).difference
