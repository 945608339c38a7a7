"""Spans, units and the slab, without any device."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import models
import optimem
from optimem.card.device import SyncDevice
from optimem.model.units import Reading, aligned, by_owner, by_reading, take_stock
from optimem.residency.ramstore import RamStore
from same import bits, found

CPU = torch.device("cpu")


def test_a_tied_weight_is_one_span_with_one_parameter() -> None:
    inventory = take_stock(models.Tied().eval())
    assert sum("embed" in span.owner or "head" in span.owner for span in inventory.spans) == 1


def test_views_of_one_storage_are_spans_of_their_own_unless_they_overlap() -> None:
    storage = torch.randn(4, models.WIDTH, models.WIDTH)
    model = models.Stack().eval()
    for layer, weight in zip(model.layers, storage, strict=True):
        layer.weight = nn.Parameter(weight)
    model.layers[3].weight = nn.Parameter(storage[2].t())
    weights = [span for span in take_stock(model).spans if span.nbytes == models.WIDTH**2 * 4]
    assert [len(span.weights) for span in weights] == [1, 1, 2]


def test_units_split_where_readers_differ_and_stand_in_the_order_of_use() -> None:
    spans = take_stock(models.Stack(2).eval()).spans
    first, second = by_owner(spans)
    weight, bias = first.spans
    readings = {
        weight: Reading(("layers.0",), ((4, 4),)),
        bias: Reading(("",), ((0, 9),)),
        **dict.fromkeys(second.spans, Reading(("layers.1",), ((2, 2),))),
    }
    units = by_reading(spans, readings)
    assert [unit.path for unit in units] == ["layers.0.bias", "layers.1", "layers.0.weight"]
    assert [unit.path for unit in by_reading(spans, {})] == ["layers.0", "layers.1"]


@given(st.permutations(range(6)))
def test_the_slab_takes_any_order_without_changing_a_bit(order: list[int]) -> None:
    torch.manual_seed(0)
    model = models.Views().eval()
    before = {name: (bits(tensor), tensor.stride()) for name, tensor in model.state_dict().items()}
    spans = take_stock(model).spans
    masters = RamStore(SyncDevice(CPU), spans)
    masters.arrange([spans[index] for index in order if index < len(spans)] + [*spans[6:]])
    assert {name: (bits(tensor), tensor.stride()) for name, tensor in model.state_dict().items()} == before
    masters.leave()
    assert {name: (bits(tensor), tensor.stride()) for name, tensor in model.state_dict().items()} == before


def test_pages_come_together_with_as_little_moved_as_may_be() -> None:
    masters = RamStore(SyncDevice(CPU), spans := take_stock(models.Stack(4).eval()).spans)
    a, b, c, d, e, *rest = spans
    for pages, order in (
        ([[e, d, *rest], [c], [b, a]], spans),  # pages may lie in any order, and spans in a page
        ([[d, b], [a, c]], [a, c, b, d, e, *rest]),
        ([], spans),
    ):
        assert masters.with_neighbours(pages) == list(order)


def test_a_page_of_the_slab_must_be_of_neighbours() -> None:
    spans = take_stock(models.Stack().eval()).spans
    masters = RamStore(SyncDevice(CPU), spans)
    assert masters.bytes_of(spans[:2]).numel() == sum(aligned(span.nbytes) for span in spans[:2])
    with pytest.raises(ValueError, match="neighbour"):
        masters.bytes_of([spans[2], spans[0]])


class Tiny(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.offsets = nn.ParameterList(torch.randn(3) for _ in range(count))
        self.scales = nn.ParameterList(torch.randn(()).double() for _ in range(count))
        self.tied = self.offsets[5]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x)[:, :3] + sum(self.offsets) * sum(self.scales) + self.tied


@pytest.mark.trap(44)
@pytest.mark.parametrize("attach", [optimem.page, optimem.chunk])
def test_thousands_of_tiny_parameters_take_hardly_more_than_their_bytes(card: torch.device, attach: Any) -> None:
    plain = Tiny(3000).eval()
    model = copy.deepcopy(plain)
    before = found(model)
    attach(model, device=card, vram="120%")
    status = optimem.status(model)
    assert status is not None
    assert status.weights_bytes < 1.6 * sum(each.numel() * each.element_size() for each in plain.parameters())
    with torch.no_grad():
        for step in range(4):
            assert bits(model(models.rows())) == bits(plain(models.rows()))
            torch.accelerator.synchronize()
            for each in (plain, model):
                each.offsets[step] += 1
    assert status.pinned_bytes < 2 * status.weights_bytes
    optimem.detach(model)
    assert bits(list(model.parameters())) == bits(list(plain.parameters()))
    assert model.offsets[0].untyped_storage().nbytes() == 12
    assert found(model).keys() == before.keys()
