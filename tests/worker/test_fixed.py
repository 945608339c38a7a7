"""What is not paged stays one thing: bytes that are shared stay shared, and all of it comes home."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from optimem.model.units import storage_pointer, take_stock
from same import bits, found, values

CPU = torch.device("cpu")
MODES = pytest.mark.parametrize("attach", [optimem.page, optimem.fit, optimem.chunk])


def forwards(model: nn.Module, count: int = 4) -> list[Any]:
    """Return the bits of so many forwards."""
    with torch.no_grad():
        return [bits(model(models.rows())) for _ in range(count)]


@dataclass
class Memory:
    """Holds what a model remembers."""

    last: torch.Tensor | None = None
    all: list[torch.Tensor] = field(default_factory=list)


class Remembers(models.Stack):
    """Keeps what it computes in containers of its own, two of them views of one tensor."""

    def __init__(self) -> None:
        super().__init__(8)
        self.register_buffer("sum", torch.zeros(models.WIDTH))
        self.kv: dict[str, Any] = {"nested": [{}]}
        self.memory = Memory()
        self.view: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> Any:
        x = super().forward(x)
        self.kv["k"] = self.kv["k"] + x if "k" in self.kv else x
        self.kv["nested"][0]["first"] = x[0]
        self.memory.last = x
        self.memory.all.append(x)
        self.sum += x[0]
        self.view = self.sum[:4]
        return self.kv["k"]


@pytest.mark.trap(9)
@MODES
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_tensors_in_containers_of_the_model_come_home(card: torch.device, attach: Any, guard: Any) -> None:
    plain = Remembers().eval()
    model = copy.deepcopy(plain)
    kv, nested, memory, kept = model.kv, model.kv["nested"], model.memory, model.memory.all
    attach(model, device=card, vram="60%")
    with guard():
        for _ in range(4):
            assert bits(model(models.rows())) == bits(plain(models.rows()))
    remembered = memory.last
    optimem.detach(model)
    assert (model.kv is kv, kv["nested"] is nested, model.memory is memory, memory.all is kept) == (True,) * 4
    assert memory.last is remembered
    places = {tensor.device for tensor in (kv["k"], nested[0]["first"], memory.last, *memory.all, model.view)}
    assert places == {CPU}
    assert nested[0]["first"].data_ptr() == memory.last.data_ptr()
    assert model.view.data_ptr() == model.sum.data_ptr()
    assert values(model) == values(plain)
    with guard():
        assert bits(model(models.rows())) == bits(plain(models.rows()))


class SharesWithBuffers(models.Stack):
    """A buffer is the bytes of two weights, another a part of a bias, beside which another bias lies in the same storage."""

    def __init__(self) -> None:
        super().__init__(8)
        both = torch.randn(2, models.WIDTH) / 8
        self.layers[3].bias = nn.Parameter(both[0])
        self.layers[4].bias = nn.Parameter(both[1])
        self.layers[5].weight = nn.Parameter(self.layers[2].weight.data.t())
        self.register_buffer("whole", self.layers[2].weight.data)
        self.layers[6].register_buffer("part", both[0][4:8])

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x) + self.whole.sum() + self.layers[6].part.sum()

    def shared(self) -> list[bool]:
        """Tell which share a storage still."""
        weights = self.layers[2].weight, self.layers[5].weight, self.layers[3].bias
        buffers = self.whole, self.whole, self.layers[6].part
        return [storage_pointer(a) == storage_pointer(b) for a, b in zip(weights, buffers, strict=True)]


def made() -> SharesWithBuffers:
    """Return the same model each time: a copy does not share."""
    torch.manual_seed(0)
    return SharesWithBuffers().eval()


@pytest.mark.trap(7, 9)
@pytest.mark.usefixtures("slow_cpu")
@pytest.mark.parametrize("vram", ["70%", "120%"])
@MODES
def test_a_parameter_that_shares_bytes_with_a_buffer_is_kept_whole(card: torch.device, attach: Any, vram: str) -> None:
    plain, model = made(), made()
    before = found(model)
    attach(model, device=card, vram=vram)
    assert forwards(model) == forwards(plain)
    assert model.shared() == [True] * 3
    torch.accelerator.synchronize()
    with torch.no_grad():
        for each in (plain, model):
            each.layers[2].weight.mul_(2)
            each.layers[6].part.add_(1)
    assert forwards(model) == forwards(plain)
    optimem.detach(model)
    assert model.shared() == [True] * 3
    assert {name: held for name, held in found(model).items() if "parameter" not in name} == {
        name: held for name, held in before.items() if "parameter" not in name
    }
    assert values(model) == values(plain)
    assert forwards(model) == forwards(plain)


def test_it_is_named_with_the_reason(card: torch.device) -> None:
    status = optimem.status(optimem.page(made(), card))
    assert status is not None
    notes = dict(note.split(": ", maxsplit=1) for note in status.notes)
    assert {name for name, why in notes.items() if "shares bytes with a buffer" in why} == {
        "layers.2.weight",
        "layers.3.bias",
        "layers.5.weight",
    }


def test_what_only_lies_in_the_same_storage_is_paged() -> None:
    model = made()
    paged = {weight.name for span in take_stock(model).spans for weight in span.weights}
    assert "layers.4.bias" in paged
    assert not paged & {"layers.2.weight", "layers.3.bias", "layers.5.weight"}
    assert take_stock(model).fixed_bytes == models.WIDTH**2 * 4 + 512  # shared ones once, a bias in a block of its own
