"""The first forward: what the link is measured with, and how few copies and marks it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import optimem
import simgpu
from optimem.card.device import AsyncDevice
from optimem.card.names import open_device
from optimem.learning.calibrate import measure_link


@pytest.fixture(scope="module")
def slab() -> torch.Tensor:
    return torch.ones(256 << 20, dtype=torch.uint8).pin_memory()


@pytest.mark.parametrize("mib", [2, 16, 100, 256])
def test_the_link_is_found_with_few_bytes(card: torch.device, slab: torch.Tensor, mib: int) -> None:
    source = slab[: mib << 20]
    wanted = simgpu.current_profile().link
    simgpu.reset_counters()
    found = measure_link(open_device("sim"), source, 1 << 40)
    assert abs(found.bytes_per_second / wanted.pinned - 1) < 0.02
    assert abs(found.latency_ns / wanted.latency_ns - 1) < 0.1
    assert 0 < simgpu.counters()["h2d_bytes"] <= max(source.numel() // 10, 8 << 20)


def test_the_link_is_measured_within_the_room_there_is(card: torch.device, slab: torch.Tensor) -> None:
    device = open_device("sim")
    device.reset_peak()
    before = device.peak()
    assert measure_link(device, slab, 1 << 20).bytes_per_second > 0
    assert device.peak() - before <= 1 << 20
    assert measure_link(device, slab, 1).bytes_per_second == 0


def test_small_weights_of_the_first_forward_come_together(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[int] = []
    real = AsyncDevice.timed_mark
    monkeypatch.setattr(AsyncDevice, "timed_mark", lambda self: marks.append(1) or real(self))
    monkeypatch.setattr(optimem.learning.times, "measure_link", lambda *a: optimem.learning.calibrate.Link(1, 10**9))  # type: ignore[attr-defined]
    layers = 64
    plain = nn.Sequential(*[nn.Linear(128, 128) for _ in range(layers)]).eval()
    x = torch.randn(2, 128, device=card)
    model = optimem.page(plain, card, vram="60%")
    simgpu.reset_counters()
    fetched: list[int] = []
    adopted = optimem.life.negotiation.Negotiation._learn  # type: ignore[attr-defined]

    def learn(self: object, recording: object) -> object:
        fetched.append(simgpu.counters()["h2d_copies"])
        marks_of_the_forward.append(len(marks))
        return adopted(self, recording)

    marks_of_the_forward: list[int] = []
    monkeypatch.setattr(optimem.life.negotiation.Negotiation, "_learn", learn)  # type: ignore[attr-defined]
    with torch.no_grad():
        model(x)
    assert fetched[0] <= layers // 4  # of 128 weights
    assert marks_of_the_forward[0] <= layers + 2 * fetched[0] + 4  # one per layer, and around each copy
