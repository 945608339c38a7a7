"""RAM: the weights are never there twice, and page-locked for as long as the model is attached."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

import models
import optimem
from optimem.card.names import open_device
from optimem.model.units import take_stock
from optimem.residency.ramstore import RamStore
from same import bits

WEIGHTS = 256 << 20

ATTACH = """
import re, resource, torch, simgpu, optimem
from pathlib import Path
from optimem.card import device

def most():
    return int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) * 1024  # of this program alone

def now():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

if {pageable}:
    device._can_register = device._has_pinned = lambda *_: False
torch.zeros(1, device="simgpu")
torch.zeros({width} * {width} + 1)  # once freed, the C library keeps blocks of this size to itself
model = torch.nn.Sequential(*[torch.nn.Linear({width}, {width}, bias=False) for _ in range({layers})]).eval()
optimem.detach(optimem.page(torch.nn.Linear(8, 8).eval(), "simgpu"))  # all that is loaded once
before = now()
assert most() - before < {weights} * 0.02, "the most that was used until now is no measure"
optimem.page(model, "simgpu", vram="25%")
print(most() - before, now() - before, optimem.status(model).pinned_bytes)
optimem.detach(model)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RAM is read as Linux tells it")
@pytest.mark.parametrize(("pageable", "width"), [(False, 2048), (True, 256)], ids=["registered", "pageable, small ones"])
def test_the_weights_are_never_in_ram_twice(pageable: bool, width: int) -> None:
    layers = WEIGHTS // (width * width * 4)
    code = ATTACH.format(pageable=pageable, width=width, layers=layers, weights=WEIGHTS)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    while_attaching, after, pinned = map(int, child.stdout.split())
    assert while_attaching < WEIGHTS * 0.3
    assert after < WEIGHTS * 0.05
    assert pinned == (0 if pageable else WEIGHTS)


def locked_model(card: torch.device) -> tuple[nn.Module, torch.Tensor]:
    """A paged model and a look at its slab."""
    model = optimem.page(nn.Linear(64, 64).eval(), card)
    status = optimem.status(model)
    assert status is not None
    assert status.pinned_bytes == 64 * 64 * 4 + 512  # the bias takes what it is aligned to
    look = model.weight.detach()
    assert look.is_pinned()
    return model, look


@pytest.mark.parametrize("attach", [optimem.page, optimem.chunk, optimem.fit])
def test_detaching_frees_the_slab_at_once(card: torch.device, attach: Any) -> None:
    model = attach(nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)]).eval(), device=card, vram="50%")
    with torch.no_grad():
        for _ in range(6):
            model(torch.ones(2, 64))
    attachment = optimem._find(model)
    assert attachment is not None
    slab = StorageWeakRef(attachment._tied.store.slab.untyped_storage())
    gc.collect()
    gc.disable()
    try:
        optimem.detach(model)
        assert slab.expired()
    finally:
        gc.enable()


def test_detach_unlocks(card: torch.device) -> None:
    model, look = locked_model(card)
    model(torch.ones(1, 64))
    optimem.detach(model)
    assert not look.is_pinned()
    assert not model.weight.is_pinned()


def test_a_model_that_goes_unlocks(card: torch.device) -> None:
    model, look = locked_model(card)
    with torch.no_grad():
        model(torch.ones(1, 64))
        model(torch.ones(1, 64))  # copies for the next forward may be under way
    kept = look.clone()
    del model
    gc.collect()
    assert not look.is_pinned()
    assert torch.equal(look, kept)


@pytest.mark.parametrize("shared", [False, True])
def test_spans_come_and_go_without_the_others_noticing(card: torch.device, shared: bool) -> None:
    model, more = models.Stack(4).eval(), models.Stack(3).eval()
    values = {id(p): bits(p) for each in (model, more) for p in each.parameters()}
    spans, added = take_stock(model).spans, take_stock(more).spans
    store = RamStore(open_device(card), spans)
    held = model.state_dict() if shared else {}
    store.insert(added)
    assert store.in_order([*added, *spans]) == [*spans, *added]
    assert (
        store.bytes_of([*spans[-1:], *added[:1]]).numel()
        == store.bytes_of(spans[-1:]).numel() + store.bytes_of(added[:1]).numel()
    )
    store.remove([spans[1], added[0]])
    left = [span for span in (*spans, *added) if span not in (spans[1], added[0])]
    assert store.bytes_of(left).numel() == store.slab.numel()
    assert [store.span_of(weight.parameter) for weight in (*spans[1].weights, *added[0].weights)] == [None, None]
    assert all(store.span_of(weight.parameter) is span for span in left for weight in span.weights)
    assert all(bits(p) == values[id(p)] for each in (model, more) for p in each.parameters())
    assert all(bits(held[name]) == bits(p) for name, p in model.named_parameters() if held)
    store.leave()
    assert store.storages().isdisjoint(p.untyped_storage().data_ptr() for each in (model, more) for p in each.parameters())
    assert all(bits(p) == values[id(p)] for each in (model, more) for p in each.parameters())
