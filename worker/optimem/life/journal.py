"""How forwards have fared: counts and peaks, and the reports that the controller gets of them."""

from __future__ import annotations

import time

from ..wire import protocol
from ..wire.contact import Contact
from .agreement import Agreement
from .shortage import Shortage
from .tied import Tied

_REPORT_S = 0.1


class Journal:
    """What is counted over the life of one attachment."""

    def __init__(self, contact: Contact, tied: Tied, forwards: int = 0) -> None:
        self._contact, self._tied = contact, tied
        self.forwards = forwards
        tied.card.reset_peaks()  # highs before this model was attached are none of its own
        self._peak = tied.card.measured(tied)
        self._reported = 0.0

    def begin(self) -> None:
        """Note that an outermost call begins."""
        self._peak.start()

    def end(self) -> None:
        """Note that it is over. Idempotent."""
        self._peak.stop()

    def note_shortage(self, error: BaseException) -> Shortage:
        """Say in `error` and to the controller what was in use when memory ran out. Return it."""
        tied = self._tied
        shortage = Shortage.of(error, tied.card.device, tied.weight_bytes, self._peak.bytes())
        shortage.explain(error, retried=tied.habits.retry)
        self._contact.session.tell(shortage.message())
        return shortage

    def report_now_and_then(self, agreement: Agreement) -> None:
        """Report, unless that was done a moment ago."""
        if time.monotonic() - self._reported >= _REPORT_S:
            self.report(agreement)

    def report(self, agreement: Agreement) -> None:
        """Tell the controller how the plan fares, up to the last forward whose times were read."""
        self._reported = time.monotonic()
        self._contact.session.tell(self._message(agreement))

    def _message(self, agreement: Agreement) -> protocol.Report:
        tied, recording = self._tied, agreement.recording
        return protocol.Report(
            plan_version=agreement.plan.version,
            forwards=self.forwards,
            period_ns=tied.meter.period_ns(),
            stall_ns=self._stalls_by_page(agreement.plan),
            h2d_bytes=tied.moved,
            misses=tied.engine.misses,
            device_bytes=tied.card.used(tied),
            device_peak_bytes=self._peak.bytes(),
            activation_bytes=max(recording.step_bytes, default=0) if recording else 0,
            pinned_bytes=tied.store.pinned_bytes,
        )

    def _stalls_by_page(self, plan: protocol.Plan) -> list[int]:
        stalls = [0] * len(plan.pages)
        for copy, ns in self._tied.meter.stalls_ns().items():
            stalls[plan.copies[copy].page] += ns
        return stalls
