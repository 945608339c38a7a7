"""Lend a call its arguments on the device where it computes, in containers that stay the caller's own objects.

Lists, mappings and dataclasses are filled in place and restored afterwards. Changes that the call makes stay: a cache that
was appended to has grown, and a write to a lent tensor is copied to the caller's tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from . import moving
from .containers import fill, remade, slots

Way = Callable[[torch.Tensor], torch.Tensor]

_ALWAYS = -1  # no version equals it: a tensor with uncounted writes counts as written to


class Loan:
    """The arguments of one call, lent at each border at which they change sides."""

    def __init__(self, written: Iterable[torch.Tensor] = ()) -> None:
        """`written` are tensors that the call is known to write to; torch may not count such writes."""
        self._written = set(map(id, written))
        self._lent: dict[int, tuple[Any, Any, int]] = {}  # by the id of the lent object: it, the caller's, its version
        self._containers: dict[int, Any] = {}

    def bring(self, value: Any, device: torch.device, way: Way | None = None) -> Any:
        """Return `value` with every tensor in it on `device`; the same object if possible. `way` moves a tensor there, by
        default its own `.to`."""
        return self._bring(value, lambda tensor: moving.move(tensor, device, way), {})

    def found(self, value: Any) -> Any:
        """Return `value` with lent tensors replaced by the caller's own."""
        return moving.substitute(
            value, {key: found for key, (stands, found, _) in self._lent.items() if isinstance(stands, torch.Tensor)}
        )

    def give_back(self, home: torch.device | None = None) -> None:
        """Restore the caller's containers. An item that the call has put there stays; it is moved to `home` if one is
        named."""
        for container in self._containers.values():
            fill(container, lambda item: self._restored(item, home))
        self._containers = {}
        if not self._lent:
            return
        with torch.inference_mode():
            for stands, found, version in reversed(self._lent.values()):
                if _version(stands) != version:
                    found.copy_(stands)
        self._lent = {}

    def _bring(self, value: Any, move: Way, known: dict[int, Any]) -> Any:
        if id(value) in known:
            return known[id(value)]
        known[id(value)] = value
        if isinstance(value, torch.Tensor):
            with torch.inference_mode(False):  # so that torch counts writes to it
                stands: Any = move(value)
        elif isinstance(value, tuple):
            stands = remade(value, lambda item: self._bring(item, move, known))
        else:
            if slots(value) is not None:
                self._containers[id(value)] = value
                fill(value, lambda item: self._bring(item, move, known))
            return value
        if stands is not value:
            self._lent[id(stands)] = stands, value, _ALWAYS if id(value) in self._written else _version(stands)
            known[id(value)] = stands
        return stands

    def _restored(self, item: Any, home: torch.device | None) -> Any:
        while id(item) in self._lent:
            item = self._lent[id(item)][1]
        return item if home is None else moving.move(item, home)


def _version(value: Any) -> int:
    return value._version if isinstance(value, torch.Tensor) else 0
