"""Bytes of results that are alive, as blocks of a device's allocator would hold them: the CPU's does not count."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._pytree import tree_iter

from ..model.inner import inside
from ..model.units import address, aligned, storage_pointer


class LiveBytes:
    """Counts the storages of noted tensors while one of these lives. Scratch memory inside operations is not seen."""

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}  # tensors per storage pointer
        self._sizes: dict[int, int] = {}
        self._now = 0
        self._peak = 0

    def note(self, output: Any) -> None:
        """Note the result of an operation."""
        for leaf in tree_iter(output):
            for tensor in inside(leaf) if isinstance(leaf, torch.Tensor) else ():
                if storage_pointer(tensor) != -1:
                    self._hold(tensor)

    def take_peak(self) -> int:
        """Return the most bytes that were alive since the last call."""
        peak, self._peak = self._peak, self._now
        return peak

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        pointer = address(storage)
        if pointer not in self._holders:
            self._holders[pointer] = 0
            self._sizes[pointer] = aligned(storage.nbytes())
            self._now += self._sizes[pointer]
            self._peak = max(self._peak, self._now)
        self._holders[pointer] += 1
        weakref.finalize(tensor, self._let_go, pointer).atexit = False

    def _let_go(self, pointer: int) -> None:
        self._holders[pointer] -= 1
        if self._holders[pointer] == 0:
            del self._holders[pointer]
            self._now -= self._sizes.pop(pointer)
