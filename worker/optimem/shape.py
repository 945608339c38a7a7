"""What a model is made of, by identity: adapters, new children and replaced parameters are noticed at the next call.

Only identity counts; values are watched elsewhere. Buffers stand apart, since a model may replace them in every forward.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class Shape:
    """The modules and parameters of a model as they are now, and the question whether they still are."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = dict(model.named_modules())
        every = self._modules.values()
        self._tables: list[dict[str, Any]] = [table for module in every for table in (module._modules, module._parameters)]
        self._parts = [part for table in self._tables for part in table.values()]  # kept, so that no id is given again
        self._ids = list(map(id, self._parts))
        self._buffers = _buffers(every)

    def changed(self) -> bool:
        """Tell whether anything was added, removed or replaced. About 0.1 us per module."""
        return [id(part) for table in self._tables for part in table.values()] != self._ids

    def new_buffers(self) -> list[torch.Tensor]:
        """Return the buffers that have been put where others, or none, were at the last call."""
        before, self._buffers = self._buffers, _buffers(self._modules.values())
        known = set(map(id, before))
        return [buffer for buffer in self._buffers if id(buffer) not in known]

    def in_training(self) -> str | None:
        """Return the dotted path of a module that is in training mode, if there is one."""
        return next((path for path, module in self._modules.items() if module.training), None)


def _buffers(modules: Iterable[nn.Module]) -> list[torch.Tensor]:
    return [buffer for module in modules for buffer in module._buffers.values() if buffer is not None]
