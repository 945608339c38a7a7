"""Fetch on touch: copy a span to the device at the moment when somebody reads it, and drop it again.

The recorded forward runs so, and a later forward that leaves the plan stays right so. Copies run in order on the current
stream, and need no other ordering. If there is room, small spans that follow in the store come along in the same copy: they
are mostly read next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from ..card.device import Device
from ..model.inner import innermost
from ..model.units import Span, address, aligned, storage_pointer
from .pieces import Held, Piece, by_block, keep
from .store import Store, poison

_SMALL = 256 << 10  # bytes that take about as long to copy as the latency of a copy
_TOGETHER = 4 << 20  # most bytes to fetch in one copy, unless the span that is asked for is larger


@dataclass(eq=False)
class _Block:
    """Device bytes of neighbours, which begin at `starts`; the spans in `here` still point into it."""

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
        self._seen: dict[int, tuple[list[Span], list[int], StorageWeakRef]] = {}  # by storage, while a tensor views it
        self.settles = False  # a module reads on streams that we do not follow: the host waits before bytes are freed
        self.retain: Collection[Span] = ()  # spans that are dropped last
        self.nbytes = 0  # on the device now
        self.moved = 0  # bytes fetched so far

    def __contains__(self, span: Span) -> bool:
        return span in self._blocks

    def spans(self) -> set[Span]:
        """Return the spans that are here."""
        return set(self._blocks)

    def storages(self) -> set[int]:
        """Return the storage pointers of the spans that are here."""
        return {storage_pointer(block.content) for block in self._blocks.values()}

    def span_of(self, tensor: torch.Tensor) -> Span | None:
        """Return the span whose device bytes `tensor` views, dropped ones included; None if there is none."""
        spans, starts, alive = self._seen.get(storage_pointer(tensor), ([], [], None))
        if alive is None or alive.expired():
            return None
        tensor = innermost(tensor)
        return spans[bisect_right(starts, int(tensor.storage_offset()) * tensor.element_size()) - 1]

    def forget(self) -> None:
        """Forget dropped spans."""
        self._seen.clear()

    def fetch(self, span: Span, room: int = 0) -> None:
        """Copy `span`, and small spans behind it while all fit into `room`, to the device; point their parameters there.
        Without addresses the spans of a block cannot be told apart by what views them, and so none comes along."""
        along = self._behind(span, min(room, _TOGETHER)) if self._device.capabilities.addresses else []
        spans = [span, *along]
        source = self._store.bytes_of(spans)
        content = self._device.empty(source.numel())
        content.copy_(source, non_blocking=True)
        if self.settles:
            self._device.settle()
        self.moved += content.numel()
        self._take(content, spans)

    def _take(self, content: torch.Tensor, spans: list[Span]) -> None:
        """Point the parameters of `spans` into `content`, which holds them one behind the other."""
        block = _Block(content, spans, _starts(spans), set(spans))
        for each, start in zip(spans, block.starts, strict=True):
            self._blocks[each] = block
            for weight in each.weights:
                weight.look(content, start)
        storage = content.untyped_storage()
        self._seen[address(storage)] = spans, block.starts, StorageWeakRef(storage)
        self.nbytes += content.numel()

    def adopt(self, held: Held, room: int) -> None:
        """Take over spans that are on the device already, as many as fit into `room` bytes; `held` is emptied."""
        keep(held, set(held), self._device, room)
        for spans in by_block(held):
            block = held[spans[0]].block
            if self.nbytes + block.numel() <= room:
                self._take(block, spans)
        held.clear()

    def let_go(self) -> Held:
        """Hand over the spans that are here; their parameters point to the masters again."""
        held = {span: Piece(block.content, block.start(span)) for span, block in self._blocks.items()}
        self._store.return_home(self._blocks)
        self._blocks, self.nbytes = {}, 0
        return held

    def drop(self, spans: Iterable[Span]) -> None:
        """Drop those of `spans` that are here; their parameters point to the masters again."""
        for span in spans:
            block = self._blocks.pop(span, None)
            if block is None:
                continue
            if self.settles:
                self._device.settle()
            block.here.discard(span)
            if not block.here:
                self.nbytes -= block.content.numel()
            if self._poison:
                block.part(span).fill_(0xFF)
                if self.settles:
                    self._device.settle()
            self._store.release([span])

    def drop_all(self) -> None:
        """Drop all spans."""
        self.drop(list(self._blocks))

    def make_room(self, span: Span, budget: int, in_use: Callable[[Span], bool]) -> None:
        """Drop the oldest spans that are not `in_use` until `span`, and some that may come along, fit into `budget` bytes,
        as far as possible. Spans to retain go last."""
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
        """Return the neighbours that follow `span` in the store and fit with it into `room` bytes. They end at a span that
        is here already, and at a large one if only one of it and `span` is to be retained."""
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
