"""Wrong programs, each caught, and right ones, none accused. Every test runs with the detector on (conftest.py)."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import simgpu

N = 1000


class Scene:
    """What most of these programs need: two streams beside the default one, memory on both sides, nothing in flight."""

    def __init__(self) -> None:
        self.main = torch.accelerator.current_stream()
        self.side, self.third = torch.Stream(device="simgpu"), torch.Stream(device="simgpu")
        self.host = torch.arange(float(N)).pin_memory()
        self.other_host = torch.ones(N).pin_memory()
        self.card = torch.zeros(N, device="simgpu")
        self.arena = torch.zeros(4 * N, device="simgpu")
        simgpu.synchronize()

    def bring(self, target: torch.Tensor, source: torch.Tensor | None = None) -> torch.Event:
        """Starts a copy on the side stream; the event of its end."""
        with self.side:
            target.copy_(self.host if source is None else source, non_blocking=True)
            return self.side.record_event()


def read_before_the_copy_is_ordered(s: Scene) -> None:
    s.bring(s.card)
    s.card + 1


def read_after_waiting_for_an_event_recorded_too_early(s: Scene) -> None:
    early = s.side.record_event()
    s.bring(s.card)
    s.main.wait_event(early)
    s.card + 1


def read_after_the_wrong_stream_waited(s: Scene) -> None:
    s.third.wait_event(s.bring(s.card))
    s.card + 1


def read_of_the_second_page_after_waiting_for_the_first(s: Scene) -> None:
    first = s.bring(s.arena[:N])
    s.bring(s.arena[N : 2 * N])
    s.main.wait_event(first)
    s.arena[:N] + 1  # that is right
    s.arena[N : 2 * N] + 1


def read_of_one_byte_too_many(s: Scene) -> None:
    s.main.wait_event(s.bring(s.arena[:N]))
    s.bring(s.arena[N : 2 * N])
    s.arena[: N + 1] + 1


def overwrite_while_a_reader_may_run(s: Scene) -> None:
    s.arena[:N] + 1
    s.bring(s.arena[:N])


def overwrite_after_waiting_for_the_first_of_two_readers(s: Scene) -> None:
    s.arena[:N] + 1
    first = s.main.record_event()
    s.arena[N - 1 : N] * 2
    s.side.wait_event(first)
    s.bring(s.arena[:N])


def overwrite_by_a_kernel(s: Scene) -> None:
    with s.side:
        s.card.add(1)
    s.card.add_(1)


def two_writers(s: Scene) -> None:
    s.bring(s.card)
    with s.third:
        s.card.fill_(3)


def overwrite_of_columns(s: Scene) -> None:
    grid = s.arena.view(40, 100)
    with s.side:
        grid[:, :50].fill_(1)
    grid[:, 49:51].add(1)


def overwrite_through_another_view(s: Scene) -> None:
    with s.side:
        s.arena.view(40, 100).t()[3].fill_(1)
    s.arena[3:4].add(1)


def source_changed_in_flight(s: Scene) -> None:
    s.bring(s.card)
    s.host.fill_(5)
    s.side.synchronize()


def source_changed_in_flight_through_numpy(s: Scene) -> None:
    s.bring(s.card)
    s.host.numpy()[7] = -1
    simgpu.synchronize()


def source_changed_in_flight_and_sent_again(s: Scene) -> None:
    s.bring(s.card)
    s.host.fill_(5)
    s.bring(s.card)
    simgpu.synchronize()


def source_changed_after_the_wrong_event(s: Scene) -> None:
    early = s.side.record_event()
    s.bring(s.card)
    early.synchronize()
    s.host.fill_(5)
    s.side.synchronize()


def target_changed_in_flight(s: Scene) -> None:
    with s.side:
        s.side.wait_stream(s.main)
        s.host.copy_(s.card, non_blocking=True)
    s.host.fill_(3)
    s.side.synchronize()


def source_changed_by_the_card(s: Scene) -> None:
    s.bring(s.card)
    with s.third:
        s.host.copy_(s.arena[:N], non_blocking=True)


def source_unregistered_in_flight(s: Scene) -> None:
    own = torch.ones(N)
    simgpu.host_register(own)
    try:
        s.bring(s.card, own)
    finally:
        simgpu.host_unregister(own)


def freed_while_another_stream_reads(s: Scene) -> None:
    held = torch.ones(N, device="simgpu")
    s.side.wait_stream(s.main)
    with s.side:
        held.add(1)
    del held
    torch.ones(N, device="simgpu")


def freed_while_another_stream_writes(s: Scene) -> None:
    held = torch.empty(N, device="simgpu")
    s.side.wait_stream(s.main)
    s.bring(held)
    del held
    torch.ones(N, device="simgpu")


def freed_with_the_wrong_stream_recorded(s: Scene) -> None:
    held = torch.ones(N, device="simgpu")
    s.side.wait_stream(s.main)
    with s.side:
        held.add(1)
    held.record_stream(s.third)
    del held
    torch.ones(N, device="simgpu")


def result_freed_while_another_stream_reads(s: Scene) -> None:
    held = s.card + 1  # made by a kernel
    s.side.wait_stream(s.main)
    with s.side:
        held.add(1)
    del held
    s.card + 2


def made_on_one_stream_and_filled_on_another(s: Scene) -> None:
    """The allocator gives out bytes that an earlier kernel of the main stream still reads."""
    old = torch.ones(N, device="simgpu")
    old.add(1)
    del old
    fresh = torch.empty(N, device="simgpu")
    s.bring(fresh)


def brought_back_from_a_stream_that_was_not_waited_for(s: Scene) -> None:
    s.card.add_(1)
    with s.side:
        s.host.copy_(s.card, non_blocking=True)


def sent_on_before_it_has_come_back(s: Scene) -> None:
    with s.side:
        s.host.copy_(s.card, non_blocking=True)
    s.arena[:N].copy_(s.host, non_blocking=True)


def result_of_a_kernel_on_another_stream(s: Scene) -> None:
    with s.side:
        made = torch.randn(N, device="simgpu")
    made.sum()


WRONG = [
    read_before_the_copy_is_ordered,
    read_after_waiting_for_an_event_recorded_too_early,
    read_after_the_wrong_stream_waited,
    read_of_the_second_page_after_waiting_for_the_first,
    read_of_one_byte_too_many,
    overwrite_while_a_reader_may_run,
    overwrite_after_waiting_for_the_first_of_two_readers,
    overwrite_by_a_kernel,
    two_writers,
    overwrite_of_columns,
    overwrite_through_another_view,
    source_changed_in_flight,
    source_changed_in_flight_through_numpy,
    source_changed_in_flight_and_sent_again,
    source_changed_after_the_wrong_event,
    target_changed_in_flight,
    source_changed_by_the_card,
    source_unregistered_in_flight,
    freed_while_another_stream_reads,
    freed_while_another_stream_writes,
    freed_with_the_wrong_stream_recorded,
    result_freed_while_another_stream_reads,
    made_on_one_stream_and_filled_on_another,
    brought_back_from_a_stream_that_was_not_waited_for,
    sent_on_before_it_has_come_back,
    result_of_a_kernel_on_another_stream,
]


@pytest.mark.parametrize("program", WRONG, ids=lambda program: program.__name__)
def test_wrong_programs_are_caught(program: Callable[[Scene], None]) -> None:
    scene = Scene()
    with pytest.raises(simgpu.RaceError, match=r"race on .*Missing: .*test_races\.py:\d+ in") as caught:
        program(scene)
    print(caught.value)


@pytest.mark.parametrize("program", WRONG, ids=lambda program: program.__name__)
def test_and_only_while_races_are_looked_for(program: Callable[[Scene], None]) -> None:
    simgpu.set_race_detection(False)
    program(Scene())


def ordered_by_an_event(s: Scene) -> None:
    s.main.wait_event(s.bring(s.card))
    assert (s.card + 1)[3].item() == 4


def ordered_by_wait_stream(s: Scene) -> None:
    s.bring(s.card)
    s.main.wait_stream(s.side)
    s.card + 1


def ordered_by_the_host(s: Scene) -> None:
    s.bring(s.card).synchronize()
    s.card + 1
    s.bring(s.arena[:N])
    s.side.synchronize()
    s.arena + 1
    simgpu.synchronize()
    s.bring(s.card)
    while not s.side.query():
        pass
    s.card + 1


def ordered_through_a_third_stream(s: Scene) -> None:
    s.third.wait_event(s.bring(s.card))
    s.main.wait_event(s.third.record_event())
    s.card + 1


def many_readers(s: Scene) -> None:
    ready = s.bring(s.card)
    ends = []
    for stream in (s.main, s.third):
        stream.wait_event(ready)
        with stream:
            s.card.add(1)
            ends.append(stream.record_event())
    for end in ends:
        s.side.wait_event(end)
    s.bring(s.card)


def neighbours_in_an_arena(s: Scene) -> None:
    s.bring(s.arena[:N])
    s.arena[N : 2 * N].add_(1)
    with s.third:
        s.arena[2 * N :].fill_(1)


def neighbouring_columns(s: Scene) -> None:
    grid = s.arena.view(40, 100)
    with s.side:
        grid[:, :50].fill_(1)
        grid.t()[60].fill_(2)
    grid[:, 50:60].add_(1)
    with s.third:
        grid[::2, 70].fill_(1)
    grid[1::2, 70].fill_(1)


def a_ring(s: Scene) -> None:
    """Double buffering, three laps: each copy waits for the reader two pages before."""
    pages = [torch.full((N,), float(i)).pin_memory() for i in range(5)]
    ends: list[torch.Event] = []
    for turn in range(15):
        slot = s.arena[(turn % 2) * N :][:N]
        if turn >= 2:
            s.side.wait_event(ends[turn - 2])
        s.main.wait_event(s.bring(slot, pages[turn % 5]))
        result = slot * 2
        ends.append(s.main.record_event())
        assert result[0].item() == 2 * (turn % 5)


def the_source_is_changed_after_the_copy(s: Scene) -> None:
    for value in range(3):
        s.bring(s.card).synchronize()
        s.host.fill_(value)


def the_source_is_changed_after_a_query(s: Scene) -> None:
    ended = s.bring(s.card)
    while not ended.query():
        pass
    s.host.fill_(1)
    simgpu.synchronize()


def pageable_sources_are_read_at_once(s: Scene) -> None:
    source = torch.ones(N)
    s.card.copy_(source, non_blocking=True)
    source.zero_()
    assert s.card[0].item() == 1


def pinned_memory_freed_in_flight(s: Scene) -> None:
    """torch's pinned allocators keep a block until its copies have ended."""
    for _ in range(3):
        torch.ones(N).pin_memory().to("simgpu", non_blocking=True)
    simgpu.synchronize()


def registered_memory(s: Scene) -> None:
    own = torch.ones(N)
    simgpu.host_register(own)
    assert own.is_pinned()
    s.bring(s.card, own).synchronize()
    simgpu.host_unregister(own)
    assert not own.is_pinned()


def brought_back(s: Scene) -> None:
    s.card.add_(7)
    s.host.copy_(s.card, non_blocking=True)
    ended = s.main.record_event()
    assert s.host.isnan().all()  # not there yet
    ended.synchronize()
    assert (s.host == 7).all()


def brought_back_and_sent_on(s: Scene) -> None:
    s.card.fill_(7)
    s.host.copy_(s.card, non_blocking=True)
    s.arena[:N].copy_(s.host, non_blocking=True)  # in one stream
    assert s.arena[0].item() == 7


def brought_back_twice(s: Scene) -> None:
    for value in (1, 2):
        s.card.fill_(value)
        s.host.copy_(s.card, non_blocking=True)
    s.main.synchronize()
    assert (s.host == 2).all()


def brought_back_in_columns(s: Scene) -> None:
    s.arena.fill_(3)
    target = torch.zeros(40, 100, pin_memory=True)
    target[:, ::2].copy_(s.arena.view(40, 100)[:, ::2], non_blocking=True)
    assert target[:, 1::2].eq(0).all()
    simgpu.synchronize()
    assert target[:, ::2].eq(3).all()
    assert target[:, 1::2].eq(0).all()


def a_swap_buffer(s: Scene) -> None:
    """The source is overwritten by the card, in the order of one stream."""
    s.card.copy_(s.host, non_blocking=True)
    s.host.copy_(s.arena[:N], non_blocking=True)
    s.card.copy_(s.other_host, non_blocking=True)
    simgpu.synchronize()
    assert (s.host == 0).all()


def the_source_becomes_the_copy(s: Scene) -> None:
    there = s.host.to("simgpu", non_blocking=True)
    s.host.data = there
    s.host.add_(1)
    simgpu.synchronize()


def the_source_gets_other_memory(s: Scene) -> None:
    s.card.copy_(s.host, non_blocking=True)
    s.host.set_(torch.ones(3))
    s.card.copy_(s.other_host, non_blocking=True)
    s.other_host.resize_(N // 2)
    simgpu.synchronize()


def work_that_failed(s: Scene) -> None:
    with s.side, pytest.raises(RuntimeError, match="size"):
        s.card.add_(torch.ones(3, device="simgpu"))
    s.main.wait_stream(s.side)
    s.card + 1
    s.third.wait_stream(s.main)
    with s.third, pytest.raises(RuntimeError, match="size"):
        s.card.add_(s.arena[:3])
    s.card + 1


def freed_after_record_stream(s: Scene) -> None:
    held = torch.ones(N, device="simgpu")
    s.side.wait_stream(s.main)
    with s.side:
        held.add(1)
    held.record_stream(s.side)
    del held
    torch.ones(N, device="simgpu")


def freed_and_reused_after_a_wait(s: Scene) -> None:
    held = torch.ones(N, device="simgpu")
    s.side.wait_stream(s.main)
    with s.side:
        held.add(1)
    del held
    s.main.wait_stream(s.side)
    torch.ones(N, device="simgpu")


def freed_after_the_host_waited(s: Scene) -> None:
    held = torch.ones(N, device="simgpu")
    s.side.wait_stream(s.main)
    with s.side:
        held.add(1)
    s.side.synchronize()
    del held
    torch.ones(N, device="simgpu")


def freed_and_reused_on_one_stream(s: Scene) -> None:
    for _ in range(5):
        held = torch.ones(N, device="simgpu")
        held.add(1)
        del held


def made_inside_the_stream_that_fills_it(s: Scene) -> None:
    old = torch.ones(N, device="simgpu")
    old.add(1)
    del old
    with s.side:
        fresh = torch.empty(N, device="simgpu")
        fresh.copy_(s.host, non_blocking=True)
    s.main.wait_stream(s.side)
    fresh.add(1)
    fresh.record_stream(s.main)


def results_of_one_stream(s: Scene) -> None:
    with s.side:
        x = torch.randn(30, 30, device="simgpu")
        for _ in range(4):
            x = torch.nn.functional.layer_norm(x @ x.t(), (30,))
    simgpu.synchronize()
    x.sum().item()


def a_cache_that_was_emptied(s: Scene) -> None:
    held = torch.ones(N, device="simgpu")
    s.side.wait_stream(s.main)
    with s.side:
        held.add(1)
    del held
    simgpu.empty_cache()
    torch.ones(N, device="simgpu")


RIGHT = [
    ordered_by_an_event,
    ordered_by_wait_stream,
    ordered_by_the_host,
    ordered_through_a_third_stream,
    many_readers,
    neighbours_in_an_arena,
    neighbouring_columns,
    a_ring,
    the_source_is_changed_after_the_copy,
    the_source_is_changed_after_a_query,
    pageable_sources_are_read_at_once,
    pinned_memory_freed_in_flight,
    registered_memory,
    brought_back,
    brought_back_and_sent_on,
    brought_back_twice,
    brought_back_in_columns,
    a_swap_buffer,
    the_source_becomes_the_copy,
    the_source_gets_other_memory,
    work_that_failed,
    freed_after_record_stream,
    freed_and_reused_after_a_wait,
    freed_after_the_host_waited,
    freed_and_reused_on_one_stream,
    made_inside_the_stream_that_fills_it,
    results_of_one_stream,
    a_cache_that_was_emptied,
]


@pytest.mark.parametrize("program", RIGHT, ids=lambda program: program.__name__)
def test_right_programs_are_not_accused(program: Callable[[Scene], None]) -> None:
    program(Scene())
    gc.collect()
    simgpu.synchronize()


def test_the_error_names_both_sides_and_what_is_missing() -> None:
    s = Scene()
    s.bring(s.arena[:N])
    with pytest.raises(simgpu.RaceError) as caught:
        s.arena[N - 10 : N + 10].mul(2)
    text, stream = str(caught.value), s.side.stream_id
    assert "race on device memory, 80 bytes from 0x" in text
    assert "aten::mul.Tensor on stream 0 (the default stream)" in text
    assert f"a copy from host to device on stream {stream}" in text
    assert (
        f"Record an event on stream {stream} after it and let stream 0 wait_event() it before aten::mul.Tensor" in text
    )
    assert "test_races.py:" in text
    assert isinstance(caught.value, RuntimeError)


def test_after_an_error_the_card_goes_on() -> None:
    s = Scene()
    s.bring(s.card)
    with pytest.raises(simgpu.RaceError):
        s.card + 1
    simgpu.synchronize()
    assert (s.card + 1)[5].item() == 6


def test_what_came_before_the_switch_is_taken_as_ordered() -> None:
    simgpu.set_race_detection(False)
    s = Scene()
    s.bring(s.card)
    simgpu.set_race_detection(True)
    s.card + 1


def test_switching_off_brings_what_was_held_back() -> None:
    s = Scene()
    s.card.fill_(9)
    s.host.copy_(s.card, non_blocking=True)
    assert s.host.isnan().all()
    simgpu.set_race_detection(False)
    assert (s.host == 9).all()


def resident() -> int:
    """This process's resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_thousands_of_copies_keep_nothing() -> None:
    s = Scene()

    def laps(count: int) -> None:
        for _ in range(count):
            s.main.wait_event(s.bring(s.arena[:N]))
            s.arena[:N].add(1)
            s.side.wait_stream(s.main)
            s.card.to("cpu", non_blocking=True)
        simgpu.synchronize()

    laps(500)
    before = resident()
    laps(3000)
    assert resident() - before < 8 << 20


def test_a_cache_that_is_filled_step_by_step_keeps_nothing() -> None:
    cache = torch.zeros(8, 4, 600, 8, device="simgpu")
    before = resident()
    for i in range(600):
        cache[:, :, i : i + 1].copy_(torch.ones(8, 4, 1, 8, device="simgpu"))
        cache[:, :, : i + 1].sum().item()
    assert resident() - before < 16 << 20


def test_two_threads_do_not_wait_for_each_other() -> None:
    """One drops the last hold on pinned memory, which may need the GIL, while the other has it and asks the card."""
    event, stop = torch.Event(device="simgpu"), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            event.record()
            event.query()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    for _ in range(300):
        torch.ones(100).pin_memory().to("simgpu", non_blocking=True)
    stop.set()
    asking.join(timeout=60)
    assert not asking.is_alive()


def test_a_mode_of_the_program_does_not_see_the_machinery() -> None:
    seen: list[str] = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    s = Scene()
    s.host.copy_(s.card, non_blocking=True)
    with Mode():
        simgpu.synchronize()
    assert seen == []


def test_only_what_was_registered_can_be_unregistered() -> None:
    pinned, own = torch.ones(N).pin_memory(), torch.ones(N)
    with pytest.raises(RuntimeError, match="no memory was registered"):
        simgpu.host_unregister(pinned)
    assert pinned.is_pinned()
    simgpu.host_register(own[10:])  # the whole of it
    assert own.is_pinned()
    with pytest.raises(RuntimeError, match="pinned already"):
        simgpu.host_register(own)
    simgpu.host_unregister(own)
