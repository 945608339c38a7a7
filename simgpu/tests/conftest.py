"""What every test starts from: one CPU thread, the default capacity, counters at zero, no fill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import simgpu


@pytest.fixture(autouse=True)
def clean_card() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    simgpu.set_capacity("12GiB")
    simgpu.set_fill_freed(False)
    simgpu.reset_counters()
    simgpu.reset_peak_memory_stats()
    yield
    simgpu.set_capacity("12GiB")
    simgpu.set_fill_freed(False)
    torch.accelerator.set_stream(simgpu.default_stream())
