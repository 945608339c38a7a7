"""Other people's offloaders, unchanged, on a small model: the CPU's bits, no race, and times that repeat and differ.

``bench/peers.py`` is the same on a ResNet-101, with figures. The ancestor is tried where ``SIMGPU_ANCESTOR`` names a
folder that ``pip install --no-deps --target`` has put it into.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import simgpu

CARD = torch.device("simgpu", 0)
FORWARDS = 3
Prepare = Callable[[nn.Module], nn.Module]


def block(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


class Small(nn.Module):
    """Six blocks of a third of a megabyte each between a stem and a head; buffers that differ from a fresh model's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 96, 3)
        self.blocks = nn.Sequential(*(block(96) for _ in range(6)))
        self.head = nn.Linear(96, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.blocks(self.stem(image)).mean((2, 3)))
        return answer


@pytest.fixture
def model() -> nn.Module:
    small = Small()
    with torch.no_grad():
        small(torch.randn(4, 3, 12, 12))  # in training mode: the running means move
    return small.eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(1, 3, 12, 12)


def accelerate_offload(model: nn.Module) -> nn.Module:
    accelerate = pytest.importorskip("accelerate")
    offloaded: nn.Module = accelerate.cpu_offload(model, execution_device=CARD)
    return offloaded


def groups(**settings: Any) -> Prepare:
    def prepare(model: nn.Module) -> nn.Module:
        pytest.importorskip("accelerate")
        hooks = pytest.importorskip("diffusers.hooks")
        hooks.apply_group_offloading(model, onload_device=CARD, **settings)
        return model

    return prepare


def ancestor() -> ModuleType:
    """The ancestor's package under a name of its own, since its own is the worker's."""
    folder = os.environ.get("SIMGPU_ANCESTOR")
    if folder is None:
        pytest.skip("SIMGPU_ANCESTOR names no folder with pytorch-optimem in it")
    package = Path(folder, "optimem")
    spec = importlib.util.spec_from_file_location(
        "ancestor", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "ancestor", module)
        spec.loader.exec_module(module)
    return module


def ancestor_page(model: nn.Module) -> nn.Module:
    ancestor().page(model, device=CARD)
    return model


def ancestor_chunk(model: nn.Module) -> nn.Module:
    ancestor().chunk(model, device=CARD, max_capacity=200_000)
    return model


LEAF = groups(offload_type="leaf_level")
LEAF_STREAMS = groups(offload_type="leaf_level", use_stream=True)
LEAF_RECORDED = groups(offload_type="leaf_level", use_stream=True, record_stream=True)
BLOCK = groups(offload_type="block_level", num_blocks_per_group=1)
BLOCK_STREAMS = groups(offload_type="block_level", num_blocks_per_group=1, use_stream=True)
PEERS = {
    "accelerate": accelerate_offload,
    "leaf": LEAF,
    "leaf, streams": LEAF_STREAMS,
    "leaf, streams, record_stream": LEAF_RECORDED,
    "block": BLOCK,
    "block, streams": BLOCK_STREAMS,
    "ancestor page": ancestor_page,
    "ancestor chunk": ancestor_chunk,
}


def run(prepare: Prepare, model: nn.Module, image: torch.Tensor) -> tuple[list[torch.Tensor], list[int]]:
    """The answers of some forwards, brought back, and the virtual nanoseconds that each took."""
    offloaded, on_card = prepare(copy.deepcopy(model)), image.to(CARD)
    answers, took = [], []
    for _ in range(FORWARDS):
        simgpu.synchronize()
        start = simgpu.now_ns()
        answer = offloaded(on_card)
        simgpu.synchronize()
        took.append(simgpu.now_ns() - start)
        answers.append(answer.cpu())
    return answers, took


@pytest.mark.parametrize("name", PEERS)
@torch.no_grad()
def test_the_same_bits_and_the_same_times(name: str, model: nn.Module, image: torch.Tensor) -> None:
    expected = model(image)
    answers, took = run(PEERS[name], model, image)
    assert all(torch.equal(answer, expected) for answer in answers)
    assert all(ns > 0 for ns in took)
    assert run(PEERS[name], model, image)[1] == took


@pytest.mark.parametrize("name", PEERS)
@torch.no_grad()
def test_no_peer_reads_what_it_has_freed(name: str, model: nn.Module, image: torch.Tensor) -> None:
    simgpu.set_fill_freed(True)
    expected = model(image)
    answers, _ = run(PEERS[name], model, image)
    assert all(torch.equal(answer, expected) for answer in answers)


@pytest.mark.parametrize(
    ("plain", "streams"),
    [
        pytest.param(LEAF, LEAF_STREAMS, id="streams"),
        pytest.param(LEAF_STREAMS, LEAF_RECORDED, id="without waiting before freeing"),
        pytest.param(BLOCK, BLOCK_STREAMS, id="streams, block"),
    ],
)
@torch.no_grad()
def test_what_overlaps_is_faster(plain: Prepare, streams: Prepare, model: nn.Module, image: torch.Tensor) -> None:
    slow, fast = run(plain, model, image)[1], run(streams, model, image)[1]
    assert fast[-1] < slow[-1]  # the first forward of a prefetching peer only looks at the order


class Careless(simgpu.Stream):
    def synchronize(self) -> None:
        """Does not wait."""


@torch.no_grad()
def test_a_peer_that_did_not_wait_would_race(
    model: nn.Module, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simgpu, "Stream", Careless)
    with pytest.raises(simgpu.RaceError):
        run(LEAF_STREAMS, model, image)


@torch.no_grad()
def test_a_peer_that_did_not_record_its_streams_would_race(
    model: nn.Module, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    with pytest.raises(simgpu.RaceError):
        run(LEAF_RECORDED, model, image)
