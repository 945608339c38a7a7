"""The card's random numbers. A seed gives the same numbers as on the CPU."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from simgpu import _C
from simgpu.card import Device, check


def manual_seed(seed: int) -> None:
    """Seeds the card's default generator; negative seeds count from 2**64, as torch has it."""
    _C.manual_seed(int(seed) % (1 << 64))


def manual_seed_all(seed: int) -> None:
    """The same: there is one card."""
    manual_seed(seed)


def seed() -> None:
    """Seeds from the system's randomness."""
    _C.seed()


def seed_all() -> None:
    """The same: there is one card."""
    _C.seed()


def initial_seed() -> int:
    """The seed last set."""
    return _C.initial_seed()


def get_rng_state(device: Device = "simgpu") -> torch.Tensor:
    """The default generator's state, a uint8 tensor on the CPU."""
    check(device)
    state: torch.Tensor = torch.ops.simgpu.rng_state()
    return state


def set_rng_state(new_state: torch.Tensor, device: Device = "simgpu") -> None:
    """Puts a state from ``get_rng_state`` back."""
    check(device)
    with torch.device("cpu"):
        torch.ops.simgpu.set_rng_state(new_state.cpu())


def get_rng_state_all() -> list[torch.Tensor]:
    """The states of all cards, one."""
    return [get_rng_state()]


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    """Puts states from ``get_rng_state_all`` back."""
    for state in new_states:
        set_rng_state(state)
