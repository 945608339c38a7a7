"""Keep our code out of the graphs of torch.compile, and drop graphs that were made for other hooks.

Note: graphs and hooks. A page is acquired before the operations of its reader and released after them, so no graph may reach
across a hook of ours. Dynamo breaks its graph at the call of a hooked module, and may compile what runs between two hooks.
While a forward is recorded nothing is compiled: Dynamo skips frames while a dispatch mode is active, and parts that are
compiled by themselves are told to be eager. Dynamo reads a module's hooks only while it traces, so a graph that has inlined
a module would ignore later hooks. So graphs are dropped when hooks come, and when they go too, since larger graphs are
possible then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._C._dynamo.eval_frame import (
    _FrameAction,
    _FrameExecStrategy,
    set_code_exec_strategy,
)

Function = TypeVar("Function", bound=Callable[..., Any])

_WHY = (
    "weights come and go at the borders of a paged model's modules, so that no graph may reach across them; "
    "call torch.compile without fullgraph=True, or compile modules whose weights stay on the device"
)


def outside_graphs(function: Function) -> Function:
    """Keep `function`, and all that it calls, from being compiled; graphs break at its calls.

    This marks the function as `torch.compiler.disable` does. It imports no compiler, which takes seconds, and adds no
    wrapper, which takes 1 to 2 us a call.
    """
    skip = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP)
    set_code_exec_strategy(function.__code__, skip)
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    function._torchdynamo_disable_msg = _WHY  # type: ignore[attr-defined]
    return function


def forget_graphs() -> None:
    """Drop all graphs of torch.compile in this process; they are made again when they are called."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()


def pause_compiling() -> Callable[[], None]:
    """Let compiled parts run eagerly, in this process; return the function that ends this."""
    if "torch._dynamo" not in sys.modules:
        return lambda: None
    stance = torch.compiler.set_stance("force_eager")

    def go_on() -> None:
        stance.__exit__(None, None, None)
        forget_graphs()  # torch 2.9 would skip for good what it has skipped once

    return go_on
