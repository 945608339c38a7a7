"""Streams and events under the names that programs look for: ``torch.simgpu.Stream``, ``Event``, ``stream(...)``.

They are torch's own ``torch.Stream`` and ``torch.Event`` with the device filled in. Events carry virtual time.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch

from simgpu.card import Device, check


class Stream(torch.Stream):
    """A stream of the card. ``priority``: 0, or -1 for urgent."""

    def __new__(cls, device: Device = None, priority: int = 0, **ids: Any) -> Stream:
        if ids:  # stream_id, device_index, device_type: an existing stream by its numbers
            return super().__new__(cls, priority=priority, **ids)
        return super().__new__(cls, torch.device("simgpu", check(device)), priority=priority)


class Event(torch.Event):
    """An event of the card. ``elapsed_time`` (ms) needs ``enable_timing=True`` on both events."""

    def __new__(cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> Event:
        return super().__new__(
            cls, torch.device("simgpu", 0), enable_timing=enable_timing, blocking=blocking, interprocess=interprocess
        )


class StreamContext:
    """Work inside the block goes to ``stream``; ``None`` changes nothing."""

    def __init__(self, stream: torch.Stream | None) -> None:
        self.stream = stream
        self._before: list[torch.Stream] = []

    def __enter__(self) -> torch.Stream | None:
        if self.stream is not None:
            self._before.append(current_stream())
            set_stream(self.stream)
        return self.stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.stream is not None:
            set_stream(self._before.pop())


def stream(stream: torch.Stream | None) -> StreamContext:
    """The context in which work goes to ``stream``."""
    return StreamContext(stream)


def current_stream(device: Device = None) -> torch.Stream:
    """This thread's stream."""
    return torch.accelerator.current_stream(check(device))


def default_stream(device: Device = None) -> torch.Stream:
    """The stream that every thread starts with."""
    return Stream(stream_id=0, device_index=check(device), device_type=torch._C._autograd.DeviceType.PrivateUse1.value)


def set_stream(stream: torch.Stream) -> None:
    """Makes ``stream`` this thread's stream."""
    torch.accelerator.set_stream(stream)


def synchronize(device: Device = None) -> None:
    """Waits until the card has done all its work."""
    torch.accelerator.synchronize(check(device))
