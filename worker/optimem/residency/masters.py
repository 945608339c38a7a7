"""The masters: every pageable weight's home, one slab of host memory, page-locked where that can be had.

The slab starts in the order of registration. Where pages want other neighbours, as few bytes as may be are moved: within the
slab, or to another one where somebody else looks into this one, who keeps the old bytes.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import torch

from ..card.device import Device
from ..card.hostmemory import HostMemory, trim
from ..model.units import Span, Weight, aligned, storage_pointer, use_count

_TRIM = 16 << 20  # freed bytes that the C library may keep while the weights move in


class Masters:
    """Owns the slab. While it lives, the parameters of all spans look into it whenever they are not on the device."""

    def __init__(self, device: Device, spans: Sequence[Span]) -> None:
        self._device = device
        self._at = _layout(spans)
        self._poison = poison()
        self._by_parameter = {id(weight.parameter): span for span in spans for weight in span.weights}
        self._memory = HostMemory(device, sum(aligned(span.nbytes) for span in spans))
        self.slab = self._memory.bytes
        self.home: dict[Weight, torch.Tensor] = {}  # how each weight looks into the slab
        self._gather(spans)
        self._settle_in(spans, [])
        self._memory.lock()

    @property
    def pinned_bytes(self) -> int:
        """Bytes of page-locked memory in use, 0 where the slab is pageable."""
        return self.slab.numel() if self.slab.numel() and self.slab.is_pinned() else 0

    def page(self, spans: Sequence[Span]) -> torch.Tensor:
        """Return the bytes of `spans`, which must be neighbours in this order."""
        start = self._at[spans[0]]
        end = start
        for span in spans:
            if self._at[span] != end:
                raise ValueError(f"{span.weights[0].name} does not follow its neighbour in the slab")
            end += aligned(span.nbytes)
        return self.slab[start:end]

    def behind(self, span: Span) -> Iterator[Span]:
        """Yield the spans that follow `span` in the slab."""
        for index in range(self._index[span] + 1, len(self._order)):
            yield self._order[index]

    def in_order(self, spans: Iterable[Span]) -> list[Span]:
        """Return `spans` in the order in which they lie in the slab."""
        return sorted(spans, key=self._index.__getitem__)

    def with_neighbours(self, pages: Iterable[Sequence[Span]]) -> list[Span]:
        """Return the order that is nearest to the present one and in which the spans of each page are neighbours: they come
        to where the first of them lies. Pages have no span in common."""
        page_of = {span: spans for page in pages for spans in [self.in_order(page)] for span in spans}
        return list(dict.fromkeys(span for old in self._order for span in page_of.get(old, (old,))))

    def arrange(self, order: Sequence[Span]) -> None:
        """Bring the spans into `order`, moving only what lies between places where both orders hold the same spans.

        No copy from the slab may be in flight, and nothing of ours but parameters and `home` may look into it.
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
        """Tell whether more looks into the slab than what we know: a state_dict, an alias that the model keeps."""
        slab = self.slab.untyped_storage()
        parameters = [weight.parameter for span in self._at for weight in span.weights]
        bases = {id(view._base): view._base for view in self.home.values() if view._base is not None}
        ours = [self.slab, *self.home.values(), *bases.values(), *parameters]
        return use_count(slab) > sum(storage_pointer(tensor) == slab.data_ptr() for tensor in ours)

    def _move_out(self, order: Sequence[Span], wanted: dict[Span, int]) -> None:
        """Leave the slab to those who look into it."""
        memory = HostMemory(self._device, self.slab.numel())
        for span in order:
            memory.bytes[wanted[span] :][: span.nbytes].copy_(self._at_span(span))
        self._memory.unlock()
        self._memory, self.slab, self._at = memory, memory.bytes, wanted
        self._settle_in(order, order)
        self._memory.lock()

    def return_home(self, spans: Iterable[Span]) -> None:
        """Let the parameters of `spans` look into the slab."""
        for span in spans:
            for weight in span.weights:
                weight.parameter.data = self.home[weight]

    def come_home(self) -> None:
        """Let all parameters look into the slab."""
        self.return_home(self._order)

    def release(self, spans: Iterable[Span]) -> None:
        """Let the parameters of `spans`, just released, look into the slab; with OPTIMEM_POISON=1 at NaN instead, until
        `return_home`, so that a reader that holds nothing cannot be right by luck."""
        if not self._poison:
            self.return_home(spans)
            return
        for span in spans:
            for weight in span.weights:
                weight.parameter.data = _nothing(weight)

    def span_of(self, tensor: torch.Tensor) -> Span | None:
        """Return the span of which `tensor` is a parameter, or into whose bytes in the slab it looks."""
        known = self._by_parameter.get(id(tensor))
        if known is None and storage_pointer(tensor) == self.slab.untyped_storage().data_ptr():
            index = bisect_right(self._starts, int(tensor.storage_offset()) * tensor.element_size()) - 1
            return self._order[index] if index >= 0 else None
        return known

    def leave(self) -> None:
        """Give every span a storage of its own again and let the parameters look into it. The slab is pageable again."""
        for span in self._at:
            with torch.inference_mode(False):
                own = span.own(self._at_span(span))
            for weight in span.weights:
                weight.parameter.data = weight.view(own, 0)
        self.home.clear()
        self._memory.unlock()

    def _gather(self, spans: Sequence[Span]) -> None:
        """Move the weights in one by one, which frees what they were copied from: RAM never holds them twice."""
        untrimmed = 0
        for span in spans:
            self._at_span(span).copy_(span.source())
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

    def _move_in(self, span: Span) -> None:
        for weight in span.weights:
            self.home[weight] = weight.view(self.slab, self._at[span])
        self.return_home([span])

    def _at_span(self, span: Span) -> torch.Tensor:
        return self.slab[self._at[span] :][: span.nbytes]


def poison() -> bool:
    """Tell whether released bytes are to be filled with NaN, which is for tests and for hunting wrong readers."""
    return os.environ.get("OPTIMEM_POISON") == "1"


def _nothing(weight: Weight) -> torch.Tensor:
    """Return a tensor of the weight's shape whose every byte is 0xFF: NaN for every float."""
    with torch.inference_mode(weight.inference):
        one = torch.full((weight.dtype.itemsize,), 0xFF, dtype=torch.uint8).view(weight.dtype)
        return one.expand(weight.size)


def _layout(spans: Sequence[Span]) -> dict[Span, int]:
    at, end = {}, 0
    for span in spans:
        at[span] = end
        end += aligned(span.nbytes)
    return at


def _windows(old: Sequence[Span], new: Sequence[Span]) -> list[tuple[list[Span], list[Span]]]:
    """Cut both orders at every place where the same spans lie before it; return the pieces that differ."""
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
