"""Every specimen of the zoo in every mode: equal bits, attached and detached. Only `make zoo` runs it."""

from __future__ import annotations

import functools
import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import optimem
from families import Made
from optimem.data import moving
from paged import MODES, attach_at_smallest
from same import bits
from zoo import ZOO

CALLS = 3


def share_of(family: str, mode: str) -> int:
    """Return a small budget in % of the weights, the same in each run."""
    return random.Random(f"{family}, {mode}").randint(1, 60)


@functools.lru_cache(maxsize=1)  # the cases of a family come one after the other
def specimen(family: str) -> tuple[Made, Any] | str:
    """Return a model, its call and its results, or the reason why there is nothing to compare them with."""
    torch.manual_seed(0)
    try:
        model, call = ZOO[family]()
        model.eval()
        first = call(model)
    except Exception as error:  # whatever it is that the library does not like
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    expected = bits(first)
    if bits(call(model)) != expected:
        return "the plain model's results differ from call to call"
    if not all(tensor.isfinite().all() for tensor in moving.tensors(first)):
        return "the plain model's results are not finite"
    return (model, call), expected


@pytest.fixture(scope="module", autouse=True)
def libraries() -> Iterator[None]:
    """Keep the garbage collector away from all that the libraries hold: it takes longer than the forwards."""
    for library in ("transformers", "diffusers", "torchvision", "timm"):
        pytest.importorskip(library)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("poison", ["1", "0"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ZOO])
@torch.no_grad()
def test_zoo(
    card: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    *,
    family: str,
    mode: str,
    poison: str,
) -> None:
    monkeypatch.setenv("OPTIMEM_POISON", poison)
    record_property("family", family)
    record_property("mode", mode)
    record_property("poison", poison)
    found = specimen(family)
    if isinstance(found, str):
        record_property("reason", found)
        pytest.skip(found)
    (model, call), expected = found
    calls = 0

    def once() -> None:
        nonlocal calls
        assert bits(call(model)) == expected, f"call {calls + 1} has other bits"
        calls += 1

    gc.collect()
    before = torch.accelerator.memory_allocated()
    torch.accelerator.reset_peak_memory_stats()
    try:
        share = attach_at_smallest(model, card, mode, share_of(family, mode), once)
        record_property("share", f"{share}%")
        while calls < CALLS:
            once()
        status = optimem.status(model)
        assert status is not None
        record_property("misses", status.misses)
        peak = torch.accelerator.max_memory_allocated() - before
        record_property("over", max(0, peak - status.budget_bytes - status.reserve_bytes))
    finally:
        record_property("calls", calls)
        optimem.detach(model)
    assert bits(call(model)) == expected, "detached, it has other bits"
