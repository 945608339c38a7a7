"""Autocast keeps cast copies of weights: never another's, never on the wrong side, and no bytes outside of the plan."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from same import bits
from test_traps import ATTACH, made

pytestmark = pytest.mark.trap(32)

HALF = torch.bfloat16


def cast(device: str) -> Any:
    """Return the region in which operations on `device` cast their arguments."""
    return torch.autocast(device, HALF)


def stack(depth: int = 24, width: int = 128) -> nn.Module:
    """Return layers whose weights weigh more than what flows through them."""
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)]).eval()


@pytest.mark.parametrize(
    ("trap", "vram"),
    [
        ("plain stack", "30%"),
        ("plain stack", "120%"),
        ("tied embedding and head", "30%"),
        ("a parent reads its children's weights", "60%"),
        ("LSTM", "100%"),
    ],
)
def test_bits_are_those_of_the_plain_model_on_the_same_side(card: torch.device, trap: str, vram: str) -> None:
    with torch.no_grad():
        model, args, kwargs = made(trap)
        model.to(card)
        with cast(card.type):
            expected = bits(model(*[arg.to(card) for arg in args], **kwargs))
        model, args, kwargs = made(trap)
        optimem.page(model, card, vram=vram)
        with cast(card.type):
            assert [bits(model(*args, **kwargs)) for _ in range(5)] == [expected] * 5


@pytest.mark.parametrize("share", [15, 30, 60, 100])
def test_one_region_around_many_forwards_stays_within_budget_and_reserve(card: torch.device, share: int) -> None:
    x = torch.randn(2, 128)
    with torch.no_grad():
        before = torch.accelerator.memory_allocated()
        model = optimem.page(stack(), card, vram=f"{share}%")
        torch.accelerator.reset_peak_memory_stats()
        with cast(card.type):
            for _ in range(6):
                model(x)
        status = optimem.status(model)
        assert status is not None
        assert torch.accelerator.max_memory_allocated() - before <= status.budget_bytes + status.reserve_bytes
        assert status.reserve_bytes < status.weights_bytes / 8


@pytest.mark.parametrize("mode", ATTACH)
def test_a_cast_made_on_one_side_is_not_read_on_the_other(card: torch.device, mode: str) -> None:
    """The same region holds forwards of the plain model on the CPU, and of the paged one on both sides."""
    plain = stack(6)
    model = copy.deepcopy(plain)
    x = torch.randn(2, 128)
    with torch.no_grad(), cast("cpu"), cast(card.type):
        expected = bits(plain(x))
        assert bits(model(x)) == expected
        ATTACH[mode](model, card, vram="100%")
        for _ in range(5):
            assert bits(model(x)) == expected
        optimem.detach(model)
        assert bits(model(x)) == expected


@pytest.mark.parametrize("attach", [optimem.fit, optimem.chunk])
@pytest.mark.parametrize("region", [True, False])
def test_the_cpu_casts_as_the_card_does(card: torch.device, attach: Any, region: bool) -> None:
    plain, x = stack(8), torch.randn(4, 128)
    model = attach(copy.deepcopy(plain), device=card, vram="40%")
    with torch.no_grad():
        with torch.autocast(card.type, HALF, enabled=region):
            expected = plain.to(card)(x.to(card))
            outputs = [model(x) for _ in range(6)]
            assert not torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    assert {output.dtype for output in outputs} == {HALF if region else torch.float32}
    assert all(bits(output) == bits(expected) for output in outputs)


def test_a_region_inside_forward_is_left_alone(card: torch.device) -> None:
    class Inside(models.Stack):
        def forward(self, x: torch.Tensor) -> Any:
            with torch.autocast(x.device.type, HALF):
                return super().forward(x)

    with torch.no_grad():
        plain = Inside().eval()
        model = optimem.page(copy.deepcopy(plain), card, vram="60%")
        expected = bits(plain.to(card)(models.rows().to(card)))
        for _ in range(5):
            assert bits(model(models.rows())) == expected


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_whether_casts_are_kept_is_left_as_found(
    card: torch.device, error: type[BaseException] | None, enabled: bool
) -> None:
    model = optimem.page(models.Raises().eval(), card, vram="60%")
    with torch.no_grad(), torch.autocast(card.type, HALF, cache_enabled=enabled):
        for forward in range(5):
            model.armed = error if forward in (0, 3) else None
            if model.armed is None:
                model(models.rows())
                assert torch.is_autocast_cache_enabled() is enabled
            else:
                with pytest.raises(model.armed, match="on purpose"):
                    model(models.rows())


def test_casts_are_right_when_compiled(card: torch.device) -> None:
    with torch.no_grad(), cast(card.type):
        expected = bits(stack(6).to(card)(torch.ones(2, 128, device=card)))
        call = torch.compile(optimem.page(stack(6), card, vram="50%"), backend="eager")
        for _ in range(6):
            assert bits(call(torch.ones(2, 128))) == expected
    torch._dynamo.reset()
