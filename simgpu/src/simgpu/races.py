"""Race detection, as a switch; the detector itself is in csrc/races.cpp."""

from __future__ import annotations

import torch

from simgpu import _C


class RaceError(RuntimeError):
    """Two uses of the same bytes, one of them a write, that nothing orders. The text names both and what is missing."""


def set_race_detection(on: bool) -> None:
    """Checks every use of pinned memory, and of device memory that is made from now on. The same as ``SIMGPU_RACES=1``
    in the environment, which misses nothing.

    While it is on, what an asynchronous copy brings to the host shows only once the host has waited for it: until then
    the target holds 0xFF bytes, NaN in every floating type.
    """
    _C.set_race_detection(on)


def race_detection() -> bool:
    """Whether races are looked for."""
    return _C.race_detection()


def host_register(tensor: torch.Tensor) -> None:
    """Pins the whole memory that a CPU tensor lies in, as ``cudaHostRegister`` does; until ``host_unregister``."""
    storage = tensor.untyped_storage()
    _C.host_register(storage.data_ptr(), storage.nbytes())


def host_unregister(tensor: torch.Tensor) -> None:
    """Undoes ``host_register``; ``RaceError`` while a copy may use the memory and races are looked for."""
    _C.host_unregister(tensor.untyped_storage().data_ptr())


_C.set_race_error(RaceError)
