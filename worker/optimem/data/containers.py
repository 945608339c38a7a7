"""The containers that are searched for tensors, and how each is taken apart and put together again.

Sequences, mappings, dataclasses and namespaces are searched; other objects (caches, user classes) are not.
"""

from __future__ import annotations

import dataclasses
import operator
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

Slot = tuple[Any, Callable[[Any], None]]  # an item, and the function that replaces it

_NONE = frozenset({int, float, bool, str, bytes, slice, type(None), torch.dtype, torch.device, torch.Size})  # known at once


def items(value: Any) -> Iterable[Any]:
    """Return the items of a container, nothing for any other object. Leaves out the batch sizes of packed sequences: torch
    wants them on the CPU wherever the data is."""
    if type(value) in _NONE:
        return ()
    if isinstance(value, PackedSequence):
        return value.data, value.sorted_indices, value.unsorted_indices
    if isinstance(value, (tuple, list, deque)):
        return value
    if isinstance(value, MutableMapping):
        return value.values()
    return (_fields(value) or {}).values()


def slots(value: Any) -> list[Slot] | None:
    """Return the items of a container that can be filled, each with its setter; None for any other object."""
    if isinstance(value, (list, deque)):
        return [(item, partial(value.__setitem__, index)) for index, item in enumerate(value)]
    if isinstance(value, MutableMapping):
        return [(item, partial(value.__setitem__, key)) for key, item in value.items()]
    fields = _fields(value)
    if fields is None:
        return None
    return [(item, partial(object.__setattr__, value, name)) for name, item in fields.items()]


def fill(container: Any, item_for: Callable[[Any], Any]) -> None:
    """Replace every item by `item_for(item)`."""
    for item, put in slots(container) or ():
        new = item_for(item)
        if new is not item:
            put(new)


def remade(value: tuple[Any, ...], item_for: Callable[[Any], Any]) -> Any:
    """Return a tuple of the same class with every item replaced by `item_for(item)`; the same object if no item changes."""
    sizes = value.batch_sizes if isinstance(value, PackedSequence) else None
    made = [item if item is sizes else item_for(item) for item in value]
    if all(map(operator.is_, made, value)):
        return value
    kind = type(value)
    if hasattr(kind, "n_sequence_fields"):  # made in C, as torch.return_types are
        return kind(made)
    return tuple.__new__(kind, made)  # the class's own __new__ may take other arguments


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the fields that are set, by name; None for an object without fields."""
    if isinstance(value, SimpleNamespace):
        return dict(vars(value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if hasattr(value, field.name)}
