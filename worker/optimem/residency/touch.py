"""Fetch on touch: bring a span to the device at the moment when somebody reads it, and let it go again.

This is how the recorded forward runs, and how a later forward that leaves the plan stays right. Copies run in order on the
current stream, so that nothing else needs to be ordered. Where room is given, small spans that follow in the slab come along
in the same copy: they are mostly read next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from ..card.device import Device
from ..model.units import Span, aligned, storage_pointer
from .pieces import Held, Piece, by_block, keep
from .store import Store, poison

_SMALL = 256 << 10  # bytes that take about as long to copy as a copy takes to begin
_TOGETHER = 4 << 20  # bytes of spans that are fetched in one copy, if the one that is asked for is not larger by itself


@dataclass(eq=False)
class _Block:
    """Device bytes of neighbours, which begin at `starts`; `here` are those that still look into it."""

    content: torch.Tensor
    spans: list[Span]
    starts: list[int]
    here: set[Span] = field(default_factory=set)

    def start(self, span: Span) -> int:
        return self.starts[self.spans.index(span)]

    def part(self, span: Span) -> torch.Tensor:
        return self.content[self.start(span) :][: aligned(span.nbytes)]


class Touched:
    """The spans that are on the device because they were touched, in the order of fetching."""

    def __init__(self, device: Device, store: Store) -> None:
        self._device = device
        self._store = store
        self._poison = poison()
        self._blocks: dict[Span, _Block] = {}
        self._seen: dict[int, tuple[list[Span], list[int], StorageWeakRef]] = {}  # by storage, while anything looks there
        self.retain: Collection[Span] = ()  # what is let go after all else
        self.nbytes = 0  # on the device now
        self.moved = 0  # bytes fetched so far

    def __contains__(self, span: Span) -> bool:
        return span in self._blocks

    def spans(self) -> set[Span]:
        """Return what is here."""
        return set(self._blocks)

    def storages(self) -> set[int]:
        """Return the storage pointers of what is here."""
        return {block.content.untyped_storage().data_ptr() for block in self._blocks.values()}

    def span_of(self, tensor: torch.Tensor) -> Span | None:
        """Return the span into whose device bytes `tensor` looks, be it a view of some that have been dropped."""
        spans, starts, alive = self._seen.get(storage_pointer(tensor), ([], [], None))
        if alive is None or alive.expired():
            return None
        return spans[bisect_right(starts, int(tensor.storage_offset()) * tensor.element_size()) - 1]

    def forget(self) -> None:
        """Forget what was dropped."""
        self._seen.clear()

    def fetch(self, span: Span, room: int = 0) -> None:
        """Bring `span`, and small ones behind it, to the device and let their parameters look there; `room` limits both."""
        spans = [span, *self._behind(span, min(room, _TOGETHER))]
        source = self._store.bytes_of(spans)
        content = self._device.empty(source.numel())
        content.copy_(source, non_blocking=True)
        self.moved += content.numel()
        self._take(content, spans)

    def _take(self, content: torch.Tensor, spans: list[Span]) -> None:
        """Let the parameters of `spans` look into `content`, which holds them one behind the other."""
        block = _Block(content, spans, _starts(spans), set(spans))
        for each, start in zip(spans, block.starts, strict=True):
            self._blocks[each] = block
            for weight in each.weights:
                weight.look(content, start)
        storage = content.untyped_storage()
        self._seen[storage.data_ptr()] = spans, block.starts, StorageWeakRef(storage)
        self.nbytes += content.numel()

    def adopt(self, held: Held, room: int) -> None:
        """Take over what is on the device already, as much as fits into `room` bytes; `held` is emptied."""
        keep(held, set(held), self._device, room)
        for spans in by_block(held):
            block = held[spans[0]].block
            if self.nbytes + block.numel() <= room:
                self._take(block, spans)
        held.clear()

    def let_go(self) -> Held:
        """Hand over what is here; the parameters look at the masters again."""
        held = {span: Piece(block.content, block.start(span)) for span, block in self._blocks.items()}
        self._store.return_home(self._blocks)
        self._blocks, self.nbytes = {}, 0
        return held

    def drop(self, spans: Iterable[Span]) -> None:
        """Let `spans` go, those of them that are here; their parameters look at the masters again."""
        for span in spans:
            block = self._blocks.pop(span, None)
            if block is None:
                continue
            block.here.discard(span)
            if not block.here:
                self.nbytes -= block.content.numel()
            if self._poison:
                block.part(span).fill_(0xFF)
            self._store.release([span])

    def drop_all(self) -> None:
        """Let everything go."""
        self.drop(list(self._blocks))

    def make_room(self, span: Span, budget: int, in_use: Callable[[Span], bool]) -> None:
        """Drop the oldest that is not `in_use` until `span`, and some that may come along, fit into `budget` bytes, as far
        as that goes; what is to be retained goes after all else."""
        needed = self.nbytes + max(aligned(span.nbytes), min(_TOGETHER, budget // 8)) - budget
        if needed <= 0:
            return
        for block in sorted(dict.fromkeys(self._blocks.values()), key=lambda block: block.spans[0] in self.retain):
            if needed <= 0:
                return
            if not any(map(in_use, block.here)):
                needed -= block.content.numel()
                self.drop(list(block.here))

    def _behind(self, span: Span, room: int) -> list[Span]:
        """Return the neighbours that follow `span` in the slab and fit with it into `room` bytes, up to the first that is
        here already, or that is large and to be retained where `span` is not, or the other way round."""
        found, taken = [], aligned(span.nbytes)
        for each in self._store.behind(span):
            taken += aligned(each.nbytes)
            apart = (each in self.retain) != (span in self.retain) and each.nbytes > _SMALL
            if taken > room or each in self._blocks or apart:
                break
            found.append(each)
        return found


def _starts(spans: Iterable[Span]) -> list[int]:
    starts, end = [], 0
    for span in spans:
        starts.append(end)
        end += aligned(span.nbytes)
    return starts
