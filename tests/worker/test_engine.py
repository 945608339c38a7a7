"""One engine for all modes: out of memory answered, readers checked, full speed from the second forward, budgets kept.

All times are virtual ones of the simulated card.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import models
import optimem
import simgpu
from effort import examples
from optimem.life.attachment import Attachment
from optimem.wire.protocol import Shrink
from paged import attach_at_smallest
from same import bits, found

CPU = torch.device("cpu")
WIDTH, DEPTH = 256, 12
LAYER = (WIDTH * WIDTH + WIDTH) * 4  # bytes
ROWS = 512
ACTIVATION = ROWS * WIDTH * 4  # bytes
PAGING = pytest.mark.parametrize("attach", [optimem.page, optimem.fit])
ALL = pytest.mark.parametrize("attach", [optimem.page, optimem.chunk, optimem.fit])


def linears(depth: int = DEPTH, width: int = WIDTH) -> nn.Sequential:
    """Return layers of 257 KiB each by default."""
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)]).eval()


class Asked(nn.Module):
    """Has something happen in the middle of a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = linears(6), linears(6)
        self.happens: Callable[[], object] | None = None

    def forward(self, x: torch.Tensor) -> Any:
        y = self.first(x)
        if self.happens is not None:
            self.happens()
        return self.last(y) + x


def rows() -> torch.Tensor:
    """Return an input whose activations are twice as large as a layer."""
    return models.rows(ROWS, WIDTH)


def status(model: nn.Module) -> optimem.Status:
    """Return how an attached model stands."""
    told = optimem.status(model)
    assert told is not None
    return told


def attached(model: nn.Module) -> Attachment:
    """Return what is tied to a model."""
    attachment = optimem._find(model)
    assert attachment is not None
    return attachment


def forwards(model: nn.Module, x: torch.Tensor, count: int) -> list[Any]:
    """Return the bits of so many forwards."""
    with torch.no_grad():
        return [bits(model(x)) for _ in range(count)]


def leave(nbytes: int) -> None:
    """Let the card have so many bytes more than are in use."""
    torch.accelerator.synchronize()
    simgpu.empty_cache()
    simgpu.set_capacity(simgpu.memory_allocated() + nbytes)


@pytest.fixture
def squeezed(card: torch.device) -> Iterator[Callable[[int], None]]:
    """A way to take the card's memory away, which comes back after the test. Memory must have run out then."""
    before, used, ran_out = simgpu.capacity(), False, refusals()

    def squeeze(nbytes: int) -> None:
        nonlocal used
        used = True
        leave(nbytes)

    gc.collect()  # nothing of what earlier tests have left goes in the midst of this one
    yield squeeze
    simgpu.set_capacity(before)
    assert refusals() > ran_out or not used, "the card was squeezed, but had all that was asked for"


def refusals() -> int:
    """Return how often the card had less memory than was asked for."""
    return int(simgpu.memory_stats()["num_ooms"])


# Out of memory.


@PAGING
def test_a_steady_forward_that_runs_out_says_so_and_the_next_one_fits(squeezed: Callable[[int], None], attach: Any) -> None:
    plain = linears()
    model, x = attach(copy.deepcopy(plain), device="sim", vram="75%"), rows()
    expected = bits(plain(x))
    assert forwards(model, x, 5) == [expected] * 5
    before = status(model)
    squeezed(2 * ACTIVATION)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        forwards(model, x, 1)
    text = str(caught.value)
    assert re.search(r"Tried to allocate 512\.00 KiB", text)  # torch's own words stay
    assert f"{ACTIVATION} bytes were asked for, 0 of {simgpu.capacity()} bytes were free" in text
    assert re.search(rf"weights held {before.resident_bytes + before.arena_bytes}, activations need at least \d+", text)
    assert "call again, or attach with retry=True" in text
    del caught
    assert forwards(model, x, 4) == [expected] * 4
    after = status(model)
    assert after.plan_version > before.plan_version
    assert after.resident_bytes + after.arena_bytes < before.resident_bytes + before.arena_bytes
    assert (after.state, after.controller) == ("steady", "connected")


@PAGING
def test_with_retry_a_steady_forward_that_runs_out_is_run_again(squeezed: Callable[[int], None], attach: Any) -> None:
    plain = linears()
    model, x = attach(copy.deepcopy(plain), device="sim", vram="75%", retry=True), rows()
    expected = bits(plain(x))
    assert forwards(model, x, 5) == [expected] * 5
    before = status(model)
    squeezed(2 * ACTIVATION)
    assert forwards(model, x, 4) == [expected] * 4
    after = status(model)
    assert after.resident_bytes + after.arena_bytes < before.resident_bytes + before.arena_bytes
    assert (after.state, after.misses, after.controller) == ("steady", 0, "connected")


def test_memory_that_somebody_else_took_is_made_up_for(squeezed: Callable[[int], None]) -> None:
    """The card is as large as ever, but another model's tensor lies on it."""
    plain = linears()
    model, x = optimem.page(copy.deepcopy(plain), "sim", vram="75%", retry=True), rows()
    expected = bits(plain(x))
    forwards(model, x, 5)
    squeezed(8 << 20)
    taken = torch.empty((8 << 20) - 2 * ACTIVATION, dtype=torch.uint8, device="simgpu")
    before = status(model)
    assert forwards(model, x, 3) == [expected] * 3
    assert status(model).budget_bytes < before.budget_bytes
    del taken


class Counts(nn.Module):
    """Counts its calls before and after its first layers, and runs out of memory in between when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.end = linears(6), linears(6)
        self.register_buffer("begun", torch.zeros(()))
        self.register_buffer("ended", torch.zeros(()))
        self.out_of_memory = False

    def forward(self, x: torch.Tensor) -> Any:
        self.begun += 1
        x = self.begin(x)
        if self.out_of_memory:
            self.out_of_memory = False
            raise torch.OutOfMemoryError("Tried to allocate 4.00 KiB")
        self.ended += 1
        return self.end(x) + self.begun * 0 + self.ended * 0


@PAGING
@pytest.mark.parametrize("earlier", [0, 1, 5], ids=["recorded", "second", "steady"])
def test_a_retry_repeats_what_came_before_the_failure_and_nothing_else(
    squeezed: Callable[[int], None], attach: Any, earlier: int
) -> None:
    plain, x = Counts().eval(), rows()
    model = attach(copy.deepcopy(plain), device="sim", vram="75%", retry=True)
    forwards(model, x, earlier)
    model.out_of_memory = attach is optimem.page or earlier != 1  # in auto mode the second forward runs on the CPU
    repeated = int(model.out_of_memory)
    assert forwards(model, x, 1) == forwards(plain, x, 1)
    assert not model.out_of_memory
    assert (float(model.begun), float(model.ended)) == (earlier + 1 + repeated, earlier + 1)
    assert forwards(model, x, 4) == forwards(plain, x, 4)
    assert status(model).state == "steady"


@ALL
@pytest.mark.parametrize("earlier", [0, 5], ids=["recorded", "steady"])
def test_without_retry_the_forward_runs_once_and_the_next_one_works(
    squeezed: Callable[[int], None], slow_cpu: None, attach: Any, earlier: int
) -> None:
    plain, x = Counts().eval(), rows()
    model = attach(copy.deepcopy(plain), device="sim", vram="75%")
    forwards(model, x, earlier)
    model.out_of_memory = True
    if attach is optimem.chunk and earlier == 0:  # it records on the CPU, which has that much
        model.out_of_memory = False
    else:
        with pytest.raises(
            torch.OutOfMemoryError, match=r"optimem: .*4096 bytes were asked for.*The next forward holds fewer"
        ):
            forwards(model, x, 1)
        assert (float(model.begun), float(model.ended)) == (earlier + 1, earlier)
    assert forwards(model, x, 6) == forwards(plain, x, 6)
    assert (status(model).state, status(model).controller) == ("steady", "connected")


@PAGING
@pytest.mark.parametrize("retry", [False, True])
def test_a_first_forward_that_runs_out_holds_fewer_weights_the_next_time(
    squeezed: Callable[[int], None], attach: Any, retry: bool
) -> None:
    plain = linears()
    model, x = attach(copy.deepcopy(plain), device="sim", vram="75%", retry=retry), rows()
    expected = bits(plain(x))
    squeezed(6 * ACTIVATION)
    if not retry:
        with pytest.raises(torch.OutOfMemoryError, match="The next forward holds fewer weights; call again"):
            forwards(model, x, 1)
        gc.collect()  # the error's frames hold what the forward had on the card
    for _ in range(4):
        assert forwards(model, x, 1) == [expected]
    assert status(model).state == "steady"


@PAGING
@pytest.mark.parametrize("retry", [False, True])
def test_where_nothing_helps_the_error_says_so_and_memory_that_comes_back_is_used(
    squeezed: Callable[[int], None], attach: Any, retry: bool
) -> None:
    plain = linears()
    model, x = attach(copy.deepcopy(plain), device="sim", vram="75%", retry=retry), rows()
    expected = bits(plain(x))
    assert forwards(model, x, 7) == [expected] * 7
    large = simgpu.capacity()
    squeezed(0)
    simgpu.set_capacity(LAYER // 2)
    for _ in range(3):
        with pytest.raises((torch.OutOfMemoryError, optimem.BadInput), match=r"ran out of device memory|missing"):
            forwards(model, x, 1)
    simgpu.set_capacity(large)
    assert forwards(model, x, 7) == [expected] * 7
    optimem.detach(model)
    assert forwards(model, x, 1) == [expected]


@pytest.mark.parametrize("retry", [False, True])
def test_in_chunk_mode_the_cpu_takes_over(squeezed: Callable[[int], None], slow_cpu: None, retry: bool) -> None:
    plain = linears()
    model, x = optimem.chunk(copy.deepcopy(plain), "sim", vram="75%", retry=retry), rows()
    expected = bits(plain(x))
    assert forwards(model, x, 6) == [expected] * 6
    before = status(model)
    squeezed(ACTIVATION // 2)
    if not retry:
        with pytest.raises(torch.OutOfMemoryError, match="call again"):
            forwards(model, x, 1)
    assert forwards(model, x, 3) == [expected] * 3
    assert status(model).resident_bytes < before.resident_bytes
    assert status(model).controller == "connected"
    optimem.detach(model)
    gc.collect()  # what errors still hold: the host's profile changes back on an idle card only


def test_a_mix_whose_controller_goes_before_it_is_planned_goes_on(card: torch.device) -> None:
    plain = linears()
    model, x = optimem.fit(copy.deepcopy(plain), "40%", card), rows()
    expected = bits(plain(x))
    assert forwards(model, x, 1) == [expected]
    attached(model).session.close("the controller is gone")
    assert forwards(model, x, 4) == [expected] * 4
    assert (status(model).state, status(model).misses) == ("steady", 0)
    assert not attached(model)._tied.engine.on_cpu()  # as it was in the forward that was timed there


def test_inputs_that_do_not_fit_beside_the_weights_find_room(squeezed: Callable[[int], None]) -> None:
    """They are brought before anything of the model runs, so that nothing is repeated, and no retry is asked for."""
    plain = linears()
    model, x = optimem.page(copy.deepcopy(plain), "sim", vram="75%"), rows()
    expected = bits(plain(x))
    forwards(model, x, 5)
    squeezed(ACTIVATION // 2)
    before = status(model)
    assert forwards(model, x, 3) == [expected] * 3
    assert status(model).resident_bytes < before.resident_bytes


def test_inputs_that_do_not_fit_find_room_before_a_forward_that_is_recorded_again(squeezed: Callable[[int], None]) -> None:
    plain = Asked().eval()
    plain.first, plain.last = linears(), linears()
    model, x = optimem.page(copy.deepcopy(plain), "sim", vram="75%"), rows()
    expected = bits(plain(x))
    forwards(model, x, 5)

    def fail() -> None:
        raise KeyError("stop")

    model.happens = fail
    with pytest.raises(KeyError):
        forwards(model, x, 1)
    model.happens = None
    gc.collect()
    assert status(model).state == "learning"
    squeezed(ACTIVATION // 2)
    assert forwards(model, x, 4) == [expected] * 4


@PAGING
@pytest.mark.parametrize("retry", [False, True])
def test_without_a_controller_it_shrinks_by_itself(squeezed: Callable[[int], None], attach: Any, retry: bool) -> None:
    plain = Asked().eval()
    model, x = attach(copy.deepcopy(plain), device="sim", vram="75%", retry=retry), rows()
    expected = bits(plain(x))
    forwards(model, x, 7)
    attached(model).session.close("the controller is gone")
    assert status(model).controller == "lost: this side closed it (the controller is gone)"
    squeezed(ACTIVATION // 2)
    right = 0
    for _ in range(8):
        try:
            right += forwards(model, x, 1) == [expected]
        except torch.OutOfMemoryError as error:
            assert "optimem: a forward ran out of device memory" in str(error)
            right = 0
    assert right >= 3


@pytest.mark.parametrize("own", [False, True])
def test_detaching_leaves_forward_as_it_was_found(card: torch.device, own: bool) -> None:
    model, x = linears(2), models.rows(4, WIDTH)
    if own:
        plain = model.forward
        model.forward = lambda x: plain(x) + 1
    before, expected, signature = found(model), forwards(model, x, 1), inspect.signature(model.forward)
    optimem.page(model, card, retry=True)
    assert vars(model)["forward"] is not before.get("forward")
    assert inspect.signature(model.forward) == signature
    assert forwards(model, x, 4) == expected * 4
    optimem.detach(model)
    assert found(model) == before
    assert ("forward" in vars(model)) == own
    assert forwards(model, x, 1) == expected


# Readers that the recording did not see.


class ReadsLater(models.Stack):
    """Reads a sibling's weight itself, in those calls in which it is told to."""

    def __init__(self) -> None:
        super().__init__(8)
        self.reads: int | None = None
        self.begun = 0

    def forward(self, x: torch.Tensor) -> Any:
        self.begun += 1
        if self.reads is not None:
            x = F.linear(x, self.layers[self.reads].weight)
        return super().forward(x)


def told(model: nn.Module, plain: nn.Module, reads: int | None) -> bool:
    """Let both read a weight; tell whether their results are equal."""
    model.reads = plain.reads = reads  # type: ignore[assignment]
    return forwards(model, models.rows(), 1) == forwards(plain, models.rows(), 1)


@pytest.mark.parametrize("verify", [False, True])
def test_the_second_forward_is_checked(card: torch.device, verify: bool) -> None:
    plain = ReadsLater().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="40%", verify=verify)
    assert told(model, plain, None)
    for reads in (5, 5, 5, None, 5):
        assert told(model, plain, reads)
    assert status(model).misses == 1


def test_with_verify_every_forward_is_checked_and_learnt_from(card: torch.device) -> None:
    plain = ReadsLater().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="40%", verify=True)
    for _ in range(6):
        assert told(model, plain, None)
    assert status(model).misses == 0
    streamed = next(index for index in range(8) if not on_card(model, index))
    for _ in range(4):
        assert told(model, plain, streamed)
        assert status(model).misses == 1


def on_card(model: nn.Module, layer: int) -> bool:
    """Tell whether the plan keeps a layer's weight on the card."""
    weight = model.layers[layer].weight  # type: ignore[index]
    return any(each.parameter is weight for span in attached(model)._tied.engine.held() for each in span.weights)


class ReadsAround(models.Stack):
    """Reads a layer's weight itself, before the layer runs and after it, when it is told to."""

    reads: int | None = None

    def forward(self, x: torch.Tensor) -> Any:
        if self.reads is None:
            return super().forward(x)
        weight = self.layers[self.reads].weight
        return F.linear(super().forward(F.linear(x, weight)), weight)


def test_what_a_stray_reader_has_brought_goes_when_the_plan_brings_it(card: torch.device) -> None:
    """Else it would count as being there, when it is read once more after its turn."""
    plain = ReadsAround(8).eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="40%", verify=True)
    for _ in range(6):
        assert told(model, plain, None)
    assert told(model, plain, next(index for index in range(8) if not on_card(model, index)))
    assert status(model).misses == 2


def test_without_it_torch_refuses_with_our_advice_and_it_is_learnt(card: torch.device) -> None:
    plain = ReadsLater().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="40%")
    for _ in range(6):
        assert told(model, plain, None)
    streamed = next(index for index in range(8) if not on_card(model, index))
    attached(model)._agreed.curriculum._recordings = 99  # it is learnt, however many other ways have been
    with pytest.raises(RuntimeError, match=r"(?s)device.*optimem"):
        told(model, plain, streamed)
    for _ in range(4):
        assert told(model, plain, streamed)
    assert status(model).misses == 0


@PAGING
def test_with_retry_the_same_forward_is_run_again_and_learns_it(card: torch.device, attach: Any) -> None:
    plain = ReadsLater().eval()
    model = attach(copy.deepcopy(plain), device=card, vram="40%", retry=True)
    for _ in range(6):
        assert told(model, plain, None)
    streamed = next(index for index in range(8) if not on_card(model, index))
    assert told(model, plain, streamed)
    assert model.begun == plain.begun + (attach is optimem.page)  # where both sides compute, data goes to the weight
    for reads in (streamed, None, streamed, streamed):
        assert told(model, plain, reads)
    assert (model.begun - plain.begun, status(model).misses) == (attach is optimem.page, 0)


def test_a_retry_does_not_repeat_what_fails_for_reasons_of_its_own(card: torch.device) -> None:
    """Words like those of a refusal of mixed devices may be one, which the second try, a recorded one, tells as they are."""

    def refuse() -> None:
        raise RuntimeError("all should be on the same device")

    plain = Asked().eval()
    model, x = optimem.page(copy.deepcopy(plain), device=card, vram="40%", retry=True), rows()
    expected = forwards(plain, x, 1)
    assert forwards(model, x, 6) == expected * 6
    for happens, tries in ((refuse, 2), (lambda: torch.ones(2).reshape(3), 1)):
        calls: list[int] = []
        model.happens = lambda calls=calls, happens=happens: (calls.append(1), happens())
        with pytest.raises(RuntimeError) as caught:
            forwards(model, x, 1)
        assert (len(calls), "optimem" in str(caught.value)) == (tries, False)
        model.happens = None
        del caught
        assert forwards(model, x, 4) == expected * 4
        assert status(model).state == "steady"


class Owns(nn.Module):
    """Reads a weight of its own before something happens."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(models.rows(WIDTH)), linears(4)
        self.happens: Callable[[], object] = lambda: None

    def forward(self, x: torch.Tensor) -> Any:
        x = x * self.scale
        self.happens()
        return self.inner(x)


def test_a_retry_that_is_recorded_on_the_cpu_has_its_inputs_there(card: torch.device, slow_cpu: None) -> None:
    plain, x = Owns().eval(), models.rows(64, WIDTH)
    model = optimem.chunk(copy.deepcopy(plain), card, vram="110%", retry=True)
    expected = bits(plain(x))
    assert forwards(model, x, 6) == [expected] * 6
    assert status(model).resident_pages == status(model).pages
    happened: list[str] = []

    def once() -> None:
        if not happened:
            happened.append("")
            raise RuntimeError("Expected all tensors to be on the same device, but got cpu and simgpu:0")

    model.happens = once
    assert forwards(model, x, 4) == [expected] * 4
    assert (len(happened), status(model).state) == (1, "steady")


class Backwards(nn.Module):
    """Runs its layers in the order opposite to that of their registration."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.first(x))


def test_weights_of_a_page_may_be_used_in_another_order_than_they_lie_in(card: torch.device) -> None:
    plain, x = nn.Sequential(*[Backwards() for _ in range(6)]).eval(), models.rows(4, WIDTH)
    size = sum(parameter.numel() for parameter in plain[0].parameters())
    model = optimem.page(copy.deepcopy(plain), card, max_layer_size=size, vram="60%")
    assert forwards(model, x, 6) == forwards(plain, x, 1) * 6
    assert status(model).pages == 6


# Full speed.


def periods(model: nn.Module, x: torch.Tensor, count: int) -> list[int]:
    """Return the time from the end of one forward to the end of the next, for so many, which begin on an idle card."""
    ends = []
    with torch.no_grad():
        for _ in range(count):
            torch.accelerator.synchronize()
            begun = simgpu.now_ns()
            model(x)
            torch.accelerator.synchronize()
            ends.append(simgpu.now_ns() - begun)
    return ends


def test_the_second_forward_runs_at_full_speed(card: torch.device) -> None:
    model, x = optimem.page(linears(24, 512), card, vram="50%"), torch.randn(1024, 512, device=card)
    times = periods(model, x, 12)
    assert times[1] <= 1.15 * min(times[4:])


def test_at_a_hundred_percent_a_steady_forward_is_as_fast_as_the_plain_one(card: torch.device) -> None:
    plain, x = linears(24, 512), torch.randn(1024, 512, device=card)
    model = optimem.page(copy.deepcopy(plain), card, vram="105%")
    assert forwards(model, x, 6)
    paged = min(periods(model, x, 4))
    optimem.detach(model)
    there = plain.to(card)
    assert paged <= 1.01 * min(periods(there, x, 4))


@PAGING
def test_a_plan_that_is_corrected_brings_no_resident_again(card: torch.device, attach: Any) -> None:
    plain = linears()
    model, x = attach(copy.deepcopy(plain), device="sim", vram="60%"), rows()
    expected = bits(plain(x))
    forwards(model, x, 6)
    attachment = attached(model)
    ours, moved = attachment._tied.engine.held(), status(model).h2d_bytes
    attachment._agreed.follow(attachment._agreed.agreement, recorded=False)  # as when a correction comes
    assert attachment._tied.engine.held() == ours
    ring = sum(attachment._agreed.agreement.plan.pages[each.page].bytes for each in attachment._agreed.agreement.plan.copies)
    assert status(model).h2d_bytes - moved <= ring
    assert forwards(model, x, 3) == [expected] * 3


@pytest.mark.parametrize("share", [25, 50, 75, 100, 110])
def test_a_steady_forward_does_not_wait(card: torch.device, share: int) -> None:
    plain, x = linears(16, 128), torch.randn(64, 128)
    model = optimem.page(copy.deepcopy(plain), card, vram=f"{share}%")
    expected = bits(plain(x))
    forwards(model, x, 8)
    waits, outputs = waited(model, x)
    assert waits == {}
    assert [bits(output) for output in outputs] == [expected] * len(outputs)


def waited(model: nn.Module, x: torch.Tensor) -> tuple[dict[str, int], list[Any]]:
    """Return where the host waits in five steady forwards under one plan, and their outputs."""
    for _ in range(10):
        before = status(model).plan_version
        torch.accelerator.synchronize()
        simgpu.reset_counters()
        with torch.no_grad():
            outputs = [model(x) for _ in range(5)]
        found = simgpu.host_blocking_calls()
        if status(model).plan_version == before:
            return found, outputs
    raise AssertionError("no plan stays in force")


# Budgets.


@examples(10)
@given(
    share=st.integers(1, 110),
    sizes=st.lists(st.integers(1, 64), min_size=1, max_size=9),
    mode=st.sampled_from(["page", "auto"]),
)
def test_the_card_never_holds_more_than_budget_and_reserve(
    card: torch.device, share: int, sizes: list[int], mode: str
) -> None:
    widths = [32, *(8 * size for size in sizes)]
    plain = nn.Sequential(*itertools.starmap(nn.Linear, itertools.pairwise(widths))).eval()
    model, x = copy.deepcopy(plain), models.rows()
    expected = bits(plain(x))
    torch.accelerator.synchronize()
    before = simgpu.memory_allocated()

    def forward() -> None:
        simgpu.reset_peak_memory_stats()
        plans = [status(model)]
        assert forwards(model, x, 1) == [expected]
        plans.append(status(model))
        assert simgpu.max_memory_allocated() - before <= max(each.budget_bytes + each.reserve_bytes for each in plans)

    attach_at_smallest(model, card, mode, share, forward)
    for _ in range(6):
        forward()
    optimem.detach(model)


@pytest.mark.parametrize("share", [30, 50, 80])
@pytest.mark.parametrize(("depth", "width"), [(16, 256), (48, 128)])
def test_nor_does_a_first_forward_that_fetched_many_small_layers_together(
    card: torch.device, depth: int, width: int, share: int
) -> None:
    model, x = linears(depth, width), torch.randn(2, width)
    before = simgpu.memory_allocated()
    optimem.page(model, card, vram=f"{share}%")
    simgpu.reset_peak_memory_stats()
    forwards(model, x, 1)
    assert simgpu.max_memory_allocated() - before <= status(model).budget_bytes + status(model).reserve_bytes


# Two sides.


@ALL
@pytest.mark.parametrize("share", [1, 2, 4], ids=["all", "half", "a quarter"])
def test_bytes_given_back_in_the_middle_of_a_forward(card: torch.device, slow_cpu: None, attach: Any, share: int) -> None:
    plain, x = Asked().eval(), models.rows(64, WIDTH)
    model = attach(copy.deepcopy(plain), device="sim", vram="60%")
    expected = bits(plain(x))
    forwards(model, x, 7)
    attachment = attached(model)
    before = simgpu.memory_allocated()
    asked = attachment._tied.engine.weight_bytes // share
    model.happens = lambda: attachment.session._take(Shrink(asked, 0))
    assert forwards(model, x, 1) == [expected]
    model.happens = None
    assert forwards(model, x, 4) == [expected] * 4
    assert simgpu.memory_allocated() <= before
    optimem.detach(model)
    assert forwards(model, x, 1) == [expected]


@ALL
def test_a_plan_that_comes_in_the_middle_of_a_forward(card: torch.device, slow_cpu: None, attach: Any) -> None:
    plain, x = Asked().eval(), models.rows(64, WIDTH)
    model = attach(copy.deepcopy(plain), device="sim", vram="60%")
    expected = bits(plain(x))
    forwards(model, x, 7)
    attachment = attached(model)
    later = dataclasses.replace(attachment._agreed.agreement.plan, version=attachment._agreed.agreement.plan.version + 1)
    model.happens = lambda: attachment.session._take(later)
    assert forwards(model, x, 1) == [expected]
    model.happens = None
    assert forwards(model, x, 1) == [expected]
    assert status(model).plan_version == later.version
    assert forwards(model, x, 4) == [expected] * 4


class Fills(nn.Module):
    """Reads a weight of its own, and writes to what it is given after its children ran."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(models.rows(WIDTH)), linears(4)
        self.happens: Callable[[], object] = lambda: None

    def forward(self, x: torch.Tensor, out: torch.Tensor) -> None:
        self.happens()
        out.copy_(self.inner(x * self.scale))


class HandsOut(nn.Module):
    """Lets a child fill a tensor that it has made."""

    def __init__(self) -> None:
        super().__init__()
        self.fills = Fills()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(x.shape)
        self.fills(x, out)
        return out


def test_what_was_lent_when_bytes_are_given_back_is_still_returned(card: torch.device, slow_cpu: None) -> None:
    plain, x = HandsOut().eval(), models.rows(64, WIDTH)
    model = optimem.chunk(copy.deepcopy(plain), card, vram="110%")
    expected = bits(plain(x))
    forwards(model, x, 6)
    attachment = attached(model)
    assert attachment._tied.engine.weight_bytes > 0
    model.fills.happens = lambda: attachment.session._take(Shrink(1 << 40, 0))
    assert forwards(model, x, 1) == [expected]
    assert attachment._tied.engine.weight_bytes < LAYER  # all but what was in use has gone
    model.fills.happens = lambda: None
    assert forwards(model, x, 3) == [expected] * 3


def test_a_plan_that_was_under_way_is_not_the_answer(card: torch.device) -> None:
    """It may be of another recording, or of more memory than there is now."""
    plain, x = linears(), rows()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    forwards(model, x, 7)
    attachment = attached(model)
    session, manifest, times = attachment.session, *attachment.told()
    assert times is not None
    old = dataclasses.replace(attachment._agreed.agreement.plan, version=attachment._agreed.agreement.plan.version + 1)
    thread, post = threading.Thread(target=session._take, args=(old,)), session._post

    def overtaken(*messages: Any) -> bool:
        posted = post(*messages)
        thread.start()  # it waits until we do
        return posted

    session._post = overtaken  # type: ignore[method-assign]
    answer = session.ask_for_plan(manifest, times)
    thread.join()
    assert answer is not None
    assert answer.answers > old.answers
