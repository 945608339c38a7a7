"""Fetch on touch: bring a span to the device at the moment when somebody reads it, and let it go again.

This is how the recorded forward runs, and how a later forward that leaves the plan stays right. Copies run in order on the
current stream, so that nothing else needs to be ordered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from .device import Device
from .masters import Masters, poison
from .units import Span, aligned, storage_pointer


class Touched:
    """The spans that are on the device because they were touched, in the order of fetching."""

    def __init__(self, device: Device, masters: Masters) -> None:
        self._device = device
        self._masters = masters
        self._poison = poison()
        self._blocks: dict[Span, torch.Tensor] = {}
        self._seen: dict[int, tuple[Span, StorageWeakRef]] = {}  # by storage pointer, as long as anything looks there
        self.nbytes = 0  # on the device now
        self.moved = 0  # bytes fetched so far

    def __contains__(self, span: Span) -> bool:
        return span in self._blocks

    def storages(self) -> set[int]:
        """Return the storage pointers of what is here."""
        return {block.untyped_storage().data_ptr() for block in self._blocks.values()}

    def span_of(self, tensor: torch.Tensor) -> Span | None:
        """Return the span into whose device bytes `tensor` looks, be it a view of some that have been dropped."""
        span, alive = self._seen.get(storage_pointer(tensor), (None, None))
        return None if alive is None or alive.expired() else span

    def forget(self) -> None:
        """Forget what was dropped."""
        self._seen.clear()

    def fetch(self, span: Span) -> None:
        """Bring `span` to the device and let its parameters look there."""
        source = self._masters.page([span])
        block = self._device.empty(source.numel())
        block.copy_(source, non_blocking=True)
        for weight in span.weights:
            weight.parameter.data = weight.view(block, 0)
        storage = block.untyped_storage()
        self._blocks[span] = block
        self._seen[storage.data_ptr()] = span, StorageWeakRef(storage)
        self.nbytes += block.numel()
        self.moved += block.numel()

    def drop(self, spans: Iterable[Span]) -> None:
        """Let `spans` go, those of them that are here; their parameters look at the masters again."""
        for span in spans:
            block = self._blocks.pop(span, None)
            if block is not None:
                self.nbytes -= block.numel()
                if self._poison:
                    block.fill_(0xFF)
                self._masters.release([span])

    def drop_all(self) -> None:
        """Let everything go."""
        self.drop(list(self._blocks))

    def make_room(self, span: Span, budget: int, held: Callable[[Span], bool]) -> None:
        """Drop the oldest spans that are not `held` until `span` fits into `budget` bytes, as far as that goes."""
        needed = self.nbytes + aligned(span.nbytes) - budget
        for old in list(self._blocks):
            if needed <= 0:
                return
            if not held(old):
                needed -= self._blocks[old].numel()
                self.drop([old])
