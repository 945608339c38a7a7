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


@st.composite
def histories(draw: st.DrawFn) -> tuple[Recipe, list[tuple[str, int]]]:
    """Draw a module and calls of it. Every other one goes one way alone, so that its plan foresees all reads."""
    wanders = draw(st.booleans())
    names = st.sampled_from(["__call__"] * 5 + ["other"]) if wanders else st.just("__call__")
    calls = st.lists(st.tuples(names, st.integers(0, 3)), min_size=3, max_size=7)
    return draw(programs.recipes(wandering=wanders)), draw(calls)


@examples(26)
@given(history=histories(), mode=modes, share=shares)
@torch.no_grad()
def test_random_modules_are_right_within_budget_and_reserve(
    card: torch.device, history: tuple[Recipe, list[tuple[str, int]]], mode: str, share: int
) -> None:
    recipe, calls = history
    one_way = not recipe.wanders and all(name == "__call__" for name, _ in calls)
    plain = recipe.build()
    assume(list(plain.parameters()))
    model = recipe.build()
    before = found(model)
    gc.collect()
    used = torch.accelerator.memory_allocated()
    with attached(model, card, mode, share, outcome(plain, data(0))):
        torch.accelerator.reset_peak_memory_stats()
        for name, seed in calls:
            wanted = outcome(getattr(plain, name), data(seed))
            try:
                got = outcome(model, data(seed)) if one_way else patiently(model, name, data(seed))
            except optimem.BadInput as error:  # a way was learnt that needs more at once than the budget
                assert not one_way
                assert "too small" in str(error) or "missing" in str(error)
                return
            assert got == wanted
        if one_way:
            keeps_its_promise(model, torch.accelerator.max_memory_allocated() - used)
    assert found(model) == before
    assert values(model) == values(plain)
    assert outcome(model, data(0)) == outcome(plain, data(0))


def keeps_its_promise(model: nn.Module, peak: int) -> None:
    """Hold that all reads were foreseen, and that the device's peak lies within budget and reserve."""
    status = optimem.status(model)
    assert status is not None
    assert status.misses == 0
    assert peak <= status.budget_bytes + status.reserve_bytes
