"""Runs the same thing on the CPU and on the card and asks for the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map


def to(tree: Any, device: str) -> Any:
    """The same tree on ``device``; a tensor that occurs twice is one tensor there too."""
    moved: dict[int, torch.Tensor] = {}

    def move(leaf: Any) -> Any:
        return moved.setdefault(id(leaf), leaf.to(device)) if isinstance(leaf, torch.Tensor) else leaf

    return tree_map(move, tree)


def assert_same(plain: Any, card: Any) -> None:
    plain_leaves, plain_shape = tree_flatten(plain)
    card_leaves, card_shape = tree_flatten(card)
    assert plain_shape == card_shape
    assert any(isinstance(leaf, torch.Tensor) for leaf in plain_leaves), "there is nothing to compare"
    for one, other in zip(plain_leaves, card_leaves, strict=True):
        if not isinstance(one, torch.Tensor):
            assert one == other
            continue
        assert other.device.type == "simgpu", f"a result on {other.device}"
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.stride() == other.stride()
        back = other.cpu()
        same = torch.equal(one, back) or bool(((one == back) | ((one != one) & (back != back))).all())
        assert same, f"largest difference {(one - back).abs().max()}"


def assert_module_same(
    module: torch.nn.Module, *args: Any, pick: Callable[[Any], Any] = lambda x: x, **kwargs: Any
) -> None:
    """``module(*args)`` on both, inside inference mode; the copy is made outside of it."""
    plain, card = module.eval(), copy.deepcopy(module).eval().to("simgpu")
    with torch.inference_mode():
        expected = pick(plain(*args, **kwargs))
        got = pick(card(*to(args, "simgpu"), **to(kwargs, "simgpu")))
    assert_same(expected, got)
