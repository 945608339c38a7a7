"""All that is tied to one model while it is attached: its weights in the slab, what else is on the card, hooks, meters.

Calls work with it; `attachment` says when, and `calls` what happens at the borders of each kind of call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn

from ..card.card import Card
from ..learning.meter import Meter
from ..learning.places import Known, Learner, OnCpu, OnDevice
from ..learning.times import Times
from ..model.parameters import Parameters
from ..model.shape import Shape
from ..model.units import Inventory, Span, Unit, by_owner
from ..model.weights import Looks, take
from ..residency.engine import Engine
from ..residency.fixed import PackedTies, send_to_cpu
from ..residency.ramstore import RamStore
from ..residency.sides import CPU
from ..seams.casts import Casts
from ..seams.fastpaths import SlowPath
from ..seams.gate import Gate
from ..seams.hooks import Everywhere, Ties
from ..seams.repacking import Formats
from ..seams.retry import Arguments, Retry


@dataclass(frozen=True)
class Habits:
    """What the caller wants of forwards, beside the plan. `output` is where results end: None for where forwards start."""

    output: torch.device | None = None
    verify: bool = False
    retry: bool = False


@dataclass(frozen=True)
class Borders:
    """What is called when a module of the model begins and ends, before a state_dict is loaded, and after an error."""

    enter: Callable[[str, tuple[Any, ...], dict[str, Any], FrameType], Any]
    leave: Callable[[str, Any], Any]
    before_load: Callable[[], None]
    recover: Callable[[RuntimeError, Any, Any], Arguments | None]


class Tied:
    """What is tied to `model`: all of it, or nothing where tying fails."""

    def __init__(
        self,
        model: nn.Module,
        card: Card,
        mode: str,
        habits: Habits,
        inventory: Inventory,
        *,
        timed_forwards: int,
        gate: Gate,
        casts: Casts,
        borders: Borders,
        undo: ExitStack,
    ) -> None:
        """`undo` gets what unties again, each step before what it undoes."""
        self.model, self.card, self.habits, self.inventory, self.casts = model, card, habits, inventory, casts
        self.own = {unit.spans[0].owner: list(unit.spans) for unit in by_owner(inventory.spans)}
        self._mode = mode
        self.known: Known = {}  # readers of earlier recordings
        self.written = False  # callers have written to weights, or say so
        self.parts_from_cpu = True  # the latest part was called with data on the CPU
        self._put: Looks = []  # parameters with what callers have put in their place, to be left there
        self.shape = Shape(model)
        self.everywhere = Everywhere()
        self.times = Times(card.device, mode)
        self.meter = Meter(card.device, timed_forwards)
        self.slow_path = SlowPath(model)
        self.formats = Formats(model)
        undo.callback(self.formats.end)
        self.formats.keep()
        undo.callback(card.leave, self)
        card.join(self)
        self._take_over(habits, undo)
        self.packed_ties = PackedTies(model)
        undo.callback(self.packed_ties.untie)
        self.ties = Ties(model, gate, borders.enter, borders.leave, borders.before_load)
        undo.callback(self.ties.untie)
        self.ties.tie_state_dicts()
        self.ties.set(self.ties.paths)
        self._retry = Retry(model, borders.recover) if habits.retry else None
        if self._retry is not None:
            undo.callback(self._retry.untie)
            self._retry.tie()
        weakref.finalize(self, self.slow_path.end).atexit = False

    def _take_over(self, habits: Habits, undo: ExitStack) -> None:
        """Move the weights into the slab, and all else to where forwards start."""
        device, spans = self.card.device, self.inventory.spans
        self.store = RamStore(device, spans)
        undo.callback(self.store.leave)
        undo.callback(send_to_cpu, self.model)
        self.parameters = Parameters([weight for span in spans for weight in span.weights])
        self.learner = self._new_learner()
        self.engine = Engine(device, self.store, self.model, self.inventory, start=self.learner.start, output=habits.output)
        self._fixed_bytes = 0 if self.learner.start == CPU else self.inventory.fixed_bytes
        self.card.claim(self, Tied.device_bytes)

    def untie(self) -> None:
        """Leave the model as it was found, on the CPU; what `take_moves` has found in the place of a weight stays there.
        Idempotent, and to be called again where it was cut short."""
        self.ties.untie()
        if self._retry is not None:
            self._retry.untie()
        self.learner.touched.drop_all()
        self.packed_ties.untie()
        self.slow_path.end()
        self.formats.end()
        self.engine.close()
        send_to_cpu(self.model)
        self.store.leave()
        take(self._put)
        self._put = []
        send_to_cpu(self.model)
        self.parameters.thaw()
        self.card.leave(self)

    def device_bytes(self) -> int:
        """Return the device bytes that are claimed for weights, and for what stays there beside them."""
        return self.weight_bytes + self._fixed_bytes

    @property
    def weight_bytes(self) -> int:
        """Device bytes that weights take now."""
        return self.engine.weight_bytes + self.learner.touched.nbytes

    @property
    def moved(self) -> int:
        """Weight bytes brought to the device so far."""
        return self.engine.moved + self.learner.touched.moved

    def tie(self, *, weighing: bool = False) -> None:
        """Hook the modules whose borders matter now."""
        every = weighing or self.meter.wants_steps
        self.ties.set(self.engine.tied(every=every), self.ties.entrances)

    def held(self, units: Sequence[Unit]) -> list[int]:
        """Return the numbers of the `units` that are on the device as a whole."""
        spans = self.learner.touched.spans() | self.engine.held()
        return [index for index, unit in enumerate(units) if spans.issuperset(unit.spans)]

    def let_go(self) -> dict[Span, Any]:
        """Follow no plan any more. Return what is on the device; it goes when nobody keeps it."""
        return self.engine.let_go() | self.learner.touched.let_go()

    def storages(self) -> set[int]:
        """Return the storage pointers of all bytes of weights, on the device and in the slab."""
        return self.engine.storages() | self.learner.touched.storages() | self.store.storages()

    def take_writes(self) -> None:
        """Bring what is on the device again where callers have written to weights."""
        counted, seen = self.parameters.take_writes(), self.store.was_written()
        if counted or seen or self.written:
            self.card.device.settle()
            self.learner.touched.let_go().clear()
            self.engine.refresh()
            self.note_weights()
            self.written = False

    def take_moves(self) -> bool:
        """Tell, between calls, whether callers have put something in the place of a weight (.data = ..., .half(), .to())."""
        self._put = self.parameters.moved()
        return bool(self._put)

    def note_weights(self) -> None:
        """Remember where the weights are and what they hold, so that later changes of callers are noticed."""
        self.parameters.note()
        self.store.note_words()

    def drop(self) -> None:
        """Let go of all that a call has left which was cut short, without a look at what is noted of the device."""
        self.engine.drop()
        self.ties.tie_anew()
        before, anew = self.learner, self._new_learner()
        anew.touched.moved = before.touched.moved
        self.learner = anew
        before.end()
        vars(before.touched).clear()  # frames of the call may hold it
        self.meter.restart(steps=True)
        self.note_weights()
        self.meter.end(failed=True)

    def _new_learner(self) -> Learner:
        if self._mode == "chunk":
            return OnCpu(self.card.device, self.store, self.inventory.fixed_bytes)
        return OnDevice(self.card, self, self.store)
