"""Equal means equal bits, and as found means the same objects."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from optimem.data import moving


def bits(value: Any) -> list[tuple[Any, ...]]:
    """Return all tensors in `value` as dtype, shape and bytes, wherever they are. There must be some to compare."""
    seen = [_bits(tensor) for tensor in moving.tensors(value)]
    assert seen, f"there is nothing to compare in a {type(value).__name__}"
    return seen


def _bits(tensor: torch.Tensor) -> tuple[Any, ...]:
    if hasattr(tensor, "__tensor_flatten__"):  # of a class of its own, made of others
        return tuple(_bits(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    plain = tensor.detach().cpu().resolve_conj().contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), plain.view(torch.uint8).numpy().tobytes()


def values(model: nn.Module) -> dict[str, Any]:
    """Return the bits of every parameter, buffer and other tensor that modules hold, and where they are; of at least one."""
    held = {
        f"{path}.{name}": tensor
        for path, module in model.named_modules()
        for table in (module._parameters, module._buffers, vars(module))
        for name, tensor in table.items()
        if isinstance(tensor, torch.Tensor)
    }
    assert held, f"there is nothing to compare in a {type(model).__name__}"
    return {name: (tensor.device, tensor.stride(), bits(tensor)) for name, tensor in held.items()}


class The:
    """An object as itself: equal to nothing else, and kept, so that no other one gets its id."""

    def __init__(self, it: object) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, The) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)

    def __repr__(self) -> str:
        return f"<the {type(self.it).__name__} at {id(self.it):x}>"


def found(model: nn.Module) -> dict[str, Any]:
    """Return all that attaching and detaching must leave: what every module and parameter holds, by identity."""
    parameters = {
        f"parameter {name}": [The(tensor), tensor.requires_grad, tensor.grad, tensor._version, *_attributes(tensor).items()]
        for name, tensor in model.named_parameters()
    }
    modules = {
        f"{path}: {name}": held
        for path, module in model.named_modules(remove_duplicate=False)
        for name, held in _attributes(module).items()
    }
    return {**parameters, **modules, "keys": list(model.state_dict(keep_vars=True))}


def _attributes(thing: object) -> dict[str, Any]:
    """Return the identity of every attribute, and of what the dictionaries among them hold: hooks, parameters, children."""
    return {
        name: (The(value), [(key, The(item)) for key, item in value.items()] if isinstance(value, dict) else None)
        for name, value in vars(thing).items()
    }
