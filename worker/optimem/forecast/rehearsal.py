"""One recorded forward of a model that is not attached, and that is left as it was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from ..card.card import Card
from ..card.device import Device
from ..errors import BadInput
from ..life.attachment import Attachment
from ..life.tied import Habits
from ..wire import protocol


def rehearse(
    model: nn.Module, card: Card, wish: protocol.Wish, inputs: Any
) -> tuple[protocol.Manifest, protocol.Measured | None]:
    """Attach `model`, call it once with `inputs` and detach it; return the manifest and the times that its controller got.

    `inputs` are the positional arguments as a tuple or list, the keyword arguments as a mapping, or one argument by itself.
    Weights, buffers, attributes of modules and torch's random numbers are as before. Writes of the model into its own lists
    or dictionaries stay. Raises the errors of attaching, and those of the model.
    """
    device = card.device
    if device.computes_in_ram:
        raise BadInput(f"the device is {device.torch}, where there is nothing to plan; name an accelerator, or sim")
    args, kwargs = _arguments(inputs)
    with _random_numbers_kept(device), _modules_kept(model):
        attachment = Attachment(model, card, wish, Habits())
        try:
            attachment.attach()
            with torch.no_grad():
                model(*args, **kwargs)
            return attachment.told()
        finally:
            attachment.detach()


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


@contextmanager
def _modules_kept(model: nn.Module) -> Iterator[None]:
    """Undo the changes of a forward to modules: buffers written to, attributes and buffers replaced or added."""
    modules = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    buffers = {id(buffer): buffer for _, _, named in modules for buffer in named.values() if buffer is not None}
    before = [(buffer, buffer.clone()) for buffer in buffers.values()]
    try:
        yield
    finally:
        with torch.inference_mode():  # which may write to tensors made in it, and to all others
            for buffer, kept in before:
                buffer.copy_(kept)
        for module, attributes, named in modules:
            _put_back(vars(module), attributes)
            _put_back(module._buffers, named)


def _put_back(names: dict[str, Any], before: dict[str, Any]) -> None:
    for name in names.keys() - before.keys():
        del names[name]
    names.update(before)


def _random_numbers_kept(device: Device) -> AbstractContextManager[None]:
    """Keep the state of torch's random numbers: the CPU's, and the device's if it has one for each card."""
    cards = hasattr(getattr(torch, device.torch.type, None), "get_rng_state_all")
    if cards:
        return torch.random.fork_rng([device.torch.index or 0], device_type=device.torch.type)
    return torch.random.fork_rng([])
