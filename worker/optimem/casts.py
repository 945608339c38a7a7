"""Autocast's memory of cast weights, off while a paged model runs.

Within a region of `torch.autocast` torch keeps the cast copy of every weight until the region ends, by the weight's
identity. A paged weight keeps its identity while it goes from side to side, so a copy may be found on the wrong side; and
the copies of weights that have left stay on the device, half as large as the whole model. Cast again at each use they have
the same bits.
"""

from __future__ import annotations

import torch


class Casts:
    """Whether this thread keeps cast copies, before a forward and in it."""

    def __init__(self) -> None:
        self._kept = False

    def drop(self) -> None:
        """Keep none from here on, and use none of those that are kept."""
        self._kept = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)

    def restore(self) -> None:
        """Keep them again if they were kept before `drop`."""
        if self._kept:
            torch.set_autocast_cache_enabled(True)
        self._kept = False
