"""Deepcopy, pickle, torch.save and torch.load."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn


def test_deepcopy() -> None:
    a = torch.randn(3, 4, device="simgpu")
    b = copy.deepcopy(a)
    assert b.device == a.device
    assert b.data_ptr() != a.data_ptr()
    assert torch.equal(a, b)
    layer = nn.Linear(3, 4).to("simgpu")
    twin = copy.deepcopy(layer)
    assert isinstance(twin.weight, nn.Parameter)
    assert torch.equal(twin.weight, layer.weight)


def test_pickle() -> None:
    a = torch.randn(3, 4, device="simgpu")
    b = pickle.loads(pickle.dumps(a))
    assert b.device == a.device
    assert torch.equal(a, b)


@pytest.mark.parametrize("target", [None, "cpu", "simgpu", "simgpu:0"])
def test_save_and_load(target: str | None) -> None:
    state = {"a": torch.randn(3, 4, device="simgpu"), "b": torch.randn(5, device="simgpu").bfloat16()}
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, map_location=target, weights_only=True)
    for name, tensor in state.items():
        assert loaded[name].device.type == ("cpu" if target == "cpu" else "simgpu")
        assert torch.equal(loaded[name].cpu(), tensor.cpu())


def test_load_from_the_host_to_the_card() -> None:
    file = io.BytesIO()
    torch.save(torch.ones(3), file)
    file.seek(0)
    assert torch.load(file, map_location="simgpu").device.type == "simgpu"


def test_views_share_their_storage_after_loading() -> None:
    base = torch.arange(10.0, device="simgpu")
    file = io.BytesIO()
    torch.save([base, base[2:4]], file)
    file.seek(0)
    whole, part = torch.load(file)
    part.fill_(-1)
    assert whole.tolist()[2:4] == [-1, -1]


def test_state_dicts() -> None:
    source, target = nn.Linear(3, 4), nn.Linear(3, 4).to("simgpu")
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.weight.cpu(), source.weight)
    target.load_state_dict(nn.Linear(3, 4).to("simgpu").state_dict(), assign=True)
    assert target.weight.device.type == "simgpu"


def test_meta_modules_become_real() -> None:
    with torch.device("meta"):
        layer = nn.Linear(3, 4)
    layer.to_empty(device="simgpu")
    assert layer.weight.device.type == "simgpu"
