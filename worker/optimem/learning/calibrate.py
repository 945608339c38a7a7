"""Measure the link, and the steps between borders. Times are nanoseconds, rates bytes per second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from ..card.device import Device
from ..model.recording import Border

_SMALLEST, _SIZES, _REPEATS = 256 << 10, 8, 3
_SHARE, _LEAST, _MOST = 10, 8 << 20, 64 << 20  # a share of the weights, to measure the link with, and its limits in bytes
_LARGEST_CROSSING = 16 << 20


@dataclass(frozen=True)
class Link:
    """A copy of n bytes takes latency_ns + n / bytes_per_second; 0 is "could not be measured"."""

    latency_ns: int
    bytes_per_second: int


def measure_link(device: Device, source: torch.Tensor, room: int) -> Link:
    """Copy from `source` (host bytes) into at most `room` device bytes and fit a line by least squares.

    Moves a tenth of `source` in all, but at least 8 and at most 64 MiB. Waits for the device; meant for the moment before
    the recorded forward.
    """
    spend = min(max(source.numel() // _SHARE, _LEAST), _MOST)
    sizes = _halves(min(spend // (2 * _REPEATS), source.numel(), room))
    if not sizes:
        return Link(0, 0)
    target = device.empty(sizes[0])
    # The largest first: while these run the host issues the small ones, which then follow without a pause.
    marks = [_mark_copies(device, target[:size], source[:size]) for size in sizes]
    device.settle()
    return _fit(sizes, [min(device.elapsed_ns(a, b) for a, b in pairwise(row)) for row in marks])


def measure_crossings(device: Device, room: int) -> Link:
    """Send pageable bytes, at most `room`, to the device and back, and fit a line to the mean of both ways.

    Activations take this long to change sides; the host waits for them.
    """
    sizes = _sizes(min(_LARGEST_CROSSING, room))
    if not sizes:
        return Link(0, 0)
    return _fit(sizes, [min(_there_and_back(device, size) for _ in range(_REPEATS)) // 2 for size in sizes])


def _there_and_back(device: Device, size: int) -> int:
    source = torch.zeros(size, dtype=torch.uint8, device="cpu")
    device.settle()
    began = device.now_ns()
    source.to(device.torch).to(source.device)
    return device.now_ns() - began


def _sizes(most: int) -> list[int]:
    """Return up to eight sizes in equal ratios from 256 KiB to `most`."""
    if most < _SMALLEST:
        return [most // 2, most] if most > 1 else []
    ratio = (most / _SMALLEST) ** (1 / (_SIZES - 1))
    return sorted({int(_SMALLEST * ratio**i) for i in range(_SIZES)})


def _halves(most: int) -> list[int]:
    """Return `most`, its half, its quarter and so on down to 256 KiB, at least two; their sum is less than twice `most`."""
    sizes = [most >> i for i in range(_SIZES) if most >> i >= _SMALLEST]
    return sizes if len(sizes) > 1 else [most, most // 2] if most > 1 else []


def _mark_copies(device: Device, target: torch.Tensor, source: torch.Tensor) -> list[Any]:
    """Issue the same copy several times; return marks before and after each."""
    marks = [device.timed_mark()]
    for _ in range(_REPEATS):
        target.copy_(source, non_blocking=True)
        marks.append(device.timed_mark())
    return marks


def _fit(sizes: Sequence[int], times: Sequence[int]) -> Link:
    """Least squares of t = L + n / B, weighted by 1/t² so that small copies count as much as large ones."""
    weights = [1 / max(t, 1) ** 2 for t in times]
    total = sum(weights)
    mean_n = sum(w * n for w, n in zip(weights, sizes, strict=True)) / total
    mean_t = sum(w * t for w, t in zip(weights, times, strict=True)) / total
    spread = sum(w * (n - mean_n) ** 2 for w, n in zip(weights, sizes, strict=True))
    covariance = sum(w * (n - mean_n) * (t - mean_t) for w, n, t in zip(weights, sizes, times, strict=True))
    if covariance <= 0 or spread <= 0:
        largest = max(zip(sizes, times, strict=True))
        return Link(0, int(largest[0] * 1e9 / max(largest[1], 1)))
    slope = covariance / spread  # ns per byte
    return Link(max(0, int(mean_t - slope * mean_n)), int(1e9 / slope))


@dataclass(frozen=True)
class Steps:
    """Times of all steps of one forward in ns, and which of them the CPU computed."""

    ns: list[int]
    on_cpu: list[bool]


@dataclass
class StepTimer:
    """Times the steps of steady forwards, those on the CPU by the host's clock. A step begins after the waits at its border,
    so that neither stalls nor crossings count."""

    device: Device
    expected: Sequence[Border]
    _seen: list[Border] = field(default_factory=list)
    _ends: list[_Moment] = field(default_factory=list)
    _starts: list[_Moment] = field(default_factory=list)
    _on_cpu: list[bool] = field(default_factory=list)
    _waits: dict[int, int] = field(default_factory=dict)

    def end_step(self, path: str, *, entry: bool) -> None:
        """Note a border: the step before it ends here."""
        host_ns = self.device.now_ns()  # before the mark, which takes host time that is not the step's
        self._seen.append(Border(path, entry))
        self._ends.append(_Moment(self.device.timed_mark(), host_ns))

    def begin_step(self, waited: int | None, *, on_cpu: bool) -> None:
        """Note that the next step begins; `waited` is the copy that the device waited for at the border."""
        if waited is not None:
            self._waits[len(self._starts)] = waited
        self._on_cpu.append(on_cpu)
        mark = self.device.timed_mark()
        self._starts.append(_Moment(mark, self.device.now_ns()))

    def passed(self) -> bool:
        """Tell whether the times can be read."""
        return not self._starts or self.device.passed(self._starts[-1].mark)

    def went_as_recorded(self) -> bool:
        """Tell whether the forward took the recorded way."""
        return self._seen == list(self.expected) and len(self._starts) == len(self._ends)

    def steps(self) -> Steps:
        """Return the time of every step."""
        parts = zip(self._starts, self._ends[1:], self._on_cpu, strict=False)
        ns = [end.host_ns - start.host_ns if on_cpu else self._elapsed(start, end) for start, end, on_cpu in parts]
        return Steps(ns, self._on_cpu[: len(ns)])

    def stalls_ns(self) -> dict[int, int]:
        """Return, per copy of the plan, how long the device waited for it."""
        return {copy: self._elapsed(self._ends[border], self._starts[border]) for border, copy in self._waits.items()}

    def _elapsed(self, start: _Moment, end: _Moment) -> int:
        return self.device.elapsed_ns(start.mark, end.mark)


@dataclass(frozen=True)
class _Moment:
    mark: Any  # on the device
    host_ns: int


def medians(samples: Sequence[Sequence[int]]) -> list[int]:
    """Return the median of each column."""
    return [int(median(column)) for column in zip(*samples, strict=True)]
