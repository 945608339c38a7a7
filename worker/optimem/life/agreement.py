"""What worker and controller have agreed on: a plan, and what it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ..model.recording import Recording
from ..model.units import Span, Unit
from ..residency.placements import Placement, placement_of
from ..wire import protocol


@dataclass(frozen=True)
class Agreement:
    """A plan with what the controller was told for it. Before the first recorded forward `recording` is None, and the units
    are those of the owners."""

    plan: protocol.Plan
    manifest: protocol.Manifest
    measured: protocol.Measured | None
    units: tuple[Unit, ...]
    recording: Recording | None

    @cached_property
    def placements(self) -> list[Placement]:
        """The placement of every page. Raises ControllerError for one that this worker does not know."""
        return [placement_of(page.placement) for page in self.plan.pages]

    @property
    def streams(self) -> bool:
        """True where some weights are streamed."""
        return any(placement.streamed for placement in self.placements)

    @property
    def device_bytes(self) -> int:
        """Device bytes that weights take under the plan."""
        return self.plan.resident_bytes + self.plan.arena_bytes

    @cached_property
    def borders(self) -> frozenset[str]:
        """Paths of the modules whose entries and exits bound the recorded steps."""
        return frozenset(border.path for border in self.recording.borders) if self.recording else frozenset()

    @cached_property
    def residents(self) -> frozenset[Span]:
        """The spans that the plan keeps on the device."""
        return self._spans(page for page in self.plan.pages if placement_of(page.placement).resident)

    def _spans(self, pages: Iterable[protocol.Page]) -> frozenset[Span]:
        return frozenset(span for page in pages for index in page.units for span in self.units[index].spans)
