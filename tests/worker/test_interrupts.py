"""Ctrl-C, wherever it comes: in the model's code, in ours, in a call that did not begin at the root, in other threads.

Every call after it is right, and detaching leaves the model as it was found.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from same import bits

MODES = pytest.mark.parametrize("attach", [optimem.page, optimem.fit, optimem.chunk], ids=["page", "fit", "chunk"])


class Stop(nn.Linear):
    """Raises KeyboardInterrupt once when `armed`."""

    armed = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
        return x


def stack(depth: int) -> nn.Sequential:
    """Layers, the middle one of which may stop."""
    layers = [nn.Linear(models.WIDTH, models.WIDTH) for _ in range(depth)]
    layers[depth // 2] = Stop(models.WIDTH, models.WIDTH)
    return nn.Sequential(*layers).eval()


class Halves(nn.Module):
    """Is called by its methods, never by its forward, as autoencoders are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = stack(5), stack(5)

    def encode(self, x: torch.Tensor) -> Any:
        return self.first(x)

    def decode(self, x: torch.Tensor) -> Any:
        return self.second(x)


@pytest.mark.trap(4)
@pytest.mark.parametrize("vram", ["40%", "120%"])
@pytest.mark.parametrize("at", [0, 4])
def test_ctrl_c_in_a_call_that_is_not_the_roots_leaves_a_working_model(card: torch.device, at: int, vram: str) -> None:
    plain, x = Halves().eval(), models.rows()
    model = optimem.page(copy.deepcopy(plain), card, vram=vram)
    with torch.no_grad():
        for call in range(8):
            model.first[2].armed = call == at
            if model.first[2].armed:
                with pytest.raises(KeyboardInterrupt):
                    model.encode(x)
            assert bits(model.decode(x)) == bits(plain.decode(x))
            assert bits(model.encode(x)) == bits(plain.encode(x))
