"""Dispatch and function modes over the card: a recorder that fetches weights on touch must find them there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class FetchOnDispatch(TorchDispatchMode):
    """Re-points a CPU parameter to the card when an operation takes it, before the operation runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, nn.Parameter) and leaf.device.type == "cpu":
                leaf.data = leaf.data.to("simgpu")
        return func(*args, **(kwargs or {}))


class FetchOnFunction(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, nn.Parameter) and leaf.device.type == "cpu":
                with torch._C.DisableTorchFunctionSubclass():
                    leaf.data = leaf.data.to("simgpu")
        return func(*args, **(kwargs or {}))


CASES: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "linear": lambda: (nn.Linear(6, 4), torch.randn(3, 6)),
    "linear without bias, 3-d": lambda: (nn.Linear(6, 4, bias=False), torch.randn(2, 3, 6)),
    "conv2d": lambda: (nn.Conv2d(3, 5, 3), torch.randn(1, 3, 8, 8)),
    "conv1d": lambda: (nn.Conv1d(3, 5, 3), torch.randn(1, 3, 8)),
    "conv_transpose2d": lambda: (nn.ConvTranspose2d(3, 5, 3), torch.randn(1, 3, 8, 8)),
    "batch_norm": lambda: (nn.BatchNorm2d(3), torch.randn(2, 3, 4, 4)),
    "embedding": lambda: (nn.Embedding(10, 4), torch.tensor([1, 5])),
    "layer_norm": lambda: (nn.LayerNorm(6), torch.randn(3, 6)),
    "group_norm": lambda: (nn.GroupNorm(3, 6), torch.randn(2, 6, 4)),
    "prelu": lambda: (nn.PReLU(), torch.randn(3, 6)),
    "bilinear": lambda: (nn.Bilinear(6, 6, 2), torch.randn(3, 6)),
    "attention": lambda: (nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 5, 8)),
    "encoder layer": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8)),
    "lstm": lambda: (nn.LSTM(6, 4, num_layers=2), torch.randn(5, 6)),
    "gru": lambda: (nn.GRU(6, 4), torch.randn(5, 2, 6)),
    "gru cell": lambda: (nn.GRUCell(6, 4), torch.randn(5, 6)),
}


def call(module: nn.Module, x: torch.Tensor) -> Any:
    if isinstance(module, nn.MultiheadAttention):
        return module(x, x, x)[0]
    if isinstance(module, nn.Bilinear):
        return module(x, x)
    return module(x)


def first(result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("grad", ["no_grad", "inference_mode", "enable_grad"])
@pytest.mark.parametrize("mode", ["dispatch", "function", "both"])
@pytest.mark.parametrize("name", list(CASES))
def test_weights_fetched_on_touch(name: str, mode: str, grad: str) -> None:
    module, x = CASES[name]()
    module.eval().requires_grad_(False)
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "enable_grad": torch.enable_grad}[grad]
    # An active mode may turn torch's fused fast paths off: compare with the path that is taken.
    with context(), _quiet(mode):
        expected = first(call(module, x))
    for buffer in module.buffers():
        buffer.data = buffer.data.to("simgpu")
    dispatch = FetchOnDispatch()
    x = x.to("simgpu")
    with context():
        if mode == "dispatch":
            with dispatch:
                got = first(call(module, x))
        elif mode == "function":
            with FetchOnFunction():
                got = first(call(module, x))
        else:
            with FetchOnFunction(), dispatch:
                got = first(call(module, x))
    assert got.device.type == "simgpu"
    torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=0)
    if mode != "function":
        assert dispatch.seen


class _Pass(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class _PassDispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _quiet(mode: str) -> Any:
    return _PassDispatch() if mode == "dispatch" else _Pass()


def test_a_mode_sees_the_device_and_the_storage() -> None:
    pointers: list[int] = []

    class Look(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, torch.Tensor):
                    assert leaf.device.type == "simgpu"
                    pointers.append(leaf.untyped_storage().data_ptr())
            return func(*args, **(kwargs or {}))

    layer = nn.Linear(4, 4).to("simgpu")
    x = torch.ones(1, 4, device="simgpu")
    with torch.no_grad(), Look():
        layer(x)
    assert layer.weight.untyped_storage().data_ptr() in pointers


def test_nested_modes() -> None:
    outer, inner = FetchOnDispatch(), FetchOnDispatch()
    with torch.no_grad(), outer, inner:
        nn.Linear(3, 3)(torch.ones(1, 3, device="simgpu"))
    assert outer.seen
    assert "aten.addmm.default" in inner.seen
