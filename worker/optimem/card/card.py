"""One card, shared by all models of this process: who holds how much of it, and how much one model's calls take.

Claims are read at the moment when they matter, so that the bytes of others are those that they hold now.
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
    """The most device bytes that one owner has used while this measurement ran. Several may run at the same time."""

    def __init__(self, card: Card, owner: object) -> None:
        self._card, self._owner = card, owner
        self._most = 0
        self._seen = 0  # where the device's counter stood when it was last read
        self.runs = False

    def start(self) -> None:
        """Measure from now on; the bytes in use now count."""
        with self._card.changing:
            self._card.forget_freed(self._owner)
            self._most = max(self._most, self._card.used(self._owner))
            self._seen = self._card.device.peak()
            self.runs = True

    def stop(self) -> None:
        """Measure no more. Idempotent."""
        with self._card.changing:
            self.fold()
            self.runs = False

    def bytes(self) -> int:
        """Return the most so far, in bytes."""
        with self._card.changing:
            self.fold()
            return self._most

    def take(self) -> int:
        """Return the most so far, in bytes, and begin anew with the bytes in use now."""
        with self._card.changing:
            self._card.reset_peaks()
            most, self._most = self._most, self._card.used(self._owner)
            return most

    def fold(self) -> None:
        """Take in what the counter shows beyond what it showed before: an earlier high belongs to earlier claims."""
        if self.runs:
            now = self._card.device.peak()
            high = now if now > self._seen else self._card.device.allocated()
            self._most = max(self._most, high - self._card.others(self._owner))
            self._seen = now

    def renew(self, counter: int) -> None:
        """Note that the device's counter has been reset, to `counter`."""
        self._seen = counter


class Card:
    """A device and the claims on it. Thread-safe. Sizes are bytes."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.changing = threading.RLock()  # which finalizers may take too
        self._peaks: weakref.WeakSet[Peak] = weakref.WeakSet()
        self._claims: weakref.WeakKeyDictionary[Any, Callable[[Any], int]] = weakref.WeakKeyDictionary()
        self._found: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()

    def join(self, owner: object) -> None:
        """Note that `owner` comes: bytes that are in use now and that nobody claims are not the owner's."""
        with self.changing:
            self._found[owner] = max(0, self.device.allocated() - self._claimed(but=owner))

    def claim(self, owner: Owner, held: Callable[[Owner], int]) -> None:
        """Let `held(owner)` tell from now on how many bytes `owner` holds. The card does not keep the owner alive."""
        with self.changing:
            self._claims[owner] = held

    def leave(self, owner: object) -> None:
        """Forget `owner`, who holds nothing any more. Idempotent."""
        with self.changing:
            self._claims.pop(owner, None)
            self._found.pop(owner, None)

    def others(self, owner: object) -> int:
        """Return the bytes that are not the owner's: the claims of others now, and those that nobody claimed when the owner
        came."""
        with self.changing:
            return self._found.get(owner, 0) + self._claimed(but=owner)

    def used(self, owner: object) -> int:
        """Return the bytes that `owner` uses now, activations and results included."""
        return max(0, self.device.allocated() - self.others(owner))

    def free(self, owner: object) -> int:
        """Return the bytes that `owner` may use: those that are free, and those that it uses already."""
        return self.device.free() + self.used(owner)

    def forget_freed(self, owner: object) -> None:
        """Note that bytes which nobody claimed when `owner` came are free by now, where they are."""
        with self.changing:
            unclaimed = max(0, self.device.allocated() - self._claimed())
            if self._found.get(owner, 0) > unclaimed:
                self._found[owner] = unclaimed

    def measured(self, owner: object) -> Peak:
        """Return a measurement of the most that `owner` uses, to be started."""
        peak = Peak(self, owner)
        with self.changing:
            self._peaks.add(peak)
        return peak

    def reset_peaks(self) -> None:
        """Reset the device's own counter, once every measurement has taken it in."""
        with self.changing:
            running = [peak for peak in self._peaks if peak.runs]
            for peak in running:
                peak.fold()
            self.device.reset_peak()
            counter = self.device.peak()
            for peak in running:
                peak.renew(counter)

    def _claimed(self, *, but: object = None) -> int:
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


def is_open(found: torch.device) -> bool:
    """Tell whether this process has opened the card that `found` is."""
    return torch.empty(0, device=found).device in _cards
