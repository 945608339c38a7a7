"""Autocast's memory of cast weights, off while a paged model runs.

Within a region of `torch.autocast` torch keeps the cast copy of every weight until the region ends, by the weight's
identity. A paged weight keeps its identity while it goes from side to side, so a copy may be found on the wrong side; and
the copies of weights that have left stay on the device, half as large as the whole model. Cast again at each use they have
the same bits.
"""

from __future__ import annotations

import threading

import torch

_left_off: set[int] = set()  # threads that kept some before a call that was cut short, and keep none now


class Casts:
    """Whether threads keep cast copies, before a forward and in it. Only the thread itself can tell torch: where a call in
    it was cut short, its own next call puts that right."""

    def __init__(self) -> None:
        self._kept: set[int] = set()  # threads that kept some before `drop`

    def drop(self) -> None:
        """Keep none from here on, and use none of those that are kept."""
        me = threading.get_ident()
        if torch.is_autocast_cache_enabled() or me in _left_off:
            self._kept.add(me)
            _left_off.discard(me)
        torch.set_autocast_cache_enabled(False)

    def restore(self) -> None:
        """Keep them again if they were kept before `drop`."""
        me = threading.get_ident()
        if me in self._kept:
            torch.set_autocast_cache_enabled(True)
            self._kept.discard(me)
        _left_off.update(self._kept)
        self._kept.clear()
