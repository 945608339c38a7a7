"""What `optimem.status(model)` tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..model.recording import Recording
from ..model.units import Unit
from ..residency.fixed import kept
from ..seams import fastpaths, repacking
from .agreement import Agreement
from .state import State
from .tied import Tied


@dataclass(frozen=True)
class Status:
    """How an attached model stands. Sizes are bytes, times nanoseconds, 0 where not known."""

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
    controller: str  # "connected", or "lost: ..." with the reason, and when the next one is looked for
    notes: tuple[str, ...]  # what is not paged or held through whole forwards, what "equal" means: "mean: a buffer, ..."

    @classmethod
    def of(cls, tied: Tied, agreement: Agreement, *, state: State, mode: str, forwards: int, controller: str) -> Status:
        """Say how a model stands under `agreement`."""
        plan, placements = agreement.plan, agreement.placements
        return cls(
            state=state.value,
            mode=mode,
            device=str(tied.card.device.torch),
            plan_version=plan.version,
            pages=len(placements),
            resident_pages=sum(placement.resident for placement in placements),
            streamed_pages=sum(placement.streamed for placement in placements),
            weights_bytes=tied.inventory.weights_bytes,
            budget_bytes=plan.budget_bytes,
            reserve_bytes=plan.reserve_bytes,
            resident_bytes=plan.resident_bytes,
            arena_bytes=plan.arena_bytes,
            forwards=forwards,
            period_ns=tied.meter.period_ns(),
            predicted_ns=plan.period_ns,
            bound_ns=plan.bound_ns,
            h2d_bytes=tied.moved,
            misses=tied.engine.misses,
            pinned_bytes=tied.store.pinned_bytes,
            controller=controller,
            notes=tuple(_notes(tied, agreement)),
        )


def _notes(tied: Tied, agreement: Agreement) -> Iterator[str]:
    yield from kept(tied.inventory, tied.model)
    yield from held_throughout(agreement.units, agreement.recording)
    if tied.slow_path.needed:
        yield fastpaths.NOTE
    if tied.formats.needed:
        yield repacking.NOTE


def held_throughout(units: Sequence[Unit], recording: Recording | None) -> Iterator[str]:
    """Say which weights are held from a forward's first step to its last, where there is more than one."""
    for unit in units:
        if recording is not None and recording.steps > 1 and unit.uses == ((0, recording.steps - 1),):
            yield f"{unit.path}: held through the whole forward, read by {', '.join(map(_word, unit.readers))}"


def _word(path: str) -> str:
    return path or "the model itself"
