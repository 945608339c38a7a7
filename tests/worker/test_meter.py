"""What a period is: from end to end where forwards follow each other at once, from begin to end where they do not."""

from __future__ import annotations

from typing import Any

import pytest

from optimem.learning.calibrate import Steps, StepTimer
from optimem.learning.meter import TIMED_FORWARDS, Meter
from optimem.model.recording import Border, Recording


class Clock:
    """Its marks are times that the test sets; all have passed."""

    def __init__(self) -> None:
        self.now = 0

    def timed_mark(self) -> int:
        return self.now

    def now_ns(self) -> int:
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


def test_forwards_whose_steps_were_timed_count_where_there_are_no_others() -> None:
    timed = [(0, 200), (300, 500), (600, 800)]
    assert metered(timed) == 200
    assert metered([*timed, (900, 1000)]) == 100


def test_so_do_forwards_that_were_watched() -> None:
    clock = Clock()
    meter = Meter(clock)  # type: ignore[arg-type]
    for timed, takes, period in ((False, 70, 70), (True, 100, 85), (True, 100, 100), (True, 100, 100), (True, 90, 90)):
        clock.now += 1000
        meter.begin(RECORDING, timed=timed)
        clock.now += takes
        meter.end(failed=False)
        meter.read()
        assert meter.period_ns() == period


@pytest.mark.parametrize("on_cpu", [False, True])
def test_where_the_cpu_takes_part_step_times_wait_for_a_forward_without_marks(on_cpu: bool) -> None:
    recording = Recording({}, [Border("", True), Border("", False)], [0], [0], [0], [""])
    clock = Clock()
    meter = Meter(clock)  # type: ignore[arg-type]
    told = []
    for _ in range(TIMED_FORWARDS + 1):
        meter.begin(recording)
        for entry in (True, False):
            clock.now += 10
            if meter.timer:
                meter.timer.end_step("", entry=entry)
                meter.timer.begin_step(None, on_cpu=on_cpu)
        meter.end(failed=False)
        meter.read()
        told.append(meter.steps())
    assert [steps is not None for steps in told] == [False, False, not on_cpu, on_cpu]
    assert (told[-1] or told[-2]) == Steps([10], [on_cpu])


def test_marks_do_not_count_for_the_step_between_them() -> None:
    class Slow(Clock):
        def timed_mark(self) -> int:
            self.now += 1000
            return self.now

    clock = Slow()
    timer = StepTimer(clock, [])  # type: ignore[arg-type]
    timer.end_step("", entry=True)
    timer.begin_step(None, on_cpu=True)
    clock.now += 7
    timer.end_step("", entry=False)
    assert timer.steps().ns == [7]
