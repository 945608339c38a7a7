"""Torch's fused fast paths for attention, off while a paged model runs (docs/adr/0009-fused-fast-paths.md).

The switch is the process's, so calls that run at the same time share it: the last one to end restores it.
"""

from __future__ import annotations

import threading

import torch
from torch import nn

NOTE = "torch's fused attention path is left: equal to the plain model after torch.backends.mha.set_fastpath_enabled(False)"

_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
_lock = threading.Lock()
_running = 0  # under _lock: calls that need the switch off
_before = True  # under _lock: the switch before the first of them


def has_fast_paths(model: nn.Module) -> bool:
    """Tell whether torch would take a fused path in `model`."""
    return any(isinstance(module, _FUSED) for module in model.modules())


class SlowPath:
    """Keeps one model's calls on the plain paths. Does nothing for a model without fused paths."""

    def __init__(self, model: nn.Module) -> None:
        self.needed = has_fast_paths(model)
        self._left = False

    def take(self) -> None:
        """Switch the fused paths off for a call. Idempotent."""
        global _running, _before
        if not self.needed or self._left:
            return
        with _lock:
            if not _running:
                _before = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            _running += 1
            self._left = True

    def end(self) -> None:
        """End a call; the last one restores the switch. Idempotent."""
        global _running
        if not self._left:
            return
        with _lock:
            _running -= 1
            self._left = False
            if not _running:
                torch.backends.mha.set_fastpath_enabled(_before)
