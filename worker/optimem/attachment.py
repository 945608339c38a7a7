"""A model and what is tied to it: the life of a plan, from attach to detach.

Attach: the controller accepts the model and names a budget, then the weights go into the slab; nothing is on the device yet.
First forward: recorded, fetched on touch. Then the plan, in force from the second forward; the next forwards are timed step
by step to correct the prediction. Later plans are picked up between forwards, a request to shrink at the next border.
"""

from __future__ import annotations

import enum
import logging
import sys
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn

from . import describe, moving, protocol
from .calibrate import Link
from .device import Device
from .engine import ChunkEngine, Engine, Known, PageEngine
from .errors import BadInput, ControllerError
from .gate import Gate
from .hooks import Ties
from .masters import Masters
from .meter import Meter
from .recorder import Recorder, Recording
from .session import Session
from .strays import explain
from .units import Unit, by_owner, by_reading, storage_pointer, take_stock

log = logging.getLogger("optimem")

_RECORDINGS = 4  # how often another way through the model is learnt before misses are simply served
_REPORT_S = 0.1


class State(enum.Enum):
    """Where an attachment stands, and what device memory that costs."""

    LEARNING = "learning"  # the next forward is recorded; between forwards only buffers are on the device
    STEADY = "steady"  # a plan is followed: residents and the arena are on the device
    DETACHED = "detached"  # nothing of ours is left


@dataclass(frozen=True)
class Status:
    """What `optimem.status(model)` tells. Sizes are bytes, times nanoseconds, 0 where not known."""

    state: str
    mode: str
    device: str
    plan_version: int
    pages: int
    resident_pages: int
    streamed_pages: int
    weights_bytes: int
    budget_bytes: int
    reserve_bytes: int
    resident_bytes: int
    arena_bytes: int
    forwards: int
    period_ns: int
    predicted_ns: int
    bound_ns: int
    h2d_bytes: int
    misses: int
    pinned_bytes: int
    controller: str  # "connected" or "gone"


class Attachment:
    """Owns everything that is tied to one model."""

    def __init__(self, model: nn.Module, device: Device, wish: protocol.Wish) -> None:
        """Raises BadInput or ControllerError before anything is touched."""
        self._model = model
        self.device = device
        self.wish = wish
        self._inventory = take_stock(model)
        self._weights = [weight for span in self._inventory.spans for weight in span.weights]
        self._baseline = device.allocated()
        self.session = Session.open(describe.hello(device))
        registered = describe.manifest(model, wish, self._inventory, by_owner(self._inventory.spans), None)
        self._told: tuple[protocol.Manifest, protocol.Measured | None] = (registered, None)
        self._plan = self._first_plan()
        self._state = State.LEARNING
        self._gate = Gate()
        self._units: list[Unit] = []
        self._own = {unit.spans[0].owner: list(unit.spans) for unit in by_owner(self._inventory.spans)}
        self._known: Known = {}
        self._recorder: Recorder | None = None
        self._recording: Recording | None = None
        self._recordings = 0
        self._link = Link(0, 0)
        self._inside = self._refused = self._through_root = self._shrunk = False
        self._error_at_entry: BaseException | None = None
        self._strayed: set[str] = set()  # where calls begin that are to be recorded; the first may begin anywhere
        self._forwards = self._misses = self._peak = 0
        self._owed = 0  # device bytes that the controller wants back
        self._reported = 0.0
        self._frozen: list[nn.Parameter] = []
        self._masters = Masters(device, self._inventory.spans)
        self._engine = self._make_engine()
        self._meter = Meter(self._engine.clock)
        self._places, self._versions = self._fingerprint()
        self._ties = Ties(model, self._enter, self._leave, device.settle)
        self._entrances = self._ties.entrances if wish.mode == "page" else {""}
        self._timed: set[str] = set()  # modules whose borders are those of the recording
        self._ties.set(self._ties.paths)

    def detach(self) -> None:
        """Untie, and leave the model as it was found, on the CPU. Idempotent."""
        if self._state is State.DETACHED:
            return
        self.report()
        self._state = State.DETACHED
        self._ties.untie()
        self._engine.close()
        self._masters.leave()
        self._thaw()
        self.session.close("detached")

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
            h2d_bytes=self._engine.moved,
            misses=self._engine.misses,
            pinned_bytes=self._masters.pinned_bytes,
            controller="gone" if self.session.lost else "connected",
        )

    def told(self) -> tuple[protocol.Manifest, protocol.Measured | None]:
        """Return what the controller was told of the model: its units, and once it was recorded the latest step times."""
        return self._told

    def report(self) -> None:
        """Tell the controller how the plan fares."""
        self._reported = time.monotonic()
        self._peak = max(self._peak, self._engine.peak, self.device.peak() - self._baseline)
        self.session.tell(
            protocol.Report(
                plan_version=self._plan.version,
                forwards=self._forwards,
                period_ns=self._meter.period_ns(),
                stall_ns=self._stalls_by_page(),
                h2d_bytes=self._engine.moved,
                misses=self._engine.misses,
                device_bytes=max(0, self.device.allocated() - self._baseline),
                device_peak_bytes=self._peak,
                activation_bytes=max(self._recording.step_bytes, default=0) if self._recording else 0,
                pinned_bytes=self._masters.pinned_bytes,
            )
        )

    # The borders of a forward. These run on the caller's thread, at every entry and exit of a tied module.

    def _enter(self, path: str, args: Any, kwargs: Any, frame: FrameType) -> tuple[Any, Any]:
        outermost = self._gate.enter(frame, look_for_stale=not path)
        if outermost:
            args, kwargs = self._begin(path, args, kwargs)
        if self._recorder is not None:
            self._engine.end_step(self._recorder)
            self._recorder.enter(path, self._own.get(path, []), (args, kwargs))
            return args, kwargs
        self._shrink_if_asked(at_start=outermost)
        timer = self._meter.timer if path in self._timed else None
        if timer:
            timer.end_step(path, entry=True)
        args, kwargs, waited = self._engine.enter(path, args, kwargs, root=self._through_root)
        if timer:
            timer.begin_step(waited)
        return args, kwargs

    def _leave(self, path: str, output: Any) -> Any:
        """Return what replaces the output, None where nothing does. Called after an exception too."""
        outermost = self._gate.depth == 1
        result = output
        try:
            if not self._refused:
                result = self._leave_module(path, output)
                if outermost:
                    result = self._end(path, result)
        finally:
            self._refused = self._refused and not outermost
            self._gate.leave()
        return None if result is output else result

    def _leave_module(self, path: str, output: Any) -> Any:
        if self._recorder is not None:
            self._engine.end_step(self._recorder)
            self._recorder.leave(path, output)
            return output
        timer = self._meter.timer if path in self._timed else None
        if timer:
            timer.end_step(path, entry=False)
        output = self._engine.leave(path, output)
        if timer:
            timer.begin_step(None)
        return output

    def _begin(self, path: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if self._inside:
            self._abandon()
        self._refused = True  # until all is well; the exit hook runs in any case
        self._error_at_entry = sys.exc_info()[1]
        self._refuse_bad_call(args, kwargs)
        self._check_masters()
        self._adopt_new_plan()
        self._through_root = not path
        if torch.is_grad_enabled():
            self._freeze()
        args, kwargs = moving.move(args, self._engine.home), moving.move(kwargs, self._engine.home)
        if self._state is State.LEARNING and (not self._strayed or path in self._strayed):
            self._strayed.discard(path)
            self._ties.set(self._ties.paths)
            self._recorder = self._engine.record(self._known, self._plan.budget_bytes)
            self._recorder.start()
        else:
            assert self._recording is not None
            self._engine.begin()
            self._meter.begin(self._recording)
        self._refused, self._inside = False, True
        return args, kwargs

    def _end(self, path: str, output: Any) -> Any:
        error = sys.exc_info()[1]
        failed = error is not self._error_at_entry
        if failed and self._recorder is None and explain(error):
            self._recordings = 0  # an unforeseen reader must be learnt, however many have been
        self._inside, self._error_at_entry = False, None
        output = self._own_copies(output)
        self._thaw()
        if not failed:
            self._forwards += 1
        if self._recorder is not None:
            self._end_recording(failed=failed)
        else:
            self._end_steady(path, failed=failed)
        if time.monotonic() - self._reported >= _REPORT_S:
            self.report()
        return output

    def _abandon(self) -> None:
        """Drop what an interrupted forward left behind: torch runs no exit hook after Ctrl-C."""
        if self._recorder is not None:
            self._recorder.stop()
            self._recorder = None
            self._engine.end_recording()
        self._meter.end(failed=True)
        self._engine.finish(lap=True)
        self._thaw()

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

    def _make_engine(self) -> Engine:
        if self.wish.mode == "chunk":
            return ChunkEngine(self.device, self._masters, self._inventory, self._model)
        return PageEngine(self.device, self._masters, self._inventory, self._baseline)

    def _end_recording(self, *, failed: bool) -> None:
        recorder, self._recorder = self._recorder, None
        assert recorder is not None
        recorder.stop()
        self._engine.end_recording()
        if not failed:
            self._known = recorder.reads
            self._learn(recorder)

    def _learn(self, recorder: Recorder) -> None:
        self._engine.clock.settle()
        recording = recorder.result()
        self._recordings += 1
        units = by_reading(self._inventory.spans, recording.readings)
        if "link" in self.session.measure and not self._link.bytes_per_second:
            self._link = self._engine.measure_link(self._plan.budget_bytes)
        manifest = describe.manifest(self._model, self.wish, self._inventory, units, recording)
        times = self._measured(recording, recording.step_ns)
        plan = self.session.ask_for_plan(manifest, times)
        if plan is not None:
            self._recording, self._units = recording, units
            self._told = manifest, times
            self._follow(plan, steps=True)

    def _measured(self, recording: Recording, step_ns: list[int]) -> protocol.Measured:
        free = self.device.memory()[0] + max(0, self.device.allocated() - self._baseline)
        return describe.measured(recording, step_ns, self._link, free, on_cpu=self.wish.mode == "chunk")

    def _follow(self, plan: protocol.Plan, *, steps: bool) -> None:
        assert self._recording is not None
        self._engine.follow(plan, self._units, self._recording)
        self._plan = plan
        self._meter.restart(steps=steps)
        self._timed = {border.path for border in self._recording.borders}
        self._state = State.LEARNING if self._strayed else State.STEADY
        self._shrunk, self._misses = False, self._engine.misses
        self._places, self._versions = self._fingerprint()
        self._tie()

    def _tie(self) -> None:
        self._ties.set(self._engine.tied(every=self._meter.wants_steps) | self._entrances)

    def _end_steady(self, path: str, *, failed: bool) -> None:
        self._meter.end(failed=failed, steps=self._engine.island_times())
        self._engine.finish(lap=not path)
        steps = self._meter.steps()
        if steps is not None and self._recording is not None:
            times = self._measured(self._recording, steps)
            self._told = self._told[0], times
            self.session.tell(times)
            self._tie()
        strayed = failed or self._engine.misses > self._misses
        self._misses = self._engine.misses
        if strayed and not self._shrunk and self._recordings < _RECORDINGS and not self.session.lost:
            self._state = State.LEARNING
            self._strayed.add(path)

    def _stalls_by_page(self) -> list[int]:
        stalls = [0] * len(self._plan.pages)
        for copy, ns in self._meter.stalls_ns().items():
            stalls[self._plan.copies[copy].page] += ns
        return stalls

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

    # What callers may do.

    def _refuse_bad_call(self, args: Any, kwargs: Any) -> None:
        if self._model.training:
            raise BadInput("the model is in training mode; call model.eval() first: Optimem runs inference only")
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in moving.tensors((args, kwargs))):
            raise BadInput(
                "an input requires grad, but Optimem runs inference only; "
                "pass it detached, or call the model under torch.no_grad()"
            )

    def _freeze(self) -> None:
        """Keep a forward that forgot no_grad from building a graph. Not done where grad is off: torch's matmul chooses its
        way, and so the last bits, by whether a weight requires grad."""
        self._frozen = [weight.parameter for weight in self._weights if weight.parameter.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)

    def _thaw(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []

    def _check_masters(self) -> None:
        places, versions = self._fingerprint()
        for weight, place, before in zip(self._weights, places, self._places, strict=True):
            if place != before:
                raise BadInput(
                    f"parameter {weight.name} was moved or replaced while paged (.to(), .half(), .data = ...); "
                    "call optimem.detach(model) before such a change and attach again after it"
                )
        if versions != self._versions:
            self._versions = versions
            self._engine.refresh()

    def _fingerprint(self) -> tuple[list[int], int]:
        """Return where the parameters look, and how often they were written to."""
        parameters = [weight.parameter for weight in self._weights]
        return [parameter.data_ptr() for parameter in parameters], sum(map(_version, parameters))

    def _own_copies(self, output: Any) -> Any:
        """Replace outputs that look into bytes of weights, which may soon hold something else."""
        ours = self._engine.storages() | {self._masters.slab.untyped_storage().data_ptr()}
        copies = {
            id(tensor): tensor.detach().to(self._engine.home, copy=True)
            for tensor in moving.tensors(output)
            if storage_pointer(tensor) in ours
        }
        return moving.substitute(output, copies) if copies else output


def _version(parameter: nn.Parameter) -> int:
    """Return how often a parameter was written to; 0 where it was made in inference mode, which does not count."""
    try:
        return parameter._version
    except RuntimeError:
        return 0
