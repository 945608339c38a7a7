"""Memory of the host and of the card: what is pinned, what is free, what is left to activations."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
import simgpu
from optimem.card.device import ran_out_of_memory
from optimem.card.names import open_device
from same import bits


def linears(count: int = 8, width: int = 256) -> nn.Module:
    """Return layers of 256 KiB each by default."""
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(count)]).eval()


def settled(model: nn.Module, x: torch.Tensor, count: int = 8) -> optimem.Status:
    """Call an attached model until its plan is in force and timed; return how it stands."""
    with torch.no_grad():
        for _ in range(count):
            model(x)
        torch.accelerator.synchronize()
    status = optimem.status(model)
    assert status is not None
    return status


@pytest.fixture
def no_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that locks a few bytes and no more."""
    real = torch.empty

    def empty(size: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("pin_memory") and size > 4096:
            raise RuntimeError("memlock")
        return real(size, *args, **kwargs)

    def register(*args: Any) -> None:
        raise RuntimeError("memlock")

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(simgpu, "host_register", register, raising=False)


@pytest.mark.trap(17, 19)
def test_without_pinned_memory_it_goes_on_and_says_so(card: torch.device, no_pinned_memory: None) -> None:
    plain = models.Stack().eval()
    model = copy.deepcopy(plain)
    with pytest.warns(UserWarning, match=r"\d+ bytes of pinned memory cannot be had"):
        optimem.page(model, card, vram="60%")
    status = settled(model, models.rows())
    assert status.pinned_bytes == 0
    with torch.no_grad():
        assert bits(model(models.rows())) == bits(plain(models.rows()))


@pytest.mark.trap(17)
def test_copies_from_pageable_memory_are_planned_at_their_own_rate(card: torch.device, no_pinned_memory: None) -> None:
    model = linears(16, 512)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimem.page(model, card, vram="50%")
    x = torch.randn(1, 512).to(card)
    status = settled(model, x)
    streamed = status.weights_bytes - status.resident_bytes
    pageable, pinned = 4e9, 12e9  # bytes per second: about what the card's profile says, so at most this and at least that
    assert streamed / pinned * 1e9 < status.predicted_ns
    assert status.predicted_ns >= streamed / (1.5 * pageable) * 1e9
    simgpu.reset_counters()
    settled(model, x, 10)
    assert simgpu.counters()["host_blocking_calls"] >= 10  # which pinned copies never cause


@pytest.mark.trap(19)
def test_the_slab_is_as_large_as_the_weights(card: torch.device) -> None:
    model = optimem.page(linears(5), card, vram="60%")
    status = optimem.status(model)
    assert status is not None
    assert status.weights_bytes == 5 * (256 * 256 + 256) * 4
    assert status.pinned_bytes == status.weights_bytes  # and not the next power of two


@pytest.mark.trap(20)
def test_what_the_allocator_keeps_counts_as_free(card: torch.device) -> None:
    device = open_device("sim")
    torch.accelerator.empty_cache()
    before = device.memory()
    tensor = torch.empty(8 << 20, dtype=torch.uint8, device=card)
    held = device.memory()
    del tensor
    assert held[0] <= before[0] - (8 << 20)
    assert simgpu.memory_reserved() >= 8 << 20
    assert device.memory() == before
    torch.accelerator.empty_cache()


FULL = """
import torch, optimem, simgpu
model = lambda: torch.nn.Sequential(torch.nn.Linear(64, 64)).eval()
paged = optimem.page(model(), device="sim") if {open} else None
hog = []
for size in (65536, 512):
    try:
        while True:
            hog.append(torch.empty(size, dtype=torch.uint8, device="simgpu"))
    except torch.OutOfMemoryError:
        pass
if paged is not None:
    assert optimem.page(paged, device="sim") is paged
try:
    optimem.page(model(), device="sim")
except optimem.BadInput as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("opened", "words"),
    [
        (False, "simgpu is full: 0 of its 4194304 bytes are free, 4194304 are in tensors of this process; delete tensors"),
        (True, "a budget of 1 B for weights is too small: the largest page, 0 takes 16.5 KiB, so 16.5 KiB"),
    ],
)
def test_a_card_without_free_memory_is_called_full(opened: bool, words: str) -> None:
    """On a card of its own, of 4 MiB; a model that is paged there already stays so."""
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(open=opened)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SIMGPU_CARD": f"full-{os.getpid()}",
            "SIMGPU_CAPACITY": "4MiB",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert words in done.stdout
    assert "no such device" not in done.stdout


def test_a_driver_that_finds_no_memory_for_itself_says_so_in_its_own_words() -> None:
    assert ran_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not ran_out_of_memory(RuntimeError("CUDA error: invalid device ordinal"))


@pytest.mark.trap(20)
def test_weights_take_the_same_bytes_in_every_forward(card: torch.device) -> None:
    gc.collect()  # of what earlier tests have left, nothing goes in the midst of this one
    model = optimem.page(linears(), card, vram="40%")
    x = torch.randn(4, 256).to(card)
    settled(model, x)
    allocated, reserved = simgpu.memory_allocated(), simgpu.memory_reserved()
    for _ in range(5):
        settled(model, x, 4)
        assert simgpu.memory_allocated() == allocated
        assert simgpu.memory_reserved() <= reserved


class Wide(nn.Module):
    """Little to read, much to keep: activations many times as large as the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)])
        self.up = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = [self.up(x) for _ in range(4)]
        return self.layers(x) + sum(wide)  # type: ignore[no-any-return]


@pytest.mark.trap(21)
def test_the_reserve_holds_the_measured_peak_of_activations(card: torch.device) -> None:
    x = torch.randn(2048, 64).to(card)
    gc.collect()
    model = optimem.page(Wide().eval(), card)
    settled(model, x)
    with torch.no_grad():
        model(x)
        torch.accelerator.synchronize()
        before = simgpu.memory_allocated()
        simgpu.reset_peak_memory_stats()
        model(x)
        activations = simgpu.max_memory_allocated() - before
    status = optimem.status(model)
    assert status is not None
    assert activations >= 4 * x.numel() * 4
    assert status.reserve_bytes >= activations


class Keeps(nn.Module):
    """Keeps what it has computed until the next forward has computed it anew."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears()
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> Any:
        y = self.layers(x)
        self.kept = y.repeat(256, 1)
        return y


@pytest.mark.trap(21)
def test_the_reserve_holds_what_a_forward_leaves_behind(card: torch.device) -> None:
    x = torch.randn(4, 256).to(card)
    before = simgpu.memory_allocated()
    model = optimem.page(Keeps().eval(), card, vram="50%")
    with torch.no_grad():
        model(x)
        for _ in range(4):
            simgpu.reset_peak_memory_stats()
            model(x)
            status = optimem.status(model)
            assert status is not None
            assert simgpu.max_memory_allocated() - before <= status.budget_bytes + status.reserve_bytes


@pytest.mark.trap(22)
def test_detaching_frees_the_card_at_once_and_the_next_model_gets_it(card: torch.device) -> None:
    gc.collect()
    torch.accelerator.empty_cache()
    free = simgpu.mem_get_info()[0]
    budgets = []
    for _ in range(3):
        model = optimem.page(linears(), card)
        budgets.append(settled(model, torch.randn(4, 256)).budget_bytes)
        assert simgpu.mem_get_info()[0] < free
        optimem.detach(model)
        torch.accelerator.empty_cache()
        assert simgpu.mem_get_info()[0] == free
    assert len(set(budgets)) == 1


@pytest.mark.trap(22)
def test_what_a_paged_model_holds_itself_counts_as_its_own(card: torch.device) -> None:
    model = optimem.page(linears(), card)
    x = torch.randn(4, 256)
    first = settled(model, x).budget_bytes
    model[0] = nn.Linear(256, 256).eval()  # so that it is recorded and planned again while its memory was just in use
    assert settled(model, x).budget_bytes == first


@pytest.mark.trap(10)
def test_outputs_that_were_weights_stay_what_they_were(card: torch.device) -> None:
    plain = models.HandsOnWeights().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="70%")
    with torch.no_grad():
        expected = bits(plain(models.rows()))
        outputs = [model(models.rows()) for _ in range(5)]
        assert all(bits(output) == expected for output in outputs)
        model.view.weight.data.zero_()
        optimem.detach(model)
    assert all(bits(output) == expected for output in outputs)
