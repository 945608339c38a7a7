"""Bytes of weights on the device, whatever brought them there: how one plan's residents become the next one's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch

from .device import Device
from .units import Span, aligned


class Piece(NamedTuple):
    """Where the bytes of a span are: from byte `at` of a block."""

    block: torch.Tensor
    at: int


Held = dict[Span, Piece]


def keep(held: Held, wanted: Collection[Span], device: Device) -> None:
    """Let go of all in `held` that is not `wanted`. What shares its block with such is copied out of it."""
    given_up = {id(piece.block) for span, piece in held.items() if span not in wanted}
    for span, (block, at) in list(held.items()):
        if span not in wanted:
            del held[span]
        elif id(block) in given_up:
            size = aligned(span.nbytes)
            held[span] = Piece(device.empty(size).copy_(block[at:][:size]), 0)


def in_one_block(spans: Sequence[Span], block: torch.Tensor) -> Held:
    """Say where the bytes of `spans` are that lie in `block` one behind the other."""
    held, at = {}, 0
    for span in spans:
        held[span] = Piece(block, at)
        at += aligned(span.nbytes)
    return held


def gaps(spans: Sequence[Span], held: Held) -> list[tuple[int, list[Span]]]:
    """Return the runs of neighbours in `spans` that are not `held`, and the byte of the page at which each begins."""
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
