"""How much memory the card has and who has taken it. All sizes are bytes.

Nothing is cached: what is allocated is what is reserved, and a freed block is free at once.
"""

from __future__ import annotations

from typing import Any

import torch

from simgpu import _C, sizes
from simgpu.card import Device, check


def set_capacity(capacity: int | str) -> None:
    """Gives the card ``capacity`` bytes (or a text such as ``"6GiB"``).

    May be less than what is allocated; then nothing more fits until enough is freed. Raises ``ValueError`` for a
    negative or meaningless size.
    """
    size = sizes.parse(capacity, name="capacity") if isinstance(capacity, str) else int(capacity)
    if size < 0:
        raise ValueError(f"capacity={capacity} is negative")
    _C.set_capacity(size)


def capacity() -> int:
    """The card's memory in bytes."""
    return _C.capacity()


def mem_get_info(device: Device = None) -> tuple[int, int]:
    """``(free, total)`` bytes of the card."""
    check(device)
    return _C.free(), _C.capacity()


def memory_stats(device: Device = None) -> dict[str, Any]:
    """torch's flat dictionary of memory statistics, as of ``torch.accelerator.memory_stats``."""
    return dict(torch.accelerator.memory_stats(check(device)))


def memory_allocated(device: Device = None) -> int:
    """Bytes that tensors occupy now, each block rounded up to 512."""
    return torch.accelerator.memory_allocated(check(device))


def max_memory_allocated(device: Device = None) -> int:
    """The most bytes that tensors occupied at once since the start or the last ``reset_peak_memory_stats``."""
    return torch.accelerator.max_memory_allocated(check(device))


def memory_reserved(device: Device = None) -> int:
    """Bytes taken from the card; the same as allocated, since nothing is cached."""
    return torch.accelerator.memory_reserved(check(device))


def max_memory_reserved(device: Device = None) -> int:
    """The most bytes taken from the card at once."""
    return torch.accelerator.max_memory_reserved(check(device))


def reset_peak_memory_stats(device: Device = None) -> None:
    """Makes the present the peak."""
    torch.accelerator.reset_peak_memory_stats(check(device))


def reset_accumulated_memory_stats(device: Device = None) -> None:
    """Sets the counts of everything ever allocated and freed to zero."""
    torch.accelerator.reset_accumulated_memory_stats(check(device))


def empty_cache() -> None:
    """Does nothing: nothing is cached."""


def set_fill_freed(on: bool) -> None:
    """Fills freed device bytes, and new ones, with 0xFF (NaN in every floating type). Costs time and RAM; for tests.

    The same as ``SIMGPU_FILL_FREED=1`` in the environment at import.
    """
    _C.set_fill_freed(on)
