"""Models of the libraries that people use, in random configurations: equal bits, within budget plus reserve."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import optimem
from effort import examples
from families import FAMILIES, UNFORESEEN
from paged import MODES, attach_at_smallest
from same import bits


def within(status: optimem.Status, peak: int) -> bool:
    """Tell whether a peak of device bytes keeps to what was promised."""
    return peak <= status.budget_bytes + status.reserve_bytes


@pytest.mark.parametrize("family", FAMILIES)
@examples(2)
@given(choices=st.data())
@torch.no_grad()
def test_families_are_right_within_their_budget(card: torch.device, family: str, choices: Any) -> None:
    mode = choices.draw(st.sampled_from(list(MODES)), label="mode")
    share = choices.draw(st.integers(1, 110), label="share of the weights")
    torch.manual_seed(0)
    model, call = FAMILIES[family](choices.draw)
    model.eval()
    expected = bits(call(model))
    gc.collect()
    before = torch.accelerator.memory_allocated()
    torch.accelerator.reset_peak_memory_stats()

    def first() -> None:
        assert bits(call(model)) == expected

    attach_at_smallest(model, card, mode, share, first)
    for _ in range(3):
        assert bits(call(model)) == expected
    status = optimem.status(model)
    assert status is not None
    assert not status.misses or family in UNFORESEEN
    assert status.misses or within(status, torch.accelerator.max_memory_allocated() - before)
    optimem.detach(model)
    assert bits(call(model)) == expected
