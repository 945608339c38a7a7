"""Autocast while a paged model runs: its memory of cast weights is off, and its region covers the CPU too.

Within a region of `torch.autocast` torch keeps the cast copy of every weight until the region ends, by the weight's
identity. A paged weight keeps its identity while it goes from side to side, so a copy may be found on the wrong side; and
the copies of weights that have left stay on the device, half as large as the whole model. Cast again at each use they have
the same bits.

A region is of one kind of device. Modules that the CPU computes for the device are to cast as they would there.
"""

from __future__ import annotations

import torch


class Casts:
    """What autocast does on this thread, before a forward and in it."""

    def __init__(self) -> None:
        self._kept = False
        self._cpu_dtype: torch.dtype | None = None  # what it was, where the CPU casts for the device now

    def drop(self) -> None:
        """Keep none from here on, and use none of those that are kept."""
        self._kept = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)

    def share_with_cpu(self, device: torch.device) -> None:
        """Let the CPU cast as `device` does, unless the caller has the CPU cast already."""
        if torch.is_autocast_enabled(device.type) and not torch.is_autocast_enabled("cpu"):
            self._cpu_dtype = torch.get_autocast_dtype("cpu")
            torch.set_autocast_dtype("cpu", torch.get_autocast_dtype(device.type))
            torch.set_autocast_enabled("cpu", True)

    def restore(self) -> None:
        """Undo `drop` and `share_with_cpu`. Idempotent."""
        if self._kept:
            torch.set_autocast_cache_enabled(True)
        if self._cpu_dtype is not None:
            torch.set_autocast_enabled("cpu", False)
            torch.set_autocast_dtype("cpu", self._cpu_dtype)
        self._kept, self._cpu_dtype = False, None
