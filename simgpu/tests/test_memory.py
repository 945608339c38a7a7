"""Capacity, out-of-memory errors, statistics, lazy and returned RAM, fill."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
import torch

import simgpu

MIB = 1 << 20


def resident() -> int:
    """This process's resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_sizes_count_in_multiples_of_512() -> None:
    before = simgpu.memory_allocated()
    one = torch.empty(1, dtype=torch.uint8, device="simgpu")
    assert simgpu.memory_allocated() - before == 512
    two = torch.empty(513, dtype=torch.uint8, device="simgpu")
    assert simgpu.memory_allocated() - before == 512 + 1024
    assert one.data_ptr() % 512 == 0
    assert two.data_ptr() % 512 == 0
    del one, two
    assert simgpu.memory_allocated() == before


def test_nothing_takes_nothing() -> None:
    before = simgpu.memory_stats()["allocation.all.current"]
    empty = torch.empty(0, device="simgpu")
    assert empty.numel() == 0
    assert simgpu.memory_stats()["allocation.all.current"] == before
    assert (empty + 1).shape == (0,)


def test_results_are_counted() -> None:
    a = torch.ones(1000, device="simgpu")
    before = simgpu.memory_allocated()
    b = a + 1
    assert simgpu.memory_allocated() - before == 4096
    c = b.view(10, 100).t()
    assert simgpu.memory_allocated() - before == 4096
    del b
    assert simgpu.memory_allocated() - before == 4096
    del c
    assert simgpu.memory_allocated() == before


def test_an_untouched_large_block_costs_no_ram() -> None:
    before = resident()
    big = torch.empty(6 << 30, dtype=torch.uint8, device="simgpu")
    assert simgpu.memory_allocated() >= 6 << 30
    assert resident() - before < 64 * MIB
    big[: 200 * MIB].fill_(1)
    assert resident() - before > 150 * MIB
    del big
    assert resident() - before < 64 * MIB


def test_out_of_memory_says_all_there_is_to_say() -> None:
    simgpu.set_capacity(simgpu.memory_allocated() + 10 * MIB)
    held = torch.empty(4 * MIB, dtype=torch.uint8, device="simgpu")
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(7 * MIB, dtype=torch.uint8, device="simgpu")
    text = str(caught.value)
    free, total = simgpu.mem_get_info()
    for number in (7 * MIB, total, free, total - free):
        assert f"({number} bytes)" in text
    assert free == 6 * MIB
    assert isinstance(caught.value, RuntimeError)
    assert simgpu.memory_stats()["num_ooms"] >= 1
    del held
    torch.empty(7 * MIB, dtype=torch.uint8, device="simgpu")


def test_a_result_that_does_not_fit_leaves_nothing_behind() -> None:
    a = torch.ones(MIB, device="simgpu")
    simgpu.set_capacity(simgpu.memory_allocated() + 5 * MIB)
    before = simgpu.memory_allocated()
    for _ in range(3):
        with pytest.raises(torch.OutOfMemoryError):
            torch.cat([a, a])
        # the second of two results does not fit
        with pytest.raises(torch.OutOfMemoryError):
            a.view(1024, 1024).sort()
        with pytest.raises(torch.OutOfMemoryError):
            torch._foreach_add([a, a], 1.0)
    assert simgpu.memory_allocated() == before
    assert (a + 1).sum().item() == 2 * MIB


def test_an_out_argument_that_cannot_grow() -> None:
    a = torch.ones(MIB, device="simgpu")
    simgpu.set_capacity(simgpu.memory_allocated() + MIB)
    before = simgpu.memory_allocated()
    out = torch.empty(0, device="simgpu")
    with pytest.raises(torch.OutOfMemoryError):
        torch.add(a, 1, out=out)
    del out
    assert simgpu.memory_allocated() == before


def test_capacity_below_what_is_allocated() -> None:
    held = torch.empty(4 * MIB, dtype=torch.uint8, device="simgpu")
    simgpu.set_capacity(MIB)
    assert simgpu.mem_get_info() == (0, MIB)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(1, device="simgpu")
    held.fill_(3)
    assert held[0].item() == 3


def test_statistics_agree_everywhere() -> None:
    gc.collect()
    torch.accelerator.reset_peak_memory_stats()
    before = torch.accelerator.memory_allocated()
    a = torch.empty(3 * MIB, dtype=torch.uint8, device="simgpu")
    del a
    assert torch.accelerator.memory_allocated() == simgpu.memory_allocated() == before
    assert torch.accelerator.max_memory_allocated() == simgpu.max_memory_allocated() == before + 3 * MIB
    assert simgpu.memory_reserved() == torch.accelerator.memory_reserved() == before + 3 * MIB
    assert simgpu.max_memory_reserved() == torch.accelerator.max_memory_reserved() == before + 3 * MIB
    stats = torch.accelerator.memory_stats()
    assert stats["allocated_bytes.all.peak"] == before + 3 * MIB
    assert stats == simgpu.memory_stats()
    simgpu.reset_peak_memory_stats()
    assert torch.accelerator.max_memory_allocated() == before
    simgpu.reset_accumulated_memory_stats()
    assert simgpu.memory_stats()["allocated_bytes.all.freed"] == 0
    torch.accelerator.empty_cache()
    simgpu.empty_cache()


def test_memory_info() -> None:
    free, total = simgpu.mem_get_info("simgpu:0")
    assert total == 12 << 30
    assert free == total - simgpu.memory_reserved()
    if hasattr(torch.accelerator, "get_memory_info"):
        assert torch.accelerator.get_memory_info() == (free, total)


@pytest.mark.parametrize("count", [100, 3 * MIB])
def test_fill_makes_new_bytes_nan(count: int) -> None:
    simgpu.set_fill_freed(True)
    assert torch.empty(count, device="simgpu").isnan().all().item()


@pytest.mark.parametrize("made", ["by the card", "by a kernel"])
def test_fill_makes_freed_bytes_nan(made: str) -> None:
    simgpu.set_fill_freed(True)
    a = torch.ones(1000, device="simgpu")
    if made == "by a kernel":
        a = a + 1
    import ctypes

    address = a.data_ptr()
    kept = (ctypes.c_uint8 * 4000).from_address(address)
    assert bytes(kept) != b"\xff" * 4000
    del a
    # The host's allocator may have used a little of it again.
    assert bytes(kept).count(b"\xff") > 3000


def test_growing_storage() -> None:
    a = torch.arange(4.0, device="simgpu")
    before = simgpu.memory_allocated()
    a.resize_(2000)
    assert simgpu.memory_allocated() - before == 8192 - 512
    assert a[:4].tolist() == [0, 1, 2, 3]
    a.resize_(2, 2)
    assert a.tolist() == [[0, 1], [2, 3]]
    storage = a.untyped_storage()
    storage.resize_(0)
    assert storage.nbytes() == 0
    assert simgpu.memory_allocated() == before - 512
    storage.resize_(16)
    assert a.shape == (2, 2)


def test_many_threads() -> None:
    before = simgpu.memory_allocated()
    wrong: list[float] = []

    def work(seed: int) -> None:
        for i in range(200):
            a = torch.full((100 + i,), float(seed), device="simgpu")
            total = (a * 2).sum().item()
            if total != 2 * seed * (100 + i):
                wrong.append(total)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert simgpu.memory_allocated() == before
    assert simgpu.counters()["kernels"] == 4 * 200 * 3
