"""Pinned host memory, with the simulated card as the accelerator."""

from __future__ import annotations

import pytest
import torch


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


def test_the_size_is_exact() -> None:
    slab = torch.empty((1 << 20) + 1, dtype=torch.uint8, pin_memory=True)
    assert slab.untyped_storage().nbytes() == (1 << 20) + 1


def test_large_slabs_cost_no_ram_before_use() -> None:
    assert torch.empty(8 << 30, dtype=torch.uint8, pin_memory=True).is_pinned()


def test_device_tensors_cannot_be_pinned() -> None:
    with pytest.raises(RuntimeError, match="pin"):
        torch.ones(3, device="simgpu").pin_memory()
    with pytest.raises(RuntimeError, match="pinned"):
        torch.empty(3, device="simgpu", pin_memory=True)


def test_loader_pins() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(8.0))
    batches = list(torch.utils.data.DataLoader(data, batch_size=4, pin_memory=True))
    assert all(batch[0].is_pinned() for batch in batches)
