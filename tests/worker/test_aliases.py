"""Who else looks at weights: state_dicts taken in between, views that a model or its caller keeps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from optimem.card.names import open_device
from optimem.model.units import take_stock
from optimem.residency.ramstore import RamStore
from same import bits

ALL = pytest.mark.parametrize("attach", [optimem.page, optimem.chunk, optimem.fit])


class Backwards(models.Stack):
    """Runs its layers against the order in which they are registered, so that the plan wants another order of the slab."""

    def forward(self, x: torch.Tensor) -> Any:
        for layer in reversed(self.layers):
            x = layer(x)
        return x


def called(model: nn.Module, times: int = 5) -> list[Any]:
    """Return the bits of so many forwards."""
    with torch.no_grad():
        return [bits(model(models.rows())) for _ in range(times)]


@ALL
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_state_dict_keeps_its_values(card: torch.device, attach: Any, after: int) -> None:
    plain = Backwards(8).eval()
    model, expected = attach(copy.deepcopy(plain), device=card, vram="50%"), called(plain)
    assert called(model, after) == expected[:after]
    held = model.state_dict()
    assert called(model) == expected
    assert called(model) == expected
    for name, value in plain.state_dict().items():
        assert bits(held[name]) == bits(value) == bits(model.state_dict()[name])
    optimem.detach(model)
    assert all(bits(held[name]) == bits(value) for name, value in plain.state_dict().items())
    assert called(model) == expected


@pytest.mark.parametrize("shared", [False, True])
def test_the_slab_is_left_only_where_somebody_looks_into_it(card: torch.device, shared: bool) -> None:
    model = Backwards(4).eval()
    device = open_device(card)
    spans = take_stock(model).spans
    masters = RamStore(device, spans)
    held = model.state_dict() if shared else {}
    values = {name: bits(value) for name, value in model.state_dict().items()}
    before = masters.slab.data_ptr()
    masters.arrange(list(reversed(spans)))
    assert (masters.slab.data_ptr() != before) == shared
    moved = masters.slab.data_ptr()
    masters.arrange(list(reversed(spans)))
    masters.arrange(spans)
    assert masters.slab.data_ptr() == moved  # nobody looks into that one
    assert {name: bits(value) for name, value in model.state_dict().items()} == values
    assert all(bits(value) == values[name] for name, value in held.items())
    masters.leave()


class Notes(nn.Linear):
    """Notes a view of its bias in a list of the caller's."""

    def forward(self, x: torch.Tensor, notes: list[torch.Tensor]) -> Any:  # type: ignore[override]
        notes.append(self.bias.expand(3, -1))
        return super().forward(x)


class NotesAll(nn.Module):
    """Calls such layers against the order in which they are registered."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Notes(models.WIDTH, models.WIDTH) for _ in range(6)])

    def forward(self, x: torch.Tensor, notes: list[torch.Tensor]) -> Any:
        for layer in reversed(self.layers):
            x = layer(x, notes)
        return x


def test_views_that_the_caller_gets_in_a_container_keep_their_values(card: torch.device, slow_cpu: None) -> None:
    plain = NotesAll().eval()
    model = optimem.chunk(copy.deepcopy(plain), card, vram="50%")
    with torch.no_grad():
        noted: list[torch.Tensor] = []
        expected: list[torch.Tensor] = []
        assert bits(model(models.rows(), noted)) == bits(plain(models.rows(), expected))
        called_again = bits(model(models.rows(), []))
    assert called_again == bits(plain(models.rows(), []))
    assert [bits(view) for view in noted] == [bits(view) for view in expected]


class Caches(nn.Module):
    """Makes a view of its weight in its n-th call and keeps it."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(models.WIDTH, models.WIDTH) / 8)
        self.at, self.calls = at, 0
        self.view: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at:
            self.view = self.weight.t()
        return torch.relu(x @ (self.weight.t() if self.view is None else self.view))


@pytest.mark.parametrize("habits", [{}, {"verify": True}, {"retry": True}])
@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_view_of_a_streamed_weight_that_is_kept_is_refused(card: torch.device, at: int, habits: dict[str, bool]) -> None:
    plain = nn.Sequential(*[Caches(at) for _ in range(8)]).eval()
    model, expected = optimem.page(copy.deepcopy(plain), card, vram="40%", **habits), called(plain, 1)
    assert called(model, at - 1) == expected * (at - 1)
    with pytest.raises(optimem.BadInput, match=r"kept a view of one of its weights.*detached now, and the view is NaN"):
        called(model, 1)
    assert optimem.status(model) is None
    for layer in model:
        layer.view = None
    assert called(model, 2) == expected * 2


def test_a_model_that_returns_a_view_of_its_weight_is_not_refused(card: torch.device) -> None:
    class Returns(Backwards):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), self.layers[2].weight

    plain = Returns(8).eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    with torch.no_grad():
        for _ in range(6):
            assert bits(model(models.rows())) == bits(plain(models.rows()))


def test_a_budget_that_is_refused_after_the_first_forward_leaves_a_plain_model(card: torch.device) -> None:
    plain = Backwards(8).eval()
    model, expected = optimem.page(copy.deepcopy(plain), card, vram=2 * models.WIDTH**2 * 4), called(plain)
    with pytest.raises(optimem.BadInput, match=r"missing.*The model is detached now"), torch.no_grad():
        model(models.rows(512, models.WIDTH))  # activations that nobody could know of
    assert optimem.status(model) is None
    assert called(model) == expected
