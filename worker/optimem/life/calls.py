"""One outermost call, from its entry to its exit: recorded, computed on the CPU, or following the plan.

A call owns what its arguments were lent, and the list of all that is to be undone when it is over, however it ends.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..card.device import HostClock
from ..data import moving
from ..data.lending import Loan
from ..learning.calibrate import StepTimer
from ..learning.recorder import Recorder
from ..model.recording import Recording
from ..residency.sides import CPU
from ..seams.undo import Undo
from ..seams.watch import Watch
from .agreement import Agreement
from .allowance import Allowance
from .journal import Journal
from .shortage import Shortage
from .state import Done, Failed, Learnt, Outcome, Short, Strayed, Unbegun, Weighed
from .strays import explain
from .tied import Tied

log = logging.getLogger("optimem")


@dataclass(frozen=True)
class Entry:
    """How a call began. `path` is that of the outermost module, `before` the error that was being handled then."""

    path: str
    before: BaseException | None = field(default_factory=lambda: sys.exc_info()[1])
    undo: Undo = field(default_factory=Undo)
    loan: Loan = field(default_factory=Loan)


class Call:
    """A call. By itself one that has not begun, or was refused at its entry: nothing happens at its borders."""

    def __init__(self, entry: Entry, tied: Tied, journal: Journal) -> None:
        self.entry, self.tied, self.journal = entry, tied, journal
        self.over = False
        self._from_cpu = False  # a part was called with data on the CPU

    @property
    def place(self) -> torch.device:
        """Where the arguments are to be when the call begins."""
        return self.tied.engine.start

    @property
    def output(self) -> torch.device | None:
        """Where results go; None where they stay where they come about.

        Results of a part go back to the CPU if its arguments came from there: the method that calls the part may go on with
        weights of its own, which are on the CPU.
        """
        return CPU if self._from_cpu and self.tied.habits.output is None else self.tied.engine.output

    def error(self) -> BaseException | None:
        """Return the error that ends the call; None where it returns."""
        error = sys.exc_info()[1]
        return None if error is self.entry.before else error

    def bring(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments where the call begins. Raises torch.OutOfMemoryError; may be called again then."""
        tied, undo = self.tied, self.entry.undo
        undo.add(self.entry.loan.give_back)
        undo.add(tied.parameters.thaw)
        if torch.is_grad_enabled():
            tied.parameters.freeze()
        if tied.shape.new_buffers():
            tied.engine.place_fixed()
        if self.entry.path:
            self._from_cpu = self._comes_from_cpu({tensor.device for tensor in moving.tensors((args, kwargs))})
        way = None if self.place == CPU else tied.card.device.bring
        args, kwargs = self.entry.loan.bring((args, kwargs), self.place, way)
        return args, kwargs

    def _comes_from_cpu(self, places: set[torch.device]) -> bool:
        """Tell whether a part is called with data at `places` by one who keeps data on the CPU. Without any, what the latest
        part was called with tells."""
        if places:
            self.tied.parts_from_cpu = places == {CPU}
        return self.tied.parts_from_cpu

    def begin(self, args: Any, kwargs: Any) -> None:
        """Begin with arguments that were brought."""
        tied, undo = self.tied, self.entry.undo
        self.start(args, kwargs)
        undo.add(tied.casts.restore)
        tied.casts.drop()
        if tied.engine.both_sides or self.place == CPU:
            tied.casts.share_with_cpu(tied.card.device.torch)
        undo.add(tied.slow_path.end)
        tied.slow_path.take()

    def start(self, args: Any, kwargs: Any) -> None:
        """Begin what this kind of call does. The arguments were brought."""

    def enter(self, path: str, args: Any, kwargs: Any, *, outermost: bool) -> tuple[Any, Any]:
        """Pass the entry of module `path`; return its arguments."""
        return args, kwargs

    def leave(self, path: str, output: Any) -> None:
        """Pass the exit of module `path`."""

    def stop(self) -> None:
        """Cease to watch, and let go of the device, before the same call is run again as another kind."""

    def end(self, error: BaseException | None) -> Outcome:
        """End the call, whose undo list has run; return what has come of it."""
        short = self.shortage(error)
        return Short(shortage=short) if short else Unbegun()

    def abandon(self) -> None:
        """End a call that was cut short: torch runs no exit hook after Ctrl-C, and that may come while we are at work."""
        self.entry.undo.run()
        self.over = True

    def shortage(self, error: BaseException | None) -> Shortage | None:
        """Return what an error for want of device memory tells, and say it in the error; None for all others."""
        return self.journal.note_shortage(error) if isinstance(error, torch.OutOfMemoryError) else None


class RecordedCall(Call):
    """A call in which weights are fetched on touch, into at most the room of the allowance, and every reader is noted."""

    def __init__(self, entry: Entry, tied: Tied, journal: Journal, *, agreement: Agreement, allowance: Allowance) -> None:
        super().__init__(entry, tied, journal)
        self._agreement, self._allowance = agreement, allowance
        self._recorder: Recorder | None = None
        self._met = False

    def start(self, args: Any, kwargs: Any) -> None:
        tied, room = self.tied, self._allowance.room()
        learner = tied.learner
        tied.times.expect((args, kwargs))
        tied.ties.set(tied.ties.paths)
        held = tied.let_go()
        if learner.start != CPU:
            learner.touched.adopt(held, room)
        held.clear()
        tied.times.measure_link(tied.store.sample(), room)
        self.entry.undo.add(partial(tied.engine.finish, lap=False))
        tied.engine.record(self._note_meeting)
        self._recorder = learner.recorder(tied.known, room, self._agreement.residents)
        self.entry.undo.add(self._recorder.stop)
        self._recorder.start()

    def enter(self, path: str, args: Any, kwargs: Any, *, outermost: bool) -> tuple[Any, Any]:
        assert self._recorder is not None
        self.tied.learner.end_step(self._recorder)
        self._recorder.enter(path, self.tied.own.get(path, []), (args, kwargs))
        return args, kwargs

    def leave(self, path: str, output: Any) -> None:
        assert self._recorder is not None
        self.tied.learner.end_step(self._recorder)
        self._recorder.leave(path, output)

    def stop(self) -> None:
        if self._recorder is not None:
            self._recorder.stop()
        self.tied.engine.finish(lap=False)
        self.tied.learner.touched.drop_all()

    def end(self, error: BaseException | None) -> Outcome:
        assert self._recorder is not None
        learner, short = self.tied.learner, self.shortage(error)
        learner.end_step(self._recorder)
        if error is not None:
            learner.touched.drop_all()
        self.tied.store.come_home()
        learner.touched.forget()
        outcome = Short(shortage=short) if short else Failed() if error else Learnt(recording=self._result(self._recorder))
        learner.end()
        return outcome

    def _note_meeting(self, name: str) -> None:
        """Say once where the model brings tensors of both sides together."""
        if self._recorder is not None and not self._met:
            self._met = True
            where = self._recorder.stack[-1] if self._recorder.stack else ""
            log.info(
                "optimem: %s is given tensors on the CPU and on the device by %s; they are brought together in each "
                "forward, which takes time: make them where the inputs are",
                name,
                where or "the model itself",
            )

    def _result(self, recorder: Recorder) -> Recording:
        learner = self.tied.learner
        self.tied.known = recorder.reads
        learner.clock.settle()
        return recorder.result(learner.left_behind())


class WeighedCall(Call):
    """A call that the CPU computes, step by step timed, to learn what it would take there."""

    def __init__(self, entry: Entry, tied: Tied, journal: Journal, agreement: Agreement) -> None:
        super().__init__(entry, tied, journal)
        assert agreement.recording is not None
        self._timed = agreement.borders
        self._timer = StepTimer(HostClock(tied.card.device), agreement.recording.borders)

    @property
    def place(self) -> torch.device:
        return CPU

    @property
    def output(self) -> torch.device | None:
        return super().output or self.tied.engine.start

    def start(self, args: Any, kwargs: Any) -> None:
        self.tied.engine.weigh()

    def enter(self, path: str, args: Any, kwargs: Any, *, outermost: bool) -> tuple[Any, Any]:
        self._pass(path, entry=True)
        return args, kwargs

    def leave(self, path: str, output: Any) -> None:
        self._pass(path, entry=False)

    def end(self, error: BaseException | None) -> Outcome:
        short = self.shortage(error)
        self.tied.engine.finish(lap=False)
        if short:
            return Short(shortage=short)
        return Weighed(self._timer.steps() if error is None and self._timer.went_as_recorded() else None)

    def _pass(self, path: str, *, entry: bool) -> None:
        if path in self._timed:
            self._timer.end_step(path, entry=entry)
            self._timer.begin_step(None, on_cpu=True)


class PlannedCall(Call):
    """A call that follows the plan in force."""

    watched = False

    def __init__(self, entry: Entry, tied: Tied, journal: Journal, *, agreement: Agreement, allowance: Allowance) -> None:
        super().__init__(entry, tied, journal)
        self._agreement, self._allowance = agreement, allowance
        self._engine, self._meter, self._timed = tied.engine, tied.meter, agreement.borders
        self._misses = 0

    def start(self, args: Any, kwargs: Any) -> None:
        assert self._agreement.recording is not None
        self._misses = self._engine.misses
        self._engine.begin(lap=not self.entry.path)
        self._meter.begin(self._agreement.recording, timed=not self.watched)

    def enter(self, path: str, args: Any, kwargs: Any, *, outermost: bool) -> tuple[Any, Any]:
        if self._allowance.owed():
            self._give_back(at_start=outermost)
        timer = self._meter.timer if path in self._timed else None
        if timer:
            timer.end_step(path, entry=True)
        args, kwargs, waited = self._engine.enter(path, args, kwargs, next_lap=bool(self.entry.path))
        if timer:
            timer.begin_step(waited, on_cpu=self._engine.on_cpu())
        return args, kwargs

    def leave(self, path: str, output: Any) -> None:
        timer = self._meter.timer if path in self._timed else None
        if timer:
            timer.end_step(path, entry=False)
        self._engine.leave(path)
        if timer:
            timer.begin_step(None, on_cpu=self._engine.on_cpu())

    def stop(self) -> None:
        self._meter.end(failed=True)
        self._engine.finish(lap=True)

    def end(self, error: BaseException | None) -> Outcome:
        short = self.shortage(error)
        self._meter.end(failed=error is not None)
        self._meter.read()
        self._engine.finish(lap=not self.entry.path)
        steps = self._meter.steps()
        if short:
            return Short(steps, short)
        if error is not None:
            return Strayed(steps, unforeseen=True) if explain(error) else Failed(steps)
        return Strayed(steps) if self._engine.misses > self._misses else Done(steps)

    def _give_back(self, *, at_start: bool) -> None:
        asked = self._allowance.owed()
        freed = self._engine.shrink(asked, at_start=at_start)
        if freed is not None:
            log.info("optimem: gave %d of %d bytes back", freed, asked)
            self._allowance.settle(asked, freed)
            self.tied.tie()


class WatchedCall(PlannedCall):
    """A call that follows the plan, in which a weight that nobody holds is brought when it is read.

    What we do at borders is not watched: re-pointing a weight would count as reading it.
    """

    watched = True

    def __init__(self, entry: Entry, tied: Tied, journal: Journal, *, agreement: Agreement, allowance: Allowance) -> None:
        super().__init__(entry, tied, journal, agreement=agreement, allowance=allowance)
        self._watch = Watch(self._bring, lambda made: None, addresses=tied.card.device.capabilities.addresses)

    def start(self, args: Any, kwargs: Any) -> None:
        super().start(args, kwargs)
        self.entry.undo.add(self._watch.stop)
        self._watch.start()

    def enter(self, path: str, args: Any, kwargs: Any, *, outermost: bool) -> tuple[Any, Any]:
        with self._watch.aside():
            return super().enter(path, args, kwargs, outermost=outermost)

    def leave(self, path: str, output: Any) -> None:
        with self._watch.aside():
            super().leave(path, output)

    def stop(self) -> None:
        self._watch.stop()
        super().stop()

    def _bring(self, tensor: torch.Tensor) -> None:
        """Bring a weight that is about to be read; the next forward is recorded again."""
        span = self.tied.store.span_of(tensor) if isinstance(tensor, torch.nn.Parameter) else None
        if span is not None:
            with self._watch.aside():
                self._engine.touch(span)
