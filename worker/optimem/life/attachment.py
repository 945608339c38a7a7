"""A model and what is tied to it: the life of a plan, from attach to detach.

Attach: the controller accepts the model and names a budget, then the weights go into the slab; nothing is on the device yet.
First forward: recorded, fetched on touch. In auto mode the second one runs on the CPU, to learn what it would take there.
Then the plan; the first forward under it is checked for readers that the recording did not see, the next ones are timed step
by step to correct the prediction. Later plans are picked up between forwards, a request to shrink at the next border.
"""

from __future__ import annotations

import enum
import gc
import logging
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType, GeneratorType
from typing import Any

import torch
from torch import nn

from ..card.device import Device, HostClock
from ..data import moving
from ..data.lending import Loan
from ..errors import BadInput, ControllerError, OptimemError
from ..learning import describe
from ..learning.calibrate import StepTimer
from ..learning.meter import Meter
from ..learning.places import Known, Learner, OnCpu, OnDevice
from ..learning.recorder import Recorder
from ..learning.times import Times
from ..model.parameters import Parameters
from ..model.recording import Recording
from ..model.shape import Shape
from ..model.units import Span, Unit, by_owner, by_reading, take_stock
from ..residency.engine import Engine
from ..residency.fixed import PackedTies, kept, send_home
from ..residency.masters import Masters
from ..residency.sides import CPU
from ..seams import modes
from ..seams.casts import Casts
from ..seams.fastpaths import NOTE, SlowPath
from ..seams.gate import Gate
from ..seams.hooks import Ties
from ..seams.retry import Arguments, Retry
from ..seams.watch import Watch
from ..wire import protocol
from ..wire.session import Session
from . import callers
from .shortage import Shortage
from .status import Status, held_throughout
from .strays import explain

log = logging.getLogger("optimem")

_RECORDINGS = 4  # how often another way through the model is learnt before misses are simply served
_TIMINGS = 4  # plans of one recording under which steps are timed, where both sides compute
_REPORT_S = 0.1


class State(enum.Enum):
    """Where an attachment stands, and what device memory that costs."""

    LEARNING = "learning"  # the next forward is recorded; between forwards only buffers are on the device
    WEIGHING = "weighing"  # the next forward runs on the CPU, step by step timed
    STEADY = "steady"  # a plan is followed: residents and the arena are on the device
    DETACHED = "detached"  # nothing of ours is left


# A plan with what it was made from: what the controller was told, and the units and the recording that its numbers are of.
_Followed = tuple[protocol.Plan, "tuple[protocol.Manifest, protocol.Measured | None]", "list[Unit]", Recording]


@dataclass(frozen=True)
class Habits:
    """What the caller wants of forwards, beside the plan. `output` is where results end: None for where forwards start."""

    output: torch.device | None = None
    verify: bool = False
    retry: bool = False


class Attachment:
    """Owns everything that is tied to one model."""

    def __init__(self, model: nn.Module, device: Device, wish: protocol.Wish, habits: Habits = Habits()) -> None:
        """Raises BadInput or ControllerError before anything is touched."""
        self._model = model
        self.device = device
        self.wish = wish
        self.habits = habits
        self._gate = Gate()
        self._casts = Casts()
        weakref.finalize(self, self._casts.restore).atexit = False
        self._unfinished = False  # an outermost call has begun, or detaching, and has not ended
        self._broken = False  # one has ended without a word: nothing that it has left may be trusted
        self._attach()

    def _attach(self) -> None:
        """Tie to the model as it is now. Raises BadInput or ControllerError before anything is touched, and leaves nothing
        behind whatever else is raised."""
        self._agree()
        with ExitStack() as undo:
            undo.callback(self.session.close, "attaching failed")
            self._take_over(undo)
            undo.pop_all()
        weakref.finalize(self, self.session.close, "collected").atexit = False

    def _agree(self) -> None:
        """Tell a controller what the model is made of, and take its first plan."""
        self._shape = Shape(self._model)
        self._inventory = take_stock(self._model)
        self._baseline = self.device.allocated()
        self.session = Session.open(describe.hello(self.device))
        units = by_owner(self._inventory.spans)
        registered = describe.manifest(self._model, self.wish, self._inventory, units, None)
        self._told: tuple[protocol.Manifest, protocol.Measured | None] = (registered, None)
        self._plan = self._first_plan()
        self._room = self._plan.budget_bytes  # for weights while recording
        self._own = {unit.spans[0].owner: list(unit.spans) for unit in units}
        self._retain = _residents(self._plan, units)

    def _take_over(self, undo: ExitStack) -> None:
        """Move the weights into the slab and all else to the device, and tie."""
        model, device, mode = self._model, self.device, self.wish.mode
        self._state = State.LEARNING
        undo.callback(setattr, self, "_state", State.DETACHED)
        self._in_force: _Followed | None = None
        self._units: list[Unit] = []
        self._known: Known = {}
        self._recorder: Recorder | None = None
        self._recording: Recording | None = None
        self._recordings = self._timings = 0
        self._times = Times(device, mode)
        self._shortage: Shortage | None = None  # what the next forward must be spared
        self._refused = self._through_root = self._shrunk = False
        self._error_at_entry: BaseException | None = None
        self._strayed: set[str] = set()  # where calls begin that are to be recorded; the first may begin anywhere
        self._forwards = self._misses = self._peak = 0
        self._owed = 0  # device bytes that the controller wants back
        self._reported = 0.0
        self._loan = Loan()
        self._meter = Meter(device)
        self._weigher: StepTimer | None = None
        self._watch = Watch(self._check, lambda made: None)
        self._checked = self._checking = False
        self._timed: set[str] = set()  # modules whose borders are those of the recording
        self._masters = Masters(device, self._inventory.spans)
        undo.callback(self._masters.leave)
        undo.callback(send_home, model)
        self._parameters = Parameters([weight for span in self._inventory.spans for weight in span.weights])
        self._learner = self._make_learner()
        self._engine = Engine(
            device, self._masters, model, self._inventory, home=self._learner.home, output=self.habits.output
        )
        self._packed_ties = PackedTies(model)
        undo.callback(self._packed_ties.untie)
        self._slow_path = SlowPath(model)
        weakref.finalize(self, self._slow_path.end).atexit = False
        self._ties = Ties(model, self._gate, self._enter, self._leave, self._before_load)
        undo.callback(self._ties.untie)
        self._ties.set(self._ties.paths)
        self._retry = Retry(model, self._recover) if self.habits.retry else None

    def detach(self) -> None:
        """Untie, and leave the model as it was found, on the CPU. Idempotent, and to be called again where it was cut short.

        Waits for a forward in another thread. Raises BadInput where that one waits for this thread.
        """
        self._gate.enter_to_detach(sys._getframe())
        try:
            if self._state is not State.DETACHED:
                self._leave_as_found()
        finally:
            self._gate.leave("")

    def _leave_as_found(self) -> None:
        if self._unfinished or self._broken:
            self._abandon()
        self._unfinished = True
        modes.sweep()
        self._casts.restore()
        self.report()
        self._ties.untie()
        if self._retry is not None:
            self._retry.untie()
        self._learner.touched.drop_all()
        self._packed_ties.untie()
        self._slow_path.end()
        self._engine.close()
        send_home(self._model)
        self._masters.leave()
        self._parameters.thaw()
        self.session.close("detached")
        self._state = State.DETACHED

    def _before_load(self) -> None:
        """A state_dict is to be loaded: what a call that was cut short has left must not take it up."""
        if self._unfinished and self._gate.stale():
            self._abandon()
            self._unfinished = False
        self.device.settle()

    @property
    def detached(self) -> bool:
        """True once nothing ties to the model any more."""
        return self._state is State.DETACHED

    def status(self) -> Status:
        """Say how things stand."""
        plan, placements = self._plan, [page.placement for page in self._plan.pages]
        return Status(
            state=self._state.value,
            mode=self.wish.mode,
            device=str(self.device.torch),
            plan_version=plan.version,
            pages=len(placements),
            resident_pages=placements.count("resident"),
            streamed_pages=placements.count("streamed"),
            weights_bytes=self._inventory.weights_bytes,
            budget_bytes=plan.budget_bytes,
            reserve_bytes=plan.reserve_bytes,
            resident_bytes=plan.resident_bytes,
            arena_bytes=plan.arena_bytes,
            forwards=self._forwards,
            period_ns=self._meter.period_ns(),
            predicted_ns=plan.period_ns,
            bound_ns=plan.bound_ns,
            h2d_bytes=self._moved(),
            misses=self._engine.misses,
            pinned_bytes=self._masters.pinned_bytes,
            controller="gone" if self.session.lost else "connected",
            notes=self._notes(),
        )

    def shares(self, model: nn.Module) -> str | None:
        """Return the name of a parameter that `model` shares with this one."""
        ours = set(map(id, self._model.parameters()))
        return next((name for name, parameter in model.named_parameters() if id(parameter) in ours), None)

    def told(self) -> tuple[protocol.Manifest, protocol.Measured | None]:
        """Return what the controller was told of the model: its units, and once it was recorded the latest step times."""
        return self._told

    def _notes(self) -> tuple[str, ...]:
        held = held_throughout(self._units, self._recording)
        return (*kept(self._inventory, self._model), *held, *([NOTE] if self._slow_path.needed else []))

    def report(self) -> None:
        """Tell the controller how the plan fares, up to the last forward that the device has done."""
        self._meter.read()
        self._report()

    def _report(self) -> None:
        self._reported = time.monotonic()
        self._peak = max(self._peak, self._learner.peak, self.device.peak() - self._baseline)
        self.session.tell(
            protocol.Report(
                plan_version=self._plan.version,
                forwards=self._forwards,
                period_ns=self._meter.period_ns(),
                stall_ns=self._stalls_by_page(),
                h2d_bytes=self._moved(),
                misses=self._engine.misses,
                device_bytes=max(0, self.device.allocated() - self._baseline),
                device_peak_bytes=self._peak,
                activation_bytes=max(self._recording.step_bytes, default=0) if self._recording else 0,
                pinned_bytes=self._masters.pinned_bytes,
            )
        )

    # The borders of a forward. These run on the caller's thread, at every entry and exit of a tied module.

    def _enter(self, path: str, args: Any, kwargs: Any, frame: FrameType) -> tuple[Any, Any]:
        outermost = self._gate.enter(path, frame)
        if outermost:
            if self._state is State.DETACHED:  # while this call waited
                self._gate.leave(path)
                return args, kwargs
            args, kwargs = self._begin(path, args, kwargs)
        if self._recorder is not None:
            self._learner.end_step(self._recorder)
            self._recorder.enter(path, self._own.get(path, []), (args, kwargs))
            return args, kwargs
        if self._weigher is not None:
            self._pass(self._weigher, path, entry=True, on_cpu=True)
            return args, kwargs
        self._shrink_if_asked(at_start=outermost)
        timer = self._meter.timer if path in self._timed else None
        if timer:
            timer.end_step(path, entry=True)
        args, kwargs, waited = self._engine.enter(path, args, kwargs, next_lap=not self._through_root)
        if timer:
            timer.begin_step(waited, on_cpu=self._engine.on_cpu())
        return args, kwargs

    def _leave(self, path: str, output: Any) -> Any:
        """Return what replaces the output, None where nothing does. Called after an exception too."""
        if output is None and not self._gate.mine():
            return None  # the gate has refused this thread
        outermost = self._gate.is_last(path)
        result = output
        try:
            if not self._refused:
                self._leave_module(path, output)
                if outermost:
                    result = self._end_or_abandon(path, output)
            elif outermost:
                self._end_refused(sys.exc_info()[1])
            self._unfinished = self._unfinished and not outermost
        finally:
            self._refused = self._refused and not outermost
            self._gate.leave(path)
        return None if result is output else result

    def _leave_module(self, path: str, output: Any) -> None:
        if self._recorder is not None:
            self._learner.end_step(self._recorder)
            self._recorder.leave(path, output)
            return
        if self._weigher is not None:
            self._pass(self._weigher, path, entry=False, on_cpu=True)
            return
        timer = self._meter.timer if path in self._timed else None
        if timer:
            timer.end_step(path, entry=False)
        self._engine.leave(path)
        if timer:
            timer.begin_step(None, on_cpu=self._engine.on_cpu())

    def _pass(self, timer: StepTimer, path: str, *, entry: bool, on_cpu: bool) -> None:
        if path in self._timed:
            timer.end_step(path, entry=entry)
            timer.begin_step(None, on_cpu=on_cpu)

    def _begin(self, path: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        self._refused = True  # until all is well; the exit hook runs in any case
        self._broken, self._unfinished = self._broken or self._unfinished, True
        if modes.left_behind:
            modes.sweep()
        if self._broken:
            self._parameters.refuse_recast()
            self._abandon()
        self._error_at_entry = sys.exc_info()[1]
        callers.refuse_bad_call((args, kwargs), self._shape.in_training())
        if self._shape.changed():
            self._attach_again()
        self._check_masters()
        self._adopt_new_plan()
        self._make_room()
        self._through_root = not path
        if torch.is_grad_enabled():
            self._parameters.freeze()
        if self._shape.new_buffers():
            self._engine.place_fixed()
        self._loan = Loan()
        args, kwargs = self._bring(args, kwargs)
        if self._state is State.LEARNING and (not self._strayed or path in self._strayed):
            self._strayed.discard(path)
            self._times.expect((args, kwargs))
            self._start_recording()
        elif self._state is State.WEIGHING:
            self._start_weighing()
        else:
            self._start_steady()
        self._casts.drop()
        if self._engine.both_sides or self._weigher is not None or self._engine.home == CPU:
            self._casts.share_with_cpu(self.device.torch)
        self._slow_path.take()
        self._refused = False
        return args, kwargs

    def _bring(self, args: Any, kwargs: Any) -> Any:
        """Bring the arguments to where the forward starts. Nothing has run yet, so that room for them is made at once."""
        start = CPU if self._state is State.WEIGHING else self._engine.home
        way = None if start == CPU else self.device.bring
        try:
            return self._loan.bring((args, kwargs), start, way)
        except torch.OutOfMemoryError as error:
            self._note_shortage(error)
        self._make_room()
        return self._loan.bring((args, kwargs), start, way)

    def _start_recording(self) -> None:
        self._ties.set(self._ties.paths)
        held = self._engine.let_go() | self._learner.touched.let_go()
        if self._learner.home != CPU:
            self._learner.touched.adopt(held, self._room)
        held.clear()
        self._engine.rest(self._engine.home)
        if "link" in self.session.measure:
            self._times.measure_link(self._masters.slab, self._room)
        self._recorder = self._learner.recorder(self._known, self._room, self._retain)
        self._recorder.start()

    def _start_weighing(self) -> None:
        assert self._recording is not None
        self._engine.weigh()
        self._weigher = StepTimer(HostClock(self.device), self._recording.borders)

    def _start_steady(self) -> None:
        if not self._engine.follows:  # a call was cut short, or memory ran out before all was there
            self._follow(self._plan, steps=True)
        assert self._recording is not None
        self._engine.begin()
        self._checking = (self.habits.verify or not self._checked) and not self._engine.both_sides
        self._meter.begin(self._recording, timed=not self._checking)
        if self._checking:
            self._watch.start()

    def _end_or_abandon(self, path: str, output: Any) -> Any:
        try:
            return self._end(path, output)
        except BaseException:
            if not self.detached:
                self._abandon()
            raise

    def _end(self, path: str, output: Any) -> Any:
        error = sys.exc_info()[1]
        failed = error is not self._error_at_entry
        if failed:
            self._is_stray(error)
        self._error_at_entry = None
        self._stop_watching()
        self._slow_path.end()
        self._loan.give_back()
        self._casts.restore()
        looks_into_weights = output is not (output := self._own_copies(output))
        place = self._engine.home if self._weigher is not None else None
        place = self._engine.output or place
        output = output if place is None else moving.move(output, place)
        if isinstance(output, GeneratorType):
            output = callers.stepwise(output, self._resume, self._suspend)
        self._parameters.thaw()
        if not failed:
            self._parameters.refuse_written()
            self._forwards += 1
        elif isinstance(error, torch.OutOfMemoryError):
            self._note_shortage(error)
        if self._recorder is not None:
            self._end_recording(failed=failed)
        elif self._weigher is not None:
            self._end_weighing(failed=failed)
        else:
            self._end_steady(path, failed=failed)
            if not (failed or path or looks_into_weights):
                self._refuse_kept_views()
        if time.monotonic() - self._reported >= _REPORT_S:
            self._report()
        return output

    def _abandon(self) -> None:
        """Let go of all that a call has left which was cut short: torch runs no exit hook after Ctrl-C, and that may come
        while we are at work. What is noted of the device is not looked at. The plan in force is followed anew by the next
        call that needs one; what was being recorded is recorded anew."""
        self._broken = True
        self._stop_watching()
        modes.sweep()
        self._recorder = self._weigher = None
        self._checking = False
        self._engine.drop()
        self._ties.tie_anew()
        self._learn_anew()
        self._return_to_plan()
        self._meter.end(failed=True)
        self._loan.give_back()
        self._casts.restore()
        self._slow_path.end()
        self._parameters.thaw()
        self._broken = False

    def _learn_anew(self) -> None:
        before, anew = self._learner, self._make_learner()
        anew.touched.moved, anew.peak = before.touched.moved, before.peak
        self._learner = anew
        vars(before.touched).clear()  # frames of the call may hold it

    def _return_to_plan(self) -> None:
        """Let all that goes with a plan be that of the one in force: another may have been on its way."""
        if self._in_force is None:
            self._recording, self._units = None, []
            self._strayed.clear()
        else:
            self._plan, self._told, self._units, self._recording = self._in_force
        self._meter.restart(steps=True)
        self._parameters.note()

    def _stop_watching(self) -> None:
        if self._recorder is not None:
            self._recorder.stop()
        if self._checking:
            self._watch.stop()

    def _resume(self, frame: FrameType) -> None:
        """Begin a step of a generator that a forward has returned: a call of its own, in which weights are fetched on touch.
        The next forward is recorded again."""
        self._gate.enter("", frame)
        if self._state is State.DETACHED:
            return
        self._state = State.LEARNING
        self._strayed.add("")
        self._begin("", (), {})
        assert self._recorder is not None
        self._recorder.enter("", self._own.get("", []), ())

    def _suspend(self) -> None:
        self._stop_watching()
        self._casts.restore()
        self._slow_path.end()
        if self._recorder is not None:
            self._end_recording(failed=True)
        self._parameters.thaw()
        self._unfinished = False
        self._gate.leave("")

    def _attach_again(self) -> None:
        """Modules or parameters were added, removed or replaced: begin anew with what the model is made of now."""
        log.info("optimem: the model has changed; it is attached and recorded again")
        send_home(self._model)
        try:
            take_stock(self._model)  # raises before anything is let go
        except BadInput:
            self._engine.place_fixed()
            raise
        error, forwards = self._error_at_entry, self._forwards
        self.detach()
        try:
            self._attach()
        except OptimemError as refusal:
            why = f"the model has changed since it was attached, and is detached now: {refusal}"
            raise type(refusal)(why) from refusal
        self._refused, self._error_at_entry, self._forwards = True, error, forwards

    # Learning.

    def _first_plan(self) -> protocol.Plan:
        try:
            plan = self.session.ask_for_plan(self._told[0])
            if plan is None:
                raise ControllerError("the controller went away before it had planned anything; try again")
            return plan
        except BaseException:
            self.session.close("refused")
            raise

    def _make_learner(self) -> Learner:
        if self.wish.mode == "chunk":
            return OnCpu(self.device, self._masters, self._inventory.fixed_bytes)
        return OnDevice(self.device, self._masters, self._baseline)

    def _end_recording(self, *, failed: bool) -> None:
        recorder, self._recorder = self._recorder, None
        assert recorder is not None
        self._learner.end_step(recorder)
        if failed:
            self._learner.touched.drop_all()
        self._masters.come_home()
        self._learner.touched.forget()
        if not failed:
            self._known = recorder.reads
            self._learn(recorder)
            if self._state is State.LEARNING and self.session.lost and self._recording is not None:
                self._follow_last()

    def _learn(self, recorder: Recorder) -> None:
        self._learner.clock.settle()
        recording = recorder.result(self._learner.left_behind())
        self._recordings += 1
        units = by_reading(self._inventory.spans, recording.readings)
        manifest = describe.manifest(self._model, self.wish, self._inventory, units, recording)
        self._times.learn(recording, manifest, on_cpu=self._learner.home == CPU)
        try:
            self._plan_anew(manifest, recording, units)
        except BadInput as refusal:
            if self._recording is not None:
                raise
            self.detach()  # no plan is there to go on with
            raise BadInput(f"{refusal}. The model is detached now") from refusal
        if (
            self.wish.mode == "auto"
            and self._state is State.STEADY
            and any(page.placement == "streamed" for page in self._plan.pages)
        ):
            self._state = State.WEIGHING
            self._tie()

    def _end_weighing(self, *, failed: bool) -> None:
        timer, self._weigher = self._weigher, None
        self._engine.finish(lap=False)
        assert timer is not None
        assert self._recording is not None
        self._state = State.STEADY
        if not failed and timer.followed():
            self._times.learn_cpu(timer.steps())
            if self._plan_anew(self._told[0], self._recording, self._units):
                return
        self._engine.follow(self._plan, self._units, self._recording, self._engine.let_go())

    def _plan_anew(self, manifest: protocol.Manifest, recording: Recording, units: list[Unit]) -> bool:
        """Ask for a plan from all that is known, and follow it. Return False where nobody is there to ask."""
        times = self._measured(recording, units)
        plan = self.session.ask_for_plan(manifest, times)
        if plan is not None:
            self._recording, self._units = recording, units
            self._told = manifest, times
            self._follow(plan, steps=True)
        return plan is not None

    def _measured(self, recording: Recording, units: Sequence[Unit]) -> protocol.Measured:
        free = self.device.memory()[0] + max(0, self.device.allocated() - self._baseline)
        spans = self._learner.touched.spans() | self._engine.held()
        held = [index for index, unit in enumerate(units) if spans.issuperset(unit.spans)]
        return self._times.message(recording, free, held)

    def _follow(self, plan: protocol.Plan, *, steps: bool) -> None:
        assert self._recording is not None
        self._broken = True  # until all is there
        self._in_force = plan, self._told, self._units, self._recording
        held = self._engine.let_go() | self._learner.touched.let_go()
        self._engine.follow(plan, self._units, self._recording, held)
        self._plan = plan
        # How far the host is ahead, and so what a step takes on the device, hangs on the plan where both sides compute.
        self._timings = 1 if steps else self._timings + 1
        self._meter.restart(steps=steps or (self._engine.both_sides and self._timings <= _TIMINGS))
        self._timed = {border.path for border in self._recording.borders}
        self._checked = self._checked and not steps
        self._state = State.LEARNING if self._strayed else State.STEADY
        self._shrunk, self._misses = False, self._engine.misses
        self._parameters.note()
        self._tie()
        self._broken = False

    def _follow_last(self) -> None:
        """Without a controller, go on with the plan that was in force, if weights may take that much."""
        if self._plan.resident_bytes + self._plan.arena_bytes <= self._room:
            self._follow(self._plan, steps=False)

    def _tie(self) -> None:
        every = self._state is State.WEIGHING or self._meter.wants_steps
        self._ties.set(self._engine.tied(every=every), self._ties.entrances)

    def _end_steady(self, path: str, *, failed: bool) -> None:
        self._checked, self._checking = self._checked or not failed, False
        self._meter.end(failed=failed)
        self._meter.read()
        self._engine.finish(lap=not path)
        steps = self._meter.steps()
        if steps is not None and self._recording is not None:
            self._times.correct(steps, self._recording)
            times = self._measured(self._recording, self._units)
            self._told = self._told[0], times
            self._report()  # whether the prediction was off
            self.session.tell(times)
            self._tie()
        strayed = failed or self._engine.misses > self._misses
        self._misses = self._engine.misses
        if strayed and not self._shrunk and self._recordings < _RECORDINGS and not self.session.lost:
            self._state = State.LEARNING
            self._strayed.add(path)

    def _refuse_kept_views(self) -> None:
        """Detach and raise BadInput where the forward has kept a view of a weight that is streamed: neither can the view
        follow the weight, nor do the bytes stay."""
        if not self._engine.is_looked_into():
            return
        gc.collect()  # cycles may keep what nobody can reach
        if not self._engine.is_looked_into():
            return
        self._engine.spoil()
        self.detach()
        raise BadInput(callers.KEPT_VIEW)

    def _check(self, tensor: torch.Tensor) -> None:
        """Bring a weight that is read though nobody holds it; the next forward is recorded again."""
        if isinstance(tensor, nn.Parameter):
            span = self._masters.span_of(tensor)
            if span is not None:
                with self._watch.aside():
                    self._engine.touch(span)

    def _moved(self) -> int:
        return self._engine.moved + self._learner.touched.moved

    def _stalls_by_page(self) -> list[int]:
        stalls = [0] * len(self._plan.pages)
        for copy, ns in self._meter.stalls_ns().items():
            stalls[self._plan.copies[copy].page] += ns
        return stalls

    # Out of memory.

    def _end_refused(self, error: BaseException | None) -> None:
        """A forward did not even begin: where memory ran out the next one holds fewer weights."""
        self._loan.give_back()
        self._parameters.thaw()
        if isinstance(error, torch.OutOfMemoryError):
            self._note_shortage(error)

    def _note_shortage(self, error: BaseException) -> None:
        """Say in the error what was in use and what follows from it. The smaller plan waits until the error is gone: its
        frames hold what the forward had on the device."""
        weights = self._learner.touched.nbytes if self._recorder is not None else self._engine.weight_bytes
        self._shortage = Shortage.of(error, self.device, weights, self.device.peak() - self._baseline)
        self._shortage.explain(error, retried=self.habits.retry)
        self.session.tell(protocol.Failure("out_of_memory", self._shortage.words()))

    def _make_room(self) -> None:
        """Answer a forward that ran out of memory: with a smaller plan, or where it was recorded, with less room."""
        shortage, self._shortage = self._shortage, None
        if shortage is None:
            return
        self.device.give_back()
        if self.session.lost and self._state is State.STEADY and self._engine.shrink(shortage.room(), at_start=True):
            self._tie()
            return
        if self.session.lost or self._recording is None or self._state is State.LEARNING:
            self._room = shortage.room()
            self._state = State.LEARNING
            self._engine.let_go().clear()
            return
        most = max(range(self._recording.steps), key=self._recording.step_bytes.__getitem__)
        self._recording.step_bytes[most] = max(self._recording.step_bytes[most], shortage.activations)
        self._plan_anew(self._told[0], self._recording, self._units)

    def _recover(self, error: RuntimeError, args: Any, kwargs: Any) -> Arguments | None:
        """Make a forward of the root that failed ready to run once more, recorded or under a smaller plan. Return its
        arguments; None where it is not the outermost, or failed for reasons of its own."""
        if not self._gate.is_last("") or self._weigher is not None:  # nothing of that one is on the device
            return None
        short = isinstance(error, torch.OutOfMemoryError)
        if not short and not self._is_stray(error):
            return None
        if short:
            self._note_shortage(error)
        self._let_go_of_failed()
        self._make_room()
        if short and self._state is State.STEADY:
            self._start_steady()
            args, kwargs, _ = self._engine.enter("", args, kwargs, next_lap=False)
            return args, kwargs
        self._state = State.LEARNING
        args, kwargs = self._loan.bring((args, kwargs), self._engine.home)
        self._start_recording()
        assert self._recorder is not None
        self._recorder.enter("", self._own.get("", []), (args, kwargs))
        return args, kwargs

    def _let_go_of_failed(self) -> None:
        self._stop_watching()
        if self._recorder is not None:
            self._learner.touched.drop_all()
        else:
            self._meter.end(failed=True)
            self._engine.finish(lap=True)

    def _is_stray(self, error: BaseException | None) -> bool:
        """Tell whether a forward under a plan met a reader that no recording has seen."""
        if self._recorder is not None or self._weigher is not None or not explain(error):
            return False
        self._recordings = 0  # it must be learnt, however many have been
        return True

    # What the controller wants.

    def _adopt_new_plan(self) -> None:
        plan = self.session.new_plan()
        if plan is not None and self._recording is not None and plan.version > self._plan.version:
            self._follow(plan, steps=False)

    def _shrink_if_asked(self, *, at_start: bool) -> None:
        self._owed += self.session.bytes_to_give_back()
        if not self._owed:
            return
        freed = self._engine.shrink(self._owed, at_start=at_start)
        if freed is not None:
            log.info("optimem: gave %d of %d bytes back", freed, self._owed)
            self._owed, self._shrunk = 0, True
            self._tie()

    # Weights that callers write to, or are given.

    def _check_masters(self) -> None:
        self._parameters.refuse_moved()
        if self._parameters.take_writes():
            self.device.settle()
            self._learner.touched.let_go().clear()
            self._engine.refresh()

    def _own_copies(self, output: Any) -> Any:
        """Replace outputs that look into bytes of weights, which may soon hold something else."""
        ours = self._engine.storages() | self._learner.touched.storages() | {self._masters.slab.untyped_storage().data_ptr()}
        return callers.own_copies(output, ours, self._engine.output or self._engine.home)


def _residents(plan: protocol.Plan, units: list[Unit]) -> set[Span]:
    """Return what a plan wants to stay on the device."""
    pages = (page for page in plan.pages if page.placement == "resident")
    return {span for page in pages for index in page.units for span in units[index].spans}
