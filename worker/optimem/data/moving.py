"""Move the tensors in a call's arguments or results to a device, and touch nothing else.

A container is rebuilt only if a tensor in it is on a wrong device; other objects (caches, user classes) are kept as they
are. Containers except tuples are copied shallowly, so the caller's stay unchanged. A container that holds itself, or is in
several places, is so in the copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from .containers import fill, items, remade


def move(value: Any, device: torch.device, bring: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
    """Return `value` with every tensor in it on `device`; the same object if no tensor had to move.

    `bring` moves a tensor there, by default its own `.to`.
    """
    away = {id(tensor): tensor for tensor in tensors(value) if not _is_on(tensor, device)}
    moved = {key: bring(tensor) if bring else tensor.to(device) for key, tensor in away.items()}
    return substitute(value, moved)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor in `value`. Searches the containers that `move` searches, each once."""
    known: dict[int, Any] = {}
    inside = [iter((value,))]
    while inside:
        for item in inside[-1]:
            if isinstance(item, torch.Tensor):
                yield item
            elif id(item) not in known:
                known[id(item)] = item
                inside.append(iter(items(item)))
                break
        else:
            inside.pop()


def substitute(value: Any, replacements: Mapping[int, torch.Tensor]) -> Any:
    """Return `value` with the tensors whose id is in `replacements` replaced."""
    return _substituted(value, replacements, {}) if replacements else value


def _substituted(value: Any, replacements: Mapping[int, torch.Tensor], made: dict[int, Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return replacements.get(id(value), value)
    if id(value) in made:
        return made[id(value)]
    if not any(id(tensor) in replacements for tensor in tensors(value)):
        return value
    if isinstance(value, tuple):
        return made.setdefault(id(value), remade(value, lambda item: _substituted(item, replacements, made)))
    copied = made[id(value)] = copy.copy(value)  # before its items, which may hold it
    fill(copied, lambda item: _substituted(item, replacements, made))
    return copied


def _is_on(tensor: torch.Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and (device.index is None or tensor.device.index == device.index)
