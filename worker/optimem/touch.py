"""Fetch on touch: bring a span to the device at the moment when somebody reads it, and let it go again.

This is how the recorded forward runs, and how a later forward that leaves the plan stays right. Copies run in order on the
current stream, so that nothing else needs to be ordered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from .device import Device
from .held import Held, Piece
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
        self.moved += block.numel()
        self._keep(span, block)

    def _keep(self, span: Span, block: torch.Tensor) -> None:
        for weight in span.weights:
            weight.parameter.data = weight.view(block, 0)
        storage = block.untyped_storage()
        self._blocks[span] = block
        self._seen[storage.data_ptr()] = span, StorageWeakRef(storage)
        self.nbytes += block.numel()

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

    def make_room(self, span: Span, budget: int, in_use: Callable[[Span], bool], retain: Collection[Span] = ()) -> None:
        """Drop the oldest spans that are not `in_use` until `span` fits into `budget` bytes, as far as that goes; those to
        `retain` after all others."""
        needed = self.nbytes + aligned(span.nbytes) - budget
        if needed <= 0:
            return
        for old in sorted(self._blocks, key=lambda known: known in retain):
            if needed > 0 and not in_use(old):
                needed -= self._blocks[old].numel()
                self.drop([old])

    def adopt(self, held: Held, room: int) -> None:
        """Take over what is on the device already, as much as fits into `room` bytes; `held` is emptied."""
        for span in list(held):
            block, at = held.pop(span)
            size = aligned(span.nbytes)
            if span not in self._blocks and self.nbytes + size <= room:
                self._keep(span, block if block.numel() == size else self._device.empty(size).copy_(block[at:][:size]))

    def let_go(self) -> Held:
        """Hand over what is here; the parameters look at the masters again."""
        held = {span: Piece(block, 0) for span, block in self._blocks.items()}
        self._masters.return_home(self._blocks)
        self._blocks, self.nbytes = {}, 0
        return held
