"""Equal means equal bits."""

from __future__ import annotations

from typing import Any

import torch

from optimem import moving


def bits(value: Any) -> list[tuple[Any, ...]]:
    """Return all tensors in `value` as dtype, shape and bytes, wherever they are."""
    return [
        (t.dtype, tuple(t.shape), t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).tolist())
        for t in moving.tensors(value)
    ]
