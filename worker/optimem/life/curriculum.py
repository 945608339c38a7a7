"""Which lesson the next call is, and how the outcome of one moves the state: one table."""

from __future__ import annotations

from typing import NamedTuple

from .state import Failed, Learnt, Lesson, Outcome, Refused, Reopened, Replanned, State, Strayed, Unbegun, Unplanned

_RECORDINGS = 4  # forwards that are recorded before misses are simply served
_TIMINGS = 4  # plans of one recording under which steps are timed, where both sides compute


class Facts(NamedTuple):
    """The conditions of the table, as they are when a call has ended."""

    agreed: bool = False  # a plan of a recorded forward is in force
    fits: bool = False  # that plan fits into what weights may take
    weighs: bool = False  # the mode is auto, and that plan streams something
    more: bool = False  # calls that begin elsewhere are still to be recorded
    again: bool = False  # another recording is worth its time


class Row(NamedTuple):
    """In `state`, `outcome` leads to `then` where all facts in `given` hold. The first row that fits counts."""

    state: State
    outcome: type[Outcome]
    given: tuple[str, ...]
    then: State


TABLE = (
    Row(State.LEARNING, Learnt, ("more",), State.LEARNING),
    Row(State.LEARNING, Learnt, ("weighs",), State.WEIGHING),
    Row(State.LEARNING, Learnt, (), State.STEADY),
    Row(State.LEARNING, Refused, ("agreed", "more"), State.LEARNING),
    Row(State.LEARNING, Refused, ("agreed",), State.STEADY),
    Row(State.LEARNING, Refused, (), State.DETACHED),
    Row(State.LEARNING, Unplanned, ("agreed", "fits", "more"), State.LEARNING),
    Row(State.LEARNING, Unplanned, ("agreed", "fits"), State.STEADY),
    Row(State.LEARNING, Replanned, ("more",), State.LEARNING),
    Row(State.LEARNING, Replanned, (), State.STEADY),
    Row(State.LEARNING, Outcome, (), State.LEARNING),
    Row(State.WEIGHING, Unbegun, (), State.WEIGHING),
    Row(State.WEIGHING, Reopened, (), State.LEARNING),
    Row(State.WEIGHING, Outcome, (), State.STEADY),
    Row(State.STEADY, Strayed, ("again",), State.LEARNING),
    Row(State.STEADY, Failed, ("again",), State.LEARNING),
    Row(State.STEADY, Reopened, (), State.LEARNING),
    Row(State.STEADY, Outcome, (), State.STEADY),
    Row(State.DETACHED, Outcome, (), State.DETACHED),
)


def following(state: State, outcome: Outcome, facts: Facts) -> State:
    """Return the state after `outcome`."""
    return next(
        row.then
        for row in TABLE
        if row.state is state and isinstance(outcome, row.outcome) and all(getattr(facts, name) for name in row.given)
    )


class Curriculum:
    """The state of one attachment, and what its next calls are to teach."""

    def __init__(self) -> None:
        self.state = State.LEARNING
        self._entrances: set[str] = set()  # where calls begin that are to be recorded; empty: anywhere
        self._unplanned: set[str] = set()  # where calls begin for whose recording no plan could be made
        self._recordings = 0
        self._timings = 0
        self._watched = False  # a forward under the latest recording's plan was watched

    @property
    def more(self) -> bool:
        """True while calls are to be recorded that begin at certain modules."""
        return bool(self._entrances)

    @property
    def few(self) -> bool:
        """True while few enough forwards were recorded for another one."""
        return self._recordings < _RECORDINGS

    def lesson(self, path: str, *, agreed: bool, watch: bool) -> Lesson:
        """Return the kind of a call that begins at `path`. `agreed`: a plan of a recorded forward is in force; `watch`:
        every planned forward is to be watched, not only the first. Nor does the plan in force foresee what a call reads for
        whose recording none could be made."""
        if not agreed or (self.state is State.LEARNING and (not self._entrances or path in self._entrances)):
            return Lesson.RECORD
        if self.state is State.WEIGHING:
            return Lesson.WEIGH
        return Lesson.WATCH if watch or not self._watched or path in self._unplanned else Lesson.FOLLOW

    def take(self, outcome: Outcome, path: str, facts: Facts) -> State:
        """Move on after a call that began at `path`. Return the new state."""
        self.state = following(self.state, outcome, facts)
        if isinstance(outcome, Refused):
            self._unplanned.add(path)
        elif isinstance(outcome, Learnt):
            self._unplanned.discard(path)
        if isinstance(outcome, (Strayed, Failed)) and facts.agreed and facts.again:
            self._entrances.add(path)
        return self.state

    def recorded(self, path: str) -> None:
        """Note that a call which began at `path` was recorded."""
        self._recordings += 1
        self._entrances.discard(path)

    def unforeseen(self) -> None:
        """A reader must be learnt, however many forwards were recorded."""
        self._recordings = 0

    def watched(self) -> None:
        """Note that a watched forward has returned."""
        self._watched = True

    def record_next(self, path: str | None = None) -> None:
        """Have the next call recorded that begins at `path`; the next one anywhere without it."""
        self.state = following(self.state, Reopened(), Facts())
        if path is None:
            self._entrances.clear()
        else:
            self._entrances.add(path)

    def new_plan(self, *, recorded: bool, both_sides: bool) -> bool:
        """Note that another plan is followed, for a newly `recorded` forward or for known steps. Tell whether steps are to
        be timed again: the host's lead, and so a step's time on the device, depends on the plan where both sides compute."""
        self._timings = 1 if recorded else self._timings + 1
        self._watched = self._watched and not recorded
        return recorded or (both_sides and self._timings <= _TIMINGS)
