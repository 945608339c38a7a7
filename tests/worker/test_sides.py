"""Data crosses between CPU and device at the borders of runs, and nowhere else."""

from __future__ import annotations

import copy
import gc
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models
import optimem
import simgpu
from optimem.residency.sides import Sides
from same import bits

CPU = torch.device("cpu")


class Residual(models.Stack):
    """Sums around modules meet data of both sides."""

    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = x + layer(x).relu_()
        return torch.cat([x, x * 2])


def test_a_side_is_entered_and_kept(card: torch.device) -> None:
    sides = Sides({"a": card, "b": CPU}, CPU)
    x = torch.ones(2)
    assert sides.both
    (moved,), _ = sides.enter("a", (x,), {})
    assert moved.device == card
    (same,), _ = sides.enter("no.weights", (moved,), {})
    assert same is moved
    assert sides.now == card
    (back,), _ = sides.enter("b", (moved,), {})
    assert back.device == CPU


def test_what_a_module_holds_beside_weights_lies_where_its_children_compute(card: torch.device) -> None:
    sides = Sides({"a.x": card, "a.y": card, "b.x": card, "b.y": CPU}, CPU)
    assert [sides.around(path) for path in ("a", "a.x", "a.x.norm", "b", "c")] == [card, card, CPU, CPU, CPU]


@pytest.mark.parametrize("written", [False, True])
def test_what_meets_comes_to_where_modules_compute_or_to_what_is_written(card: torch.device, written: bool) -> None:
    here, there = torch.ones(2), torch.ones(2, device=card)
    sides = Sides({"a": card, "b": CPU}, CPU)
    sides.begin()
    try:
        sides.enter("a", (), {})
        result = here.add_(there) if written else here + there
        number = there * torch.tensor(2.0)
    finally:
        sides.end()
    assert result.device == (CPU if written else card)
    assert number.device == card
    assert bits(result) == bits(torch.full((2,), 2.0))


WRITES = ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "ilshift", "irshift", "iand", "ior", "ixor"]


@pytest.mark.parametrize("name", [*WRITES, "setitem"])
def test_what_an_operator_writes_to_stays_where_it_is(card: torch.device, name: str) -> None:
    """x += y and its like, x[i] = y: with numbers on the CPU and on the card, in both directions."""
    dtype = torch.float32 if name == "itruediv" else torch.int64
    first, second = torch.tensor([9, 6, 5], dtype=dtype), torch.tensor([2, 1, 3], dtype=dtype)
    write = getattr(operator, name)
    arguments = (slice(0, 3),) if name == "setitem" else ()
    expected = first.clone()
    write(expected, *arguments, second)
    for here, there in ((CPU, card), (card, CPU)):
        written, read = first.to(here, copy=True), second.to(there)
        sides = Sides({"a": card, "b": CPU}, there)
        sides.begin()
        try:
            write(written, *arguments, read)
        finally:
            sides.end()
        assert (written.device, read.device) == (here, there)
        assert bits(written) == bits(expected)


@torch.library.custom_op("optimem_test::put", mutates_args=("into",))
def put(source: torch.Tensor, into: torch.Tensor) -> None:
    """Write to its last argument, which a schema tells and a version counter counts."""
    into.copy_(source)


def write_uncounted(source: torch.Tensor, into: torch.Tensor) -> None:
    """Write to the last argument, which only a schema tells."""
    into.data.copy_(source)


UNCOUNTED = torch.library.Library("optimem_test_uncounted", "DEF")
UNCOUNTED.define("put(Tensor source, Tensor(a!) into) -> ()")
for key in ("CPU", "PrivateUse1"):
    UNCOUNTED.impl("put", write_uncounted, key)

# Each is called with three tensors, the first two of which lie on one side, and may write to any.
CALLS: dict[str, Callable[..., Any]] = {
    "a custom op": lambda a, b, c: put(a, c),
    "a custom op by its namespace": lambda a, b, c: torch.ops.optimem_test.put(c, a),
    "an op that nobody counts": lambda a, b, c: torch.ops.optimem_test_uncounted.put(a, c),
    "its overload": lambda a, b, c: torch.ops.optimem_test_uncounted.put.default(c, a),
    "an overload of an operator": lambda a, b, c: torch.ops.aten.add_.Tensor(a, c),
    "out of an operator": lambda a, b, c: torch.ops.aten.add.out(a, b, out=c),
    "a list": lambda a, b, c: torch._foreach_add_([a, c], [c, b]),
    "a list and the other": lambda a, b, c: torch._foreach_mul_([c, a], [a, b]),
    "two outs": lambda a, b, c: torch.aminmax(b[None], dim=0, out=(a, c)),
    "running statistics": lambda a, b, c: F.batch_norm(torch.stack([a, b]), a, c, training=True),
    "running statistics of torch": lambda a, b, c: torch.batch_norm(
        torch.stack([a, b]), None, None, c, a, True, 0.1, 1e-5, False
    ),
    "running statistics of instances": lambda a, b, c: F.instance_norm(torch.stack([a, b])[None].mT, c, a),
    "a view by another's shape": lambda a, b, c: a.view_as(c).add_(1),
}


@contextmanager
def two_sides(start: torch.device, card: torch.device) -> Iterator[None]:
    """Run as between the modules of a model of which the CPU computes a part."""
    sides = Sides({"a": card, "b": CPU}, start)
    sides.begin()
    try:
        yield
    finally:
        sides.end()


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_what_a_call_writes_to_on_another_side_is_written_there(card: torch.device, name: str, inference: bool) -> None:
    expected = [torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 1.0, 2.0]), torch.tensor([5.0, 6.0, 1.0])]
    tensors = [tensor.clone() for tensor in expected]
    CALLS[name](*expected)
    for here, there in ((CPU, card), (card, CPU)):
        for start in (here, there):
            met = [tensor.to(place, copy=True) for tensor, place in zip(tensors, (here, here, there), strict=True)]
            with torch.inference_mode(inference), two_sides(start, card):
                CALLS[name](*met)
            assert [tensor.device for tensor in met] == [here, here, there]
            assert bits(met) == bits(expected)


def test_what_a_call_returns_of_its_arguments_is_the_callers(card: torch.device) -> None:
    first, second, out = torch.ones(2), torch.ones(2), torch.empty(2, device=card)
    with two_sides(CPU, card):
        assert torch.add(first, second, out=out) is out
        assert first.add_(out) is first
        low, high = torch.aminmax(first[None].to(card), dim=0, out=(second, out))
    assert (low is second, high is out) == (True, True)


def test_lengths_stay_on_the_cpu(card: torch.device) -> None:
    x, lengths = models.rows(3, 5, 4), torch.tensor([5, 3, 2])
    expected = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    for given in (lengths, lengths.to(card)):
        with two_sides(card, card):
            packed = nn.utils.rnn.pack_padded_sequence(x.to(card), given, batch_first=True)
            padded, back = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
            parts = x.to(card).tensor_split(given - 1, dim=1)
        assert (packed.data.device, packed.batch_sizes.device, padded.device, back.device) == (card, CPU, card, CPU)
        assert bits(packed) == bits(expected)
        assert bits(parts) == bits(x.tensor_split(lengths - 1, dim=1))


class WritesAcross(models.Stack):
    """Writes to what other modules have returned, in ways that show in no name."""

    def forward(self, x: torch.Tensor) -> Any:
        seen = []
        for layer in self.layers:
            x = layer(x)
            seen.append(x)
        torch._foreach_add_([seen[0], seen[-1]], [seen[2], seen[1]])
        put(seen[-2], seen[1])
        mean, variance = seen[0].mean(0), seen[-1].var(0)
        F.batch_norm(seen[-1], mean, variance, training=True)
        return torch.cat([*seen, mean[None], variance[None]])


@pytest.mark.usefixtures("slow_cpu")
@pytest.mark.parametrize("share", [40, 70])
def test_writes_between_modules_of_two_sides_are_those_of_the_plain_model(card: torch.device, share: int) -> None:
    plain = WritesAcross(12).eval()
    model = optimem.chunk(copy.deepcopy(plain), card, vram=f"{share}%")
    with torch.no_grad():
        for step in range(4):
            x = models.rows() + step
            assert bits(model(x)) == bits(plain(x))


def test_what_a_module_writes_to_its_arguments_is_written_to_the_callers(card: torch.device) -> None:
    sides = Sides({"a": card, "b": CPU}, CPU)
    x, cache = torch.zeros(2), [torch.zeros(2)]
    (lent, filled), _ = sides.enter("a", (x, cache), {})
    lent.add_(1)
    filled[0].add_(2)
    filled.append(torch.full((2,), 3.0, device=card))
    sides.leave("a")
    assert (bits(x), bits(cache[0])) == (bits(torch.ones(2)), bits(torch.full((2,), 2.0)))
    assert (cache is filled, [item.device for item in cache]) == (True, [CPU, card])


def test_a_weight_that_lies_elsewhere_is_gone_to(card: torch.device) -> None:
    layer, x = nn.Linear(2, 2).to(card), torch.ones(1, 2)
    sides = Sides({"a": card, "b": CPU}, CPU)
    sides.begin()
    try:
        assert layer(x).device == card
    finally:
        sides.end()
    with pytest.raises(RuntimeError, match="device"):
        layer(x)


@pytest.mark.parametrize("share", [25, 50, 75, 110])
def test_a_chunk_is_entered_and_left_once(card: torch.device, share: int) -> None:
    plain = nn.Sequential(*[layer for _ in range(12) for layer in (nn.Linear(256, 256), nn.ReLU())]).eval()
    model = optimem.chunk(copy.deepcopy(plain), card, vram=f"{share}%")
    x, crossed = torch.randn(256, 256), dict[int, set[int]]()
    gc.collect()  # what earlier tests have left is not to be let go, with waits of its own, while waits are counted
    with torch.no_grad():
        for _ in range(20):
            before = optimem.status(model)
            simgpu.reset_counters()
            output = model(x)
            waits, after = sum(simgpu.host_blocking_calls().values()), optimem.status(model)
            assert before is not None
            assert after is not None
            if before.state == "steady" and before.plan_version == after.plan_version:  # else another plan is adopted
                crossed.setdefault(after.plan_version, set()).add(waits)
            assert output.device == CPU
            assert bits(output) == bits(plain(x))
    assert after.resident_pages > 0
    assert crossed[after.plan_version] == {2}  # in and out
    assert set().union(*crossed.values()) <= {0, 2}  # a plan that leaves all to the CPU crosses nowhere


@pytest.mark.parametrize("attach", [optimem.chunk, optimem.fit])
@pytest.mark.parametrize("share", [25, 50, 75])
def test_sums_around_modules_are_right_on_two_sides(card: torch.device, share: int, attach: Any) -> None:
    plain = Residual(12).eval()
    model = attach(copy.deepcopy(plain), device=card, vram=f"{share}%")
    with torch.no_grad():
        for step in range(8):
            x = models.rows() + step
            assert bits(model(x)) == bits(plain(x))
    optimem.detach(model)
    assert bits(model(x)) == bits(plain(x))


@pytest.mark.parametrize("attach", [optimem.page, optimem.chunk, optimem.fit])
@pytest.mark.parametrize("wished", ["cpu", "sim"])
def test_results_end_where_they_are_wished(card: torch.device, attach: Any, wished: str) -> None:
    plain = models.Stack().eval()
    model = attach(copy.deepcopy(plain), device=card, vram="60%", output_device=wished)
    with torch.no_grad():
        for _ in range(5):
            output = model(models.rows())
            assert output.device == (CPU if wished == "cpu" else card)
            assert bits(output) == bits(plain(models.rows()))


def test_a_mix_that_the_cpu_takes_part_in(card: torch.device) -> None:
    """Large weights and few rows: the CPU is faster than the link."""
    plain = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(12)]).eval()
    model = optimem.fit(copy.deepcopy(plain), "30%", card)
    x = torch.randn(1, 1024)
    with torch.no_grad():
        for _ in range(7):
            output = model(x)
            assert output.device == card
            assert bits(output) == bits(plain(x))
    status = optimem.status(model)
    assert status is not None
    assert status.resident_pages + status.streamed_pages < status.pages


def test_what_a_mix_takes_is_foretold(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crossings count with what they take through pageable memory, and what is computed with the time of its side."""
    monkeypatch.delenv("OPTIMEM_POISON", raising=False)  # which takes time of its own
    model = optimem.fit(nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(12)]).eval(), "30%", card)
    x = torch.randn(1, 1024).to(card)
    with torch.no_grad():
        for _ in range(16):
            model(x)
    status = optimem.status(model)
    assert status is not None
    assert status.resident_pages + status.streamed_pages < status.pages
    assert abs(status.predicted_ns - status.period_ns) <= status.period_ns / 10


class Draws(nn.Module):
    """Draws random numbers beside every layer, in eval mode too, as Monte Carlo dropout and samplers do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = nn.functional.dropout(layer(x), 0.5) + torch.rand_like(x) * torch.randn(x.shape[-1], device=x.device)
            x = x + torch.empty_like(x).uniform_()
        return x


@pytest.mark.trap(45)
@pytest.mark.parametrize("attach", [optimem.fit, optimem.chunk])
def test_a_plan_with_two_sides_draws_the_same_numbers(card: torch.device, slow_cpu: None, attach: Any) -> None:
    plain, x = Draws().eval(), torch.randn(4, 256)
    place = card if attach is optimem.fit else CPU
    torch.manual_seed(3)
    with torch.no_grad():
        wanted = bits(copy.deepcopy(plain).to(place)(x.to(place)))
        both = []
        for vram in ("20%", "50%", "80%"):
            model = attach(copy.deepcopy(plain), device=card, vram=vram)
            attachment = optimem._find(model)
            assert attachment is not None
            for _ in range(6):
                torch.manual_seed(3)
                assert bits(model(x)) == wanted
                both.append(attachment._tied.engine.both_sides)
            optimem.detach(model)
    assert any(both)


@pytest.mark.trap(45)
@pytest.mark.parametrize("start", ["cpu", "card"])
def test_every_function_that_draws_does_so_where_forwards_start(card: torch.device, start: str) -> None:
    begins, other = (CPU, card) if start == "cpu" else (card, CPU)
    calls: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: torch.rand(4, device=x.device),
        lambda x: torch.randint(0, 9, (4,), device=x.device),
        lambda x: torch.bernoulli(x),
        lambda x: torch.multinomial(x, 2),
        lambda x: x.clone().exponential_(),
        lambda x: nn.functional.rrelu(-x, training=True),
        lambda x: nn.functional.gumbel_softmax(x),
        lambda x: nn.functional.dropout(x, 0.5, training=True),
        lambda x: torch.normal(x, 1.0),
    ]
    for call in calls:
        x = torch.full((4,), 0.5)
        torch.manual_seed(7)
        wanted = bits(call(x.to(begins)))
        sides = Sides({"a": card, "b": CPU}, begins)
        torch.manual_seed(7)
        sides.begin()
        try:
            got = call(x.to(other))
        finally:
            sides.end()
        assert got.device.type == other.type
        assert bits(got) == wanted
