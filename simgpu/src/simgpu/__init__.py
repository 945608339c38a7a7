"""A simulated GPU for PyTorch: ``import simgpu`` gives torch a device named ``simgpu``.

Device memory is host memory, operations are the CPU's own kernels run in place, so results equal the CPU's bit for bit.
Capacity, out-of-memory errors, streams, events, pinned memory and memory statistics behave as on a card. It is also the
device module ``torch.simgpu``. It is not fast, and its times say nothing of a real card (``simulated`` is true).

Environment, read at import: ``SIMGPU_CAPACITY`` (``12GiB``), ``SIMGPU_FILL_FREED`` (``1`` fills freed memory with NaN).
"""

from __future__ import annotations

import os as _os
import sys as _sys

import torch as _torch

_torch.utils.rename_privateuse1_backend("simgpu")

from simgpu import _C as _C  # noqa: E402  (the device must have its name first)
from simgpu import sizes as _sizes  # noqa: E402
from simgpu.card import (  # noqa: E402
    DeviceProperties,
    current_device,
    device,
    device_count,
    device_of,
    get_amp_supported_dtype,
    get_device_name,
    get_device_properties,
    init,
    is_available,
    is_bf16_supported,
    is_initialized,
    set_device,
)
from simgpu.counting import counters, reset_counters  # noqa: E402
from simgpu.memory import (  # noqa: E402
    capacity,
    empty_cache,
    max_memory_allocated,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_reserved,
    memory_stats,
    reset_accumulated_memory_stats,
    reset_peak_memory_stats,
    set_capacity,
    set_fill_freed,
)
from simgpu.random import (  # noqa: E402
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)
from simgpu.streams import (  # noqa: E402
    Event,
    Stream,
    StreamContext,
    current_stream,
    default_stream,
    set_stream,
    stream,
    synchronize,
)

__all__ = [
    "DeviceProperties",
    "Event",
    "Stream",
    "StreamContext",
    "capacity",
    "counters",
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "device_of",
    "empty_cache",
    "get_amp_supported_dtype",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "reset_accumulated_memory_stats",
    "reset_counters",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_capacity",
    "set_device",
    "set_fill_freed",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "simulated",
    "stream",
    "synchronize",
]

simulated = True
"""Times and memory of this device are simulated; programs ask before they print them."""


def _lazy_init() -> None:
    """torch calls this before the first use of the device."""


def _is_in_bad_fork() -> bool:
    """torch asks before it seeds; there is no driver that a fork could break."""
    return False


_C.set_capacity(_sizes.parse(_os.environ.get("SIMGPU_CAPACITY", "12GiB"), name="SIMGPU_CAPACITY"))
_C.set_fill_freed(_os.environ.get("SIMGPU_FILL_FREED", "") not in ("", "0"))

_torch._register_device_module("simgpu", _sys.modules[__name__])
_torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
