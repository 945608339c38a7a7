"""The modules and parameters of a model, by identity: the next call notices adapters, new children, replaced parameters.

Only identity counts; `parameters` watches values. Buffers stand apart, since a model may replace them in every forward.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn

from .training import first_in_training


class Shape:
    """The modules and parameters that a model had when this was made, and whether it still has them."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = dict(model.named_modules())
        every = self._modules.values()
        self._tables: list[dict[str, Any]] = [table for module in every for table in (module._modules, module._parameters)]
        self._parts = list(_values(self._tables))  # kept, so that no id is used again
        self._ids = list(map(id, self._parts))
        self._buffer_tables: list[dict[str, Any]] = [module._buffers for module in every]
        self._buffers = list(_values(self._buffer_tables))

    def changed(self) -> bool:
        """Tell whether a module or parameter was added, removed or replaced. About 0.4 us per module."""
        return list(map(id, _values(self._tables))) != self._ids

    def new_buffers(self) -> list[torch.Tensor]:
        """Return the buffers that were added or replaced since the last call."""
        before, now = self._buffers, list(_values(self._buffer_tables))
        if len(now) == len(before) and all(map(operator.is_, now, before)):
            return []
        self._buffers, known = now, set(map(id, before))
        return [buffer for buffer in now if buffer is not None and id(buffer) not in known]

    def in_training(self) -> str | None:
        """Return the dotted path of a module in training mode whose results that may change; None if there is none."""
        return first_in_training(self._modules.items())


def _values(tables: Iterable[dict[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(table.values() for table in tables)
