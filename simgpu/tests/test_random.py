"""Random numbers: the same as the CPU's for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import simgpu

DRAWS: dict[str, Callable[..., torch.Tensor]] = {
    "rand": lambda **k: torch.rand(7, **k),
    "randn": lambda **k: torch.randn(7, **k),
    "randint": lambda **k: torch.randint(0, 100, (7,), **k),
    "randperm": lambda **k: torch.randperm(9, **k),
    "normal_": lambda device, generator=None: torch.empty(9, device=device).normal_(generator=generator),
    "uniform_": lambda device, generator=None: torch.empty(9, device=device).uniform_(generator=generator),
    "bernoulli": lambda device, generator=None: torch.bernoulli(
        torch.full((50,), 0.5, device=device), generator=generator
    ),
    "multinomial": lambda device, generator=None: torch.multinomial(
        torch.ones(9, device=device), 4, generator=generator
    ),
    "exponential_": lambda device, generator=None: torch.empty(9, device=device).exponential_(generator=generator),
    "dropout": lambda device, generator=None: torch.dropout(torch.ones(40, device=device), 0.5, True),
}


@pytest.mark.parametrize("name", list(DRAWS))
def test_a_seed_gives_the_same_numbers_as_on_the_cpu(name: str) -> None:
    torch.manual_seed(5)
    plain = DRAWS[name](device="cpu")
    torch.manual_seed(5)
    card = DRAWS[name](device="simgpu")
    assert card.device.type == "simgpu"
    assert torch.equal(plain, card.cpu())


@pytest.mark.parametrize("name", [n for n in DRAWS if n != "dropout"])
def test_generators(name: str) -> None:
    plain = DRAWS[name](device="cpu", generator=torch.Generator().manual_seed(9))
    generator = torch.Generator(device="simgpu").manual_seed(9)
    assert generator.device == torch.device("simgpu:0")
    card = DRAWS[name](device="simgpu", generator=generator)
    assert torch.equal(plain, card.cpu())


def test_state_comes_back() -> None:
    state = simgpu.get_rng_state()
    assert state.device.type == "cpu"
    first = torch.rand(4, device="simgpu")
    simgpu.set_rng_state(state)
    assert torch.equal(torch.rand(4, device="simgpu"), first)
    simgpu.set_rng_state_all(simgpu.get_rng_state_all())
    generator = torch.Generator(device="simgpu").manual_seed(1)
    saved = generator.get_state()
    one = torch.rand(3, device="simgpu", generator=generator)
    generator.set_state(saved)
    assert torch.equal(torch.rand(3, device="simgpu", generator=generator), one)
    assert torch.equal(
        torch.rand(3, device="simgpu", generator=generator.clone_state()),
        torch.rand(3, device="simgpu", generator=generator),
    )


def test_fork_rng_leaves_the_card_alone() -> None:
    torch.manual_seed(3)
    with torch.random.fork_rng(devices=[0], device_type="simgpu"):
        torch.rand(4, device="simgpu")
    after = torch.rand(4, device="simgpu")
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4, device="simgpu"), after)


def test_seeds() -> None:
    simgpu.manual_seed(11)
    assert simgpu.initial_seed() == 11
    simgpu.manual_seed_all(-1)
    assert simgpu.initial_seed() == 2**64 - 1
    simgpu.seed()
    simgpu.seed_all()
