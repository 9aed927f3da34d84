"""What becomes of a rollout's moments when the clock of its machine is set."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from inferencemodel_operator.rollouts.situation import Soaking, Trying

if TYPE_CHECKING:
    from inferencemodel_operator.record import RolloutRecord

LEAST: Final = datetime.timedelta(seconds=2)
"""Less is what a clock is corrected by all the time, and what passes between two looks at it."""

_NOT: Final = datetime.timedelta()


class Clock:
    """Tells by how much a clock was set, beside one that only ever goes on."""

    def __init__(self) -> None:
        self._before: tuple[datetime.datetime, float] | None = None

    def set_by(self, now: datetime.datetime, monotonic: float) -> datetime.timedelta:
        """By how much it was set since the look before; zero for none."""
        before, self._before = self._before, (now, monotonic)
        if before is None:
            return _NOT
        by = now - before[0] - datetime.timedelta(seconds=monotonic - before[1])
        return by if abs(by) >= LEAST else _NOT


class Shift:
    """By how much the moments of a rollout are off, from when a clock was set until the rollout has
    been written by the clock as it is then."""

    def __init__(self) -> None:
        self._run: RolloutRecord | None = None
        self._by = _NOT

    def applied(self, run: RolloutRecord | None, by: datetime.timedelta) -> RolloutRecord | None:
        """The rollout by the clock as it is now.

        Args:
            run: as it was written.
            by: by how much the clock was set since the look before.
        """
        if run != self._run:
            self._run, self._by = run, _NOT
        self._by += by
        return shifted(run, self._by)


def shifted(run: RolloutRecord | None, by: datetime.timedelta) -> RolloutRecord | None:
    """A rollout that runs, its moments by the clock as it is now: no pause ends early, and no
    version had more time than it had."""
    if run is None or run.phase.is_ended or not by:
        return run
    try:
        moved = replace(
            run,
            step_started=run.step_started and run.step_started + by,
            settled=run.settled and run.settled + by,
        )
    except OverflowError:
        return run
    return moved if moved.is_sound else run


def shifted_soaking(known: Soaking | None, by: datetime.timedelta) -> Soaking | None:
    """The same."""
    return known and Soaking(known.version, known.step, known.since + by)


def shifted_trying(known: Trying | None, by: datetime.timedelta) -> Trying | None:
    """The same."""
    return known and Trying(known.begun, {uid: since + by for uid, since in known.since.items()})
