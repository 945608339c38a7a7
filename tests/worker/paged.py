"""Attach a model at the smallest budget that works."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import optimem
from optimem.model.units import aligned, take_stock

MODES = {"page": optimem.page, "chunk": optimem.chunk, "auto": optimem.fit}


def attach_at_smallest(model: nn.Module, card: torch.device, mode: str, share: int, first: Callable[[], Any]) -> int:
    """Attach `model` and make its `first` call, at `share` % of its weights or the first larger budget that works; return
    that share.

    A refusal must name what is missing, and leave the model fit to be attached again. The bytes that it names are enough,
    unless the next refusal is for another reason.
    """
    one_percent = sum(aligned(span.nbytes) for span in take_stock(model).spans) / 100
    while True:
        gc.collect()  # what a refused attempt had on the card is none of the next one's
        try:
            MODES[mode](model, device=card, vram=f"{share}%")
            first()
            return share
        except optimem.BadInput as error:
            optimem.detach(model)
            told = str(error)  # and no longer the error, whose frames hold what the call had on the device
            assert "missing" in told or "too small" in told, told
            assert share < 400, told  # of tiny weights alignment may make several times as many bytes
        except BaseException:
            optimem.detach(model)
            raise
        named = re.search(r"\((\d+) bytes\) are missing", told)
        share = share + math.ceil(int(named[1]) / one_percent) if named else share * 5 // 4 + 1
