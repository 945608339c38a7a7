"""Many forwards: neither RAM nor the card's memory grows. `make soak` runs ten thousand, $OPTIMEM_SOAK says how many."""

from __future__ import annotations

import copy
import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import models
import optimem
import simgpu
from same import bits

FORWARDS = int(os.environ.get("OPTIMEM_SOAK", "300"))
STATM = Path("/proc/self/statm")


def in_ram() -> int:
    """Return the bytes of this process that are in RAM."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not STATM.exists(), reason="only Linux tells how much of a process is in RAM now")
@pytest.mark.usefixtures("slow_cpu")
@pytest.mark.parametrize("attach", [optimem.page, optimem.chunk], ids=["page", "chunk"])
@pytest.mark.parametrize("make", [models.Stack, models.Branches], ids=["one way", "two ways"])
def test_forwards_without_end_take_no_more_memory(attach: Any, make: Any) -> None:
    plain = make().eval()
    model = attach(copy.deepcopy(plain), "sim", vram="60%")
    inputs = [models.rows().abs(), -models.rows().abs(), models.rows().abs().to("simgpu")]
    with torch.inference_mode():
        expected = [bits(plain(x.cpu())) for x in inputs]

        def forwards(count: int) -> tuple[int, int, int]:
            """Return objects, bytes in RAM and bytes on the card after so many forwards."""
            for index in range(count):
                output = model(inputs[index % 3])
                if index % 50 < 3:
                    assert bits(output) == expected[index % 3]
            torch.accelerator.synchronize()
            del output
            gc.collect()
            return len(gc.get_objects()), in_ram(), simgpu.memory_allocated()

        forwards(300)
        objects, ram, card = forwards(FORWARDS // 10)
        objects_after, ram_after, card_after = forwards(FORWARDS)
    assert card_after == card
    assert objects_after - objects < 500
    assert ram_after - ram < 4 << 20
    optimem.detach(model)
