"""Bring the tensors in a call's arguments or results to a device, and touch nothing else.

Containers are rebuilt only where a tensor in them is on a wrong device; objects of other kinds (caches, user classes) are
kept as they are. Dataclasses and mappings of a class of their own are copied shallowly, so that the caller's stay as
found.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import torch


def move(value: Any, device: torch.device, bring: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
    """Return `value` with every tensor in it on `device`; the same object where nothing had to move.

    `bring` is what moves a tensor there, its own `.to` by default.
    """
    if isinstance(value, torch.Tensor):
        if _is_on(value, device):
            return value
        return bring(value) if bring else value.to(device)
    if isinstance(value, (tuple, list)):
        return _sequence(value, [move(item, device, bring) for item in value])
    if isinstance(value, MutableMapping):
        return _entries(value, {key: move(item, device, bring) for key, item in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, {f.name: move(getattr(value, f.name), device, bring) for f in dataclasses.fields(value)})
    return value


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor in `value`, looking into the same containers as `move`."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, MutableMapping):
        for item in value.values():
            yield from tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name))


def substitute(value: Any, replacements: dict[int, torch.Tensor]) -> Any:
    """Return `value` with the tensors whose id is in `replacements` replaced."""
    if isinstance(value, torch.Tensor):
        return replacements.get(id(value), value)
    if isinstance(value, (tuple, list)):
        return _sequence(value, [substitute(item, replacements) for item in value])
    if isinstance(value, MutableMapping):
        return _entries(value, {key: substitute(item, replacements) for key, item in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: substitute(getattr(value, f.name), replacements) for f in dataclasses.fields(value)}
        return _fields(value, fields)
    return value


def _is_on(tensor: torch.Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and (device.index is None or tensor.device.index == device.index)


def _sequence(value: Any, items: list[Any]) -> Any:
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    if hasattr(value, "_fields"):
        return type(value)(*items)
    return tuple.__new__(type(value), items) if isinstance(value, tuple) else type(value)(items)


def _entries(value: MutableMapping[Any, Any], items: dict[Any, Any]) -> Any:
    if all(items[key] is value[key] for key in items):
        return value
    moved = copy.copy(value)
    for key, item in items.items():
        moved[key] = item
    return moved


def _fields(value: Any, items: dict[str, Any]) -> Any:
    if all(item is getattr(value, name) for name, item in items.items()):
        return value
    moved = copy.copy(value)
    for name, item in items.items():
        object.__setattr__(moved, name, item)
    return moved
