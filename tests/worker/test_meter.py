"""What a period is: from end to end where forwards follow each other at once, from begin to end where they do not."""

from __future__ import annotations

from typing import Any

import pytest

from optimem.meter import Meter
from optimem.recorder import Recording


class Clock:
    """Its marks are times that the test sets; all have passed."""

    def __init__(self) -> None:
        self.now = 0

    def timed_mark(self) -> int:
        return self.now

    def passed(self, mark: Any) -> bool:
        return True

    def elapsed_ns(self, start: int, end: int) -> int:
        return end - start


RECORDING = Recording({}, [], [], [], [], [])


def metered(forwards: list[tuple[int, int]]) -> int:
    clock = Clock()
    meter = Meter(clock)  # type: ignore[arg-type]
    for began, ended in forwards:
        clock.now = began
        meter.begin(RECORDING)
        clock.now = ended
        meter.end(failed=False)
    meter.read()
    return meter.period_ns()


@pytest.mark.parametrize(
    ("forwards", "period"),
    [
        ([], 0),
        ([(0, 100)], 100),
        ([(0, 100), (100, 210), (210, 320)], 110),
        ([(0, 100), (103, 210), (213, 320)], 110),  # what lies between belongs to the period
        ([(0, 100), (500, 560), (900, 960)], 60),  # the device was idle between
        ([(0, 100), (500, 560), (560, 680)], 120),  # one that followed at once counts, others do not
    ],
)
def test_a_period_lasts_from_the_end_of_a_forward_to_the_end_of_the_next(
    forwards: list[tuple[int, int]], period: int
) -> None:
    assert metered(forwards) == period


def test_another_plan_begins_anew() -> None:
    clock = Clock()
    meter = Meter(clock)  # type: ignore[arg-type]
    meter.begin(RECORDING)
    clock.now = 100
    meter.end(failed=False)
    meter.restart(steps=False)
    assert meter.period_ns() == 0
