"""One card, shared by all models of this process: the bytes that each owner claims, and the peak of one model's forwards.

Claims are read when they matter, never kept from an earlier moment (docs/adr/0013-claims-on-a-card.md).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from .device import Device

Owner = TypeVar("Owner")


class Peak:
    """The most device bytes that one owner has used since the last `take`. Ends with its `with` block, or when collected."""

    def __init__(self, card: Card, owner: object) -> None:
        self._card, self._owner = card, owner
        self._most = 0
        card.fold_peaks()
        card.peaks.add(self)

    def __enter__(self) -> Peak:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def bytes(self) -> int:
        """Return the peak so far, in bytes."""
        self.fold()
        return self._most

    def take(self) -> int:
        """Return the peak so far, in bytes, and start again from the bytes in use now."""
        self._card.fold_peaks()
        most, self._most = self._most, 0
        return most

    def end(self) -> None:
        """Stop measuring. Idempotent."""
        self._card.peaks.discard(self)

    def fold(self) -> None:
        """Take in the device's peak since its counter was last reset."""
        self._most = max(self._most, self._card.device.peak() - self._card.others(self._owner))


class Card:
    """A device and the claims on it. Sizes are bytes."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.peaks: weakref.WeakSet[Peak] = weakref.WeakSet()
        self._claims: weakref.WeakKeyDictionary[Any, Callable[[Any], int]] = weakref.WeakKeyDictionary()
        self._found: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()

    def join(self, owner: object) -> None:
        """Note that `owner` arrives: bytes in use now that nobody claims are not the owner's."""
        self._found[owner] = max(0, self.device.allocated() - self._claimed(but=owner))

    def claim(self, owner: Owner, held: Callable[[Owner], int]) -> None:
        """Ask `held(owner)` from now on for the bytes that `owner` holds. The card does not keep the owner alive."""
        self._claims[owner] = held

    def leave(self, owner: object) -> None:
        """Forget `owner`, which holds nothing any more. Idempotent."""
        self._claims.pop(owner, None)
        self._found.pop(owner, None)

    def others(self, owner: object) -> int:
        """Return the bytes that are not the owner's: the claims of others now, and those unclaimed when it arrived."""
        return self._found.get(owner, 0) + self._claimed(but=owner)

    def used(self, owner: object) -> int:
        """Return the bytes that `owner` uses now, activations and results included."""
        return max(0, self.device.allocated() - self.others(owner))

    def free(self, owner: object) -> int:
        """Return the bytes that `owner` may use: the free ones, and those it uses already."""
        return self.device.memory()[0] + self.used(owner)

    def measured(self, owner: object) -> Peak:
        """Start to measure the peak of `owner`; return the measurement. Several may run at the same time."""
        return Peak(self, owner)

    def fold_peaks(self) -> None:
        """Let every measurement take in the device's counter, which they share, and reset it."""
        for peak in list(self.peaks):
            peak.fold()
        self.device.reset_peak()

    def _claimed(self, *, but: object) -> int:
        return sum(held(owner) for owner, held in list(self._claims.items()) if owner is not but)


_cards: dict[torch.device, Card] = {}
_opening = threading.Lock()


def card_of(found: torch.device, open_device: Callable[[torch.device], Device]) -> Card:
    """Return this process's one card for the device `found`. The first call makes its device with `open_device`."""
    where = torch.empty(0, device=found).device  # with its index
    with _opening:
        if where not in _cards:
            _cards[where] = Card(open_device(found))
        return _cards[where]
