"""Attach a model at the smallest budget that works."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import optimem

MODES = {"page": optimem.page, "chunk": optimem.chunk, "auto": optimem.fit}


def attach_at_smallest(model: nn.Module, card: torch.device, mode: str, share: int, first: Callable[[], Any]) -> None:
    """Attach `model` and make its `first` call, at `share` % of its weights or the first larger budget that works.

    A refusal must name what is missing, and leave the model fit to be attached again.
    """
    while True:
        gc.collect()  # what a refused attempt had on the card is none of the next one's
        try:
            MODES[mode](model, device=card, vram=f"{share}%")
            first()
            return
        except optimem.BadInput as error:
            optimem.detach(model)
            assert "missing" in str(error) or "too small" in str(error), error
            assert share < 400, error  # of tiny weights alignment may make several times as many bytes
        except BaseException:
            optimem.detach(model)
            raise
        share = share * 5 // 4 + 1
