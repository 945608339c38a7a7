"""Devices by capability, not by name: the operations that the pager may ask of any card.

Two kinds share one interface. `AsyncDevice` has streams and events (cuda, xpu, simulated cards): copies run on a stream of
their own, events order them, and the host never waits. `SyncDevice` is any other device with `.to` (mps, xla): a copy is
done when it returns, and marks are host times; a `LazyDevice` is told when to compute. This file knows no modules, pages
or plans.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Files in which Linux has the version of a card's driver.
_DRIVERS = ("/sys/module/nvidia/version", "/sys/module/amdgpu/version", "/sys/module/xe/version", "/sys/module/i915/version")


@dataclass(frozen=True)
class Capabilities:
    """The abilities of a device. `pinned`: it can page-lock host memory. `registers`: it can page-lock any host memory, not
    only torch's own allocations. `simulated`: its times and its memory are not those of a real card. `addresses`: its
    tensors tell where their bytes lie."""

    streams: bool
    pinned: bool
    registers: bool
    asynchronous: bool
    simulated: bool
    addresses: bool


class Device(ABC):
    """A card. Sizes are bytes, times nanoseconds."""

    def __init__(self, torch_device: torch.device) -> None:
        self.torch = torch_device
        self.capabilities = _capabilities(torch_device)

    @property
    def computes_in_ram(self) -> bool:
        """True for the CPU itself, where there is nothing to page to."""
        return self.torch.type == "cpu"

    def empty(self, nbytes: int) -> torch.Tensor:
        """Return uninitialised device bytes, shape (nbytes,), uint8. Raises torch.OutOfMemoryError."""
        with torch.inference_mode(False):  # a block outlives the mode in which it was made
            return torch.empty(nbytes, dtype=torch.uint8, device=self.torch)

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return `tensor` on this device, with the strides that `.to` gives. Raises torch.OutOfMemoryError."""
        return tensor.to(self.torch)

    def register(self, block: torch.Tensor) -> None:
        """Page-lock `block`, a whole allocation of host memory. Raises RuntimeError. Needs `capabilities.registers`."""
        lock, _ = _registrar(self.torch)
        lock(block)

    def unregister(self, block: torch.Tensor) -> None:
        """Undo `register`. No copy may be in flight. Raises RuntimeError."""
        _, unlock = _registrar(self.torch)
        unlock(block)

    @abstractmethod
    def fetch(self, target: torch.Tensor, source: torch.Tensor, after: Any = None) -> Any:
        """Issue a copy to the device that begins once `after` has passed; return the mark of its end."""

    @abstractmethod
    def wait(self, mark: Any) -> None:
        """Make the current stream wait for `mark`. The host does not wait."""

    @abstractmethod
    def mark(self) -> Any:
        """Return a mark behind all work that the current stream has been given so far."""

    def stream(self) -> int:
        """Return the number of the current stream."""
        return 0

    @abstractmethod
    def timed_mark(self) -> Any:
        """Return a mark that `elapsed_ns` can read."""

    @abstractmethod
    def passed(self, mark: Any) -> bool:
        """Tell whether the device has passed `mark`, without waiting."""

    @abstractmethod
    def elapsed_ns(self, start: Any, end: Any) -> int:
        """Return the nanoseconds between two timed marks that have passed."""

    @abstractmethod
    def settle(self) -> None:
        """Block the host until the device has finished all its work."""

    def now_ns(self) -> int:
        """Return the host's clock in nanoseconds; a simulated card has one of its own."""
        told = _ask(self.torch, "now_ns", argument=False)
        return told if isinstance(told, int) else time.perf_counter_ns()

    # Memory. 0 is "not known": the device's allocator reports nothing.

    def name(self) -> str:
        """Return the card's name, or the device's if it has none."""
        name = _ask(self.torch, "get_device_name")
        return name if isinstance(name, str) else str(self.torch)

    def uuid(self) -> str:
        """Return the card's UUID as NVML writes it, or an empty text."""
        uuid = str(getattr(_ask(self.torch, "get_device_properties"), "uuid", "") or "")
        return uuid if not uuid or uuid.startswith("GPU-") else f"GPU-{uuid}"

    def driver(self) -> str:
        """Return the driver's version as the device's module has it, else as the system has it; empty if neither knows."""
        told = _ask(self.torch, "driver_version", argument=False)
        return told if isinstance(told, str) else _first_text(_DRIVERS)

    def link(self) -> str:
        """Return text that tells the card's link from other links; empty if nothing is known of it."""
        told = _ask(self.torch, "link_now", argument=False)
        if isinstance(told, str):
            return told
        about = _ask(self.torch, "get_device_properties")
        domain, bus, slot = (getattr(about, f"pci_{part}_id", None) for part in ("domain", "bus", "device"))
        if domain is None or bus is None or slot is None:
            return ""
        address = f"{domain:04x}:{bus:02x}:{slot:02x}.0"
        # the most, since an idle card lowers its speed
        width, speed = (
            _first_text([f"/sys/bus/pci/devices/{address}/{name}"]) for name in ("current_link_width", "max_link_speed")
        )
        return f"{address} x{width} {speed}"

    def memory(self) -> tuple[int, int]:
        """Return (bytes that this process could still take, bytes of the card)."""
        answer = _ask(self.torch, "mem_get_info")
        if not isinstance(answer, tuple):
            limit = _ask(self.torch, "recommended_max_memory", argument=False)  # of MPS
            return (max(0, limit - self.allocated()), limit) if isinstance(limit, int) else (0, 0)
        free, total = answer
        return int(free) + max(0, self._stat("memory_reserved") - self.allocated()), int(total)

    def free(self) -> int:
        """Return the bytes that this process could still take, as messages tell it: 1 on a full card, since 0 is "not
        known"."""
        free, total = self.memory()
        return free or min(1, total)

    def allocated(self) -> int:
        """Return the bytes in tensors of this process now."""
        return self._stat("memory_allocated") or self._stat("current_allocated_memory", argument=False)

    def peak(self) -> int:
        """Return the most bytes in tensors since `reset_peak`."""
        return self._stat("max_memory_allocated")

    def reset_peak(self) -> None:
        """Start a new peak at the bytes allocated now."""
        _ask(self.torch, "reset_peak_memory_stats")

    def give_back(self) -> None:
        """Return cached, unused device memory to the card."""
        _ask(self.torch, "empty_cache", argument=False)

    def _stat(self, name: str, *, argument: bool = True) -> int:
        answer = _ask(self.torch, name, argument=argument)
        return int(answer) if isinstance(answer, int) else 0


class AsyncDevice(Device):
    """A device with streams and events. One stream carries all copies, in order."""

    def __init__(self, torch_device: torch.device) -> None:
        super().__init__(torch_device)
        self._copies = torch.Stream(torch_device)
        self._entering = threading.Lock()  # a stream object remembers one stream to restore, whichever thread enters it
        self._index = self._copies.device_index  # a number: torch would look a device up each time

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        """As `Device.bring`. A plain tensor in RAM has been read when this returns, and the host waits for no copy."""
        plain = (
            type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided and not tensor.is_quantized
        )
        if not (self.capabilities.pinned and plain and tensor.device.type == "cpu"):
            return super().bring(tensor)
        if not tensor.numel():
            return torch.empty_like(tensor, device=self.torch)
        # Pinned tensors are copied too: the caller may write to the original as soon as the call is over.
        staged = torch.empty_like(tensor, pin_memory=True).copy_(tensor)
        return staged.to(self.torch, non_blocking=True)

    def fetch(self, target: torch.Tensor, source: torch.Tensor, after: Any = None) -> Any:
        if after is not None:
            self._copies.wait_event(after)
        done = torch.Event(self.torch)
        with self._entering, self._copies:
            target.copy_(source, non_blocking=True)
            done.record(self._copies)
        return done

    def wait(self, mark: Any) -> None:
        self._current().wait_event(mark)

    def mark(self) -> Any:
        event = torch.Event(self.torch)
        event.record(self._current())
        return event

    def stream(self) -> int:
        return self._current().stream_id

    def timed_mark(self) -> Any:
        event = torch.Event(self.torch, enable_timing=True)
        event.record(self._current())
        return event

    def passed(self, mark: Any) -> bool:
        return bool(mark.query())

    def elapsed_ns(self, start: Any, end: Any) -> int:
        return max(0, round(float(start.elapsed_time(end)) * 1e6))

    def settle(self) -> None:
        torch.accelerator.synchronize(self.torch)

    def _current(self) -> torch.Stream:
        return torch.accelerator.current_stream(self._index)


class SyncDevice(Device):
    """A device without streams: a copy is done when it returns, and marks are host times."""

    def fetch(self, target: torch.Tensor, source: torch.Tensor, after: Any = None) -> Any:
        target.copy_(source)
        return None

    def wait(self, mark: Any) -> None:
        return None

    def mark(self) -> Any:
        return None

    def timed_mark(self) -> Any:
        self.settle()
        return self.now_ns()

    def passed(self, mark: Any) -> bool:
        return True

    def elapsed_ns(self, start: Any, end: Any) -> int:
        return max(0, int(end) - int(start))

    def settle(self) -> None:
        _ask(self.torch, "synchronize", argument=False)


class LazyDevice(SyncDevice):
    """A device that computes only once it is told to, or a result is read: torch_xla's."""

    def settle(self) -> None:
        importlib.import_module("torch_xla").sync(wait=True)


class HostClock(SyncDevice):
    """The CPU as a clock, whose host time is that of another device."""

    def __init__(self, device: Device) -> None:
        super().__init__(torch.device("cpu"))
        self._device = device

    def now_ns(self) -> int:
        return self._device.now_ns()


def _capabilities(device: torch.device) -> Capabilities:
    streams = has_streams(device)
    return Capabilities(
        streams=streams,
        pinned=streams and _has_pinned(),
        registers=streams and _can_register(device),
        asynchronous=streams,
        simulated=bool(getattr(module_of(device), "simulated", False)),
        addresses=_has_addresses(device),
    )


def has_streams(device: torch.device) -> bool:
    if device.type == "cpu":
        return False
    try:
        own, current = torch.Stream(device), torch.accelerator.current_stream(device)
        event = torch.Event(device)
        event.record(own)
        current.wait_event(event)
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):
        return False
    return own != current


def _has_addresses(device: torch.device) -> bool:
    try:
        return torch.empty(1, dtype=torch.uint8, device=device).data_ptr() != 0
    except torch.OutOfMemoryError:  # it has memory, which is full
        return True


def _has_pinned() -> bool:
    try:
        return torch.empty(1, dtype=torch.uint8, device="cpu", pin_memory=True).is_pinned()
    except (RuntimeError, NotImplementedError):
        return False


Lock = Callable[[torch.Tensor], None]


def _can_register(device: torch.device) -> bool:
    module = module_of(device)
    if hasattr(module, "host_register"):
        return True
    return hasattr(module, "cudart") and hasattr(module.cudart(), "cudaHostRegister")


def _registrar(device: torch.device) -> tuple[Lock, Lock]:
    """Return the functions that lock and unlock host memory: the device module's own, or those of CUDA's runtime."""
    module = module_of(device)
    if hasattr(module, "host_register"):
        return module.host_register, module.host_unregister
    runtime = module.cudart()

    def lock(block: torch.Tensor) -> None:
        _check(device, runtime.cudaHostRegister(block.data_ptr(), block.numel(), 0))

    def unlock(block: torch.Tensor) -> None:
        _check(device, runtime.cudaHostUnregister(block.data_ptr()))

    return lock, unlock


def _check(device: torch.device, code: Any) -> None:
    """Raise RuntimeError if `code`, of CUDA's runtime, is an error."""
    if int(code) == 0:
        return
    try:  # the next kernel launch reports the error again: make it here
        torch.zeros(1, device=device)
    except RuntimeError as error:
        raise RuntimeError(f"CUDA error {int(code)}") from error
    raise RuntimeError(f"CUDA error {int(code)}")


def module_of(device: torch.device) -> Any:
    if device.type == "cpu":
        return torch.cpu
    try:
        return torch.get_device_module(device)
    except RuntimeError:
        return None


def _ask(device: torch.device, name: str, *, argument: bool = True) -> Any:
    """Call function `name` of the device's module; None if there is none or it cannot answer."""
    function = getattr(module_of(device), name, None)
    if function is None:
        return None
    try:
        return function(device) if argument else function()
    except (RuntimeError, NotImplementedError, AssertionError, TypeError):
        return None


def _first_text(paths: Iterable[str]) -> str:
    """Return the text of the first of these files that exists; empty if none does."""
    for path in paths:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return Path(path).read_text().strip()
    return ""


def ran_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device had no memory left. A driver that finds none for itself raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
