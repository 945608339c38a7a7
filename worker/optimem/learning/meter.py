"""Periods, step times and stalls of one model's forwards. Reads marks when they have passed, never waits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ..card.device import Device
from ..model.recording import Recording
from .calibrate import Steps, StepTimer, medians

TIMED_FORWARDS = 3
_PAUSE = 20  # a device that idled for less than this part of a forward went on at once


class Meter:
    """Times forwards that follow a plan. Times are nanoseconds on the device's clock."""

    def __init__(self, clock: Device, timed_forwards: int = TIMED_FORWARDS) -> None:
        """`timed_forwards` is how many forwards under a plan are timed step by step."""
        self._clock = clock
        self._timed_forwards = timed_forwards
        self._began: Any = None
        self._marks: deque[_Marks] = deque(maxlen=256)  # of forwards whose times are not read yet
        self._ended: Any = None  # the end of the forward before those
        self._taken = [_Taken(), _Taken()]  # by plain forwards, and by those that were watched or timed step by step
        self._slowed = False  # the forward that runs now is one of the latter
        self._timers: deque[StepTimer] = deque()
        self._samples: list[Steps] = []
        self._told = False  # `steps` has returned their medians
        self._stalls: dict[int, int] = {}
        self.timer: StepTimer | None = None  # of the forward that runs now, if its steps are timed

    @property
    def wants_steps(self) -> bool:
        """True until enough forwards have been timed step by step."""
        return len(self._samples) + len(self._timers) < self._timed_forwards

    def restart(self, *, steps: bool) -> None:
        """Start again under another plan; with `steps` time the steps again too."""
        self._marks.clear()
        self._ended = None
        self._taken = [_Taken(), _Taken()]
        self._stalls = {}
        self._timers.clear()
        if steps:
            self._samples.clear()
            self._told = False

    def begin(self, recording: Recording, *, timed: bool = True) -> None:
        """Note that a forward begins; its steps are not `timed` if something else slows the host."""
        self._began = self._clock.timed_mark()
        self.timer = StepTimer(self._clock, recording.borders) if timed and self.wants_steps else None
        self._slowed = not timed or self.timer is not None

    def end(self, *, failed: bool) -> None:
        """Note that the forward has ended; a failed one teaches nothing."""
        timer, self.timer = self.timer, None
        if failed:
            return
        self._marks.append(_Marks(self._began, self._clock.timed_mark(), self._slowed))
        if timer is not None and timer.went_as_recorded():
            self._timers.append(timer)

    def steps(self) -> Steps | None:
        """Return the median step times once, as soon as they are known. If the CPU takes part, they wait for a forward
        without timed steps, which shows the period: marks delay the host."""
        while self._timers and self._timers[0].passed():
            timer = self._timers.popleft()
            self._samples.append(timer.steps())
            self._stalls = timer.stalls_ns()
        if self._told or len(self._samples) < self._timed_forwards:
            return None
        if any(self._samples[-1].on_cpu) and not self._taken[0].known:
            return None
        self._told = True
        return Steps(medians([sample.ns for sample in self._samples]), self._samples[-1].on_cpu)

    def stalls_ns(self) -> dict[int, int]:
        """Return, per copy, how long the device waited for it in the latest forward that was timed step by step."""
        return self._stalls

    def period_ns(self) -> int:
        """Return the median time from the end of one forward to that of the next, 0 before one is known.

        If no forward followed another at once, it is the time from the beginning of a forward to its end, which is shorter:
        its copies ran ahead while the device was idle. Forwards that were watched or timed step by step count if there are
        no others. As far as `read` has come.
        """
        return next((taken.median_ns() for taken in self._taken if taken.known), 0)

    def read(self) -> None:
        """Read marks that have passed. Asking costs host time, so every run asks equally often: once per forward."""
        while self._marks and self._clock.passed(self._marks[0].end):
            self._read(self._marks.popleft())

    def _read(self, marks: _Marks) -> None:
        taken = self._taken[marks.slowed]
        alone = self._clock.elapsed_ns(marks.begin, marks.end)
        taken.alone.append(alone)
        if self._ended is not None and self._clock.elapsed_ns(self._ended, marks.begin) * _PAUSE <= alone:
            taken.periods.append(self._clock.elapsed_ns(self._ended, marks.end))
        self._ended = marks.end


@dataclass(frozen=True)
class _Marks:
    begin: Any
    end: Any
    slowed: bool  # by being watched or timed step by step


@dataclass(frozen=True)
class _Taken:
    """Times of forwards, in ns."""

    periods: deque[int] = field(default_factory=lambda: deque(maxlen=64))  # from the end of the one before
    alone: deque[int] = field(default_factory=lambda: deque(maxlen=64))  # from their own beginning

    @property
    def known(self) -> bool:
        return bool(self.alone)

    def median_ns(self) -> int:
        return int(median(self.periods or self.alone))
