"""The masters: every pageable weight's home in RAM, in one slab of host memory, page-locked if possible.

The slab starts in the order of registration. If pages want other neighbours, as few bytes as possible move within the slab.
If somebody else views the slab, the weights move to a new one, and the viewer keeps the old bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import torch

from ..card.device import Device
from ..card.hostmemory import HostMemory, trim
from ..model.inner import innermost, is_plain
from ..model.units import Span, aligned, storage_pointer, use_count
from ..model.weights import Looks, Paged, go_home
from .probe import Probe
from .store import poison

_TRIM = 16 << 20  # freed bytes that the C library may keep while the weights move in


class RamStore:
    """The `Store` of weights that fit into RAM. Owns the slab."""

    def __init__(self, device: Device, spans: Sequence[Span]) -> None:
        self._device = device
        self._at = _layout(spans)
        self._poison = poison()
        self._by_tensor = _by_tensor(spans)
        self._memory = HostMemory(device, sum(aligned(span.nbytes) for span in spans))
        self.slab = self._memory.bytes
        self._gather(spans)
        self._settle_in(spans, [])
        self._memory.lock()

    @property
    def pinned_bytes(self) -> int:
        """Bytes of page-locked memory in use, 0 if the slab is pageable."""
        nbytes = self.slab.untyped_storage().nbytes()  # a number while torch.jit.trace runs too
        return nbytes if nbytes and self.slab.is_pinned() else 0

    def sample(self) -> torch.Tensor:
        """See `Store`: the whole slab."""
        return self.slab

    def home_of(self, weight: Paged) -> Looks:
        """See `Store`."""
        return weight.home

    def note_words(self) -> None:
        """See `Store`."""
        self._probe.note()

    def was_written(self) -> bool:
        """See `Store`."""
        return self._probe.changed()

    def storages(self) -> set[int]:
        """See `Store`: the slab's alone."""
        return {self.slab.untyped_storage().data_ptr()}

    def insert(self, spans: Sequence[Span]) -> None:
        """See `Store`. RAM holds the old slab and the new one for a moment."""
        self._by_tensor |= _by_tensor(spans)
        order = [*self._order, *spans]
        self._move_out(order, _layout(order))

    def remove(self, spans: Sequence[Span]) -> None:
        """See `Store`. RAM holds the old slab and the new one for a moment."""
        gone = set(spans)
        for span in spans:
            self._give_away(span)
        order = [span for span in self._order if span not in gone]
        self._by_tensor = _by_tensor(order)
        self._move_out(order, _layout(order))

    def bytes_of(self, spans: Sequence[Span]) -> torch.Tensor:
        """See `Store`."""
        start = self._at[spans[0]]
        end = start
        for span in spans:
            if self._at[span] != end:
                raise ValueError(f"{span.weights[0].name} does not follow its neighbour in the slab")
            end += aligned(span.nbytes)
        return self.slab[start:end]

    def behind(self, span: Span) -> Iterator[Span]:
        """See `Store`."""
        for index in range(self._index[span] + 1, len(self._order)):
            yield self._order[index]

    def in_order(self, spans: Iterable[Span]) -> list[Span]:
        """See `Store`."""
        return sorted(spans, key=self._index.__getitem__)

    def with_neighbours(self, pages: Iterable[Sequence[Span]]) -> list[Span]:
        """See `Store`."""
        page_of = {span: spans for page in pages for spans in [self.in_order(page)] for span in spans}
        return list(dict.fromkeys(span for old in self._order for span in page_of.get(old, (old,))))

    def arrange(self, order: Sequence[Span]) -> None:
        """See `Store`. Moves only the runs of spans in which both orders differ.

        Of our own tensors only parameters and their homes may view the slab.
        """
        wanted = _layout(order)
        if wanted != self._at and self._is_shared():
            self._move_out(order, wanted)
            return
        for old, new in _windows(self._order, order):
            low = self._at[old[0]]
            high = self._at[old[-1]] + aligned(old[-1].nbytes)
            aside = self.slab[low:high].clone()
            for span in new:
                source = aside[self._at[span] - low :][: span.nbytes]
                self.slab[wanted[span] :][: span.nbytes].copy_(source)
        moved = [span for span in order if wanted[span] != self._at[span]]
        self._at = wanted
        self._settle_in(order, moved)

    def _is_shared(self) -> bool:
        """Tell whether tensors other than ours view the slab: a state_dict, an alias that the model keeps."""
        slab = self.slab.untyped_storage()
        weights = [weight for span in self._at for weight in span.weights]
        plain = [part.parameter for weight in weights for part in weight.parts]
        views = [view for weight in weights for _, view in weight.home if is_plain(view)]
        bases = {id(view._base): view._base for view in views if view._base is not None}
        ours = [self.slab, self._probe.words, *views, *bases.values(), *plain]
        return use_count(slab) > sum(storage_pointer(tensor) == slab.data_ptr() for tensor in ours)

    def _move_out(self, order: Sequence[Span], wanted: dict[Span, int]) -> None:
        """Move to a new slab that is laid out in `order`, and leave the old one to its other viewers."""
        memory = HostMemory(self._device, sum(aligned(span.nbytes) for span in order))
        for span in order:
            target = memory.bytes[wanted[span] :][: span.nbytes]
            if span in self._at:
                target.copy_(self._at_span(span))
            else:
                span.copy_to(target)
        self._memory.unlock()
        self._memory, self.slab, self._at = memory, memory.bytes, wanted
        self._settle_in(order, order)
        self._memory.lock()

    def return_home(self, spans: Iterable[Span]) -> None:
        """See `Store`."""
        for span in spans:
            go_home(span.weights)

    def come_home(self) -> None:
        """See `Store`."""
        self.return_home(self._order)

    def release(self, spans: Iterable[Span]) -> None:
        """See `Store`."""
        if not self._poison:
            self.return_home(spans)
            return
        for span in spans:
            for weight in span.weights:
                weight.look_nowhere()

    def span_of(self, tensor: torch.Tensor) -> Span | None:
        """See `Store`."""
        known = self._by_tensor.get(id(tensor))
        if known is None and storage_pointer(tensor) == self.slab.untyped_storage().data_ptr():
            tensor = innermost(tensor)
            index = bisect_right(self._starts, int(tensor.storage_offset()) * tensor.element_size()) - 1
            return self._order[index] if index >= 0 else None
        return known

    def leave(self) -> None:
        """See `Store`. The slab is pageable again, and free unless others view it."""
        for span in self._at:
            self._give_away(span)
        self._memory.unlock()
        self._at, self._memory = {}, HostMemory(self._device, 0)
        self.slab = self._memory.bytes
        self._settle_in([], [])

    def _give_away(self, span: Span) -> None:
        """Point the parameters of `span` to a storage of their own."""
        with torch.inference_mode(False):
            span.leave(self._at_span(span))

    def _gather(self, spans: Sequence[Span]) -> None:
        """Move the weights in one by one. Each move frees its source: RAM never holds the weights twice."""
        untrimmed = 0
        for span in spans:
            span.copy_to(self._at_span(span))
            self._move_in(span)
            untrimmed += span.nbytes
            if untrimmed > max(_TRIM, self.slab.numel() // 8):
                trim()
                untrimmed = 0
        trim()

    def _settle_in(self, order: Sequence[Span], moved: Iterable[Span]) -> None:
        self._order = list(order)
        self._index = {span: index for index, span in enumerate(order)}
        self._starts = [self._at[span] for span in order]
        for span in moved:
            self._move_in(span)
        parts = ((self._at[span], part) for span in order for weight in span.weights for part in weight.parts)
        self._probe = Probe(self.slab, ((at + part.start, part.nbytes) for at, part in parts))

    def _move_in(self, span: Span) -> None:
        for weight in span.weights:
            weight.settle(self.slab, self._at[span])

    def _at_span(self, span: Span) -> torch.Tensor:
        return self.slab[self._at[span] :][: span.nbytes]


def _by_tensor(spans: Iterable[Span]) -> dict[int, Span]:
    """Return the span of every weight and of every tensor in it, by their ids."""
    weights = [(span, weight) for span in spans for weight in span.weights]
    parts = {id(part.parameter): span for span, weight in weights for part in weight.parts}
    return parts | {id(weight.parameter): span for span, weight in weights}


def _layout(spans: Sequence[Span]) -> dict[Span, int]:
    at, end = {}, 0
    for span in spans:
        at[span] = end
        end += aligned(span.nbytes)
    return at


def _windows(old: Sequence[Span], new: Sequence[Span]) -> list[tuple[list[Span], list[Span]]]:
    """Cut both orders wherever the same spans lie before the cut; return the pieces that differ."""
    pieces: list[tuple[list[Span], list[Span]]] = []
    start, only_old, only_new = 0, set[Span](), set[Span]()
    for index, (left, right) in enumerate(zip(old, new, strict=True)):
        only_old ^= {left}
        only_new ^= {right}
        if only_old == only_new:
            if old[start : index + 1] != new[start : index + 1]:
                pieces.append((list(old[start : index + 1]), list(new[start : index + 1])))
            start, only_old, only_new = index + 1, set(), set()
    return pieces
