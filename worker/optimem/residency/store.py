"""Where weights are at home. `ramstore` keeps them in RAM; another tier is another `Store`.

A store owns the homes: while it lives, a weight that is not on the device looks at its home.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch

from ..model.units import Span
from ..model.weights import Looks, Weight


class Store(Protocol):
    """The homes of all pageable weights, in one order of spans. Pages are copied from it, and nothing is copied back."""

    @property
    def pinned_bytes(self) -> int:
        """Bytes of page-locked memory in use."""
        ...

    def bytes_of(self, spans: Sequence[Span]) -> torch.Tensor:
        """Return the bytes of `spans`, which must be neighbours in this order: uint8 on the host, alignment included."""
        ...

    def home_of(self, weight: Weight) -> Looks:
        """Return how `weight` looks at its home."""
        ...

    def insert(self, spans: Sequence[Span]) -> None:
        """Take in more spans, behind all others. No copy from the store may be in flight."""
        ...

    def remove(self, spans: Sequence[Span]) -> None:
        """Give `spans` storages of their own again, and forget them. No copy from the store may be in flight."""
        ...

    def sample(self) -> torch.Tensor:
        """Return host bytes as pages are copied from: what the link is measured with."""
        ...

    def behind(self, span: Span) -> Iterator[Span]:
        """Yield the spans that follow `span`."""
        ...

    def in_order(self, spans: Iterable[Span]) -> list[Span]:
        """Return `spans` in the order of the store."""
        ...

    def with_neighbours(self, pages: Iterable[Sequence[Span]]) -> list[Span]:
        """Return the order that is nearest to the present one and in which the spans of each page are neighbours: they come
        to where the first of them lies. Pages have no span in common."""
        ...

    def arrange(self, order: Sequence[Span]) -> None:
        """Bring the spans into `order`. No copy from the store may be in flight."""
        ...

    def return_home(self, spans: Iterable[Span]) -> None:
        """Let the parameters of `spans` look at their homes."""
        ...

    def come_home(self) -> None:
        """Let all parameters look at their homes. Does nothing once `leave` was called."""
        ...

    def release(self, spans: Iterable[Span]) -> None:
        """Let the parameters of `spans`, just released, look at their homes; with OPTIMEM_POISON=1 at NaN instead, until
        `return_home`, so that a reader that holds nothing cannot be right by luck."""
        ...

    def span_of(self, tensor: torch.Tensor) -> Span | None:
        """Return the span of which `tensor` is a parameter, or into whose home it looks."""
        ...

    def storages(self) -> set[int]:
        """Return the storage pointers of all homes."""
        ...

    def leave(self) -> None:
        """Give every span a storage of its own again and let the parameters look into it. Idempotent."""
        ...


def poison() -> bool:
    """Tell whether released bytes are to be filled with NaN, which is for tests and for hunting wrong readers."""
    return os.environ.get("OPTIMEM_POISON") == "1"
