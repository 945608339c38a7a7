"""Virtual time: what copies and operations cost, what orders them, what moves the host's clock. No wall clock."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import simgpu
from simgpu.profile import Profile

MIB = 1 << 20
LATENCY, PINNED = 10_000, 25_000_000_000  # of the default card: PCIe 4 x16
CALL, VIEW, COPY, EVENT = 5_000, 1_000, 6_000, 1_500  # ns of host time, the desktop's
LAUNCH = 2_000


def transfer(size: int, rate: int = PINNED) -> int:
    return LATENCY + -(-size * 10**9 // rate)


def timed() -> torch.Event:
    return torch.Event(device="simgpu", enable_timing=True)


def ns_between(start: torch.Event, end: torch.Event) -> int:
    end.synchronize()
    return round(start.elapsed_time(end) * 1e6)


def on_the_card(work: Callable[[], object]) -> int:
    """The ns that `work` takes on the current stream, which the host has filled beforehand so that nothing starves."""
    simgpu._sleep(100_000_000)
    start, end = timed(), timed()
    start.record()
    work()
    end.record()
    return ns_between(start, end)


def test_the_host_pays_for_every_call() -> None:
    x, stream, event = torch.ones(8, 8, device="simgpu"), torch.Stream(device="simgpu"), torch.Event(device="simgpu")
    pinned = torch.ones(8, 8, pin_memory=True)
    simgpu.synchronize()
    for call, cost in [
        (lambda: x + x, CALL),
        (lambda: x.view(64), VIEW),
        (lambda: x.t(), VIEW),
        (lambda: x.copy_(pinned, non_blocking=True), COPY),
        (lambda: event.record(stream), EVENT),
        (lambda: stream.wait_event(event), EVENT),
    ]:
        before = simgpu.now_ns()
        kept = call()
        assert simgpu.now_ns() - before == cost
        del kept


@pytest.mark.parametrize("size", [1, 512, 4096, MIB + 3, 64 * MIB])
def test_a_copy_takes_latency_and_bytes_over_rate(size: int) -> None:
    source = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(size, dtype=torch.uint8, device="simgpu")
    assert on_the_card(lambda: target.copy_(source, non_blocking=True)) == transfer(size)
    assert on_the_card(lambda: source.copy_(target, non_blocking=True)) == transfer(size)


def test_the_host_waits_for_pageable_copies_at_the_lower_rate() -> None:
    source, target = torch.ones(MIB), torch.empty(MIB, device="simgpu")
    pageable = simgpu.profile.link("pcie4x16").pageable
    assert pageable < PINNED
    for non_blocking in (False, True):
        simgpu.synchronize()
        before = simgpu.now_ns()
        target.copy_(source, non_blocking=non_blocking)
        assert simgpu.now_ns() - before == COPY + transfer(4 * MIB, pageable)


def test_a_link_can_be_narrower() -> None:
    simgpu.use_profile("rtx3060", link="pcie3x4")
    source, target = torch.empty(MIB, pin_memory=True), torch.empty(MIB, device="simgpu")
    assert on_the_card(lambda: target.copy_(source, non_blocking=True)) == transfer(4 * MIB, 4 * 775_000_000)


def compute_ns(flops: float, moved: float, kind: str = "fp32") -> int:
    card = simgpu.current_profile()
    return LAUNCH + math.ceil(max(flops / card.flops_per_second(kind), moved / card.bytes_per_second) * 1e9)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to("simgpu", dtype)


def test_what_operations_cost() -> None:
    n = 256
    a, b = random(n, n), random(n, n)
    square = 4 * n * n
    assert on_the_card(lambda: a + b) == compute_ns(0, 3 * square)
    assert on_the_card(lambda: a.add_(b)) == compute_ns(0, 3 * square)
    assert on_the_card(lambda: a.zero_()) == compute_ns(0, square)
    assert on_the_card(lambda: a @ b) == compute_ns(2 * n**3, 3 * square)
    assert on_the_card(lambda: torch.cat([a, b])) == compute_ns(0, 4 * square)
    half = a.bfloat16()
    assert on_the_card(lambda: half @ half) == compute_ns(2 * n**3, 2 * square // 2, "bf16")
    assert on_the_card(lambda: a.clone()) == compute_ns(0, 2 * square)
    row = random(n)
    assert on_the_card(lambda: a * row.expand(n, n)) == compute_ns(0, 2 * square + 4 * n)


def test_views_cost_the_card_nothing() -> None:
    a = random(64, 64)
    assert on_the_card(lambda: (a.t(), a[3:5], a.view(-1), a.unsqueeze(0), a.expand(3, 64, 64), a.detach())) == 0


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions(stride: int, groups: int) -> None:
    image, layer = random(2, 8, 64, 64), torch.nn.Conv2d(8, 16, 3, stride, 1, groups=groups).to("simgpu")
    side = 64 // stride
    flops = 2 * 2 * 16 * side * side * 9 * 8 // groups
    moved = 4 * (image.numel() + layer.weight.numel() + 16 + 2 * 16 * side * side)
    with torch.inference_mode():
        assert on_the_card(lambda: layer(image)) == compute_ns(flops, moved)


def test_transposed_convolutions() -> None:
    image, layer = random(1, 8, 16, 16), torch.nn.ConvTranspose2d(8, 4, 2, 2).to("simgpu")
    flops, moved = 2 * 16 * 16 * layer.weight.numel(), 4 * (image.numel() + layer.weight.numel() + 4 + 4 * 32 * 32)
    with torch.inference_mode():
        assert on_the_card(lambda: layer(image)) == compute_ns(flops, moved)


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal: bool) -> None:
    q, k, v = random(2, 4, 128, 64), random(2, 4, 256, 64), random(2, 4, 256, 64)
    flops = 4 * 2 * 4 * 128 * 256 * 64 * (0.5 if causal else 1)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert on_the_card(lambda: attend(q, k, v, is_causal=causal)) == compute_ns(flops, 8 * (q.numel() + k.numel()))


def test_recurrent_networks() -> None:
    net = torch.nn.LSTM(32, 64, num_layers=2, batch_first=True).eval().to("simgpu")
    x = random(3, 10, 32)
    matrices = sum(p.numel() for p in net.parameters() if p.dim() == 2)
    with torch.inference_mode():
        took = on_the_card(lambda: net(x))
    assert took >= compute_ns(2 * 30 * matrices, 0)


def test_linear_and_batched_products() -> None:
    layer, x = torch.nn.Linear(128, 512).to("simgpu"), random(4, 32, 128)
    with torch.inference_mode():
        moved = 4 * (x.numel() + 128 * 512 + 512 + 4 * 32 * 512)
        assert on_the_card(lambda: layer(x)) == compute_ns(2 * 4 * 32 * 128 * 512, moved)
        y = random(4, 128, 16)
        assert on_the_card(lambda: torch.bmm(x, y)) == compute_ns(
            2 * 4 * 32 * 128 * 16, 4 * (x.numel() + y.numel() + 4 * 32 * 16)
        )


def test_only_what_is_looked_up_counts() -> None:
    table, ids = random(50_000, 64), torch.arange(100).to("simgpu")
    with torch.inference_mode():
        took = on_the_card(lambda: torch.nn.functional.embedding(ids, table))
    assert took == compute_ns(0, 8 * 100 + 2 * 4 * 64 * 100)
    rows = random(100, 64)
    assert on_the_card(lambda: table.index_copy_(0, ids, rows)) == compute_ns(0, 8 * 100 + 2 * 4 * 64 * 100)


def test_streams_overlap_and_events_order() -> None:
    copies = torch.Stream(device="simgpu")
    source, target = torch.empty(25 * MIB, pin_memory=True), torch.empty(25 * MIB, device="simgpu")
    simgpu.synchronize()
    start, end, brought = timed(), timed(), timed()
    simgpu._sleep(1_000_000)
    start.record()
    copies.wait_event(start)
    with copies:
        target.copy_(source, non_blocking=True)
        brought.record(copies)
    simgpu._sleep(2_000_000)
    end.record()
    assert ns_between(start, brought) == transfer(100 * MIB)  # beside the sleep, not after it
    assert ns_between(start, end) == 2_000_000
    torch.accelerator.current_stream().wait_event(brought)
    simgpu._sleep(1)
    end.record()
    assert ns_between(brought, end) <= 1 + simgpu.now_ns()


def test_waiting_is_not_free_of_order() -> None:
    """The compute stream starts when the copy that it waits for has ended, to the nanosecond."""
    copies = torch.Stream(device="simgpu")
    source, target = torch.empty(25 * MIB, pin_memory=True), torch.empty(25 * MIB, device="simgpu")
    simgpu.synchronize()
    start, end, brought = timed(), timed(), torch.Event(device="simgpu")
    simgpu._sleep(1_000_000)
    start.record()
    copies.wait_event(start)
    with copies:
        target.copy_(source, non_blocking=True)
        brought.record(copies)
    torch.accelerator.current_stream().wait_event(brought)
    simgpu._sleep(7_000)
    end.record()
    assert ns_between(start, end) == transfer(100 * MIB) + 7_000


def test_a_stream_that_waits_does_not_hold_up_another() -> None:
    slow, quick = torch.Stream(device="simgpu"), torch.Stream(device="simgpu")
    simgpu.synchronize()
    begin = simgpu.now_ns()
    late = torch.Event(device="simgpu")
    with torch.Stream(device="simgpu") as copies:
        torch.empty(25 * MIB, device="simgpu").copy_(torch.empty(25 * MIB, pin_memory=True), non_blocking=True)
        late.record(copies)
    slow.wait_event(late)
    with slow:
        simgpu._sleep(1_000_000)
    with quick:
        simgpu._sleep(1_000_000)  # asked for later, and ready earlier
    quick.synchronize()
    assert simgpu.now_ns() - begin < 2_000_000
    slow.synchronize()
    assert simgpu.now_ns() - begin > transfer(100 * MIB)


def test_one_compute_engine() -> None:
    streams = [torch.Stream(device="simgpu") for _ in range(3)]
    simgpu.synchronize()
    begin = simgpu.now_ns()
    for stream in streams:
        with stream:
            simgpu._sleep(1_000_000)
    simgpu.synchronize()
    assert simgpu.now_ns() - begin >= 3_000_000


def test_both_ways_of_the_link_at_once() -> None:
    up, down = torch.Stream(device="simgpu"), torch.Stream(device="simgpu")
    card, host = torch.empty(25 * MIB, device="simgpu"), torch.empty(25 * MIB, pin_memory=True)
    other = torch.empty(25 * MIB, device="simgpu")
    simgpu.synchronize()
    begin = simgpu.now_ns()
    with up:
        other.copy_(torch.empty(25 * MIB, pin_memory=True), non_blocking=True)
    with down:
        host.copy_(card, non_blocking=True)
    simgpu.synchronize()
    assert simgpu.now_ns() - begin < 1.1 * transfer(100 * MIB)


def test_the_host_runs_ahead_until_it_waits() -> None:
    simgpu.synchronize()
    before = simgpu.now_ns()
    for _ in range(10):
        simgpu._sleep(1_000_000)
    assert simgpu.now_ns() - before == 10 * CALL
    simgpu.synchronize()
    assert simgpu.now_ns() - before == CALL + 10_000_000


def test_values_and_copies_to_the_host_move_its_clock() -> None:
    x = random(1000)
    for read in (lambda: x[0].item(), lambda: x.cpu(), lambda: bool(x[0] > 0), lambda: x.nonzero()):
        simgpu._sleep(3_000_000)
        before = simgpu.now_ns()
        read()
        assert simgpu.now_ns() - before > 2_900_000


def test_asking_ends() -> None:
    simgpu._sleep(1_000_000)
    event = torch.Event(device="simgpu")
    event.record()
    asked = 0
    while not event.query():
        asked += 1
    assert asked == pytest.approx(1_000_000 / EVENT, rel=0.01)
    assert torch.accelerator.current_stream().query()


def test_the_time_between_events_that_have_not_passed_is_refused() -> None:
    start, end = timed(), timed()
    start.record()
    simgpu._sleep(1_000_000)
    end.record()
    with pytest.raises(RuntimeError, match=r"synchronize|completed"):
        start.elapsed_time(end)


def test_lines_that_make_the_host_wait_are_named() -> None:
    x = random(4)
    simgpu.reset_counters()
    for _ in range(3):
        x.sum().item()
    assert bool(x.isfinite().all())
    lines = simgpu.host_blocking_calls()
    assert sorted(lines.values()) == [1, 3]
    here = Path(__file__).read_text().splitlines()
    for line, count in lines.items():
        file, number = line.split(" in ")[0].rsplit(":", 1)
        assert file == __file__
        assert ("item" if count == 3 else "isfinite") in here[int(number) - 1]


def test_stalls_and_starvation_are_told_apart() -> None:
    copies, brought = torch.Stream(device="simgpu"), torch.Event(device="simgpu")
    source, target = torch.empty(25 * MIB, pin_memory=True), torch.empty(25 * MIB, device="simgpu")
    simgpu.synchronize()
    simgpu._sleep(1)
    simgpu.synchronize()
    simgpu.reset_counters()
    with copies:
        target.copy_(source, non_blocking=True)
        brought.record(copies)
    torch.accelerator.current_stream().wait_event(brought)
    asked = simgpu.now_ns()
    simgpu._sleep(5_000)
    simgpu.synchronize()
    counted = simgpu.counters()
    assert counted["h2d_busy_ns"] == transfer(100 * MIB)
    assert counted["compute_busy_ns"] == 5_000
    end = simgpu.now_ns() - 5_000
    assert counted["compute_stalled_ns"] == end - asked - CALL
    assert counted["compute_starved_ns"] > 0


def test_the_host_pays_for_what_it_computes_itself() -> None:
    cpu = simgpu.profile.load_host("desktop")
    a = torch.randn(512, 512)
    before = simgpu.now_ns()
    a @ a
    spent = simgpu.now_ns() - before
    assert spent == CALL + math.ceil(2 * 512**3 / cpu.flops_per_second("fp32") * 1e9)
    before = simgpu.now_ns()
    torch.nn.functional.relu(a)
    assert simgpu.now_ns() - before == CALL + math.ceil(2 * 4 * 512**2 / cpu.bytes_per_second * 1e9)
    before = simgpu.now_ns()
    a.t()
    assert simgpu.now_ns() - before == VIEW
    layer, image = torch.nn.Conv2d(3, 8, 3), torch.randn(1, 3, 66, 66)
    with torch.inference_mode():
        before = simgpu.now_ns()
        layer(image)
        spent = simgpu.now_ns() - before
    assert spent == CALL + math.ceil(
        max(
            2 * 64 * 64 * layer.weight.numel() / cpu.flops_per_second("fp32"),
            4 * (3 * 66 * 66 + 216 + 8 + 8 * 64 * 64) / cpu.bytes_per_second,
        )
        * 1e9
    )


def test_the_host_pays_nothing_for_what_is_fake() -> None:
    """As torch.compile tries it out: nothing is computed, and sizes may be symbols."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    torch.zeros(1, device="simgpu")
    mode = FakeTensorMode(shape_env=ShapeEnv())
    with mode:
        rows = mode.from_tensor(torch.ones(3, 4))
        before = simgpu.now_ns()
        rows @ torch.empty(4, 1 << 30)
        assert simgpu.now_ns() - before < 1_000_000  # 26 billion operations of a real one take longer


def test_the_host_pays_nothing_while_nobody_watches() -> None:
    a = torch.randn(64, 64)
    simgpu.set_host_watched(False)
    try:
        before = simgpu.now_ns()
        a @ a
        assert simgpu.now_ns() == before
    finally:
        simgpu.set_host_watched(True)


def test_the_measured_clock_sees_slow_python_and_no_kernels() -> None:
    def busy(seconds: float) -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    big = random(1024, 1024)
    simgpu.set_host_clock("measured")
    simgpu.now_ns()
    before = simgpu.now_ns()
    busy(0.05)
    assert simgpu.now_ns() - before >= 50_000_000
    used, before = time.thread_time_ns(), simgpu.now_ns()
    for _ in range(5):
        big @ big
    took = simgpu.now_ns() - before
    assert took < (time.thread_time_ns() - used) / 2  # the kernels' time is the card's, not the host's


def toy_run(code: str, **environment: str) -> str:
    command, env = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=300).stdout


def test_three_processes_tell_the_same_times() -> None:
    code = """
import torch, simgpu
from torch import nn
torch.manual_seed(0)
body = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3)]
head = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 1000), nn.Softmax(1)]
model = nn.Sequential(*body, *head).eval().to("simgpu")
with torch.inference_mode():
    for side in (64, 96):
        model(torch.randn(1, 3, side, side).to("simgpu", non_blocking=True)).sum().item()
print(simgpu.now_ns(), simgpu.counters())
"""
    cards = [f"{os.environ['SIMGPU_CARD']}-{i}" for i in range(3)]  # one each, so that they may run side by side
    with ThreadPoolExecutor() as threads:
        assert len(set(threads.map(lambda card: toy_run(code, SIMGPU_CARD=card), cards))) == 1


def custom(**changes: object) -> Profile:
    from dataclasses import replace

    return replace(simgpu.profile.load("rtx3060"), **changes)  # type: ignore[arg-type]


def test_a_profile_of_ones_own() -> None:
    simgpu.use_profile(custom(key="own", launch_ns=0))
    a = random(64, 64)
    assert on_the_card(lambda: a + a) == compute_ns(0, 3 * 4 * 64 * 64) - LAUNCH


def test_dry_runs_take_the_same_time_and_no_ram() -> None:
    import torchvision

    model = torchvision.models.resnet18().eval().to("simgpu")
    image = torch.randn(1, 3, 64, 64).to("simgpu")

    def forward() -> int:
        simgpu.synchronize()
        before = simgpu.now_ns()
        with torch.inference_mode():
            assert model(image).shape == (1, 1000)
        simgpu.synchronize()
        return simgpu.now_ns() - before

    real = forward()
    with simgpu.dry_run():
        assert forward() == pytest.approx(real, rel=1e-3)  # batch_norm's unused results have other sizes without a CPU
        simgpu.set_capacity("1TiB")
        huge = torch.empty(100_000, 100_000, device="simgpu")
        assert (huge @ huge).shape == (100_000, 100_000)
        assert (huge[0] + 1)[5].item() == 0
    assert torch.equal(model(image).cpu(), model(image).cpu())


def test_backward_convolutions() -> None:
    image, weight, gradient = random(1, 64, 32, 32), random(64, 64, 3, 3), random(1, 64, 32, 32)
    flops = 2 * 64 * 32 * 32 * 9 * 64

    def backward(*wanted: bool) -> object:
        pairs = [1, 1], [1, 1], [1, 1], False, [0, 0], 1
        return torch.ops.aten.convolution_backward(gradient, image, weight, None, *pairs, [*wanted, False])

    assert on_the_card(lambda: backward(True, True)) == compute_ns(2 * flops, 0)
    assert on_the_card(lambda: backward(True, False)) == compute_ns(flops, 0)


def test_a_single_layer_without_biases() -> None:
    net, x = torch.nn.GRU(64, 128, bias=False).eval().to("simgpu"), random(10, 3, 64)
    with torch.inference_mode():
        assert on_the_card(lambda: net(x)) >= compute_ns(2 * 30 * 3 * 128 * (64 + 128), 0)


def test_results_with_a_place_of_their_own() -> None:
    a, b, there = random(256, 256), random(256, 256), random(256, 256)
    assert on_the_card(lambda: torch.add(a, b, out=there)) == compute_ns(0, 3 * 4 * 256 * 256)


def test_whole_numbers_and_complex_ones() -> None:
    n = 512
    whole = torch.ones(n, n, dtype=torch.int8, device="simgpu")
    assert on_the_card(lambda: torch._int_mm(whole, whole)) == compute_ns(2 * n**3, 6 * n * n, "int8")
    z = random(n, n).to(torch.complex64)
    assert on_the_card(lambda: z @ z) == compute_ns(8 * n**3, 3 * 8 * n * n)


def test_windows_that_overlap_read_their_bytes_once() -> None:
    x = random(1 << 20)
    assert on_the_card(lambda: x.unfold(0, 64, 1).sum()) < compute_ns(0, 2 * 4 * (1 << 20))


@pytest.mark.parametrize("device", ["cpu", "simgpu"])
def test_calls_that_a_kernel_refuses_get_its_own_error(device: str) -> None:
    x, weight = torch.ones(1, 1, 4, 4, device=device), torch.ones(1, 1, 2, 2, device=device)
    with pytest.raises(RuntimeError, match="stride"):
        torch.nn.functional.conv2d(x, weight, stride=0)
    with pytest.raises(RuntimeError):
        torch.convolution(x[0, 0], weight, None, [1], [0], [1], False, [0], 1)


def test_converted_copies_cross_in_the_type_that_is_on_the_way() -> None:
    card, host = torch.empty(MIB, dtype=torch.half, device="simgpu"), torch.empty(MIB, pin_memory=True)
    simgpu.reset_counters()
    host.copy_(card, non_blocking=True)
    card.copy_(host, non_blocking=True)
    counted = simgpu.counters()
    assert (counted["d2h_bytes"], counted["h2d_bytes"]) == (2 * MIB, 2 * MIB)
    assert counted["host_blocking_calls"] == 2  # the host converts, through pageable memory


def test_what_an_engine_did_adds_up() -> None:
    slow, late = torch.Stream(device="simgpu"), torch.Event(device="simgpu")
    simgpu.synchronize()
    simgpu._sleep(1)
    simgpu.synchronize()
    begin = simgpu.now_ns()
    simgpu.reset_counters()
    with torch.Stream(device="simgpu") as copies:
        torch.empty(25 * MIB, device="simgpu").copy_(torch.empty(25 * MIB, pin_memory=True), non_blocking=True)
        late.record(copies)
    slow.wait_event(late)
    with slow:
        simgpu._sleep(1_000_000)
    simgpu._sleep(2_000_000)  # in the gap before it
    simgpu.synchronize()
    counted = simgpu.counters()
    spent = sum(counted[f"compute_{what}_ns"] for what in ("busy", "stalled", "starved"))
    assert spent <= simgpu.now_ns() - begin + CALL
