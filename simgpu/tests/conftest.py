"""What every test starts from: a card of its own, one CPU thread, the default capacity, counters at zero, no fill, and
races looked for."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

os.environ["SIMGPU_CARD"] = f"test-{os.getpid()}"  # before the import: not the card that others use

import pytest
import torch

import simgpu


@pytest.fixture(autouse=True)
def clean_card() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    put_back()
    simgpu.set_race_detection(True)
    simgpu.reset_counters()
    simgpu.reset_peak_memory_stats()
    yield
    simgpu.set_race_detection(False)  # what is in flight lands
    torch.accelerator.set_stream(simgpu.default_stream())
    put_back()


def put_back() -> None:
    """The default card, with nothing in its cache."""
    if simgpu.memory_allocated() > 0:
        gc.collect()
    simgpu.set_fill_freed(False)
    simgpu.set_host_clock("model")
    simgpu.use_profile()
    simgpu.empty_cache()
