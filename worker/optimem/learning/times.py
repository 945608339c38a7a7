"""The times of a model: of the link, and of each step on either side. They are measured, kept from earlier runs, and
corrected by forwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..card.device import Device
from ..data import moving
from ..model.recording import Recording
from ..wire.protocol import Manifest, Measured
from . import calibrations, describe
from .calibrate import Link, Steps, measure_crossings, measure_link


@dataclass
class StepTimes:
    """Times of the steps of one recording, in ns; a list is empty if nothing is known of its side."""

    compute_ns: list[int] = field(default_factory=list)
    cpu_ns: list[int] = field(default_factory=list)
    key: str = ""  # under which they are kept between runs; empty if they are not

    def take(self, steps: Steps) -> None:
        """Take in step times, each on the side on which its step ran."""
        self.compute_ns = self.compute_ns or [0] * len(steps.ns)
        self.cpu_ns = self.cpu_ns or [0] * len(steps.ns) if any(steps.on_cpu) else self.cpu_ns
        for index, (ns, on_cpu) in enumerate(zip(steps.ns, steps.on_cpu, strict=True)):
            (self.cpu_ns if on_cpu else self.compute_ns)[index] = ns


class Times:
    """Times in ns, rates in bytes per second; empty lists and 0 are "not known". `mode` is that of the plans."""

    def __init__(self, device: Device, mode: str) -> None:
        self._device = device
        self._mode = mode
        self._link = self._crossing = Link(0, 0)
        self._inputs: list[torch.Tensor] = []  # of the recorded call, as shapes
        self.steps = StepTimes()  # of the recording in force
        self._recorded: calibrations.KeptSteps | None = None  # what it took itself, where kept times took their place

    def measure_link(self, slab: torch.Tensor, room: int) -> None:
        """Measure the link, once, while it is idle, with as much of `slab` as fits into `room` bytes on the device."""
        if self._link.bytes_per_second:
            return
        most = min(room, self._device.memory()[0] // 2)  # free memory may come in pieces
        spend = min(most, slab.numel())
        if self._mode != "page":
            self._crossing = calibrations.kept_link(
                self._device, "crossings", spend, lambda: measure_crossings(self._device, most)
            )
        if self._mode == "chunk":
            self._link = self._crossing
            return
        memory = "pinned" if spend and slab.is_pinned() else "pageable"
        self._link = calibrations.kept_link(self._device, memory, spend, lambda: measure_link(self._device, slab, spend))

    def expect(self, inputs: Any) -> None:
        """Note the inputs of the call that will be recorded."""
        self._inputs = [torch.empty_like(tensor, device="meta") for tensor in moving.tensors(inputs)]

    def learn(self, recording: Recording, manifest: Manifest, *, on_cpu: bool) -> None:
        """Take the times of a recorded forward, or the better ones that an earlier run has kept of the same recording."""
        self.steps = StepTimes(cpu_ns=recording.step_ns) if on_cpu else StepTimes(compute_ns=recording.step_ns)
        self._recorded = None
        if self._mode != "page":
            return
        self.steps.key = calibrations.model_key(manifest, self._inputs)
        recorded = calibrations.KeptSteps(recording.step_ns, list(recording.step_bytes))
        known = calibrations.recall(self._device, self.steps.key, recorded)
        if known is not None:
            self._recorded = recorded
            self.steps.compute_ns = known.compute_ns
            recording.step_bytes[:] = map(max, recording.step_bytes, known.activations)

    def doubt(self, recording: Recording) -> bool:
        """Take the times of the recorded forward itself in place of kept ones. Return False where none were kept."""
        recorded, self._recorded = self._recorded, None
        if recorded is None:
            return False
        self.steps.compute_ns, recording.step_bytes[:] = recorded.compute_ns, recorded.activations
        return True

    def learn_cpu(self, steps: Steps) -> None:
        """Take the times of a forward that ran on the CPU."""
        self.steps.cpu_ns = steps.ns

    def correct(self, steps: Steps, recording: Recording) -> None:
        """Take in step times, each on the side on which its step ran, and keep them for later runs."""
        known = self.steps
        known.take(steps)
        if known.key:
            calibrations.remember(self._device, known.key, calibrations.KeptSteps(known.compute_ns, recording.step_bytes))

    def message(self, recording: Recording, free: int, held: Sequence[int]) -> Measured:
        """Return the message for the controller, with the device bytes that are `free` and the units `held` there."""
        known = self.steps
        return describe.measured(
            recording, known.compute_ns, known.cpu_ns, link=self._link, crossing=self._crossing, free=free, held=held
        )
