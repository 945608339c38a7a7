"""Streams and events, through torch's own classes, torch.accelerator and torch.simgpu."""

from __future__ import annotations

import threading

import pytest
import torch

import simgpu


def test_streams_differ() -> None:
    a, b = torch.Stream(device="simgpu"), torch.Stream(device="simgpu")
    assert a != b
    assert a.stream_id != b.stream_id
    assert a.device == torch.device("simgpu:0")
    assert simgpu.default_stream().stream_id == 0
    assert torch.accelerator.current_stream() == simgpu.default_stream()


def test_the_current_stream() -> None:
    stream = torch.Stream(device="simgpu")
    torch.accelerator.set_stream(stream)
    assert torch.accelerator.current_stream() == stream == simgpu.current_stream()
    torch.accelerator.set_stream(simgpu.default_stream())
    with stream:
        assert simgpu.current_stream() == stream
        with simgpu.stream(None), simgpu.stream(simgpu.Stream()) as inner:
            assert simgpu.current_stream() == inner
        assert simgpu.current_stream() == stream
    assert simgpu.current_stream() == simgpu.default_stream()


def test_the_current_stream_belongs_to_the_thread() -> None:
    seen: list[torch.Stream] = []
    with torch.Stream(device="simgpu"):
        thread = threading.Thread(target=lambda: seen.append(simgpu.current_stream()))
        thread.start()
        thread.join()
    assert seen == [simgpu.default_stream()]


def test_named_classes() -> None:
    stream, urgent = simgpu.Stream(), simgpu.Stream(device="simgpu:0", priority=-1)
    assert isinstance(stream, torch.Stream)
    assert stream != urgent
    same = simgpu.Stream(stream_id=stream.stream_id, device_index=stream.device_index, device_type=stream.device_type)
    assert same == stream
    assert isinstance(simgpu.Event(enable_timing=True), torch.Event)


def test_ordering_calls() -> None:
    one, two = torch.Stream(device="simgpu"), torch.Stream(device="simgpu")
    event = one.record_event()
    two.wait_event(event)
    two.wait_stream(one)
    event.wait(two)
    event.record(two)
    event.wait()
    assert event.query()
    assert one.query()
    event.synchronize()
    one.synchronize()
    torch.accelerator.synchronize()
    simgpu.synchronize()
    assert simgpu.counters()["host_blocking_calls"] == 4


def test_a_fresh_event_has_nothing_to_wait_for() -> None:
    event = torch.Event(device="simgpu")
    assert event.query()
    event.wait(torch.Stream(device="simgpu"))
    event.synchronize()


def test_elapsed_time_needs_timing() -> None:
    start, end = torch.Event(device="simgpu"), torch.Event(device="simgpu")
    start.record()
    end.record()
    end.synchronize()
    with pytest.raises((RuntimeError, ValueError), match=r"enable_timing|timing"):
        start.elapsed_time(end)
    timed = torch.Event(device="simgpu", enable_timing=True)
    with pytest.raises((RuntimeError, ValueError)):
        timed.elapsed_time(torch.Event(device="simgpu", enable_timing=True))


def test_a_pager_like_sequence() -> None:
    copying, ready, done = torch.Stream(device="simgpu"), torch.Event(device="simgpu"), torch.Event(device="simgpu")
    master = torch.randn(64, 64).pin_memory()
    slot = torch.empty(64, 64, device="simgpu")
    x = torch.randn(2, 64)
    on_card = x.to("simgpu")
    simgpu.reset_counters()
    for _ in range(3):
        with copying:
            copying.wait_event(done)
            slot.copy_(master, non_blocking=True)
            ready.record(copying)
        torch.accelerator.current_stream().wait_event(ready)
        y = on_card @ slot
        slot.record_stream(torch.accelerator.current_stream())
        done.record()
    assert simgpu.counters()["host_blocking_calls"] == 0
    assert torch.equal(y.cpu(), x @ master)


def test_record_stream_refuses_others() -> None:
    tensor = torch.ones(3, device="simgpu")
    tensor.record_stream(simgpu.Stream())
    with pytest.raises(RuntimeError):
        tensor.record_stream(torch.Stream(device="cpu"))
