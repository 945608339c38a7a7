"""Random modules are paged without anybody noticing: equal bits, within budget plus reserve, and as found after detach."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import optimem
import programs
from effort import examples
from paged import MODES, attach_at_smallest
from programs import Planned, Recipe
from same import bits, found, values

PATIENCE = 4  # calls in which a program may meet readers that were never seen before, each time others

shares = st.integers(1, 110)
modes = st.sampled_from(list(MODES))


def data(seed: int) -> torch.Tensor:
    """Return inputs that differ in where branches lead."""
    return torch.randn(programs.ROWS, programs.WIDTH, generator=torch.Generator().manual_seed(seed))


def outcome(call: Callable[[torch.Tensor], Any], x: torch.Tensor) -> Any:
    """Return the bits of a call's result, or what it threw on purpose."""
    try:
        return bits(call(x))
    except Planned:
        return Planned


def patiently(model: nn.Module, name: str, x: torch.Tensor) -> Any:
    """Return the outcome of a method; where an unforeseen reader was stopped with a clear error, that of the next try."""
    for _ in range(PATIENCE):
        buffers = copy.deepcopy(list(model.buffers()))
        try:
            return outcome(getattr(model, name), x)
        except optimem.BadInput:
            raise
        except RuntimeError as error:
            assert "read by a module that had not read it" in str(error)
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
    raise AssertionError("a reader was stopped again and again, and never learnt")


@contextmanager
def attached(model: nn.Module, card: torch.device, mode: str, share: int, first: list[Any]) -> Iterator[nn.Module]:
    """Yield `model` paged at the smallest budget that works from `share` on, called once, and detach it at last."""

    def call() -> None:
        for buffer in model.buffers():
            buffer.copy_(original[id(buffer)])  # a refused budget comes after the first call, which had changed them
        assert outcome(model, data(0)) == first

    original = {id(buffer): buffer.clone() for buffer in model.buffers()}
    attach_at_smallest(model, card, mode, share, call)
    try:
        yield model
    finally:
        optimem.detach(model)


@examples(24)
@given(
    recipe=programs.recipes(),
    mode=modes,
    share=shares,
    calls=st.lists(st.tuples(st.sampled_from(["__call__"] * 5 + ["other"]), st.integers(0, 3)), min_size=3, max_size=7),
)
@torch.no_grad()
def test_random_modules_are_right(
    card: torch.device, recipe: Recipe, mode: str, share: int, calls: list[tuple[str, int]]
) -> None:
    plain = recipe.build()
    assume(list(plain.parameters()))
    model = recipe.build()
    before = found(model)
    with attached(model, card, mode, share, outcome(plain, data(0))):
        for name, seed in calls:
            wanted = outcome(getattr(plain, name), data(seed))
            try:
                got = patiently(model, name, data(seed))
            except optimem.BadInput as error:  # a way was learnt that needs more at once than the budget
                assert "too small" in str(error) or "missing" in str(error)
                return
            assert got == wanted
    assert found(model) == before
    assert values(model) == values(plain)
    assert outcome(model, data(0)) == outcome(plain, data(0))


@examples(16)
@given(recipe=programs.recipes(wandering=False), mode=modes, share=shares)
@torch.no_grad()
def test_random_modules_keep_within_budget_and_reserve(card: torch.device, recipe: Recipe, mode: str, share: int) -> None:
    plain = recipe.build()
    assume(list(plain.parameters()))
    gc.collect()
    before = torch.accelerator.memory_allocated()
    with attached(recipe.build(), card, mode, share, outcome(plain, data(0))) as model:
        torch.accelerator.reset_peak_memory_stats()
        for seed in (1, 2, 3):
            assert outcome(model, data(seed)) == outcome(plain, data(seed))
        peak = torch.accelerator.max_memory_allocated() - before
        status = optimem.status(model)
        assert status is not None
        assert status.misses == 0
        assert peak <= status.budget_bytes + status.reserve_bytes
