"""One card, shared by all models of this process: who holds how much of it, and what one model's forward takes.

Claims are read at the moment when they matter, so that what others hold is what they hold now.
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
    """The most device bytes that one owner has used since the latest `take`. Ends with its `with` block, or with itself."""

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
        """Return the most so far, in bytes."""
        self.fold()
        return self._most

    def take(self) -> int:
        """Return the most so far, in bytes, and begin anew at what is in use now."""
        self._card.fold_peaks()
        most, self._most = self._most, 0
        return most

    def end(self) -> None:
        """Measure no more. Idempotent."""
        self._card.peaks.discard(self)

    def fold(self) -> None:
        """Take in what the device has seen since its counter was last reset."""
        self._most = max(self._most, self._card.device.peak() - self._card.others(self._owner))


class Card:
    """A device and the claims on it. Sizes are bytes."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.peaks: weakref.WeakSet[Peak] = weakref.WeakSet()
        self._claims: weakref.WeakKeyDictionary[Any, Callable[[Any], int]] = weakref.WeakKeyDictionary()
        self._found: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()

    def join(self, owner: object) -> None:
        """Note that `owner` comes: what is in use now and nobody claims is not the owner's."""
        self._found[owner] = max(0, self.device.allocated() - self._claimed(but=owner))

    def claim(self, owner: Owner, held: Callable[[Owner], int]) -> None:
        """Let `held(owner)` tell from now on how many bytes `owner` holds. The card does not keep the owner alive."""
        self._claims[owner] = held

    def leave(self, owner: object) -> None:
        """Forget `owner`, who holds nothing any more. Idempotent."""
        self._claims.pop(owner, None)
        self._found.pop(owner, None)

    def others(self, owner: object) -> int:
        """Return what is not the owner's: the claims of others now, and what nobody claimed when the owner came."""
        return self._found.get(owner, 0) + self._claimed(but=owner)

    def used(self, owner: object) -> int:
        """Return what `owner` uses now, activations and results included."""
        return max(0, self.device.allocated() - self.others(owner))

    def free(self, owner: object) -> int:
        """Return what `owner` may use: what is free, and what it uses already."""
        return self.device.memory()[0] + self.used(owner)

    def measured(self, owner: object) -> Peak:
        """Return a measurement of the most that `owner` uses from now on. Several may run at the same time."""
        return Peak(self, owner)

    def fold_peaks(self) -> None:
        """Reset the device's own counter, which all measurements share, once each has taken it in."""
        for peak in list(self.peaks):
            peak.fold()
        self.device.reset_peak()

    def _claimed(self, *, but: object) -> int:
        return sum(held(owner) for owner, held in list(self._claims.items()) if owner is not but)


_cards: dict[torch.device, Card] = {}
_opening = threading.Lock()


def card_of(found: torch.device, open_device: Callable[[torch.device], Device]) -> Card:
    """Return the one card of this process that `found` is; `open_device` makes its device at the first call."""
    where = torch.empty(0, device=found).device  # with its index
    with _opening:
        if where not in _cards:
            _cards[where] = Card(open_device(found))
        return _cards[where]
