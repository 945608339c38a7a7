"""``parameter.data = tensor`` between host and card: the pager's hot path."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import nn

import simgpu

MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[object]]:
    return MODES[request.param]


def test_there_and_back(mode: Callable[[], AbstractContextManager[object]]) -> None:
    layer = nn.Linear(8, 4)
    masters = {name: p.data for name, p in layer.named_parameters()}
    parameters = dict(layer.named_parameters())
    x = torch.randn(3, 8)
    with mode():
        expected = layer(x)
        for _ in range(3):
            for p in parameters.values():
                p.data = p.data.to("simgpu")
                assert p.device.type == "simgpu"
            assert torch.equal(layer(x.to("simgpu")).cpu(), expected)
            for name, p in parameters.items():
                p.data = masters[name]
                assert p.device.type == "cpu"
            assert torch.equal(layer(x), expected)
    assert all(a is b for a, b in zip(layer.parameters(), parameters.values(), strict=True))
    assert layer.weight.data_ptr() == masters["weight"].data_ptr()
    assert layer.weight.is_leaf


def test_views_of_one_device_block(mode: Callable[[], AbstractContextManager[object]]) -> None:
    conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    half = nn.Linear(5, 7).bfloat16()
    x, y = torch.randn(1, 3, 6, 6), torch.randn(2, 5).bfloat16()
    with mode():
        expected = conv(x), half(y)
    block = torch.empty(1 << 16, dtype=torch.uint8, device="simgpu")
    with torch.no_grad():
        offset = 512
        views = []
        for p in [*conv.parameters(), *half.parameters()]:
            size = p.numel() * p.element_size()
            view = block[offset : offset + size].view(p.dtype).as_strided(p.size(), p.stride())
            view.copy_(p)
            views.append(view)
            offset += (size + 511) // 512 * 512
    with mode():
        for p, view in zip([*conv.parameters(), *half.parameters()], views, strict=True):
            p.data = view
            assert p.data_ptr() == view.data_ptr()
        assert conv.weight.stride() == views[0].stride()
        got = conv(x.to("simgpu")), half(y.to("simgpu"))
    assert torch.equal(expected[0], got[0].cpu())
    assert torch.equal(expected[1], got[1].cpu())
    block.fill_(255)
    assert conv.weight.isnan().all().item()


def test_views_made_in_one_mode_serve_in_another() -> None:
    with torch.inference_mode():
        block = torch.zeros(64, device="simgpu")
        inside = block[:16].view(4, 4)
    outside = torch.zeros(4, 4, device="simgpu")
    p = nn.Parameter(torch.ones(4, 4), requires_grad=False)
    master = p.data
    for view in (inside, outside, master, inside, master, outside):
        p.data = view
        assert p.device == view.device
        with torch.inference_mode():
            p.data = master
            p.data = view
    with torch.no_grad():
        assert (p + 1).sum().item() == 16


def test_identity_and_flags_stay() -> None:
    p = nn.Parameter(torch.ones(3))
    before = id(p)
    p.data = p.data.to("simgpu")
    assert id(p) == before
    assert isinstance(p, nn.Parameter)
    assert p.requires_grad
    assert p.is_leaf
    p.requires_grad_(False)
    p.data = p.data.cpu()
    assert p.tolist() == [1, 1, 1]


def test_old_blocks_go_when_nothing_points_at_them() -> None:
    p = nn.Parameter(torch.ones(1000), requires_grad=False)
    master = p.data
    before = simgpu.memory_allocated()
    p.data = master.to("simgpu")
    assert simgpu.memory_allocated() - before == 4096
    p.data = master
    assert simgpu.memory_allocated() == before


def test_set_repoints_too() -> None:
    block = torch.arange(100.0, device="simgpu")
    a = torch.empty(0, device="simgpu")
    a.set_(block.untyped_storage(), 10, (2, 3), (3, 1))
    assert a.tolist() == [[10, 11, 12], [13, 14, 15]]
    a.set_(block)
    assert a.data_ptr() == block.data_ptr()
    a.set_()
    assert a.numel() == 0
    assert a.device.type == "simgpu"


def test_swap_tensors() -> None:
    a, b = torch.ones(3), torch.zeros(3, device="simgpu")
    torch.utils.swap_tensors(a, b)
    assert a.device.type == "simgpu"
    assert b.device.type == "cpu"


def test_flattened_weights_of_recurrent_layers() -> None:
    lstm = nn.LSTM(4, 6, num_layers=2, bidirectional=True).eval()
    x = torch.randn(5, 2, 4)
    with torch.no_grad():
        expected = lstm(x)[0]
        for p in lstm.parameters():
            p.data = p.data.to("simgpu")
        assert torch.equal(lstm(x.to("simgpu"))[0].cpu(), expected)
