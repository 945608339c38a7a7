"""The tensors that a torch function writes to, by its schema, else by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from . import moving

# Functions that write to their first argument though their names end in no underscore: x[i] = y, x += y, x |= y.
_HIDDEN = frozenset({"__setitem__"}) | {
    f"__i{name}__"
    for name in ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor")
}
# Functions that write to running statistics, which neither schemas nor version counters show: their sixth argument, which
# asks for it, and its default.
_STATISTICS = {
    "batch_norm": ("training", False),
    "native_batch_norm": ("training", False),
    "instance_norm": ("use_input_stats", True),
}


def written_by(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """Return the tensors that a call of `func` writes to; `func` is as torch's function mode gives it."""
    name = getattr(func, "__name__", "").partition(".")[0]
    if name in _STATISTICS:
        return list(moving.tensors(_statistics(func, name, args, kwargs)))
    if isinstance(func, (OpOverload, OpOverloadPacket)):
        positions, names = _marked(func)
        marked = [args[position] for position in positions if position < len(args)]
        return list(moving.tensors([*marked, *(kwargs.get(name) for name in names)]))
    written = [kwargs.get("out")]
    if name in _HIDDEN or (name.endswith("_") and not name.endswith("__")):
        written.append(args[0] if args else next(iter(kwargs.values()), None))
    return list(moving.tensors(written))


def _statistics(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    flag, default = _STATISTICS[name]
    if not (args[5] if len(args) > 5 else kwargs.get(flag, default)):
        return []
    first = 1 if isinstance(func, FunctionType) else 3  # torch.nn.functional has them in another order
    return [*args[first : first + 2], kwargs.get("running_mean"), kwargs.get("running_var")]


@cache
def _marked(func: OpOverload[..., Any] | OpOverloadPacket[..., Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the positions and the names of the arguments that the schemas of `func` mark as written to."""
    overloads = [func] if isinstance(func, OpOverload) else [getattr(func, name) for name in func.overloads()]
    found = [
        (position, argument)
        for overload in overloads
        for position, argument in enumerate(overload._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    positions = {position for position, argument in found if not argument.kwarg_only}
    return tuple(sorted(positions)), tuple({argument.name for _, argument in found})
