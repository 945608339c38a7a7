"""Where a forward runs while it is recorded: on the device with weights fetched on touch, or, in chunk mode, on the CPU."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch

from ..card.card import Card, Peak
from ..card.device import Device, HostClock
from ..model.units import Span
from ..residency.sides import CPU
from ..residency.store import Store
from ..residency.touch import Touched
from .recorder import Recorder

Known = dict[Span, dict[str, None]]


class Learner(Protocol):
    """A place to record at. `clock` times the operations there, `start` is where its data lies."""

    start: torch.device
    clock: Device
    touched: Touched

    def recorder(self, known: Known, budget: int, retain: Collection[Span]) -> Recorder:
        """Return a recorder for the next outermost call. The call may hold `budget` bytes of weights on the device, and
        drops those in `retain` last."""
        ...

    def end_step(self, recorder: Recorder) -> None:
        """Note the bytes in use of the step that ends at the coming border."""
        ...

    def left_behind(self) -> int:
        """Return the device bytes beside weights that the recorded forward has left: its result, caches, tensors that
        modules keep. They are in use while the next forward runs."""
        ...

    def end(self) -> None:
        """Stop recording. Idempotent."""
        ...


class OnDevice:
    """Records on the device. `owner` claims the bytes of the weights on the card."""

    def __init__(self, card: Card, owner: object, store: Store) -> None:
        self.start = card.device.torch
        self.clock = card.device
        self.touched = Touched(card.device, store)
        self._card, self._owner = card, owner
        self._store = store
        self._peak: Peak | None = None  # of the step that runs
        self._at_start = 0  # device bytes that are not weights

    def recorder(self, known: Known, budget: int, retain: Collection[Span]) -> Recorder:
        def bring(span: Span) -> None:
            self.end_step(recorder)
            self.touched.settles = bool(recorder.aside)
            running, reads = set(recorder.stack), recorder.reads
            self.touched.make_room(span, budget, lambda old: not running.isdisjoint(reads.get(old, ())))
            self.touched.fetch(span, min(budget - self.touched.nbytes, budget // 8))
            self._take_peak()

        recorder = Recorder(self.clock, self._lookup, bring, known, lambda span: span not in self.touched)
        self.touched.retain = retain
        self._at_start = self._not_weights()
        self._peak = self._card.measured(self._owner)
        self._peak.start()
        self._take_peak()
        return recorder

    def end_step(self, recorder: Recorder) -> None:
        self.touched.settles = bool(recorder.aside)
        recorder.size_of_step(max(0, self._take_peak() - self.touched.nbytes))

    def left_behind(self) -> int:
        return max(0, self._not_weights() - self._at_start)

    def end(self) -> None:
        peak, self._peak = self._peak, None
        if peak is not None:
            peak.stop()

    def _take_peak(self) -> int:
        return self._peak.take() if self._peak is not None else 0

    def _not_weights(self) -> int:
        return self.clock.allocated() - self._card.others(self._owner) - self.touched.nbytes

    def _lookup(self, tensor: torch.Tensor) -> Span | None:
        return self._store.span_of(tensor) or self.touched.span_of(tensor)


class OnCpu:
    """Records on the CPU, by the host's clock."""

    def __init__(self, device: Device, store: Store, fixed_bytes: int) -> None:
        self.start = CPU
        self.clock: Device = HostClock(device)
        self.touched = Touched(device, store)
        self._store = store
        self._fixed_bytes = fixed_bytes

    def recorder(self, known: Known, budget: int, retain: Collection[Span]) -> Recorder:
        return Recorder(self.clock, self._store.span_of, lambda span: None, known, lambda span: False)

    def end_step(self, recorder: Recorder) -> None:
        recorder.size_of_step(recorder.live.take_peak() + self._fixed_bytes)

    def left_behind(self) -> int:
        return 0

    def end(self) -> None:
        return None
