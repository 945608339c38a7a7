"""What a call is lent: its tensors on the device where it computes, in containers that stay the caller's own objects.

Lists, mappings and dataclasses are filled anew in place and given back as they were found, with all that the call has done
to them: a cache that was appended to has grown, and what was written to in a lent tensor is written to the caller's.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, MutableMapping
from functools import partial
from typing import Any

import torch

from . import moving

Way = Callable[[torch.Tensor], torch.Tensor]


class Loan:
    """The arguments of one call, at each border at which they change sides."""

    def __init__(self) -> None:
        self._lent: dict[int, tuple[Any, Any, int]] = {}  # by the id of what stands: that, what was found, its version
        self._containers: dict[int, Any] = {}

    def bring(self, value: Any, device: torch.device, way: Way | None = None) -> Any:
        """Return `value` with every tensor in it on `device`; the same object wherever that can be. `way` is how a tensor
        gets there, its own `.to` by default."""
        return self._bring(value, lambda tensor: moving.move(tensor, device, way), {})

    def give_back(self, home: torch.device | None = None) -> None:
        """Put into the caller's containers what was found in them, unless the call has put something else there, which goes
        to `home` if one is named."""
        for container in self._containers.values():
            _fill(container, lambda item: self._restored(item, home))
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
            with torch.inference_mode(False):  # so that writing to it is counted
                stands: Any = move(value)
        elif isinstance(value, tuple):
            items = [self._bring(item, move, known) for item in value]
            stands = value if all(map(operator.is_, items, value)) else _like(value, items)
        else:
            if _slots(value) is not None:
                self._containers[id(value)] = value
                _fill(value, lambda item: self._bring(item, move, known))
            return value
        if stands is not value:
            self._lent[id(stands)] = stands, value, _version(stands)
            known[id(value)] = stands
        return stands

    def _restored(self, item: Any, home: torch.device | None) -> Any:
        while id(item) in self._lent:
            item = self._lent[id(item)][1]
        return item if home is None else moving.move(item, home)


def _fill(container: Any, item_for: Callable[[Any], Any]) -> None:
    """Put `item_for` every item where the item is."""
    for item, put in _slots(container) or ():
        new = item_for(item)
        if new is not item:
            put(new)


def _version(value: Any) -> int:
    return value._version if isinstance(value, torch.Tensor) else 0


def _slots(value: Any) -> Iterable[tuple[Any, Callable[[Any], None]]] | None:
    """Return the items of a container that can be filled, each with the way to replace it; None for anything else."""
    if isinstance(value, list):
        return [(item, partial(value.__setitem__, index)) for index, item in enumerate(value)]
    if isinstance(value, MutableMapping):
        return [(item, partial(value.__setitem__, key)) for key, item in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        return [(getattr(value, name), partial(object.__setattr__, value, name)) for name in names]
    return None


def _like(value: tuple[Any, ...], items: list[Any]) -> Any:
    return type(value)(*items) if hasattr(value, "_fields") else tuple.__new__(type(value), items)
