"""Where weights are at home. `ramstore` keeps them in RAM; another tier is another `Store`.

A store owns the homes: a weight that is not on the device points to its home (docs/adr/0014-a-store-for-homes.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch

from ..model.units import Span
from ..model.weights import Looks, Paged


class Store(Protocol):
    """The homes of all pageable weights, in one order of spans. Pages are copied from the store, and never back."""

    @property
    def pinned_bytes(self) -> int:
        """Bytes of page-locked memory in use."""
        ...

    def bytes_of(self, spans: Sequence[Span]) -> torch.Tensor:
        """Return the bytes of `spans`, which must be neighbours in this order: uint8 on the host, alignment included."""
        ...

    def home_of(self, weight: Paged) -> Looks:
        """Return the looks that point `weight` to its home."""
        ...

    def insert(self, spans: Sequence[Span]) -> None:
        """Add `spans` behind all others. No copy from the store may be in flight."""
        ...

    def remove(self, spans: Sequence[Span]) -> None:
        """Give `spans` storages of their own again, and forget them. No copy from the store may be in flight."""
        ...

    def sample(self) -> torch.Tensor:
        """Return host bytes such as pages are copied from, to measure the link with."""
        ...

    def behind(self, span: Span) -> Iterator[Span]:
        """Yield the spans that follow `span`."""
        ...

    def in_order(self, spans: Iterable[Span]) -> list[Span]:
        """Return `spans` in the order of the store."""
        ...

    def with_neighbours(self, pages: Iterable[Sequence[Span]]) -> list[Span]:
        """Return the order nearest to the present one in which the spans of each page are neighbours: they move to the place
        of the page's first span. Pages have no span in common."""
        ...

    def arrange(self, order: Sequence[Span]) -> None:
        """Bring the spans into `order`. No copy from the store may be in flight."""
        ...

    def return_home(self, spans: Iterable[Span]) -> None:
        """Point the parameters of `spans` to their homes."""
        ...

    def come_home(self) -> None:
        """Point all parameters to their homes. Does nothing after `leave`."""
        ...

    def release(self, spans: Iterable[Span]) -> None:
        """Point the parameters of `spans`, just released, to their homes; with OPTIMEM_POISON=1 to NaN instead, until
        `return_home`, so that a reader that has not acquired them cannot be right by luck."""
        ...

    def span_of(self, tensor: torch.Tensor) -> Span | None:
        """Return the span that `tensor` is a parameter of, or whose home it views; None if there is none."""
        ...

    def note_words(self) -> None:
        """Remember some words of every home."""
        ...

    def was_written(self) -> bool:
        """Tell whether some of these words have changed since, which torch may not have counted."""
        ...

    def storages(self) -> set[int]:
        """Return the storage pointers of all homes."""
        ...

    def leave(self) -> None:
        """Give every span a storage of its own again and point its parameters there. Idempotent."""
        ...


def poison() -> bool:
    """Tell whether released bytes are filled with NaN, for tests and to find wrong readers."""
    return os.environ.get("OPTIMEM_POISON") == "1"
