"""What is agreed with the controller over the life of one attachment: the plan in force, and what calls teach for the next.

It asks for plans and puts them in force. `attachment` tells it what has come of a call.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import replace

from ..errors import BadInput
from ..learning import describe
from ..learning.calibrate import Steps
from ..model.recording import Recording
from ..model.units import Unit, by_reading
from ..residency.placements import placement_of
from ..residency.sides import CPU
from ..wire import protocol
from ..wire.contact import Contact, Introduction
from .agreement import Agreement
from .allowance import Allowance
from .calls import Call, PlannedCall, WeighedCall
from .curriculum import Curriculum, Facts
from .journal import Journal
from .shortage import Shortage
from .state import Learnt, Outcome, Refused, Replanned, Short, State, Strayed, Unplanned, Weighed
from .tied import Tied

log = logging.getLogger("optimem")


class Negotiation:
    """Holds the agreement in force, the state, and the allowance."""

    def __init__(self, contact: Contact, tied: Tied, journal: Journal, first: Agreement, detach: Callable[[], None]) -> None:
        """`first` is the agreement before anything was recorded; `detach` unties the model where nothing can be agreed."""
        self.agreement = first
        self.curriculum = Curriculum()
        self.allowance = Allowance(contact)
        self.allowance.grant(first.plan.budget_bytes)
        self.settled = True  # False while another agreement is being put in force
        self._contact, self._tied, self._journal, self._detach = contact, tied, journal, detach
        self._registered = first.manifest
        ours = weakref.ref(self)
        contact.keep(lambda: _introduction(ours()))

    def conclude(self, call: Call, outcome: Outcome) -> None:
        """Act on what has come of `call`."""
        path = call.entry.path
        if outcome.steps is not None and isinstance(call, PlannedCall):
            self._tell_times(outcome.steps)
        if isinstance(outcome, Learnt) and outcome.recording is not None:
            outcome = self._learn(outcome.recording)
            self.curriculum.recorded(path)
        elif isinstance(call, WeighedCall):
            self._weigh(outcome)
        elif isinstance(call, PlannedCall) and call.error() is None:
            self.curriculum.watched()
        if isinstance(outcome, Short):
            self.allowance.short = outcome.shortage
        if isinstance(outcome, Strayed) and outcome.unforeseen:
            self.curriculum.unforeseen()
        self._move_on(outcome, path)

    def _move_on(self, outcome: Outcome, path: str) -> None:
        agreed = self.agreement
        facts = Facts(
            agreed=agreed.recording is not None,
            fits=agreed.device_bytes <= self.allowance.room(),
            weighs=self.agreement.manifest.wish.mode == "auto" and agreed.streams,
            more=self.curriculum.more,
            again=self.curriculum.few and not self.allowance.given and not self._contact.session.lost,
        )
        state = self.curriculum.take(outcome, path, facts)
        if isinstance(outcome, Refused):
            self._answer_refusal(outcome, state)
        elif isinstance(outcome, Unplanned) and facts.agreed and facts.fits:
            self.follow(agreed, recorded=False)
        elif state is State.WEIGHING:
            self._tied.tie(weighing=True)

    def _learn(self, recording: Recording) -> Outcome:
        """Agree on a plan for what was recorded."""
        tied, before = self._tied, self._tied.times.steps
        units = tuple(by_reading(tied.inventory.spans, recording.readings))
        manifest = describe.manifest(tied.model, self.agreement.manifest.wish, tied.inventory, units, recording)
        tied.times.learn(recording, manifest, on_cpu=tied.learner.start == CPU)
        agreed = False
        try:
            agreed = self._plan_with_kept_times(manifest, recording, units)
        except BadInput as refusal:
            return Refused(refusal=refusal)
        finally:
            if not agreed:  # whatever has come in between
                tied.times.steps = before
        return Learnt(recording=recording) if agreed else Unplanned()

    def _plan_with_kept_times(self, manifest: protocol.Manifest, recording: Recording, units: tuple[Unit, ...]) -> bool:
        """As `_plan_anew`. Times of an earlier run that no plan can be made from count as absent."""
        try:
            return self._plan_anew(manifest, recording, units)
        except BadInput as refusal:
            if not self._tied.times.doubt(recording):
                raise
            log.info("optimem: times of an earlier run are dropped, since no plan can be made from them (%s)", refusal)
        return self._plan_anew(manifest, recording, units)

    def _answer_refusal(self, refused: Refused, state: State) -> None:
        """Go on under the agreement in force. Where there is none, detach the model and raise BadInput."""
        if state is State.DETACHED:
            self._detach()
            raise BadInput(f"{refused.refusal}. The model is detached now") from refused.refusal
        log.warning("optimem: a recorded forward cannot be planned (%s); the last plan stays in force", refused.refusal)
        self.follow(self.agreement, recorded=False)

    def _weigh(self, outcome: Outcome) -> None:
        """Plan with the CPU's times, where they were learnt; else follow the plan in force."""
        if isinstance(outcome, Weighed) and outcome.steps is not None and self._plan_with_cpu(outcome.steps):
            return
        self.follow(self.agreement, recorded=False)

    def _plan_with_cpu(self, steps: Steps) -> bool:
        agreed = self.agreement
        assert agreed.recording is not None
        self._tied.times.learn_cpu(steps)
        try:
            return self._plan_anew(agreed.manifest, agreed.recording, agreed.units)
        except BadInput as refusal:
            log.warning("optimem: a mix cannot be planned (%s); the last plan stays in force", refusal)
            return False

    def _plan_anew(self, manifest: protocol.Manifest, recording: Recording, units: tuple[Unit, ...]) -> bool:
        """Ask for a plan from all that is known, and follow it. Return False where nobody is there to ask. Raises BadInput
        where none can be had."""
        measured = self._measured(recording, units)
        plan = self._contact.session.ask_for_plan(manifest, measured)
        if plan is None:
            return False
        self.follow(Agreement(plan, manifest, measured, units, recording), recorded=True)
        return True

    def _measured(self, recording: Recording, units: tuple[Unit, ...]) -> protocol.Measured:
        free = self._tied.card.free(self._tied)
        return self._tied.times.message(recording, free, self._tied.held(units))

    def follow(self, agreement: Agreement, *, recorded: bool) -> None:
        """Let `agreement` be in force. `recorded`: its recording or its step times are new."""
        assert agreement.recording is not None
        tied = self._tied
        self.settled = False  # until all is there
        self.agreement = agreement
        tied.meter.restart(steps=False)
        tied.engine.follow(agreement.plan, agreement.units, agreement.recording, tied.let_go())
        self.allowance.grant(agreement.plan.budget_bytes)
        again = self.curriculum.new_plan(recorded=recorded, both_sides=tied.engine.both_sides)
        tied.meter.restart(steps=again)
        tied.note_weights()
        tied.tie()
        self.settled = True

    def _tell_times(self, steps: Steps) -> None:
        """Tell the controller what steps take, and whether its prediction was off."""
        agreed = self.agreement
        if agreed.recording is None:
            return
        self._tied.times.correct(steps, agreed.recording)
        measured = self._measured(agreed.recording, agreed.units)
        self.agreement = replace(agreed, measured=measured)
        self._journal.report(agreed)
        self._contact.session.tell(measured)
        self._tied.tie()

    def make_room(self) -> None:
        """Answer a forward that ran out of memory: with a smaller plan, or by recording the next one in less room.

        The answer waits until the error is gone, whose frames hold what the forward had on the device."""
        shortage = self.allowance.take_short()
        if shortage is None:
            return
        self._tied.card.device.give_back()
        if self.curriculum.state is State.STEADY and self._shrink_to(shortage):
            return
        self.allowance.grant(shortage.room())
        self.curriculum.record_next()
        self._tied.engine.let_go().clear()
        self._tied.card.device.give_back()

    def _shrink_to(self, shortage: Shortage) -> bool:
        """Follow a plan that spares the bytes of `shortage`, of which the controller was told. Return False without one."""
        agreed = self.agreement
        if self._contact.session.lost:
            freed = self._tied.engine.shrink(shortage.room(), at_start=True)
            self._tied.tie()
            return bool(freed)
        if agreed.recording is None:
            return False
        try:
            return self._plan_anew(agreed.manifest, shortage.noted_in(agreed.recording), agreed.units)
        except BadInput as refusal:
            log.info("optimem: no smaller plan can be had (%s); the next forward is recorded in less room", refusal)
            return False

    def adopt_new_plan(self) -> None:
        """Follow a plan that came unasked, or the one that a new session began with, if there is one."""
        if not self._adopt(self._contact.renew(self.agreement.manifest), renewed=True):
            self._adopt(self._contact.session.new_plan(), renewed=False)

    def _adopt(self, plan: protocol.Plan | None, *, renewed: bool) -> bool:
        """Follow `plan`. Return False for none. The versions of a renewed session have nothing to do with those before."""
        agreed = self.agreement
        if plan is None:
            return False
        if agreed.recording is None and renewed:
            self.agreement = replace(agreed, plan=plan)
            self.allowance.grant(plan.budget_bytes)
        elif agreed.recording is None:
            return False
        elif renewed or plan.version > agreed.plan.version:
            weighing = self.curriculum.state is State.WEIGHING
            self.follow(replace(agreed, plan=plan), recorded=False)
            if renewed and weighing:
                self._tied.tie(weighing=True)
            else:
                self._move_on(Replanned(), "")
        return True

    def introduction(self) -> Introduction:
        """Return what a further controller is to be told. May be called on any thread."""
        agreed = self.agreement
        if agreed.measured is None:
            return Introduction(self._registered, None)
        held = sorted(unit for page in agreed.plan.pages if placement_of(page.placement).resident for unit in page.units)
        return Introduction(self._registered, (agreed.manifest, replace(agreed.measured, held=held)))


def _introduction(negotiation: Negotiation | None) -> Introduction | None:
    return negotiation.introduction() if negotiation is not None else None
