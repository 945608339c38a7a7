"""Copies between host and card: values, layouts, types, and what is counted."""

from __future__ import annotations

import pytest
import torch

import simgpu

TYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
]


@pytest.mark.parametrize("dtype", TYPES)
def test_there_and_back(dtype: torch.dtype) -> None:
    plain = torch.arange(24).reshape(2, 3, 4).to(dtype)
    card = plain.to("simgpu")
    assert card.device == torch.device("simgpu:0")
    assert card.dtype == dtype
    assert torch.equal(card.cpu().view(torch.uint8), plain.view(torch.uint8))


def test_conversion_on_the_way() -> None:
    plain = torch.randn(5, 5)
    assert torch.equal(plain.to("simgpu", torch.bfloat16).cpu(), plain.bfloat16())
    assert torch.equal(plain.to("simgpu").to("cpu", torch.float64), plain.double())
    target = torch.empty(5, 5, dtype=torch.float16, device="simgpu")
    target.copy_(plain)
    assert torch.equal(target.cpu(), plain.half())


def test_strides_survive() -> None:
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    card = images.to("simgpu")
    assert card.is_contiguous(memory_format=torch.channels_last)
    assert card.cpu().stride() == images.stride()
    assert torch.equal(card.cpu(), images)
    turned = torch.randn(3, 4).t()
    assert torch.equal(turned.to("simgpu").cpu(), turned)
    target = torch.zeros(6, 8, device="simgpu")
    target[::2, ::2].copy_(torch.ones(3, 4))
    assert target.sum().item() == 12
    assert target[::2, ::2].cpu().sum().item() == 12


def test_broadcast_copy() -> None:
    target = torch.zeros(3, 4, device="simgpu")
    target.copy_(torch.arange(4.0))
    assert target.tolist() == [[0, 1, 2, 3]] * 3


def test_lazy_conjugates_and_negatives() -> None:
    plain = torch.randn(3, 4, dtype=torch.complex64)
    card = plain.to("simgpu")
    assert card.conj().is_conj()
    assert torch.equal(card.conj().cpu(), plain.conj())
    assert torch.equal(plain.conj().to("simgpu").cpu(), plain.conj().resolve_conj())
    assert torch.equal(card.conj().imag.cpu(), plain.conj().imag)
    assert torch.equal(torch._neg_view(card).cpu(), -plain)
    assert torch.equal((card.conj() @ card.t()).cpu(), plain.conj() @ plain.t())
    target = torch.zeros(3, 4, dtype=torch.complex64, device="simgpu")
    target.conj().copy_(card)
    assert torch.equal(target.cpu(), plain.conj().resolve_conj())


def test_values_to_python() -> None:
    card = torch.tensor([[1.5, 2.5]], device="simgpu")
    assert card[0, 1].item() == 2.5
    assert card.tolist() == [[1.5, 2.5]]
    assert card.cpu().numpy().tolist() == [[1.5, 2.5]]
    assert bool(torch.tensor(True, device="simgpu"))
    assert int(torch.tensor(7, device="simgpu")) == 7
    assert torch.tensor(1 + 2j, device="simgpu").item() == 1 + 2j
    with pytest.raises(TypeError, match="simgpu"):
        card.numpy()


def test_printing() -> None:
    assert repr(torch.tensor([1.0, 2.0], device="simgpu")) == "tensor([1., 2.], device='simgpu:0')"
    assert "device='simgpu:0'" in repr(torch.randn(3, 3, device="simgpu").bfloat16())
    assert "Parameter" in repr(torch.nn.Parameter(torch.ones(2, device="simgpu")))


def test_what_copies_are_counted_as() -> None:
    host = torch.ones(1000)
    simgpu.reset_counters()
    card = host.to("simgpu")
    twice = card.clone()
    back = twice.cpu()
    count = simgpu.counters()
    assert (count["h2d_copies"], count["h2d_bytes"]) == (1, 4000)
    assert (count["d2d_copies"], count["d2d_bytes"]) == (1, 4000)
    assert (count["d2h_copies"], count["d2h_bytes"]) == (1, 4000)
    assert count["kernels"] == 0
    assert count["host_blocking_calls"] == 2
    assert back.sum().item() == 1000


@pytest.mark.parametrize(
    ("pinned", "non_blocking", "blocking"), [(True, True, 0), (True, False, 1), (False, True, 1), (False, False, 1)]
)
def test_only_pinned_non_blocking_copies_do_not_block(pinned: bool, non_blocking: bool, blocking: int) -> None:
    host = torch.ones(1000, pin_memory=pinned)
    card = torch.empty(1000, device="simgpu")
    simgpu.reset_counters()
    card.copy_(host, non_blocking=non_blocking)
    assert simgpu.counters()["host_blocking_calls"] == blocking
    simgpu.synchronize()
    host.zero_()
    simgpu.reset_counters()
    host.copy_(card, non_blocking=non_blocking)
    assert simgpu.counters()["host_blocking_calls"] == blocking
    simgpu.synchronize()
    assert host.sum().item() == 1000


def test_what_makes_the_host_wait() -> None:
    x = torch.tensor([0.0, 1.0, 2.0], device="simgpu")
    cases = {
        "item": lambda: x.sum().item(),
        "nonzero": lambda: x.nonzero(),
        "mask": lambda: x[x > 0],
        "unique": lambda: x.unique(),
        "synchronize": simgpu.synchronize,
    }
    for name, case in cases.items():
        simgpu.reset_counters()
        case()
        assert simgpu.counters()["host_blocking_calls"] == 1, name
    index = torch.tensor([0, 1], device="simgpu")
    simgpu.reset_counters()
    _ = x[index] + 1
    _ = x.view(3, 1).expand(3, 2).t()
    assert simgpu.counters()["host_blocking_calls"] == 0
    assert simgpu.counters()["kernels"] == 2
