"""What cannot be planned, or ran out of memory, ends neither the session nor the plan in force."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models
import optimem
from optimem.wire.protocol import Shrink
from same import bits

WIDTH = 256


class Branches(nn.Module):
    """Its right branch reads all its weights at once, which no small budget can hold."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(WIDTH, WIDTH) for _ in range(16)]
        self.left, self.right = nn.Sequential(*layers[:8]), nn.ModuleList(layers[8:])

    def forward(self, x: torch.Tensor, right: bool = False) -> torch.Tensor:
        if not right:
            return self.left(x)  # type: ignore[no-any-return]
        weights = [layer.weight for layer in self.right]
        once = torch.stack([F.linear(x, weight) for weight in weights]).sum(0)
        return once + torch.stack([F.linear(x, weight) for weight in weights]).sum(0)


def status(model: nn.Module) -> optimem.Status:
    told = optimem.status(model)
    assert told is not None
    return told


def moved(model: nn.Module, call: Callable[[], object]) -> int:
    """Return the weight bytes that `call` brings to the device."""
    before = status(model).h2d_bytes
    call()
    return status(model).h2d_bytes - before


def test_a_recording_that_cannot_be_planned_leaves_the_plan_in_force(
    card: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    plain, x = Branches().eval(), models.rows(8, WIDTH)
    model = optimem.page(copy.deepcopy(plain), card, vram="1.5MiB", retry=True)
    with torch.no_grad():
        for _ in range(7):
            assert bits(model(x)) == bits(plain(x))
        before, version = moved(model, lambda: model(x)), status(model).plan_version
        for _ in range(2):
            assert bits(model(x, True)) == bits(plain(x, True))
        assert "cannot be planned" in caplog.text
        for _ in range(3):
            assert bits(model(x)) == bits(plain(x))
        assert moved(model, lambda: model(x)) <= 1.05 * before
    told = status(model)
    assert (told.state, told.controller, told.plan_version >= version) == ("steady", "connected", True)
    assert "gone" not in caplog.text
    optimem.detach(model)
    assert bits(model(x)) == bits(plain(x))


TOO_LARGE = """
import torch, optimem
torch.set_num_threads(1)
model = optimem.{mode}(torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(12)]).eval(), device="sim")
short = 0
with torch.inference_mode():
    for rows in (8, 8, 8, 9860, 9920, 9980, *[8] * 12):
        try:
            model(torch.randn(rows, 256)).cpu()
        except torch.OutOfMemoryError:
            short += 1
told = optimem.status(model)
print(short, told.state, told.controller)
"""


@pytest.mark.parametrize("mode", ["page", "fit"])
def test_after_forwards_that_were_too_large_small_ones_are_steady_again(mode: str) -> None:
    """On a card of its own, of 32 MiB."""
    done = run(TOO_LARGE.format(mode=mode), SIMGPU_CARD=f"too-large-{mode}", SIMGPU_CAPACITY="32MiB")
    short, *stands = done.split()
    assert int(short) > 0
    assert stands == ["steady", "connected"]


def run(program: str, **environment: str) -> str:
    """Return what `program` prints in a process of its own."""
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout


def test_the_first_forwards_do_not_import_the_compiler() -> None:
    program = """
import sys, torch, optimem
model = optimem.page(torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(4)]).eval(), device="sim", vram="60%")
with torch.no_grad():
    for _ in range(3):
        model(torch.randn(2, 64))
print("torch._dynamo" in sys.modules)
"""
    assert run(program, SIMGPU_CARD="no-compiler").strip() == "False"


@pytest.mark.parametrize("vram", ["50%", "150%"])
@pytest.mark.parametrize("attach", [optimem.page, optimem.fit, optimem.chunk])
@pytest.mark.parametrize("watched", [False, True])
def test_bytes_can_be_asked_back_between_any_two_forwards(
    card: torch.device, slow_cpu: None, attach: Any, vram: str, watched: bool
) -> None:
    plain, x = models.Stack(8).eval(), models.rows()
    layer = sum(p.numel() * p.element_size() for p in plain.layers[0].parameters())
    with torch.no_grad():
        wanted = bits(plain(x))
        for when in range(6):
            model = attach(copy.deepcopy(plain), device="sim", vram=vram, verify=watched)
            attachment = optimem._find(model)
            assert attachment is not None
            for forward in range(7):
                if forward == when:
                    attachment.session._take(Shrink(layer, 0))
                assert bits(model(x)) == wanted
            assert not attachment._agreed.allowance.owed()
            optimem.detach(model)
