"""A model and what is tied to it: *when* things happen, from attach to detach.

Attach: the controller accepts the model and names a budget, then the weights go into the slab; nothing is on the device yet.
First forward: recorded, fetched on touch. In auto mode the second one runs on the CPU, to learn what it would take there.
Then the plan; the first forward under it is watched for readers that the recording did not see, the next ones are timed step
by step to correct the prediction. Later plans are picked up between forwards, a request to shrink at the next border.
"""

from __future__ import annotations

import gc
import logging
import sys
import weakref
from contextlib import ExitStack
from types import FrameType, GeneratorType
from typing import Any

import torch
from torch import nn

from ..card.card import Card
from ..data import moving
from ..errors import BadInput, ControllerError, OptimemError
from ..learning import describe
from ..model.units import Inventory, by_owner, take_stock
from ..residency.fixed import kept_whole, refuse_shared, send_to_cpu
from ..seams import modes
from ..seams.casts import Casts
from ..seams.gate import Gate
from ..seams.retry import Arguments
from ..wire import forks, protocol
from ..wire.contact import Contact
from ..wire.session import Session
from . import callers
from .agreement import Agreement
from .calls import Call, Entry, PlannedCall, RecordedCall, WatchedCall, WeighedCall
from .journal import Journal
from .negotiation import Negotiation
from .state import Lesson, State
from .status import Status
from .strays import explain
from .tied import Borders, Habits, Tied

log = logging.getLogger("optimem")

_CUT_SHORT = (
    "the forward was cut short while weights were on their way, by an exception that the model has caught, and cannot "
    "go on; call the model again"
)


class Attachment:
    """Says when what is tied to one model does what."""

    def __init__(self, model: nn.Module, card: Card, wish: protocol.Wish, habits: Habits) -> None:
        self._model, self.card = model, card
        self.wish, self.habits = wish, habits
        self._gate = Gate()
        self._casts = Casts()
        weakref.finalize(self, self._casts.restore).atexit = False
        self._broken = False  # a call was cut short, or a plan: nothing on the device may be trusted
        self.detached = True  # nothing ties to the model
        self.forked = False  # this is a copy in a child, and the card's memory is the parent's
        forks.note(self)

    def attach(self) -> None:
        """Tie to the model. Raises BadInput or ControllerError before anything is touched. If it is cut short, either
        nothing ties to the model or all does, which `detached` tells."""
        self._attach(forwards=0)

    def _attach(self, *, forwards: int) -> None:
        """Tie to the model as it is now. Raises BadInput or ControllerError before anything is touched, and leaves nothing
        behind whatever else is raised."""
        inventory = take_stock(self._model, device=self.card.device.torch)
        refuse_shared(inventory, self.card.device)
        self._contact = Contact(describe.hello(self.card.device))
        with ExitStack() as undo:
            undo.callback(setattr, self, "detached", True)
            undo.callback(self._contact.close, "attaching failed")
            first = self._first_agreement(inventory)
            borders = Borders(self._enter, self._leave, self._before_load, self._recover)
            self._tied = Tied(
                self._model,
                self.card,
                self.wish.mode,
                self.habits,
                inventory,
                timed_forwards=self.session.terms.timed_forwards,
                gate=self._gate,
                casts=self._casts,
                borders=borders,
                undo=undo,
            )
            self._journal = Journal(self._contact, self._tied, forwards)
            self._agreed = Negotiation(self._contact, self._tied, self._journal, first, self._leave_as_found)
            self._call = self._idle = self._no_call()
            weakref.finalize(self, self._contact.close, "collected").atexit = False
            self.detached = False
            undo.pop_all()

    def _first_agreement(self, inventory: Inventory) -> Agreement:
        """Tell the controller what the model is made of, and take its first plan."""
        units = by_owner(inventory.spans)
        manifest = describe.manifest(self._model, self.wish, inventory, units, None)
        try:
            plan = self.session.ask_for_plan(manifest)
        except BadInput as refusal:
            raise BadInput(f"{refusal}{kept_whole(inventory)}") from refusal
        if plan is None:
            why = self.session.ending or "the controller did not answer in time"
            raise ControllerError(f"the model has no plan: {why}; try again, or start another controller: optimemctl serve")
        return Agreement(plan, manifest, None, tuple(units), None)

    @property
    def session(self) -> Session:
        """The conversation with the controller that counts now."""
        return self._contact.session

    def close(self, reason: str) -> None:
        """Say bye to the controller, and look for no other one."""
        self._contact.close(reason)

    def leave_to_parent(self) -> None:
        """Refuse calls in a forked child."""
        self.forked = True

    def _no_call(self) -> Call:
        call = Call(Entry("", None), self._tied, self._journal)
        call.over = True
        return call

    def detach(self) -> None:
        """Untie, and leave the model as it was found, on the CPU. Idempotent, and to be called again where it was cut short.

        Waits for a forward in another thread. Raises BadInput where that one waits for this thread.
        """
        self._gate.enter_to_detach(sys._getframe())
        try:
            if not self.detached:
                self._leave_as_found()
        finally:
            self._gate.leave("")

    def _leave_as_found(self) -> None:
        if self._call.over and not self._broken:
            self._tied.take_moves()
        if self._broken or not self._agreed.settled or not self._call.over:
            self._abandon()
        self._broken = True
        modes.sweep()
        self._casts.restore()
        self.report()
        self._tied.untie()
        self.close("detached")
        self._agreed.curriculum.state = State.DETACHED
        self.detached = True
        self._broken = False

    def _before_load(self) -> None:
        """A state_dict is to be loaded: nothing that a call which was cut short has left may take it up."""
        if not self._call.over and self._gate.stale():
            self._abandon()
        self.card.device.settle()
        self._tied.written = True

    def refresh(self) -> None:
        """Have the next call bring all weights again that are on the device: callers have written to some. Waits for a
        forward in another thread. Raises BadInput where that one waits for this thread."""
        self._gate.enter_to_detach(sys._getframe())
        try:
            self._tied.written = True
        finally:
            self._gate.leave("")

    def status(self) -> Status:
        """Say how things stand."""
        return Status.of(
            self._tied,
            self._agreed.agreement,
            state=self._agreed.curriculum.state,
            mode=self.wish.mode,
            forwards=self._journal.forwards,
            controller=self._contact.standing,
        )

    def shares(self, model: nn.Module) -> str | None:
        """Return the name of a parameter that `model` shares with this one."""
        ours = set(map(id, self._model.parameters()))
        return next((name for name, parameter in model.named_parameters() if id(parameter) in ours), None)

    def told(self) -> tuple[protocol.Manifest, protocol.Measured | None]:
        """Return what the controller was told of the model: its units, and once it was recorded the latest step times."""
        return self._agreed.agreement.manifest, self._agreed.agreement.measured

    def report(self) -> None:
        """Tell the controller how the plan fares, up to the last forward that the device has done."""
        if self.forked:
            return
        self._tied.meter.read()
        self._journal.report(self._agreed.agreement)

    # The borders of a forward. These run on the caller's thread, at every entry and exit of a tied module.

    def _enter(self, path: str, args: Any, kwargs: Any, frame: FrameType) -> tuple[Any, Any]:
        if self.forked:
            raise BadInput(callers.FORKED)
        try:
            outermost = self._gate.enter(path, frame)
            if outermost:
                if self.detached:  # while this call waited
                    self._gate.leave(path)
                    return args, kwargs
                args, kwargs = self._begin(path, args, kwargs)
            elif self._broken and not self._gate.stale():
                raise OptimemError(_CUT_SHORT)
            return self._call.enter(path, args, kwargs, outermost=outermost)
        except BaseException as error:
            self._doubt(error)
            raise

    def _leave(self, path: str, output: Any) -> Any:
        """Return what replaces the output, None where nothing does. Called after an exception too."""
        result, call = output, self._call
        if (call.over or output is None) and not self._gate.mine():
            return None  # this hook has ended the call with an error, or the gate has refused this thread
        outermost = self._gate.is_last(path)
        try:
            call.leave(path, output)
            if outermost:
                result = self._end_or_abandon(call, output)
        except BaseException as error:
            self._doubt(error)
            raise
        finally:
            self._gate.leave(path)
        return None if result is output else result

    def _doubt(self, error: BaseException) -> None:
        """Trust nothing on the device any more where our own work was cut short: a signal handler may raise at any line. Our
        own errors and the allocator's come where nothing is half done."""
        if not isinstance(error, (OptimemError, torch.OutOfMemoryError)):
            self._broken = True

    def _begin(self, path: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if not self._call.over:
            self._broken = True
            self._call.abandon()
        self._call = call = Call(Entry(path), self._tied, self._journal)  # refused, until all is well
        if modes.left_behind:
            modes.sweep()
        if self._broken or not self._agreed.settled:
            self._tied.parameters.refuse_lost()
            self._drop()
        callers.refuse_bad_call((args, kwargs), self._tied.shape.in_training())
        if self._tied.take_moves() or self._tied.shape.changed():
            self._attach_again(call.entry)
        if self._tied.everywhere.changed():
            self._agreed.curriculum.record_next()
        self._journal.begin()
        self._tied.take_writes()
        self._agreed.adopt_new_plan()
        self._agreed.make_room()
        return self._bring_and_begin(call.entry, args, kwargs)

    def _bring_and_begin(self, entry: Entry, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Begin the call. Nothing of it has run yet, so that room for its arguments is made at once where they find none."""
        call = self._next_call(entry)
        try:
            args, kwargs = call.bring(args, kwargs)
        except torch.OutOfMemoryError as error:
            self._agreed.allowance.short = call.shortage(error)
        if self._agreed.allowance.short is not None:
            self._agreed.make_room()
            call = self._next_call(entry)
            args, kwargs = call.bring(args, kwargs)
        call.begin(args, kwargs)
        self._call = call
        return args, kwargs

    def _next_call(self, entry: Entry) -> Call:
        """Return the call that the next lesson is."""
        tied, journal, agreed, allowance = self._tied, self._journal, self._agreed.agreement, self._agreed.allowance
        lesson = self._agreed.curriculum.lesson(entry.path, agreed=agreed.recording is not None, watch=self.habits.verify)
        if lesson is Lesson.RECORD:
            return RecordedCall(entry, tied, journal, agreement=agreed, allowance=allowance)
        if lesson is Lesson.WEIGH:
            return WeighedCall(entry, tied, journal, agreed)
        if not tied.engine.follows:  # a call was cut short, or memory ran out before all was there
            self._agreed.follow(agreed, recorded=True)
        kind = WatchedCall if lesson is Lesson.WATCH and not tied.engine.both_sides else PlannedCall
        return kind(entry, tied, journal, agreement=agreed, allowance=allowance)

    def _end_or_abandon(self, call: Call, output: Any) -> Any:
        try:
            return self._end(call, output)
        except BaseException:
            if not self.detached:
                self._abandon()
            raise

    def _end(self, call: Call, output: Any) -> Any:
        error = call.error()
        if self._broken and error is None and not self._gate.stale():
            raise OptimemError(_CUT_SHORT)
        call.entry.undo.run()
        own = callers.own_copies(output, self._tied.storages(), call.output or call.place)
        output, looks_into_weights = own, own is not output
        if call.output is not None:
            output = moving.move(output, call.output)
        if isinstance(output, GeneratorType):
            output = callers.stepwise(output, self._resume, self._suspend)
        if error is None:
            self._tied.parameters.refuse_written()
            self._journal.forwards += 1
        self._agreed.conclude(call, call.end(error))
        if isinstance(call, PlannedCall) and not (error or call.entry.path or looks_into_weights):
            self._refuse_kept_views()
        self._journal.end()
        self._journal.report_now_and_then(self._agreed.agreement)
        self._rest()
        return output

    def _rest(self) -> None:
        """The call is over. It keeps the error that its caller was handling, and so goes."""
        self._call.over = True
        self._call = self._idle

    def _abandon(self) -> None:
        """Let go of all that a call has left which was cut short. The agreement in force is followed anew by the next call
        that needs it; a recording is begun anew."""
        self._broken = True
        self._call.abandon()
        self._drop()
        self._rest()

    def _drop(self) -> None:
        """Trust nothing on the device."""
        modes.sweep()
        self._journal.end()
        self._tied.drop()
        self._agreed.settled = True
        self._broken = False

    def _resume(self, frame: FrameType) -> None:
        """Begin a step of a generator that a forward has returned: a call of its own, in which weights are fetched on touch.
        The next forward is recorded again."""
        self._gate.enter("", frame)
        if self.detached:
            return
        try:
            self._agreed.curriculum.record_next("")
            self._begin("", (), {})
            self._call.enter("", (), {}, outermost=True)
        except BaseException:
            self._abandon()
            self._gate.leave("")
            raise

    def _suspend(self) -> None:
        if not self.detached:
            self._call.entry.undo.run()
            self._call.end(GeneratorExit())
            self._journal.end()
            self._rest()
        self._gate.leave("")

    def _attach_again(self, entry: Entry) -> None:
        """Modules or parameters were added, removed or replaced, or hold other data: begin anew with what the model is made
        of now."""
        log.info("optimem: the model has changed; it is attached and recorded again")
        send_to_cpu(self._model)
        try:
            take_stock(self._model)  # raises before anything is let go
        except BadInput:
            self._tied.engine.place_fixed()
            raise
        self._tied.take_moves()  # which are on the CPU now
        self.detach()
        try:
            self._attach(forwards=self._journal.forwards)
        except OptimemError as refusal:
            why = f"the model has changed since it was attached, and is detached now: {refusal}"
            raise type(refusal)(why) from refusal
        self._call = Call(entry, self._tied, self._journal)

    def _refuse_kept_views(self) -> None:
        """Detach and raise BadInput where the forward has kept a view of a weight that is streamed: neither can the view
        follow the weight, nor do the bytes stay."""
        engine = self._tied.engine
        if not engine.is_looked_into():
            return
        gc.collect()  # cycles may keep what nobody can reach
        if not engine.is_looked_into():
            return
        engine.spoil()
        self._rest()
        self.detach()
        raise BadInput(callers.KEPT_VIEW)

    def _recover(self, error: RuntimeError, args: Any, kwargs: Any) -> Arguments | None:
        """Make a forward of the root that failed ready to run once more, recorded or under a smaller plan. Return its
        arguments; None where it is not the outermost, or failed for reasons of its own."""
        failed = self._call
        if not self._gate.is_last("") or isinstance(failed, WeighedCall):  # nothing of that one is on the device
            return None
        short = failed.shortage(error)
        if short is None and not (isinstance(failed, PlannedCall) and explain(error)):
            return None
        failed.stop()
        self._agreed.allowance.short = short
        self._agreed.make_room()
        if short is None:
            self._agreed.curriculum.unforeseen()
            self._agreed.curriculum.record_next("")
        self._call = Call(failed.entry, self._tied, self._journal)  # refused, until all is well
        call = self._next_call(failed.entry)
        args, kwargs = failed.entry.loan.bring((args, kwargs), call.place)
        call.start(args, kwargs)
        self._call = call
        return call.enter("", args, kwargs, outermost=True)
