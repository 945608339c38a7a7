"""Autocast while a paged model runs: its memory of cast weights is off, and its region covers the CPU too.

Within a region of `torch.autocast` torch keeps the cast copy of every weight until the region ends, by the weight's
identity. A paged weight keeps its identity while it goes from side to side, so a copy may be found on the wrong side; and
the copies of weights that have left stay on the device, half as large as the whole model. Cast again at each use they have
the same bits.

A region is of one kind of device. Modules that the CPU computes for the device are to cast as they would there.
"""

from __future__ import annotations

import threading

import torch

_left_off: set[int] = set()  # threads that kept some before a call that was cut short, and keep none now


class Casts:
    """What autocast does on threads, before a forward and in it. Only the thread itself can tell torch: where a call in it
    was cut short, its own next call puts that right."""

    def __init__(self) -> None:
        self._kept: set[int] = set()  # threads that kept some before `drop`
        self._cpu_dtypes: dict[int, torch.dtype] = {}  # what they were, by thread, where the CPU casts for the device now

    def drop(self) -> None:
        """Keep none from here on, and use none of those that are kept."""
        me = threading.get_ident()
        if torch.is_autocast_cache_enabled() or me in _left_off:
            self._kept.add(me)
            _left_off.discard(me)
        torch.set_autocast_cache_enabled(False)

    def share_with_cpu(self, device: torch.device) -> None:
        """Let the CPU cast as `device` does, unless the caller has the CPU cast already."""
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
