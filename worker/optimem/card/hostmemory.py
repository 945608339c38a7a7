"""Host memory of exactly the requested size, page-locked by registering it if the device can.

Pinned allocators take all bytes at once and round their number up to a power of two. This memory takes RAM as it is written
to. It is locked as a whole once everything is in it: a copy must not cross from one registered range into another. A device
that pins only its own allocations gets one of those (docs/adr/0008-host-memory-is-registered.md).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import warnings
import weakref
from functools import partial

import torch

from .device import Device


class HostMemory:
    """Host bytes for one device. They stay locked until `unlock`, or until this object is collected."""

    def __init__(self, device: Device, nbytes: int) -> None:
        """Raises MemoryError if the machine has not that much address space."""
        can = device.capabilities
        self._device = device
        self._lock: weakref.finalize[[], HostMemory] | None = None
        self._registers = can.pinned and can.registers
        with torch.inference_mode(False):
            self.bytes = _pages(nbytes) if self._registers or not can.pinned else _pinned(nbytes)

    def lock(self) -> None:
        """Page-lock the bytes if the device registers memory; warn if it cannot. Idempotent."""
        if not self._registers or self._lock is not None or not self.bytes.numel():
            return
        self._release = partial(_unlock, self._device, self.bytes, os.getpid())
        self._lock = weakref.finalize(self, self._release)
        self._lock.atexit = False  # the end of the process unlocks them
        try:
            self._device.register(self.bytes)
        except RuntimeError as error:
            self._lock.detach()
            self._lock = None
            _warn(self.bytes.numel(), error)

    def unlock(self) -> None:
        """Make registered bytes pageable again, once the device has settled. Idempotent: a call that was cut short may be
        repeated, as that of a finalizer may not."""
        if self._lock is not None:
            self._release()
            self._lock.detach()
            self._lock = None


def trim() -> None:
    """Let the C library return freed blocks to the machine that it would keep in the middle of its heap."""
    if _malloc_trim is not None:
        _malloc_trim(0)


_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None


def _pages(nbytes: int) -> torch.Tensor:
    """Return pageable bytes that begin at a page boundary and take no RAM before they are written to."""
    if not nbytes:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    try:
        # private, so that a forked child does not write into our weights
        pages = (
            mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if os.name == "posix"
            else mmap.mmap(-1, nbytes)
        )
    except OSError as error:
        raise MemoryError(f"{nbytes} bytes of RAM for the weights cannot be had ({error}); close other programs") from error
    return torch.frombuffer(pages, dtype=torch.uint8)


def _pinned(nbytes: int) -> torch.Tensor:
    try:
        return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)
    except RuntimeError as error:
        _warn(nbytes, error)
        return _pages(nbytes)


def _warn(nbytes: int, error: RuntimeError) -> None:
    warnings.warn(
        f"optimem: {nbytes} bytes of pinned memory cannot be had ({error}); using pageable memory, so copies are slower and "
        "do not overlap with compute. Raise the limits on locked memory (ulimit -l, or the container's) and on RAM, or use "
        "a smaller model",
        stacklevel=4,
    )


def _unlock(device: Device, locked: torch.Tensor, pid: int) -> None:
    if os.getpid() != pid:  # a forked child holds no lock
        return
    device.settle()
    try:
        device.unregister(locked)
    except RuntimeError:
        if locked.is_pinned():  # else registering was cut short, or unlocking done before
            raise
