"""What torch.compile is told of us: nothing of ours enters a graph, and graphs made before a hook came are made again.

Note: graphs and hooks. A page must be there before the operations of its reader and may go after them, so no graph may reach
across a hook of ours: Dynamo breaks its graph at the call of the hooked module, and what runs between two hooks may be
compiled. While a forward is recorded nothing is compiled: Dynamo leaves frames alone where a dispatch mode is active, and
parts that are compiled by themselves are told to be eager. Dynamo looks at a module's hooks only while it traces, and a
graph that has a module inlined goes on without hooks that come later. So graphs are dropped whenever hooks come, and when
they go too, since larger graphs are possible then.
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
    """Let `function`, and all it calls, run as it is where torch.compile is at work; graphs break at its calls.

    This marks the function as `torch.compiler.disable` does, but without that one's import of the compiler, which takes
    seconds, and without its wrapper, which takes 1 to 2 us a call.
    """
    skip = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP)
    set_code_exec_strategy(function.__code__, skip)
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    function._torchdynamo_disable_msg = _WHY  # type: ignore[attr-defined]
    return function


def forget_graphs() -> None:
    """Drop all that torch.compile has made in this process so far; it is made again when it is called."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()


def pause_compiling() -> Callable[[], None]:
    """Let compiled parts run as they are written, in this process; return what lets them go on."""
    if "torch._dynamo" not in sys.modules:
        return lambda: None
    stance = torch.compiler.set_stance("force_eager")

    def go_on() -> None:
        stance.__exit__(None, None, None)
        forget_graphs()  # torch 2.9 would leave for good what it had to leave alone once

    return go_on
