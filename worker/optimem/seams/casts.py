"""Autocast while a paged model runs: its cache of cast weights is off, and its region covers the CPU too.

In a region of `torch.autocast` torch caches the cast copy of every weight, by the weight's identity, until the region ends.
A paged weight keeps its identity while it changes sides, so torch might find a copy on the wrong side. And the copies of
evicted weights would stay on the device, half as large as the whole model. A new cast at each use has the same bits.

A region covers one kind of device. Modules that the CPU computes for the device must cast as they would there.
"""

from __future__ import annotations

import threading

import torch

_left_off: set[int] = set()  # threads whose cache a call that was cut short has left off


class Casts:
    """The autocast settings of threads, before a forward and in it. Only a thread itself can change them: after a call that
    was cut short, the thread's next call restores them."""

    def __init__(self) -> None:
        self._kept: set[int] = set()  # threads whose cache was on before `drop`
        self._cpu_dtypes: dict[int, torch.dtype] = {}  # the CPU's own, by thread, while the CPU casts for the device

    def drop(self) -> None:
        """Switch the cache off, and use no cached copy."""
        me = threading.get_ident()
        if torch.is_autocast_cache_enabled() or me in _left_off:
            self._kept.add(me)
            _left_off.discard(me)
        torch.set_autocast_cache_enabled(False)

    def share_with_cpu(self, device: torch.device) -> None:
        """Let the CPU cast as `device` does, unless the caller's autocast covers the CPU already."""
        if torch.is_autocast_enabled(device.type) and not torch.is_autocast_enabled("cpu"):
            self._cpu_dtypes[threading.get_ident()] = torch.get_autocast_dtype("cpu")
            torch.set_autocast_dtype("cpu", torch.get_autocast_dtype(device.type))
            torch.set_autocast_enabled("cpu", True)

    def restore(self) -> None:
        """Undo `drop` and `share_with_cpu`. Idempotent."""
        me = threading.get_ident()
        if me in self._kept:
            torch.set_autocast_cache_enabled(True)
            self._kept.discard(me)
        _left_off.update(self._kept)
        self._kept.clear()
        dtype = self._cpu_dtypes.pop(me, None)
        if dtype is not None:
            torch.set_autocast_enabled("cpu", False)
            torch.set_autocast_dtype("cpu", dtype)
