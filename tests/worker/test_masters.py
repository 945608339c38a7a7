"""RAM: the weights are never there twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

WEIGHTS = 256 << 20

ATTACH = f"""
import resource, torch, simgpu, optimem

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

torch.zeros(1, device="simgpu")
model = torch.nn.Sequential(*[torch.nn.Linear(2048, 2048, bias=False) for _ in range({WEIGHTS // (2048 * 2048 * 4)})]).eval()
before = most()
optimem.page(model, "simgpu", vram="25%")
print(most() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux alone")
def test_while_attaching_the_weights_are_never_in_ram_twice() -> None:
    child = subprocess.run([sys.executable, "-c", ATTACH], capture_output=True, text=True, check=True)
    assert int(child.stdout) < WEIGHTS * 0.3
