"""Calls of parts: after a call of the whole, before it and between two; of methods that read weights of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from models import WIDTH
from paged import MODES
from same import bits


class Coder(nn.Module):
    """An autoencoder in whose pages the ends of one half lie beside the beginnings of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*models.linears(6), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH))
        self.q, self.p = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.decoder = nn.Sequential(nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), *models.linears(6))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.q(self.encoder(x))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.p(z))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x))


CALLS: dict[str, Callable[[Coder, torch.Tensor], Any]] = {
    "whole": lambda model, x: model(x),
    "encode": lambda model, x: model.encode(x),
    "decode": lambda model, x: model.decode(x),
    "layer": lambda model, x: model.encoder[0](x),
}
ORDER = ("whole", "encode", "whole", "whole", "layer", "decode", "encode", "whole", "decode", "decode", "whole", "whole")

poisoned = pytest.mark.parametrize("poison", ["", "1"], ids=["as it is", "poisoned"])
budgets = pytest.mark.parametrize("vram", ["40%", "60%", "120%"])
every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def no_grad() -> Any:
    with torch.no_grad():
        yield


def away(model: nn.Module) -> list[str]:
    """Return the names of the weights that are not on the CPU."""
    return [name for name, parameter in model.named_parameters() if parameter.device.type != "cpu"]


@pytest.mark.trap(39)
@poisoned
@budgets
@every_mode
def test_parts_are_called_after_the_whole(
    card: torch.device, monkeypatch: pytest.MonkeyPatch, mode: str, vram: str, poison: str
) -> None:
    monkeypatch.setenv("OPTIMEM_POISON", poison)
    plain, x = Coder().eval(), models.rows()
    model = MODES[mode](copy.deepcopy(plain), device=card, vram=vram)
    for name in ORDER:
        assert bits(CALLS[name](model, x)) == bits(CALLS[name](plain, x)), name
        assert not away(model), name
    optimem.detach(model)
    assert bits(CALLS["whole"](model, x)) == bits(CALLS["whole"](plain, x))


@pytest.mark.trap(39)
@poisoned
def test_parts_that_begin_elsewhere_find_their_turns_and_leave_those_of_the_whole(
    card: torch.device, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    monkeypatch.setenv("OPTIMEM_POISON", poison)
    model, x = optimem.page(Coder().eval(), card, vram="40%"), models.rows()
    for _ in range(6):
        model(x)
    before = misses(model)
    for name in ("encode", "encode", "whole", "decode", "decode", "layer", "layer", "encode", "decode", "whole", "whole"):
        CALLS[name](model, x)
    assert misses(model) == before


@pytest.mark.trap(39)
def test_weights_that_are_written_between_calls_of_parts_are_new_in_all_that_follow(card: torch.device) -> None:
    plain, x = Coder().eval(), models.rows()
    model = optimem.page(copy.deepcopy(plain), card, vram="40%")
    for name in ("whole", "whole", "encode", "decode", "whole", "encode"):
        assert bits(CALLS[name](model, x)) == bits(CALLS[name](plain, x))
        torch.accelerator.synchronize()
        for each in (plain, model):
            for parameter in each.parameters():
                parameter.mul_(0.5)


def misses(model: nn.Module) -> int:
    status = optimem.status(model)
    assert status is not None
    return status.misses


# A module that belongs to several models.


class Activated(nn.Module):
    act = nn.SiLU()  # one object for all models of the process, as some detection libraries have it

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.a = nn.Linear(WIDTH, WIDTH), self.act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(self.linear(x))


@pytest.mark.trap(40)
@every_mode
def test_a_module_without_tensors_may_be_part_of_other_models(card: torch.device, mode: str) -> None:
    a, b = (nn.Sequential(*[Activated() for _ in range(4)]).eval() for _ in range(2))
    x = models.rows()
    wanted = bits(a(x)), bits(b(x))
    MODES[mode](a, device=card, vram="60%")
    for _ in range(3):
        assert (bits(a(x)), bits(b(x))) == wanted
        assert b(x).device.type == "cpu"
    MODES[mode](b, device=card, vram="60%")
    for _ in range(3):
        assert (bits(a(x)), bits(b(x))) == wanted
    with torch.enable_grad():  # others may train
        Activated()(x.clone().requires_grad_()).sum().backward()
    optimem.detach(a)
    assert (bits(a(x)), bits(b(x))) == wanted


@pytest.mark.trap(40)
def test_two_paged_models_may_not_share_weights(card: torch.device) -> None:
    shared = Activated()
    optimem.page(nn.Sequential(Activated(), shared).eval(), card)
    with pytest.raises(optimem.BadInput, match="attached already"):
        optimem.page(nn.Sequential(shared, Activated()).eval(), card)


# Methods of a model that read weights of the model itself.


class Tokens(nn.Module):
    """A transformer's skeleton: its own method puts a token in front, as vision models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.token = nn.Parameter(models.rows(1, 1, WIDTH))
        self.layers = nn.ModuleList(models.linears(4))
        self.norm = nn.BatchNorm1d(3)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x).sum(-1)


class Positions(nn.Module):
    """Makes tensors where its weight is, from numbers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, count: int) -> torch.Tensor:
        return self.linear(torch.arange(count * WIDTH, device=self.linear.weight.device).view(count, WIDTH) / WIDTH)


class Placed(Tokens):
    def __init__(self) -> None:
        super().__init__()
        self.positions = Positions()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return super().features(self.embed(x) + self.positions(x.shape[1]))


@pytest.mark.trap(41)
@every_mode
@pytest.mark.parametrize("place", ["cpu", "simgpu"])
def test_parts_that_are_called_without_tensors_answer_where_the_others_do(card: torch.device, mode: str, place: str) -> None:
    plain, x = Placed().eval(), models.rows(2, 2, WIDTH)
    model = MODES[mode](copy.deepcopy(plain), device=card, vram="60%")
    for _ in range(4):
        assert bits(model(x)) == bits(plain(x))
        parts = [model.embed(x.to(place)), model.positions(x.shape[1])]
        assert bits(parts[0] + parts[1]) == bits(plain.embed(x) + plain.positions(x.shape[1]))
        if place == "cpu":
            assert bits(model.features(x)) == bits(plain.features(x))


@pytest.mark.trap(41)
@every_mode
def test_methods_read_weights_of_the_model_itself_cold_and_warm(card: torch.device, mode: str) -> None:
    plain, x = Tokens().eval(), models.rows(2, 2, WIDTH)
    model = MODES[mode](copy.deepcopy(plain), device=card, vram="60%")
    for _ in range(4):
        assert bits(model.features(x)) == bits(plain.features(x))
        assert bits(model(x)) == bits(plain(x))
