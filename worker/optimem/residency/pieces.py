"""Weights on the device, however they came there: how one plan's residents become the next one's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch

from ..card.device import Device
from ..model.units import Span, aligned


class Piece(NamedTuple):
    """The place of a span's bytes: from byte `at` of a block."""

    block: torch.Tensor
    at: int


Held = dict[Span, Piece]


def keep(held: Held, wanted: Collection[Span], device: Device, room: int) -> None:
    """Drop the spans in `held` that are not `wanted`. A span that shares its block with dropped ones is copied out of it, if
    all that is held and the copies of that block fit into `room` bytes; else it is dropped too."""
    for span in [span for span in held if span not in wanted]:
        del held[span]
    taken = sum(held[spans[0]].block.numel() for spans in by_block(held))
    for spans in by_block(held):
        part, whole = sum(aligned(span.nbytes) for span in spans), held[spans[0]].block.numel()
        if part < whole:
            fits = taken + part <= room
            _leave_block(held, spans, device, copy=fits)
            taken += part * fits - whole


def by_block(held: Held) -> list[list[Span]]:
    """Return the spans of each block, in the order in which they lie there."""
    spans: dict[int, list[Span]] = {}
    for span, piece in sorted(held.items(), key=lambda item: item[1].at):
        spans.setdefault(id(piece.block), []).append(span)
    return list(spans.values())


def _leave_block(held: Held, spans: Sequence[Span], device: Device, *, copy: bool) -> None:
    for span in spans:
        block, at = held.pop(span)
        if copy:
            size = aligned(span.nbytes)
            held[span] = Piece(device.empty(size).copy_(block[at:][:size]), 0)


def in_one_block(spans: Sequence[Span], block: torch.Tensor) -> Held:
    """Return the pieces of `spans`, which lie in `block` one behind the other."""
    held, at = {}, 0
    for span in spans:
        held[span] = Piece(block, at)
        at += aligned(span.nbytes)
    return held


def gaps(spans: Sequence[Span], held: Held) -> list[tuple[int, list[Span]]]:
    """Return the runs of neighbours in `spans` that are not `held`, each with the byte of the page at which it begins."""
    runs: list[tuple[int, list[Span]]] = []
    at, after_gap = 0, False
    for span in spans:
        missing = span not in held
        if missing and after_gap:
            runs[-1][1].append(span)
        elif missing:
            runs.append((at, [span]))
        at, after_gap = at + aligned(span.nbytes), missing
    return runs
