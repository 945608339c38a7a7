"""Tensors that are not paged: buffers, parameters that share bytes with them, parameters of some classes. Also packed
parameters.

The tensors stay on the device. They move as they are: shared bytes stay shared, strides stay. Packed parameters come from
torch's dynamic quantisation, which makes no tensors of them, or from bitsandbytes' way to compute on the CPU. Only the CPU
can compute with them, so data goes there and comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..card.device import Device
from ..data import moving
from ..errors import BadInput
from ..model.inner import data_class, is_plain
from ..model.units import Inventory, has_address, holds_for_cpu, named, spans_of
from ..model.weights import relocate
from ..seams.hooks import Hook

_CPU = torch.device("cpu")
_QUANTISED = "torch.ao.nn."


def send(tensors: Iterable[torch.Tensor], device: torch.device) -> None:
    """Move `tensors` to `device`. Each stays the same object."""
    away = [tensor for tensor in tensors if tensor.device.type != device.type]
    there = next((tensor.device for tensor in away if tensor.device.type != "cpu"), device)
    plain = [tensor for tensor in away if is_plain(tensor) and has_address(tensor)]
    with torch.inference_mode(False), torch.no_grad():
        for span in spans_of(named(("", tensor) for tensor in plain), device=there):
            block = span.copy_to(torch.empty(span.nbytes, dtype=torch.uint8, device=device))
            for weight in span.weights:
                weight.look(block, 0)
        for tensor in away:
            if tensor.device.type != device.type:
                relocate(tensor, device)


def send_to_cpu(model: nn.Module) -> None:
    """Move all tensors that the modules of `model` hold to the CPU, in containers too: buffers may have been replaced,
    attributes set, caches filled."""
    tables = [
        (vars(module), [*module._parameters.values()], [*module._buffers.values()])  # traced modules' tables are no dicts
        for module in model.modules()
    ]
    send({id(tensor): tensor for tensor in moving.tensors(tables)}.values(), _CPU)


def together(inventory: Inventory) -> dict[int, str]:
    """Return, by the ids of tensors that share bytes, the path of the module that holds the first of them. They move
    together, else they would come apart."""
    spans = spans_of(named(zip(inventory.fixed_names, inventory.fixed, strict=True)))
    return {id(weight.parameter): span.owner for span in spans if len(span.weights) > 1 for weight in span.weights}


def refuse_shared(inventory: Inventory, device: Device) -> None:
    """Raise BadInput for tensors that share bytes if these would come apart on `device`, which knows no addresses."""
    shared = together(inventory)
    if shared and not device.capabilities.addresses:
        names = [name for name, tensor in zip(inventory.fixed_names, inventory.fixed, strict=True) if id(tensor) in shared]
        raise BadInput(
            f"{names[0]} and {names[1]} share bytes, and on {device.torch} they would come apart; "
            "make one a copy: tensor.clone()"
        )


def kept(inventory: Inventory, model: nn.Module) -> tuple[str, ...]:
    """Return the names of what stays on the device, or on the CPU, and why it does."""
    sizes = inventory.kept()
    tensors = [
        f"{name}: {_why(tensor)}{f', {sizes[name]} bytes' if name in sizes else ''}"
        for name, tensor in zip(inventory.fixed_names, inventory.fixed, strict=True)
    ]
    return *tensors, *(f"{path or 'the model'}: packed parameters, computed on the CPU" for path in packed(model))


def kept_whole(inventory: Inventory) -> str:
    """Return words about the largest weights that stay on the device whole, to follow a refusal; empty if there are none."""
    sizes = sorted(inventory.kept().items(), key=lambda item: -item[1])
    named = ", ".join(f"{name} ({size} bytes)" for name, size in sizes[:3])
    more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
    return f". Weights that cannot be paged are {named}{more}: quantise these in another way, or not at all" if sizes else ""


def packed(model: nn.Module) -> list[str]:
    """Return the paths of the modules that compute with packed parameters."""
    modules = dict(model.named_modules())
    holders = [path for path, module in modules.items() if _holds_packed(module)]
    return list(dict.fromkeys(next(_computing(path, modules)) for path in holders))


class PackedTies:
    """Hooks that bring data to the CPU for modules with packed parameters, and their results back."""

    def __init__(self, model: nn.Module) -> None:
        self._handles: list[RemovableHandle] = []
        for path in packed(model):
            module, came_from = model.get_submodule(path), list[torch.device]()
            self._handles += [
                module.register_forward_pre_hook(_ToCpu(path, came_from), with_kwargs=True),
                module.register_forward_hook(_Back(path, came_from), always_call=True),
            ]

    def untie(self) -> None:
        """Remove the hooks. Idempotent."""
        while self._handles:
            self._handles.pop().remove()


class _ToCpu(Hook):
    def __init__(self, path: str, came_from: list[torch.device]) -> None:
        super().__init__(path)
        self._came_from = came_from

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._came_from.append(next((tensor.device for tensor in moving.tensors((args, kwargs))), _CPU))
        return moving.move(args, _CPU), moving.move(kwargs, _CPU)


class _Back(Hook):
    def __init__(self, path: str, came_from: list[torch.device]) -> None:
        super().__init__(path)
        self._came_from = came_from

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return moving.move(output, self._came_from.pop()) if self._came_from else output


def _why(tensor: torch.Tensor) -> str:
    if not isinstance(tensor, nn.Parameter):
        return "a buffer, may be written to"
    if data_class(tensor) is not torch.Tensor:
        return f"a {data_class(tensor).__name__}, a tensor class that cannot be paged"
    if is_plain(tensor):
        return "a parameter that shares bytes with a buffer"
    return "a parameter without plain bytes"


def _holds_packed(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return False
    return holds_for_cpu(module) or any(isinstance(value, torch.ScriptObject) for value in vars(module).values())


def _computing(path: str, modules: dict[str, nn.Module]) -> Iterator[str]:
    """Yield torch's own quantised modules from the topmost down to `path`, then `path`: mere holders are not called."""
    parts = path.split(".") if path else []
    above = (".".join(parts[:count]) for count in range(len(parts) + 1))
    yield from (name for name in above if type(modules[name]).__module__.startswith(_QUANTISED))
    yield path
