"""Pinned host memory, with the simulated card as the accelerator."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

import simgpu


def test_pinned_by_a_factory() -> None:
    a = torch.empty(1000, pin_memory=True)
    assert a.is_pinned()
    assert a.device.type == "cpu"
    a.fill_(3)
    assert a.sum().item() == 3000
    assert torch.ones(3, pin_memory=True).is_pinned()


def test_pinned_copies() -> None:
    a = torch.randn(10, 10)
    b = a.pin_memory()
    assert not a.is_pinned()
    assert b.is_pinned()
    assert torch.equal(a, b)
    assert b.pin_memory().data_ptr() == b.data_ptr()


def test_views_are_pinned() -> None:
    slab = torch.empty(1 << 20, dtype=torch.uint8, pin_memory=True)
    view = slab[4096:8192].view(torch.float32).as_strided((4, 8), (8, 1))
    assert view.is_pinned()
    assert slab[-1:].is_pinned()


def test_others_are_not_pinned() -> None:
    keep = torch.empty(100, pin_memory=True)
    assert not torch.empty(100).is_pinned()
    assert not torch.empty(100, device="simgpu").is_pinned()
    del keep
    assert not torch.empty(0).is_pinned()


def test_the_tensor_is_of_the_size_asked_for() -> None:
    slab = torch.empty((1 << 20) + 1, dtype=torch.uint8, pin_memory=True)
    assert slab.untyped_storage().nbytes() == (1 << 20) + 1


def ram() -> int:
    """The resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_allocations_take_ram_at_once_rounded_up_to_a_power_of_two() -> None:
    before = ram()
    slab = torch.empty((64 << 20) + 1, dtype=torch.uint8, pin_memory=True)
    assert 0.99 * (128 << 20) < ram() - before < 1.1 * (128 << 20)
    del slab
    assert ram() - before < 8 << 20


def test_registered_memory_keeps_its_size() -> None:
    own = torch.zeros((64 << 20) + 1, dtype=torch.uint8)
    before = ram()
    simgpu.host_register(own)
    assert own.is_pinned()
    assert own[1 << 20 :].view(-1)[-1:].is_pinned()
    assert ram() - before < 8 << 20
    simgpu.host_unregister(own)
    assert not own.is_pinned()


def test_copies_from_registered_memory_take_the_pinned_way() -> None:
    own, pinned = torch.ones(1 << 20), torch.ones(1 << 20, pin_memory=True)
    target = torch.empty(1 << 20, device="simgpu")
    simgpu.host_register(own)
    took = []
    for source in (own, pinned):
        torch.simgpu.synchronize()
        simgpu.reset_counters()
        target.copy_(source, non_blocking=True)
        assert simgpu.host_blocking_calls() == {}
        torch.simgpu.synchronize()
        took.append(simgpu.counters()["h2d_busy_ns"])
    assert took[0] == took[1] > 0
    simgpu.host_unregister(own)
    simgpu.reset_counters()
    target.copy_(own, non_blocking=True)
    assert simgpu.counters()["host_blocking_calls"] == 1


def test_in_a_dry_run_pinned_memory_costs_no_ram() -> None:
    with simgpu.dry_run():
        assert torch.empty(8 << 30, dtype=torch.uint8, pin_memory=True).is_pinned()


def test_device_tensors_cannot_be_pinned() -> None:
    with pytest.raises(RuntimeError, match="pin"):
        torch.ones(3, device="simgpu").pin_memory()
    with pytest.raises(RuntimeError, match="pinned"):
        torch.empty(3, device="simgpu", pin_memory=True)


def test_loader_pins() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(8.0))
    batches = list(torch.utils.data.DataLoader(data, batch_size=4, pin_memory=True))
    assert [batch[0].is_pinned() for batch in batches] == [True, True]
