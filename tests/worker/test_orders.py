"""Copies and kernels overlap, ordered by events alone. Each order is taken away once, to show that it is looked for.

All of this runs with the simulated card's race detector on; `torch.accelerator.synchronize()` brings what it has found.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
import simgpu
from optimem.card.device import AsyncDevice
from optimem.seams.hooks import _LoadHook
from same import bits


def forwards(model: nn.Module, count: int = 6) -> list[Any]:
    """Return the bits of so many forwards, which follow each other without the host waiting."""
    with torch.no_grad():
        outputs = [model(models.rows()) for _ in range(count)]
    torch.accelerator.synchronize()
    return [bits(output) for output in outputs]


def stack(vram: str = "40%") -> tuple[nn.Module, Any]:
    """Return a plain model and its paged copy, under a plan that streams."""
    plain = models.Stack(12).eval()
    model = optimem.page(copy.deepcopy(plain), "sim", vram=vram)
    with torch.no_grad():
        model(models.rows())
    return plain, model


def clear() -> None:
    """Let the card forget the race that it was shown."""
    simgpu.set_race_detection(False)


@pytest.mark.trap(15, 16)
def test_events_order_copies_and_kernels(card: torch.device) -> None:
    plain, model = stack()
    assert forwards(model) == forwards(plain)


@pytest.mark.trap(15)
def test_a_copy_that_does_not_wait_for_the_last_reader_is_found(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = stack()
    fetch = AsyncDevice.fetch
    monkeypatch.setattr(AsyncDevice, "fetch", lambda self, target, source, after=None: fetch(self, target, source))
    with pytest.raises(simgpu.RaceError, match="race on device memory"):
        forwards(model)
    clear()


@pytest.mark.trap(16)
def test_a_kernel_that_does_not_wait_for_the_copy_is_found(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = stack()
    monkeypatch.setattr(AsyncDevice, "wait", lambda self, mark: None)
    with pytest.raises(simgpu.RaceError, match="race on device memory"):
        forwards(model)
    clear()


@pytest.mark.trap(16)
def test_the_stream_that_is_current_at_the_call_is_the_one_that_waits(card: torch.device) -> None:
    plain, model = stack()
    streams = [torch.Stream(card), torch.Stream(card)]
    for stream in (*streams, *streams):
        torch.accelerator.synchronize()
        with stream:
            assert forwards(model, 2) == forwards(plain, 2)


class Aside(nn.Module):
    """Computes on a stream that its caller joins."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(256, 256)

    def forward(self, x: torch.Tensor, stream: torch.Stream) -> torch.Tensor:
        stream.wait_stream(torch.accelerator.current_stream())
        with stream:
            return nn.functional.linear(x, self.linear.weight, self.linear.bias)


class TwoStreams(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main = nn.ModuleList(nn.Linear(256, 256) for _ in range(6))
        self.aside = nn.ModuleList(Aside() for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = torch.Stream(x.device)
        for layer, aside in zip(self.main, self.aside, strict=True):
            y, z = aside(x, stream), layer(x)
            torch.accelerator.current_stream().wait_stream(stream)
            x = (y + z).tanh()
        return x


@pytest.mark.trap(16)
@pytest.mark.parametrize("vram", ["25%", "60%", "150%"])
def test_a_module_may_compute_on_a_stream_of_its_own(card: torch.device, vram: str) -> None:
    model = optimem.page(TwoStreams().eval(), card, vram=vram)
    x = torch.randn(64, 256)
    with torch.no_grad():
        outputs = [bits(model(x)) for _ in range(6)]
        torch.accelerator.synchronize()
        on_card = optimem.detach(model).to(card)
        assert outputs == [bits(on_card(x.to(card)))] * 6


@pytest.mark.trap(18)
def test_loading_weights_waits_for_copies_that_read_the_old_ones(card: torch.device) -> None:
    plain, model = stack()
    other = models.Stack(12).eval()
    with torch.no_grad():
        model(models.rows())  # whose last act is to issue copies for the next one
    for each in (plain, model):
        each.load_state_dict(other.state_dict())
    assert forwards(model) == forwards(plain)


@pytest.mark.trap(18)
def test_weights_loaded_while_copies_read_them_are_found(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_LoadHook, "__call__", lambda self, *arguments: None)
    _, model = stack()

    def load_between_forwards() -> None:
        for _ in range(20):  # a forward that is measured, or that has a new plan, leaves no copies under way
            with torch.no_grad():
                model(models.rows())
            model.load_state_dict(models.Stack(12).state_dict())
            torch.accelerator.synchronize()

    with pytest.raises(simgpu.RaceError, match="race on pinned host memory"):
        load_between_forwards()
    clear()


@pytest.mark.trap(18)
def test_detaching_waits_for_copies_in_flight(card: torch.device) -> None:
    plain, model = stack()
    with torch.no_grad():
        model(models.rows())
    optimem.detach(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.accelerator.synchronize()
    assert bits(list(plain.parameters())) != bits(list(model.parameters()))


@pytest.mark.trap(14)
def test_a_round_trip_moves_only_what_is_streamed(card: torch.device) -> None:
    model, status = equal_layers(card)
    x = torch.randn(64, 256).to(card)
    for _ in range(20):  # until no new plan comes in between
        torch.accelerator.synchronize()
        simgpu.reset_counters()
        before = status.plan_version
        with torch.no_grad():
            for _ in range(4):
                model(x)
        status = state(model)
        if status.plan_version == before:
            break
    assert status.misses == 0
    assert status.resident_bytes >= 0.3 * status.weights_bytes
    moved = simgpu.counters()["h2d_bytes"] / 4
    assert moved == pytest.approx(status.weights_bytes - status.resident_bytes, rel=0.05)


@pytest.mark.trap(14)
def test_residents_are_spread_among_equal_layers(card: torch.device) -> None:
    model, _ = equal_layers(card)
    plan = optimem.plan(model, "65%")
    placements = [page.placement for page in plan.pages]
    assert 5 <= placements.count("resident") <= 11
    # What streams takes nearly as long as what computes, so that residents side by side would leave one of both waiting.
    assert plan.period_ns <= 1.01 * plan.bound_ns


def equal_layers(card: torch.device) -> tuple[nn.Module, optimem.Status]:
    """Return a model of equal layers under its plan, half of which fits."""
    model = optimem.page(nn.Sequential(*[nn.Linear(256, 256) for _ in range(16)]).eval(), card, vram="50%")
    with torch.no_grad():
        for _ in range(6):
            model(torch.randn(64, 256).to(card))
    return model, state(model)


def state(model: nn.Module) -> optimem.Status:
    """Return how an attached model stands."""
    status = optimem.status(model)
    assert status is not None
    return status
