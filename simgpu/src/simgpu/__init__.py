"""A simulated GPU for PyTorch: ``import simgpu`` gives torch a device named ``simgpu``.

Device memory is host memory, operations are the CPU's own kernels run in place, so results equal the CPU's bit for bit.
Time is virtual: it is what a card of the chosen profile would need. Capacity, streams, events, pinned memory and
memory statistics behave as on a card, and races are found. It is also the device module ``torch.simgpu``;
``simulated`` is true.

Environment, read at import:

===========================  ==========================================================================================
``SIMGPU_PROFILE``           the card to play: a name of ``simgpu.profiles()`` or a ``.json`` file; ``rtx3060``
``SIMGPU_LINK``              ``pcie4x8``, ``x4``, ...; the card's own
``SIMGPU_HOST``              the host to play, ``desktop`` or ``server``
``SIMGPU_CAPACITY``          ``6GiB``; the card's own
``SIMGPU_CARD``              processes that use a card of the same name share it; the profile's name
``SIMGPU_HOST_CLOCK``        ``model`` or ``measured``
``SIMGPU_RACES``             ``1`` looks for races
``SIMGPU_FRAGMENTATION``     ``1`` lets memory fragment
``SIMGPU_FILL_FREED``        ``1`` fills freed and new device memory with NaN
===========================  ==========================================================================================
"""

from __future__ import annotations

import os as _os
import sys as _sys

import torch as _torch

_torch.utils.rename_privateuse1_backend("simgpu")

from simgpu import _C as _C  # noqa: E402  (the device must have its name first)
from simgpu.card import (  # noqa: E402
    DeviceProperties,
    current_device,
    current_profile,
    device,
    device_count,
    device_of,
    driver_version,
    get_amp_supported_dtype,
    get_device_capability,
    get_device_name,
    get_device_properties,
    init,
    is_available,
    is_bf16_supported,
    is_initialized,
    link_now,
    profiles,
    set_device,
    use_profile,
)
from simgpu.clock import (  # noqa: E402
    _sleep as _sleep,
)
from simgpu.clock import (  # noqa: E402
    counters,
    host_blocking_calls,
    host_clock,
    now_ns,
    reset_counters,
    set_host_clock,
    set_host_watched,
)
from simgpu.dry import dry_run  # noqa: E402
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
    set_fragmentation,
)
from simgpu.races import (  # noqa: E402
    RaceError,
    host_register,
    host_unregister,
    race_detection,
    set_race_detection,
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
    "RaceError",
    "Stream",
    "StreamContext",
    "capacity",
    "counters",
    "current_device",
    "current_profile",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "device_of",
    "driver_version",
    "dry_run",
    "empty_cache",
    "get_amp_supported_dtype",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "host_blocking_calls",
    "host_clock",
    "host_register",
    "host_unregister",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "link_now",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "now_ns",
    "profiles",
    "race_detection",
    "reset_accumulated_memory_stats",
    "reset_counters",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_capacity",
    "set_device",
    "set_fill_freed",
    "set_fragmentation",
    "set_host_clock",
    "set_host_watched",
    "set_race_detection",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "simulated",
    "stream",
    "synchronize",
    "use_profile",
]

simulated = True
"""Times and memory of this device are simulated; programs ask before they print them."""


def _lazy_init() -> None:
    """torch calls this before the first use of the device."""


def _is_in_bad_fork() -> bool:
    """torch asks before it seeds; there is no driver that a fork could break."""
    return False


def _on(variable: str) -> bool:
    return _os.environ.get(variable, "") not in ("", "0")


_C.set_machinery([_os.path.dirname(file) + _os.sep for file in (str(_torch.__file__), __file__)])


use_profile()
set_host_clock(_os.environ.get("SIMGPU_HOST_CLOCK") or "model")
set_host_watched(True)
set_fragmentation(_on("SIMGPU_FRAGMENTATION"))
set_fill_freed(_on("SIMGPU_FILL_FREED"))
set_race_detection(_on("SIMGPU_RACES"))

_torch._register_device_module("simgpu", _sys.modules[__name__])
_torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
