"""Whether two answers to the same request are the same, and what to say of many of them; pure.

Numbers agree where ``|a - b| <= absolute + relative * |b|``, b being the recorded one; all else has
to be equal. Beyond that, the highest score of each row has to stand in the same place in enough of
the records: who allows for large differences still wants the same labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from model_poller.checks import dtypes
from model_poller.golden.tensors import BOOL, COMPLEX
from model_poller.status import CheckResult, GoldenTask

if TYPE_CHECKING:
    from model_poller.golden.tensors import Tensor

Answer = dict[str, "Tensor"]
"""The outputs by their names."""
MAX_NAMES: Final = 5
"""Of outputs, in a message."""
MAX_TEXT: Final = 60
"""Characters of a value or a name, in a message."""
_NOISE: Final = GoldenTask()
"""Scores that differ by no more are equal ones: which of them is the highest is chance."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an answer is another one."""

    size: float
    """How many times as much as is allowed; infinite where nothing is."""
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one record."""

    difference: Difference | None = None
    """The largest one."""
    agreement: float | None = None
    """Of its rows of scores, how large a part has the highest in its place; None: it has none."""
    moved: str = ""
    """The first whose highest score stands elsewhere."""


def compare(answer: Answer, recorded: Answer, task: GoldenTask) -> Outcome:
    """Compare an answer with the recorded one."""
    if answer.keys() != recorded.keys():
        text = f"the outputs are {_names(answer)}, and {_names(recorded)} were recorded"
        return Outcome(Difference(math.inf, text))
    differences = []
    rows = moved_rows = 0
    moved = ""
    for name, wanted in sorted(recorded.items()):
        difference = _kind(name, answer[name], wanted)
        if difference is None:
            difference = _values(name, answer[name], wanted, task)
            count, elsewhere, first = _moved(name, answer[name], wanted, task)
            rows += count
            moved_rows += elsewhere
            moved = moved or first
        if difference is not None:
            differences.append(difference)
    return Outcome(
        max(differences, key=lambda difference: difference.size, default=None),
        1 - moved_rows / rows if rows else None,
        moved,
    )


def _names(answer: Answer) -> str:
    named = [_short(name) for name in sorted(answer)]
    more = f" and {len(named) - MAX_NAMES} more" if len(named) > MAX_NAMES else ""
    return ", ".join(named[:MAX_NAMES]) + more if named else "none"


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _kind(name: str, tensor: Tensor, wanted: Tensor) -> Difference | None:
    """Another type or shape."""
    if tensor.dtype != wanted.dtype:
        pair = dtypes.name(tensor.dtype), dtypes.name(wanted.dtype)
    elif tensor.shape != wanted.shape:
        pair = _shape(tensor.shape), _shape(wanted.shape)
    else:
        return None
    text = f'the output "{_short(name)}" is {pair[0]}, and {pair[1]} was recorded'
    return Difference(math.inf, text)


def _shape(shape: tuple[int, ...]) -> str:
    return (
        f"of shape [{', '.join(str(size) for size in shape[:8])}{', …' if len(shape) > 8 else ''}]"
    )


def _values(name: str, tensor: Tensor, wanted: Tensor, task: GoldenTask) -> Difference | None:
    """The largest difference between the values of two tensors of one type and shape."""
    if _same(tensor, wanted):
        return None
    if wanted.is_numeric:
        size, index = _furthest(tensor, wanted, task)
    else:
        pairs = enumerate(zip(tensor.values, wanted.values, strict=True))
        is_bool = wanted.dtype == BOOL
        size, index = next(
            ((math.inf, i) for i, (a, b) in pairs if a != b and not (is_bool and a and b)),
            (0.0, 0),
        )
    if not size:
        return None
    text = (
        f"{_place(name, index, wanted)} is {_shown(tensor, index)}, and {_shown(wanted, index)}"
        " was recorded"
    )
    return Difference(size, text)


def _same(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether they are the same to the last bit, which is seen at once; NaN is NaN then."""
    if isinstance(tensor.values, list) or isinstance(wanted.values, list):
        return tensor.values == wanted.values
    return memoryview(tensor.values).cast("B") == memoryview(wanted.values).cast("B")


def _furthest(tensor: Tensor, wanted: Tensor, task: GoldenTask) -> tuple[float, int]:
    """How many times as much as is allowed a number is away from the recorded one, and which."""
    absolute, relative = task.absolute, task.relative
    largest, index = 0.0, 0
    for i, (a, b) in enumerate(zip(tensor.values, wanted.values, strict=True)):
        if a == b:
            continue
        away = abs(a - b)
        allowed = absolute + relative * abs(b)
        # Infinity is within a part of infinity, and no comparison with NaN holds.
        if away <= allowed and away != math.inf:
            continue
        if a != a and b != b:
            continue
        size = away / allowed if allowed > 0 and away < math.inf else math.inf
        if size > largest:
            largest, index = size, i
            if size == math.inf:
                break
    return largest, index


def _place(name: str, index: int, tensor: Tensor) -> str:
    part = ""
    if tensor.dtype in COMPLEX:
        part = " (imaginary part)" if index % 2 else " (real part)"
        index //= 2
    return f"{_row(name, index, tensor.shape)}{part}"


def _row(name: str, index: int, shape: tuple[int, ...]) -> str:
    """An output and where in it; the index counts what has this shape."""
    places: list[int] = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.insert(0, place)
    where = f"[{', '.join(map(str, places))}]" if places else ""
    return f'the output "{_short(name)}"{where}'


def _shown(tensor: Tensor, index: int) -> str:
    value = tensor.values[index]
    if isinstance(value, bytes):
        text = value[: 2 * MAX_TEXT].decode(errors="backslashreplace")
        return f'"{_short(text)}"'
    if tensor.dtype == BOOL:
        return str(bool(value)).lower()
    return f"{value:.6g}" if tensor.is_numeric else str(value)


def _moved(name: str, tensor: Tensor, wanted: Tensor, task: GoldenTask) -> tuple[int, int, str]:
    """How many rows of scores there are, in how many the highest one moved, and the first."""
    width = wanted.shape[-1] if wanted.shape else 0
    scores, others = wanted.values, tensor.values
    if not wanted.is_float or width < 2 or isinstance(scores, list) or isinstance(others, list):
        return 0, 0, ""
    count = len(scores) // width
    if _same(tensor, wanted):
        return count, 0, ""
    moved, first = 0, ""
    for row in range(count):
        part = slice(row * width, (row + 1) * width)
        before, after = scores[part], others[part]
        highest, score = max(before), max(after)
        if math.isnan(highest) or math.isnan(score):
            # It differs as a number where it has to.
            continue
        was, now = before.index(highest), after.index(score)
        if now == was or _is_noise(before[now], highest, task):
            continue
        moved += 1
        if not first:
            where = _row(name, row, wanted.shape[:-1])
            first = f"{where} has it at {now}, and {was} was recorded"
    return count, moved, first


def _is_noise(score: float, highest: float, task: GoldenTask) -> bool:
    absolute = min(task.absolute, _NOISE.absolute)
    relative = min(task.relative, _NOISE.relative)
    return highest - score <= absolute + relative * abs(highest)


@dataclass(slots=True)
class Tally:
    """What came of the records of one version, one after the other."""

    records: int
    """That come with an answer."""
    task: GoldenTask
    compared: int = 0
    differing: int = 0
    worst: tuple[int, Difference] | None = None
    agreements: list[float] = field(default_factory=list)
    moved: tuple[int, str] | None = None
    passed_over: dict[str, int] = field(default_factory=dict)
    """How many couldn't be compared, by the reason."""

    def add(self, number: int, outcome: Outcome) -> None:
        """Take in what came of a record."""
        self.compared += 1
        if outcome.difference is not None:
            self.differing += 1
            if self.worst is None or outcome.difference.size > self.worst[1].size:
                self.worst = number, outcome.difference
        if outcome.agreement is not None:
            self.agreements.append(outcome.agreement)
            if outcome.moved and self.moved is None:
                self.moved = number, outcome.moved

    def fail(self, number: int, text: str) -> None:
        """Take in that a record got no answer."""
        self.add(number, Outcome(Difference(math.inf, text)))

    def pass_over(self, why: str) -> None:
        """Take in a record that can't be compared."""
        self.passed_over[why] = self.passed_over.get(why, 0) + 1

    @property
    def has_failed(self) -> bool:
        """Whether it can't end well any more."""
        return self.worst is not None

    @property
    def agreement(self) -> float:
        """The part of the records, 0 to 1, whose highest score stands in its place."""
        return sum(self.agreements) / len(self.agreements) if self.agreements else 1.0

    def verdict(self, unfinished: str = "") -> tuple[CheckResult, str]:
        """The result, and what to say of it; ``unfinished`` is why the rest was not sent."""
        if self.worst is not None:
            number, difference = self.worst
            text = f"record {number} of {self.records}: {difference.text}"
            if self.differing > 1:
                text += f"; {self.differing} of {self.compared} differ"
            return CheckResult.FAILED, text
        if self.agreement < self.task.min_agreement and self.moved:
            number, moved = self.moved
            return CheckResult.FAILED, (
                f"the highest score stands where it was recorded in {_percent(self.agreement)} of"
                f" {len(self.agreements)} records, and {_percent(self.task.min_agreement)} are"
                f" wanted; record {number}: {moved}"
            )
        left = "; ".join(
            f"{count} not compared: {_short_reason(why)}"
            for why, count in list(self.passed_over.items())[:3]
        )
        if unfinished:
            text = f"{self.compared} of {self.records} recorded answers agree; {unfinished}"
            return CheckResult.INCONCLUSIVE, text
        if not self.compared:
            text = left or "the version comes with no recorded answers"
            return CheckResult.SKIPPED, text
        text = f"{self.compared} of {self.records} recorded answers agree"
        return CheckResult.PASSED, f"{text}; {left}" if left else text


def _short_reason(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _percent(part: float) -> str:
    return f"{math.floor(round(part * 1000, 6)) / 10:g} %"
