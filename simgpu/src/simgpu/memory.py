"""How much memory the card has and who has taken it. All sizes are bytes.

As with torch's caching allocators, what a tensor gives back stays reserved for later tensors of this process, until
``empty_cache`` or until the card is full. Any reserved byte serves any tensor, unless fragmentation is switched on.
"""

from __future__ import annotations

from typing import Any

import torch

from simgpu import _C, sizes
from simgpu.card import Device, check


def set_capacity(capacity: int | str) -> None:
    """Gives the card ``capacity`` bytes (or a text such as ``"6GiB"``), for all processes that use it.

    May be less than what is allocated; then nothing more fits until enough is freed. Raises ``ValueError`` for a
    negative or meaningless size.
    """
    _C.set_capacity(sizes.given(capacity, name="capacity"))


def capacity() -> int:
    """The card's memory in bytes."""
    return _C.capacity()


def mem_get_info(device: Device = None) -> tuple[int, int]:
    """``(free, total)`` bytes of the card: free is what no process has reserved."""
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
    """Bytes taken from the card: allocated ones and those kept for later."""
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
    """Gives what is reserved and not allocated back to the card; waits for all its work, as on CUDA."""
    torch.accelerator.empty_cache()


def set_fragmentation(on: bool) -> None:
    """Cuts the card's memory into segments and pieces as PyTorch's CUDA allocator does, so that it fragments.

    The same as ``SIMGPU_FRAGMENTATION=1`` in the environment. ``RuntimeError`` while tensors are on the card.
    """
    _C.set_fragmentation(on)


def set_fill_freed(on: bool) -> None:
    """Fills freed device bytes, and new ones, with 0xFF (NaN in every floating type). Costs time and RAM; for tests.

    The same as ``SIMGPU_FILL_FREED=1`` in the environment at import.
    """
    _C.set_fill_freed(on)
