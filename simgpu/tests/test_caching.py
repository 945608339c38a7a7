"""The caching allocator's face: what stays reserved and until when, what other processes hold, what a full card does
before it gives up, and how memory fragments where that was asked for."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import IO

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from neighbour import Neighbour

import simgpu

KIB = 1 << 10
MIB = 1 << 20
MS = 1_000_000
GRANULE = 512


def bytes_of(size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device="simgpu")


def stat(name: str) -> int:
    return int(simgpu.memory_stats()[name])


def active() -> int:
    return stat("active_bytes.all.current")


@pytest.fixture(autouse=True)
def nothing_taken() -> Iterator[None]:
    """Every test begins with an unfragmented card of which this process has nothing, and leaves it so."""
    assert simgpu.memory_reserved() == 0
    yield
    unfragmented()


def unfragmented() -> None:
    gc.collect()
    simgpu.synchronize()
    simgpu.set_fragmentation(False)


@pytest.fixture(params=[False, True], ids=["any byte serves", "fragmented"])
def either_way(request: pytest.FixtureRequest) -> bool:
    simgpu.set_fragmentation(request.param)
    return bool(request.param)


@pytest.fixture
def fragmented() -> None:
    simgpu.set_fragmentation(True)


# What is reserved, and what anybody may still take.


@pytest.mark.usefixtures("either_way")
def test_what_is_freed_stays_reserved_until_the_cache_is_emptied() -> None:
    held = bytes_of(40 * MIB)
    assert (simgpu.memory_allocated(), simgpu.memory_reserved()) == (40 * MIB, 40 * MIB)
    del held
    assert (simgpu.memory_allocated(), simgpu.memory_reserved()) == (0, 40 * MIB)
    held = bytes_of(40 * MIB)
    assert simgpu.memory_reserved() == 40 * MIB
    simgpu.empty_cache()
    assert simgpu.memory_reserved() == 40 * MIB
    del held
    simgpu.empty_cache()
    assert simgpu.memory_reserved() == 0


@pytest.mark.usefixtures("either_way")
def test_peaks_of_allocated_and_reserved() -> None:
    first, second = bytes_of(10 * MIB), bytes_of(30 * MIB)
    del second
    simgpu.empty_cache()
    assert (simgpu.memory_allocated(), simgpu.memory_reserved()) == (10 * MIB, 10 * MIB)
    assert (simgpu.max_memory_allocated(), simgpu.max_memory_reserved()) == (40 * MIB, 40 * MIB)
    simgpu.reset_peak_memory_stats()
    assert (simgpu.max_memory_allocated(), simgpu.max_memory_reserved()) == (10 * MIB, 10 * MIB)
    del first


@pytest.mark.usefixtures("either_way")
def test_free_is_what_nobody_has_reserved() -> None:
    free, total = simgpu.mem_get_info()
    held = bytes_of(40 * MIB)
    assert simgpu.mem_get_info() == (free - 40 * MIB, total)
    del held
    assert simgpu.mem_get_info() == (free - 40 * MIB, total)
    simgpu.empty_cache()
    assert simgpu.mem_get_info() == (free, total)


def test_any_reserved_byte_serves_any_tensor() -> None:
    small = [bytes_of(4 * MIB) for _ in range(10)]
    del small[::2]
    kept = bytes_of(20 * MIB)
    assert (simgpu.memory_allocated(), simgpu.memory_reserved()) == (40 * MIB, 40 * MIB)
    del small, kept


@pytest.mark.usefixtures("either_way")
def test_nothing_asked_for_is_nothing_taken() -> None:
    empty = bytes_of(0)
    assert simgpu.memory_reserved() == 0
    assert stat("segment.all.current") == 0
    del empty


@pytest.mark.usefixtures("either_way")
def test_a_refusal_takes_nothing_and_is_counted() -> None:
    simgpu.set_capacity(40 * MIB)
    held = bytes_of(30 * MIB)
    refused = stat("num_ooms")
    with pytest.raises(torch.OutOfMemoryError, match=r"30\.00 MiB .* is allocated and 0 bytes is reserved but unalloc"):
        bytes_of(20 * MIB)
    assert stat("num_ooms") == refused + 1
    assert (simgpu.memory_allocated(), simgpu.memory_reserved(), active()) == (30 * MIB,) * 3
    del held


# Other processes.


class Holder:
    """Another process with torch that holds so many MiB of this process's card in a tensor."""

    CODE = """
import sys, torch, simgpu
held = torch.empty({mib} << 20, dtype=torch.uint8, device="simgpu")
print("holds", flush=True)
sys.stdin.read()
"""

    def __init__(self, mib: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE.format(mib=mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.pipe(self.process.stdout).readline() == "holds\n"

    @staticmethod
    def pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def end(self) -> None:
        """Ends it as programs end."""
        self.process.communicate("", timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


@pytest.mark.parametrize("way", [Holder.end, Holder.kill], ids=["ends", "is killed"])
def test_memory_of_another_process_counts_and_comes_back_when_it(way: Callable[[Holder], None]) -> None:
    simgpu.set_capacity(100 * MIB)
    other = Holder(60)
    try:
        assert simgpu.mem_get_info() == (40 * MIB, 100 * MIB)
        assert simgpu.memory_reserved() == 0
        with pytest.raises(torch.OutOfMemoryError, match=r"60\.00 MiB \(62914560 bytes\) is held by other processes"):
            bytes_of(41 * MIB)
        held = bytes_of(40 * MIB)
    finally:
        way(other)
    more = bytes_of(60 * MIB)
    assert simgpu.mem_get_info() == (0, 100 * MIB)
    del held, more


def test_another_process_gets_what_is_free_and_not_what_is_cached() -> None:
    simgpu.set_capacity(100 * MIB)
    held = bytes_of(60 * MIB)
    del held
    with Neighbour(os.environ["SIMGPU_CARD"]) as other:
        assert not other.ask("reserve", 41 * MIB)
        simgpu.empty_cache()
        assert other.ask("reserve", 41 * MIB)
        with pytest.raises(torch.OutOfMemoryError, match=r"41\.00 MiB .* is held by other processes"):
            bytes_of(60 * MIB)


# A full card.


@pytest.mark.usefixtures("fragmented")
def test_a_full_card_lets_go_of_its_cache_and_tries_again() -> None:
    simgpu.set_capacity(60 * MIB)
    small = [bytes_of(9 * MIB) for _ in range(4)]
    assert (simgpu.memory_reserved(), stat("segment.all.current")) == (40 * MIB, 2)
    del small
    before = stat("num_alloc_retries")
    large = bytes_of(50 * MIB)
    assert stat("num_alloc_retries") == before + 1
    assert (simgpu.memory_reserved(), stat("segment.all.current")) == (50 * MIB, 1)
    del large


def test_a_second_try_that_fails_is_counted_too() -> None:
    simgpu.set_capacity(40 * MIB)
    before = stat("num_alloc_retries")
    with pytest.raises(torch.OutOfMemoryError):
        bytes_of(50 * MIB)
    assert stat("num_alloc_retries") == before + 1


class Busy:
    """A stream that is at work for so long, with a freed tensor of 30 MiB that was recorded on it."""

    def __init__(self, duration: int) -> None:
        self.stream = torch.Stream(device="simgpu")
        self.begin = simgpu.now_ns()
        with self.stream:
            simgpu._sleep(duration)
        held = bytes_of(30 * MIB)
        held.record_stream(self.stream)
        del held


@pytest.mark.usefixtures("either_way")
def test_a_full_card_waits_for_memory_that_a_stream_still_uses() -> None:
    simgpu.set_capacity(40 * MIB)
    busy = Busy(5 * MS)
    before = stat("num_alloc_retries")
    assert simgpu.now_ns() - busy.begin < MS
    held = bytes_of(20 * MIB)
    assert simgpu.now_ns() - busy.begin >= 5 * MS
    assert stat("num_alloc_retries") == before + 1
    assert simgpu.memory_reserved() <= 40 * MIB
    del held


@pytest.mark.usefixtures("either_way")
def test_memory_that_fits_beside_what_a_stream_still_uses_waits_for_nothing() -> None:
    simgpu.set_capacity(60 * MIB)
    busy = Busy(5 * MS)
    held = bytes_of(30 * MIB)
    assert simgpu.now_ns() - busy.begin < MS
    assert (simgpu.memory_allocated(), active(), simgpu.memory_reserved()) == (30 * MIB, 60 * MIB, 60 * MIB)
    del held


def grows(size: int) -> bool:
    """Whether an operation may make its ``out=`` that large; nothing is kept."""
    try:
        source, out = torch.ones(size, dtype=torch.uint8, device="simgpu"), bytes_of(0)
        return torch.add(source, 1, out=out)[0].item() == 2
    except torch.OutOfMemoryError:
        return False


def test_an_argument_that_grows_waits_for_memory_that_a_stream_still_uses() -> None:
    simgpu.set_capacity(50 * MIB)
    Busy(5 * MS)
    assert grows(15 * MIB)


@pytest.mark.usefixtures("fragmented")
def test_an_argument_that_grows_has_the_cache_let_go() -> None:
    simgpu.set_capacity(64 * MIB)
    small = [bytes_of(9 * MIB) for _ in range(4)]
    del small
    with torch.Stream(device="simgpu"):  # which cannot use the 40 MiB that are cached
        assert grows(22 * MIB)


def test_an_argument_that_grows_within_the_cache_needs_nothing_of_a_card_that_others_overdrew() -> None:
    held = bytes_of(60 * MIB)
    del held
    simgpu.set_capacity(50 * MIB)
    assert grows(10 * MIB)


# Blocks that other streams use.


@pytest.mark.usefixtures("either_way")
def test_a_recorded_block_stays_active_until_the_stream_has_passed_it() -> None:
    busy = Busy(5 * MS)
    assert (simgpu.memory_allocated(), active(), stat("active.all.current")) == (0, 30 * MIB, 1)
    again = bytes_of(30 * MIB)
    assert simgpu.memory_reserved() == 60 * MIB
    del again
    busy.stream.synchronize()
    both = bytes_of(30 * MIB), bytes_of(30 * MIB)
    assert (active(), simgpu.memory_reserved()) == (60 * MIB, 60 * MIB)
    del both


@pytest.mark.usefixtures("either_way")
def test_work_that_the_stream_is_given_after_the_free_holds_nothing_up() -> None:
    busy = Busy(5 * MS)
    with busy.stream:
        simgpu._sleep(50 * MS)
    while simgpu.now_ns() < busy.begin + 6 * MS:
        torch.accelerator.current_stream().query()
    again = bytes_of(30 * MIB)
    assert (active(), simgpu.memory_reserved()) == (30 * MIB, 30 * MIB)
    del again


@pytest.mark.usefixtures("either_way")
def test_emptying_the_cache_waits_for_the_streams() -> None:
    busy = Busy(5 * MS)
    simgpu.empty_cache()
    assert simgpu.now_ns() - busy.begin >= 5 * MS
    assert (active(), simgpu.memory_reserved()) == (0, 0)


@pytest.mark.usefixtures("either_way")
def test_the_blocks_own_stream_need_not_be_recorded() -> None:
    simgpu._sleep(5 * MS)
    held = bytes_of(30 * MIB)
    held.record_stream(torch.accelerator.current_stream())
    del held
    assert active() == 0


# Fragmentation.


@pytest.mark.usefixtures("fragmented")
@pytest.mark.parametrize(
    ("size", "segment"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - GRANULE, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_segments_have_the_sizes_that_cuda_gives_them(size: int, segment: int) -> None:
    held = bytes_of(size)
    rounded = -(-size // GRANULE) * GRANULE
    whole = size > MIB and segment - rounded <= MIB  # what would be left over is not worth a piece of its own
    assert simgpu.memory_allocated() == (segment if whole else rounded)
    assert stat("requested_bytes.all.current") == size
    assert (simgpu.memory_reserved(), stat("segment.all.current")) == (segment, 1)
    del held


@pytest.mark.usefixtures("fragmented")
def test_a_segment_is_split_until_it_is_full() -> None:
    small = [bytes_of(512 * KIB) for _ in range(4)]
    assert stat("segment.all.current") == 1
    small.append(bytes_of(1))
    assert stat("segment.all.current") == 2
    medium = [bytes_of(9 * MIB), bytes_of(9 * MIB), bytes_of(2 * MIB)]
    assert (stat("segment.all.current"), simgpu.memory_reserved()) == (3, 24 * MIB)
    del small, medium


@pytest.mark.usefixtures("fragmented")
def test_small_and_large_blocks_do_not_share_segments() -> None:
    large = bytes_of(2 * MIB)
    small = bytes_of(512)
    assert (stat("segment.all.current"), simgpu.memory_reserved()) == (2, 22 * MIB)
    del large, small


@pytest.mark.usefixtures("fragmented")
def test_of_a_large_block_no_more_than_a_mebibyte_is_left_over() -> None:
    tight = bytes_of(12 * MIB - 512 * KIB)  # of its segment of 12 MiB
    small = bytes_of(512 * KIB)
    assert simgpu.memory_reserved() == 14 * MIB
    del tight
    loose = bytes_of(10 * MIB)  # in the 12 MiB; the two that are left serve
    rest = bytes_of(2 * MIB)
    assert simgpu.memory_reserved() == 14 * MIB
    del small, loose, rest


@pytest.mark.usefixtures("fragmented")
def test_what_is_left_over_is_allocated_too() -> None:
    held = bytes_of(12 * MIB - 512 * KIB)
    allocated, requested = simgpu.memory_allocated(), stat("requested_bytes.all.current")
    del held
    assert (allocated, requested) == (12 * MIB, 12 * MIB - 512 * KIB)


@pytest.mark.usefixtures("fragmented")
def test_free_pieces_of_segments_in_use_are_inactive() -> None:
    held = bytes_of(4 * MIB)
    stats = simgpu.memory_stats()
    del held
    assert (stats["inactive_split.all.current"], stats["inactive_split_bytes.all.current"]) == (1, 16 * MIB)
    assert (stat("inactive_split.all.current"), stat("inactive_split_bytes.all.current")) == (0, 0)


@pytest.mark.usefixtures("fragmented")
def test_both_pools_are_counted() -> None:
    held = bytes_of(1), bytes_of(4 * MIB)
    stats = simgpu.memory_stats()
    del held
    assert (stats["segment.small_pool.current"], stats["segment.large_pool.current"]) == (1, 1)
    assert stats["reserved_bytes.small_pool.current"] == 2 * MIB
    assert stats["allocated_bytes.large_pool.current"] == 4 * MIB


@pytest.mark.usefixtures("fragmented")
def test_the_best_fit_is_taken() -> None:
    sizes = [30 * MIB, 12 * MIB, 20 * MIB]
    held = [bytes_of(size) for size in sizes]
    held.clear()
    held.append(bytes_of(12 * MIB))  # if it took more than it needs, one of the others would find no place
    held += [bytes_of(20 * MIB), bytes_of(30 * MIB)]
    assert simgpu.memory_reserved() == sum(sizes)


@pytest.mark.usefixtures("fragmented")
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_neighbours_that_are_free_become_one(order: tuple[int, ...]) -> None:
    held: list[torch.Tensor | None] = [bytes_of(6 * MIB) for _ in range(3)]
    assert stat("segment.all.current") == 1
    for which in order:
        held[which] = None
    again = bytes_of(10 * MIB - GRANULE)
    assert (stat("segment.all.current"), simgpu.memory_reserved()) == (1, 20 * MIB)
    del again
    whole = bytes_of(20 * MIB)
    assert simgpu.memory_reserved() == 20 * MIB
    del whole


@pytest.mark.usefixtures("fragmented")
def test_the_same_program_fragments_in_the_same_way() -> None:
    def reserved_at_the_end() -> int:
        held: list[torch.Tensor | None] = [bytes_of(4 * MIB) for _ in range(50)]
        for which in range(50):
            if which % 5 in (1, 3):
                held[which] = None
        kept = [bytes_of(4 * MIB) for _ in range(10)]  # ten of twenty equal holes
        held.clear()
        simgpu.empty_cache()
        reserved = simgpu.memory_reserved()
        kept.clear()
        simgpu.empty_cache()
        return reserved

    chance, heap, seen = Random(0), list[bytearray](), set[int]()
    for _ in range(20):
        seen.add(reserved_at_the_end())
        heap += [bytearray(chance.randrange(1, 500)) for _ in range(100)]
        del heap[::2]
    assert len(seen) == 1


@pytest.mark.usefixtures("fragmented")
def test_every_stream_has_its_own_segments() -> None:
    held = bytes_of(20 * MIB)
    del held
    with torch.Stream(device="simgpu"):
        other = bytes_of(20 * MIB)
    assert simgpu.memory_reserved() == 40 * MIB
    again = bytes_of(20 * MIB)
    assert simgpu.memory_reserved() == 40 * MIB
    del other, again


@pytest.mark.usefixtures("fragmented")
def test_only_segments_that_hold_nothing_go_back() -> None:
    pinned_down, held = bytes_of(MIB + 1), bytes_of(40 * MIB)
    del held
    simgpu.empty_cache()
    assert (simgpu.memory_reserved(), stat("segment.all.current")) == (20 * MIB, 1)
    assert (stat("num_device_alloc"), stat("num_device_free")) >= (2, 1)
    del pinned_down


def a_pattern_that_fragments() -> list[torch.Tensor]:
    """Two segments of 20 MiB with every other block free: 20 MiB in pieces of 4, on a card of 40."""
    simgpu.set_capacity(40 * MIB)
    held = [bytes_of(4 * MIB) for _ in range(10)]
    del held[1::2]
    return held


@pytest.mark.usefixtures("fragmented")
def test_enough_bytes_are_free_and_no_piece_is_large_enough() -> None:
    held = a_pattern_that_fragments()
    with pytest.raises(torch.OutOfMemoryError, match=r"20\.00 MiB .* is allocated and 20\.00 MiB .* is reserved"):
        bytes_of(9 * MIB)
    assert (simgpu.memory_reserved(), stat("segment.all.current")) == (40 * MIB, 2)
    pieces = [bytes_of(4 * MIB) for _ in range(5)]
    assert simgpu.memory_allocated() == 40 * MIB
    del held, pieces


def test_and_without_fragmentation_the_same_bytes_serve() -> None:
    held = a_pattern_that_fragments()
    large = bytes_of(9 * MIB)
    assert simgpu.memory_reserved() == 40 * MIB
    del held, large


@pytest.mark.usefixtures("fragmented")
def test_switching_is_refused_while_tensors_live() -> None:
    held = bytes_of(1)
    with pytest.raises(RuntimeError, match="delete the tensors on the card first"):
        simgpu.set_fragmentation(False)
    simgpu.set_fragmentation(True)  # as it is
    del held
    simgpu.set_fragmentation(False)
    held = bytes_of(1)
    assert simgpu.memory_reserved() == GRANULE
    with pytest.raises(RuntimeError, match="delete the tensors on the card first"):
        simgpu.set_fragmentation(True)
    del held


def test_the_environment_switches_it_on() -> None:
    code = "import torch, simgpu; x = torch.empty(1, device='simgpu'); print(simgpu.memory_reserved())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SIMGPU_FRAGMENTATION": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert int(done.stdout) == 2 * MIB


# Fill.


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("count", [100, 3 * MIB])
def test_new_bytes_are_nan_also_where_others_were_before(count: int) -> None:
    simgpu.set_fill_freed(True)
    for _ in range(3):
        fresh = torch.empty(count, device="simgpu")
        assert fresh.isnan().all().item()
        fresh.zero_()
        del fresh


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("made", ["by the card", "by a kernel"])
def test_freed_bytes_are_nan(made: str) -> None:
    simgpu.set_fill_freed(True)
    held = torch.ones(1000, device="simgpu")
    if made == "by a kernel":
        held = held + 1
    seen = (ctypes.c_uint8 * 4000).from_address(held.data_ptr())
    assert bytes(seen).count(b"\xff") == 0
    del held
    assert bytes(seen).count(b"\xff") > 3000  # the host's allocator may have used a little of it again


# Anything in any order.


@pytest.mark.usefixtures("either_way")
def test_threads() -> None:
    def work(seed: int) -> None:
        chance, held = Random(seed), list[torch.Tensor]()
        with torch.Stream(device="simgpu") as mine:
            for _ in range(150):
                held.append(bytes_of(chance.choice([1, 5000, MIB, 3 * MIB, 11 * MIB])))
                if chance.random() < 0.3:
                    held[-1].record_stream(simgpu.default_stream())
                while held and chance.random() < 0.5:
                    held.pop(chance.randrange(len(held)))
                if chance.random() < 0.05:
                    simgpu.empty_cache()
            mine.synchronize()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert simgpu.memory_allocated() == 0
    assert stat("allocation.all.allocated") == stat("allocation.all.freed")
    simgpu.empty_cache()
    assert (active(), simgpu.memory_reserved(), stat("segment.all.current")) == (0, 0, 0)


CAPACITY = 64 * MIB
SIZES = st.one_of(st.integers(1, 4 * KIB), st.integers(1, 3 * MIB), st.integers(MIB, 40 * MIB))
STEPS = st.one_of(
    st.tuples(st.just("take"), SIZES, st.integers(0, 2)),
    st.tuples(st.just("free"), st.integers(0, 99), st.integers(-1, 2)),
    st.tuples(st.just("work"), st.integers(1, 5 * MS), st.integers(0, 2)),
    st.tuples(st.just("empty"), st.none(), st.none()),
)


class Model:
    """What the card must say, kept beside it: the live tensors, and nothing of how memory is cut."""

    def __init__(self, *, fragmented: bool) -> None:
        self.fragmented = fragmented
        self.streams = [simgpu.default_stream(), torch.Stream(device="simgpu"), torch.Stream(device="simgpu")]
        self.live: list[torch.Tensor] = []

    @property
    def bytes(self) -> int:
        return sum(-(-each.nbytes // GRANULE) * GRANULE for each in self.live)

    def take(self, size: int, stream: int) -> None:
        try:
            with self.streams[stream]:
                self.live.append(bytes_of(size))
        except torch.OutOfMemoryError:
            assert self.live or size > CAPACITY
            if not self.fragmented:  # full means full
                assert self.bytes + size > CAPACITY - GRANULE

    def free(self, which: int, used_by: int) -> None:
        if self.live:
            tensor = self.live.pop(which % len(self.live))
            if used_by >= 0:
                tensor.record_stream(self.streams[used_by])

    def work(self, duration: int, stream: int) -> None:
        with self.streams[stream]:
            simgpu._sleep(duration)

    def empty(self, *_: object) -> None:
        simgpu.empty_cache()
        assert active() == simgpu.memory_allocated()
        if not self.fragmented:
            assert simgpu.memory_reserved() == self.bytes

    def check(self) -> None:
        stats = simgpu.memory_stats()
        allocated, reserved = simgpu.memory_allocated(), simgpu.memory_reserved()
        more = allocated - self.bytes  # what was not worth splitting off
        assert 0 <= more <= (MIB * len(self.live) if self.fragmented else 0)
        assert stats["requested_bytes.all.current"] == sum(each.nbytes for each in self.live)
        assert stats["allocation.all.current"] == len(self.live)
        assert allocated <= stats["active_bytes.all.current"] <= reserved <= CAPACITY
        assert simgpu.mem_get_info() == (CAPACITY - reserved, CAPACITY)
        assert simgpu.max_memory_allocated() >= allocated
        assert simgpu.max_memory_reserved() >= reserved
        segments = stats["segment.all.current"]
        if self.fragmented:
            assert reserved % (2 * MIB) == 0
            assert 2 * MIB * segments <= reserved
        else:
            assert segments == (reserved > 0)

    def end(self) -> None:
        self.live.clear()
        simgpu.empty_cache()
        sizes = ("allocated_bytes", "active_bytes", "requested_bytes", "reserved_bytes")
        for name in (*sizes, "allocation", "active", "segment"):
            assert stat(f"{name}.all.current") == 0
        assert simgpu.mem_get_info() == (CAPACITY, CAPACITY)


@pytest.mark.parametrize("fragmented", [False, True], ids=["any byte serves", "fragmented"])
def test_whatever_a_program_does_the_figures_agree(fragmented: bool) -> None:
    simgpu.set_fragmentation(fragmented)
    simgpu.set_capacity(CAPACITY)

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(st.lists(STEPS, max_size=40))
    def check(steps: list[tuple[str, int, int]]) -> None:
        model = Model(fragmented=fragmented)
        try:
            for step, first, second in steps:
                getattr(model, step)(first, second)
                model.check()
        finally:
            model.end()

    check()
