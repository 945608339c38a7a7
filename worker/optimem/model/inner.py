"""What a parameter is made of: itself if it is plain, else the plain tensors in it and beside it.

There are two kinds of tensor classes. A *wrapper* has no bytes, only inner tensors, which it names to torch by
`__tensor_flatten__` (torchao, quanto). Other classes are plain bytes in a subclass of `Parameter`; if they are quantised,
scales and tables lie *beside* them: in attributes of the parameter or of the module that holds it (bitsandbytes).

Note: stand-ins. A tensor beside a parameter may be anybody's: bitsandbytes keeps one table for all layers of a process.
While the parameter is paged, a tensor of our own stands in its place, so that nobody else's is re-pointed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from .weights import InnerWeights, Paged, Weight, extent, take

Slot = tuple[Any, Any, torch.Tensor]  # a table of attributes or items, a key in it, the tensor there

_APART = 512  # bytes at whose multiples tensors begin here, as spans do
_TABLES = frozenset(vars(nn.Module()))  # of torch's own: parameters, buffers, children, hooks


@dataclass(frozen=True)
class Makeup:
    """The tensors of one parameter: the `plain` ones are re-pointed, the `wrappers` hold others, innermost first.
    `stand_ins` are, by the ids of tensors beside the parameter, those among `plain` that stand for them."""

    parameter: torch.Tensor
    plain: tuple[torch.Tensor, ...]
    wrappers: tuple[torch.Tensor, ...] = ()
    stand_ins: Mapping[int, torch.Tensor] = field(default_factory=dict)
    beside: Mapping[int, torch.Tensor] = field(default_factory=dict)  # the tensors that they stand for, likewise
    holder: nn.Module | None = None

    def weight(self, name: str, starts: Sequence[int], device: torch.device) -> Paged:
        """Return the parameter as a weight whose plain tensors begin at bytes `starts` of its span."""
        parts = tuple(Weight.of(name, each, start, device) for each, start in zip(self.plain, starts, strict=True))
        if len(parts) == 1 and self.plain[0] is self.parameter:
            return parts[0]
        there = {id(self.stand_ins[key]): tensor for key, tensor in self.beside.items()}
        put, restore = partial(self._replace, self.stand_ins), partial(self._replace, there)
        return InnerWeights(name, self.parameter, parts, self.wrappers, put, restore)

    def _replace(self, by: Mapping[int, torch.Tensor]) -> None:
        """Put tensors in the places of those whose ids `by` has, wherever the class has moved them since."""
        for table, key, tensor in list(_beside(self.parameter, self.holder)):
            if id(tensor) in by:
                table[key] = by[id(tensor)]


def makeup(parameter: torch.Tensor, holder: nn.Module | None = None) -> Makeup | None:
    """Return what `parameter`, which `holder` holds, is made of; None if it cannot be paged. Nothing is touched."""
    if is_plain(parameter):
        return _with_beside(parameter, holder)
    if not hasattr(parameter, "__tensor_flatten__"):
        return None
    plain, wrappers = list[torch.Tensor](), list[torch.Tensor]()
    if not _take_apart(parameter, plain, wrappers):
        return None
    made = Makeup(parameter, tuple(plain), tuple(wrappers))
    return made if _repoints(made) else None


def is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is only bytes, a shape and strides, so that a view of other bytes can replace it."""
    return (
        data_class(tensor) is torch.Tensor
        and tensor.layout is torch.strided
        and tensor.numel() > 0
        and not tensor.is_conj()
        and not tensor.is_neg()
        and not tensor.is_quantized
    )


def data_class(tensor: torch.Tensor) -> type:
    """Return the class of a tensor's data: torch.Tensor for plain bytes, whatever the class of the parameter."""
    with torch._C.DisableTorchFunctionSubclass():
        return type(tensor.data)


def inside(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the tensors in a wrapper that are no wrappers; `tensor` itself if it is none."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from inside(getattr(tensor, name))


def innermost(tensor: torch.Tensor) -> torch.Tensor:
    """Return the first tensor in a wrapper that is none; `tensor` itself if it is none."""
    return next(inside(tensor), tensor) if hasattr(tensor, "__tensor_flatten__") else tensor


def is_for_cpu(parameter: torch.Tensor) -> bool:
    """Tell whether bitsandbytes has packed a 4-bit parameter anew for the CPU, in a forward there: no other device can read
    that format."""
    return bool(getattr(getattr(parameter, "quant_state", None), "packing_format_for_cpu", False))


def _take_apart(tensor: torch.Tensor, plain: list[torch.Tensor], wrappers: list[torch.Tensor]) -> bool:
    """Collect what `tensor` is made of. Return whether all of it can be re-pointed."""
    if is_plain(tensor):
        plain.append(tensor)
        return True
    if not hasattr(tensor, "__tensor_flatten__"):
        return False
    names, _ = tensor.__tensor_flatten__()
    if not names or not all(_take_apart(getattr(tensor, name), plain, wrappers) for name in names):
        return False
    wrappers.append(tensor)
    return True


def _repoints(made: Makeup) -> bool:
    """Tell whether wrappers like these take their device from what is in them, take inner tensors that lie side by side in
    one block, and let their sizes and device be copied."""
    sizes = [extent(each.size(), each.stride(), each.dtype) for each in made.plain]
    *starts, end = accumulate((-(-size // _APART) * _APART for size in sizes), initial=0)
    block = torch.empty(end, dtype=torch.uint8, device="meta")
    weight = made.weight("", starts, made.parameter.device)
    try:
        (_, there), (_, again) = weight.looks(block, 0)[-1], weight.looks(block, 0)[-1]
        take([(there, again)])
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, AssertionError, KeyError):
        return False
    return there.device.type == "meta"


def _with_beside(parameter: torch.Tensor, holder: nn.Module | None) -> Makeup:
    """Return the makeup of plain bytes. What views these bytes is re-pointed as it is; all else beside gets a stand-in."""
    if type(parameter) in (torch.Tensor, nn.Parameter):
        return Makeup(parameter, (parameter,))
    beside = {id(tensor): tensor for _, _, tensor in _beside(parameter, holder) if is_plain(tensor)}
    bytes_here = parameter.untyped_storage()._cdata
    same = {key: tensor for key, tensor in beside.items() if tensor.untyped_storage()._cdata == bytes_here}
    others = {key: tensor for key, tensor in beside.items() if key not in same}
    stand_ins = {key: tensor.detach() for key, tensor in others.items()}
    return Makeup(parameter, (parameter, *same.values(), *stand_ins.values()), (), stand_ins, others, holder)


def _beside(parameter: torch.Tensor, holder: nn.Module | None) -> Iterator[Slot]:
    """Yield the tensors in attributes of a parameter, and of its holder and objects in them that are of the same package as
    the parameter's class."""
    package = _package(parameter)
    inside: list[Any] = [vars(parameter)]
    if holder is not None and _package(holder) == package:
        inside.append(vars(holder))
    known = set(map(id, inside))
    while inside:
        table = inside.pop()
        for key, value in list(table.items() if isinstance(table, dict) else enumerate(table)):
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                yield table, key, value
            within = None if key in _TABLES else _searched(value, package)
            if within is not None and id(within) not in known:
                known.add(id(within))
                inside.append(within)


def _searched(value: Any, package: str) -> Any:
    """Return the table of what `value` holds; None if it is not searched."""
    if isinstance(value, (dict, list)):
        return value
    if isinstance(value, (nn.Module, torch.Tensor, type)) or _package(value) != package:
        return None
    return getattr(value, "__dict__", None)


def _package(value: object) -> str:
    return type(value).__module__.partition(".")[0]
