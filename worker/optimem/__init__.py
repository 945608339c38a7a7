"""Run inference with a PyTorch model on a GPU smaller than the model.

    import optimem
    model = optimem.page(model)      # weights that do not fit stay in RAM and come in just before their use
    output = model(inputs)           # same bits as the plain model
    optimem.detach(model)            # as if nothing had been

The model's code, its class, its parameters' identity and its state_dict keys stay as they are.
"""

from __future__ import annotations

import atexit
import weakref
from typing import TypeVar

import torch
from torch import nn

from .attachment import Attachment, Status
from .device import open_device
from .errors import BadInput, ControllerError, OptimemError
from .protocol import Wish

__all__ = ["BadInput", "ControllerError", "OptimemError", "Status", "chunk", "detach", "page", "status"]

Model = TypeVar("Model", bound=nn.Module)

# The hooks on a model keep its attachment alive; when the model goes, so does all that is tied to it.
_attached: weakref.WeakValueDictionary[int, Attachment] = weakref.WeakValueDictionary()


def page(
    model: Model,
    device: torch.device | str | None = None,
    max_layer_size: int = -1,
    *,
    vram: str | int | None = None,
) -> Model:
    """Let every module of `model` compute on `device`, with the weights paged in from RAM.

    The model must be in eval mode and on the CPU. Inputs may be on either side and are moved; results are on the device.

    Args:
        model: the model; it is changed in place and returned.
        device: a torch device or its name, "sim" for the simulated card, "sim:rtx4090" for it as that model; None takes
            $OPTIMEM_DEVICE, else the machine's accelerator, else the simulated card. On "cpu" the model runs as it is.
        max_layer_size: parameters; a module of at most so many is paged whole. -1 leaves the page size to the planner.
        vram: device memory to use: bytes in all ("6GiB", 6 << 30), or a share of the weights ("25%"). None takes what is
            free.

    Raises:
        BadInput: the model, the device or the budget cannot work as given; the text says which and what to do.
        ControllerError: no controller could be reached or started.
    """
    size = 0 if max_layer_size == -1 else max_layer_size
    if size < 0:
        raise BadInput(f"max_layer_size is {max_layer_size}; give a number of parameters, or -1 to leave it to the planner")
    return _attach(model, device, Wish(mode="page", vram=_size(vram), max_layer_size=size, max_capacity=""))


def chunk(
    model: Model,
    device: torch.device | str | None = None,
    max_capacity: int | float | str = 1e9,
    *,
    vram: str | int | None = None,
) -> Model:
    """Keep the best chunk of `model` on `device` for good and let the CPU compute the rest.

    Data starts on the CPU and so do results end there.

    Args:
        model: as for `page`.
        device: as for `page`.
        max_capacity: parameters that may live on the device, or bytes as text ("2GiB").
        vram: as for `page`.

    Raises:
        BadInput: as for `page`.
        ControllerError: as for `page`.
    """
    return _attach(model, device, Wish(mode="chunk", vram=_size(vram), max_layer_size=0, max_capacity=_size(max_capacity)))


def detach(model: Model) -> Model:
    """Untie `model` and leave it as it was found, on the CPU. Does nothing to a model that is not attached."""
    attachment = _attached.pop(id(model), None)
    if attachment is not None:
        attachment.detach()
    return model


def status(model: nn.Module) -> Status | None:
    """Say how an attached model stands; None for one that is not attached."""
    attachment = _attached.get(id(model))
    return attachment.status() if attachment is not None else None


@atexit.register
def _farewell() -> None:
    """Tell the controllers how the models of a program that ends have fared."""
    for attachment in list(_attached.values()):
        attachment.report()
        attachment.session.close("the program ends")


def _attach(model: Model, device: torch.device | str | None, wish: Wish) -> Model:
    found = open_device(device)
    before = _attached.get(id(model))
    if before is not None and before.wish == wish and before.device.torch == found.torch:
        return model
    detach(model)
    if not found.computes_in_ram:
        attachment = Attachment(model, found, wish)
        _attached[id(model)] = attachment
        weakref.finalize(attachment, attachment.session.close, "collected").atexit = False
    return model


def _size(value: str | int | float | None) -> str:
    """Return a size as text in the user's words; numbers without a fraction lose it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)
