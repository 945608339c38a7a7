"""A steady forward makes no call that the host waits in, wherever its inputs are."""

from __future__ import annotations

import copy
import gc
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import optimem
import simgpu
from optimem.card.names import open_device
from same import bits


@dataclass
class Batch:
    x: torch.Tensor
    more: dict[str, list[torch.Tensor]]


class Many(nn.Module):
    """Takes containers, keyword arguments, and tensors of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(16))

    def forward(self, batch: Batch, mask: torch.Tensor, *, scale: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        x = batch.x
        for layer in self.layers:
            x = torch.relu(layer(x)) * scale[0]
        for each in batch.more["a"]:
            x = x + each
        return {"x": x.masked_fill(mask, 0)}


def inputs(device: torch.device) -> tuple[Batch, torch.Tensor, tuple[torch.Tensor, ...]]:
    torch.manual_seed(1)
    strided, spread = torch.randn(64, 8).t(), torch.randn(1, 64).expand(8, 64)
    more = {"a": [t.to(device) for t in (strided, spread, torch.randn(8, 64)[:, :1])]}
    mask = (torch.randn(8, 64) > 0).to(device)
    return Batch(torch.randn(8, 64).to(device), more), mask, (torch.tensor(0.5).to(device), torch.ones(0).to(device))


def version(model: nn.Module) -> int:
    """The plan in force, once there is one and the steps are timed."""
    status = optimem.status(model)
    assert status is not None
    assert status.state == "steady"
    return status.plan_version


def waits(model: nn.Module, call: Any) -> dict[str, int]:
    """Where the host waits in ten steady forwards, all under one plan: another one may come in at any time."""
    for _ in range(6):
        call()
    for _ in range(10):
        before = version(model)
        gc.collect()  # models of earlier tests, which wait for their copies before their memory is unlocked
        torch.simgpu.synchronize()  # type: ignore[attr-defined]
        simgpu.reset_counters()
        for _ in range(10):
            call()
        found = simgpu.host_blocking_calls()
        if version(model) == before:
            return found
    raise AssertionError("no plan stays in force")


@pytest.mark.parametrize("place", ["cpu", "pinned", "simgpu"])
def test_a_steady_forward_does_not_wait(card: torch.device, place: str) -> None:
    plain = nn.Sequential(*[nn.Linear(128, 128) for _ in range(16)]).eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="25%")
    x = torch.randn(4, 128)
    given = x.pin_memory() if place == "pinned" else x.to(place)
    with torch.no_grad():
        outputs = []
        assert waits(model, lambda: outputs.append(model(given))) == {}
        assert all(bits(output) == bits(plain(x)) for output in outputs)


@pytest.mark.parametrize("place", ["cpu", "simgpu"])
def test_nor_with_several_inputs_in_containers(card: torch.device, place: str) -> None:
    plain = Many().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="25%")
    batch, mask, scale = inputs(torch.device(place))
    with torch.no_grad():
        assert waits(model, lambda: model(batch, mask, scale=scale)) == {}
        output = model(batch, mask, scale=scale)
        there = inputs(torch.device("cpu"))
        assert bits(output) == bits(plain(there[0], there[1], scale=there[2]))


def test_inputs_may_be_written_to_as_soon_as_the_call_is_over(card: torch.device) -> None:
    plain = nn.Linear(256, 256).eval()
    model = optimem.page(copy.deepcopy(plain), card)
    with torch.no_grad():
        for given in (torch.randn(512, 256), torch.randn(512, 256).pin_memory()):
            model(given)
            model(given)
            wanted = bits(plain(given))
            output = model(given)
            given.fill_(float("nan"))
            assert bits(output) == wanted


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(4, 6).t(),
        torch.randn(1, 6).expand(4, 6),
        torch.randn(8, 6)[::2, ::3],
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.tensor(2),
        torch.ones(0, 3),
        torch.ones(3, dtype=torch.bool),
        nn.Parameter(torch.randn(3), requires_grad=False),
    ],
    ids=["transposed", "expanded", "sliced", "channels last", "conjugate", "a number", "empty", "boolean", "parameter"],
)
def test_what_is_brought_is_what_dot_to_gives(card: torch.device, tensor: torch.Tensor) -> None:
    brought, sent = open_device("sim").bring(tensor), tensor.to(card)
    assert (brought.device, brought.stride(), type(brought)) == (sent.device, sent.stride(), type(sent))
    assert torch.equal(brought.cpu().resolve_conj(), tensor.detach())
