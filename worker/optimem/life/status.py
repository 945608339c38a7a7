"""What `optimem.status(model)` tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..model.recording import Recording
from ..model.units import Unit


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
    controller: str  # "connected" or "gone"
    notes: tuple[str, ...]  # what is not paged or held through whole forwards, what "equal" means: "mean: a buffer, ..."


def held_throughout(units: Sequence[Unit], recording: Recording | None) -> Iterator[str]:
    """Say which weights are held from a forward's first step to its last, where there is more than one."""
    for unit in units:
        if recording is not None and recording.steps > 1 and unit.uses == ((0, recording.steps - 1),):
            yield f"{unit.path}: held through the whole forward, read by {', '.join(map(_word, unit.readers))}"


def _word(path: str) -> str:
    return path or "the model itself"
