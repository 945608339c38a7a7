"""Random modules are paged without anybody noticing: equal bits, within budget plus reserve, and as found after detach."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

import optimem
import programs
from programs import Planned, Recipe
from same import bits
from test_traps import found

ATTACH = {"page": optimem.page, "chunk": optimem.chunk}
EXAMPLES = int(os.environ.get("OPTIMEM_EXAMPLES", "0"))  # more than the usual few, and others each time: `make soak`

often = settings(
    max_examples=EXAMPLES or 100,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def data(seed: int) -> torch.Tensor:
    """Return inputs that differ in where branches lead."""
    return torch.randn(programs.ROWS, programs.WIDTH, generator=torch.Generator().manual_seed(seed))


def outcome(call: Any, x: torch.Tensor) -> Any:
    """Return the bits of a call's result, or what it threw on purpose."""
    try:
        return bits(call(x))
    except Planned:
        return Planned


def attached(
    recipe: Recipe, mode: str, share: int, card: torch.device, x: torch.Tensor, first: Any
) -> tuple[nn.Module, int]:
    """Return the paged program at the smallest budget that works from `share` % on, its first call done, and the budget."""
    while True:
        model = recipe.build()
        before = found(model)
        try:
            ATTACH[mode](model, card, vram=f"{share}%")
            assert outcome(model, x) == first
            return model, share
        except optimem.BadInput as error:
            optimem.detach(model)
            assert "missing" in str(error), error
            assert share < 400
        except BaseException:
            optimem.detach(model)
            raise
        assert {**found(model), "state": None} == {**before, "state": None}
        share = share * 5 // 4 + 1


EXCUSES = 4
LOUD = r"same device|different device|device type"


@torch.no_grad()
def check(card: torch.device, recipe: Recipe, mode: str, share: int, seeds: list[int], other: int) -> None:
    plain = recipe.build()
    if not list(plain.parameters()):
        return
    first = outcome(plain, data(seeds[0]))
    model, share = attached(recipe, mode, share, card, data(seeds[0]), first)
    try:
        for index, seed in enumerate(seeds[1:]):
            name = "other" if index == other else "forward"
            wanted = outcome(getattr(plain, name), data(seed))
            for _ in range(EXCUSES):
                buffers = copy.deepcopy(list(model.buffers()))
                try:
                    got = outcome(model.other if name == "other" else model, data(seed))
                    break
                except optimem.BadInput:
                    raise
                except RuntimeError as error:  # a reader that was never seen before: loud, clear, and learnt
                    assert "optimem: a weight" in str(error)
                    assert recipe.wanders or other < 7
                    for buffer, before in zip(model.buffers(), buffers):
                        buffer.copy_(before)
            else:
                raise AssertionError("excuses")
            assert got == wanted
    except optimem.BadInput as error:
        assert recipe.wanders and "too small" in str(error)
        return
    finally:
        optimem.detach(model)
    assert found(model)["state"] == found(plain)["state"]
    assert outcome(model, data(0)) == outcome(plain, data(0))


@often
@given(
    recipe=programs.recipes(),
    mode=st.sampled_from(list(ATTACH)),
    share=st.integers(1, 110),
    seeds=st.lists(st.integers(0, 3), min_size=4, max_size=8),
    other=st.integers(0, 7),
)
@torch.no_grad()
def test_random_modules_are_right(card, recipe, mode, share, seeds, other):
    check(card, recipe, mode, share, seeds, other)
