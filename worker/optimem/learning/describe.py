"""The messages in which a worker describes itself, its model and its times."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch
from torch import nn

from ..card.device import Device
from ..model.recording import Recording
from ..model.units import Inventory, Unit
from ..wire import protocol
from .calibrate import Link


def hello(device: Device) -> protocol.Hello:
    """Describe this process and its card."""
    return protocol.Hello(
        protocol=protocol.VERSION,
        python=platform.python_version(),
        torch=str(torch.__version__),
        device=protocol.Device(
            kind=device.torch.type,
            index=device.torch.index or 0,
            uuid=device.uuid(),
            name=device.name(),
            total_bytes=device.memory()[1],
            free_bytes=device.free(),
            simulated=device.capabilities.simulated,
        ),
    )


def manifest(
    model: nn.Module, wish: protocol.Wish, inventory: Inventory, units: Sequence[Unit], recording: Recording | None
) -> protocol.Manifest:
    """Describe the units of the model; `recording` is None before the first forward."""
    return protocol.Manifest(
        model=type(model).__name__,
        wish=wish,
        recorded=recording is not None,
        weights_bytes=inventory.weights_bytes,
        kept_bytes=inventory.kept_bytes,
        buffer_bytes=inventory.fixed_bytes,
        calls=len(recording.called) if recording else 0,
        steps=recording.steps if recording else 0,
        units=[_unit(unit) for unit in units],
    )


def measured(
    recording: Recording,
    compute_ns: Sequence[int],
    cpu_ns: Sequence[int],
    *,
    link: Link,
    crossing: Link,
    free: int,
    held: Sequence[int],
) -> protocol.Measured:
    """Tell the times of the steps on the device and on the CPU; a list is empty if nothing is known of its side.

    `free` are the device bytes that the model may take, `held` the units of the latest manifest whose bytes are on the
    device now, each once, by their indexes in it.
    """
    return protocol.Measured(
        step_compute_ns=list(compute_ns),
        step_cpu_ns=list(cpu_ns),
        step_activations=list(recording.step_bytes),
        step_crossings=list(recording.step_crossings),
        link_latency_ns=link.latency_ns,
        link_bytes_per_second=link.bytes_per_second,
        free_bytes=free,
        crossing_latency_ns=crossing.latency_ns,
        crossing_bytes_per_second=crossing.bytes_per_second,
        held=sorted(held),
    )


def _unit(unit: Unit) -> protocol.Unit:
    return protocol.Unit(
        path=unit.path,
        kind=unit.kind,
        bytes=unit.nbytes,
        parameters=unit.parameters,
        readers=list(unit.readers),
        uses=[protocol.Use(first=first, last=last) for first, last in unit.uses],
    )
