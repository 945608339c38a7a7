"""Run inference with a PyTorch model on a GPU smaller than the model.

    import optimem
    model = optimem.page(model)      # weights that do not fit stay in RAM and come in just before their use
    output = model(inputs)           # same bits as the plain model
    optimem.detach(model)            # as if nothing had been

The model's code, its class, its parameters' identity and its state_dict keys stay as they are.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import weakref
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from .card.card import Card
from .card.device import Device
from .card.names import open_card, open_device
from .errors import BadInput, ControllerError, OptimemError
from .forecast import question as forecast
from .forecast.question import Plan
from .forecast.rehearsal import rehearse
from .learning import describe
from .life.attachment import Attachment
from .life.status import Status
from .life.tied import Habits
from .model.units import by_owner, take_stock
from .seams.hooks import is_tied
from .wire import protocol
from .wire.protocol import Wish

__all__ = [
    "BadInput",
    "ControllerError",
    "OptimemError",
    "Plan",
    "Status",
    "chunk",
    "detach",
    "fit",
    "page",
    "plan",
    "refresh",
    "status",
]

Model = TypeVar("Model", bound=nn.Module)

# The hooks on a model keep its attachment alive; when the model goes, so does all that is tied to it.
_attached: weakref.WeakValueDictionary[int, Attachment] = weakref.WeakValueDictionary()


def page(
    model: Model,
    device: torch.device | str | None = None,
    max_layer_size: int = -1,
    *,
    vram: str | int | None = None,
    output_device: torch.device | str | None = None,
    verify: bool = False,
    retry: bool = False,
) -> Model:
    """Let every module of `model` compute on `device`, with the weights paged in from RAM.

    The model must be in eval mode and on the CPU. Inputs may be on either side and are moved; results are on the device. A
    part that is called by itself (`model.encoder(x)`) with inputs on the CPU returns its results there.

    Args:
        model: the model; it is changed in place and returned.
        device: a torch device or its name, "sim" for the simulated card, "sim:rtx4090" for it as that model; None takes
            $OPTIMEM_DEVICE, else the machine's accelerator, else the simulated card. On "cpu" the model runs as it is.
        max_layer_size: parameters; a module of at most so many is paged whole. -1 leaves the page size to the planner.
        vram: device memory to use: bytes in all ("6GiB", 6 << 30), or a share of the weights ("25%"). None takes all that
            is free.
        output_device: where results go; None leaves them on the device.
        verify: watch every forward, not only the first two, for reads of weights that the plan does not foresee. Such a
            weight is fetched at once and its reader learnt; without it torch raises an error that devices differ.
        retry: run a failed forward once more: under a smaller plan if it ran out of device memory, recorded if it read a
            weight that the plan does not foresee. Its effects beside the result happen twice. Without it the error is
            raised, and the next forward has the smaller plan or learns the reader.

    Raises:
        BadInput: the model, the device or the budget cannot work as given; the text says which and what to do.
        ControllerError: no controller could be reached or started.
    """
    return _attach(model, device, _wish("page", vram, max_layer_size, ""), _habits(output_device, verify, retry))


def fit(
    model: Model,
    vram: str | int | None = None,
    device: torch.device | str | None = None,
    *,
    output_device: torch.device | str | None = None,
    verify: bool = False,
    retry: bool = False,
) -> Model:
    """Make `model` as fast as it gets within `vram`: some weights stay on the device, some are paged in, and the CPU
    computes with some, whichever takes less time.

    Inputs may be on either side and are moved; results are on the device. If paging is needed the second forward runs on the
    CPU, once, to measure the CPU. Arguments and errors are those of `page`.
    """
    return _attach(model, device, _wish("auto", vram, -1, ""), _habits(output_device, verify, retry))


def chunk(
    model: Model,
    device: torch.device | str | None = None,
    max_capacity: int | float | str = 1e9,
    *,
    vram: str | int | None = None,
    output_device: torch.device | str | None = None,
    verify: bool = False,
    retry: bool = False,
) -> Model:
    """Keep the best chunk of `model` on `device` for good and let the CPU compute the rest.

    Data starts on the CPU, crosses where the chunk begins and ends, and results end on the CPU, or on `output_device`.

    Args:
        model: as for `page`.
        device: as for `page`.
        max_capacity: parameters that may live on the device, or bytes as text ("2GiB").
        vram: as for `page`.
        output_device: where results go; None means the CPU.
        verify: as for `page`.
        retry: as for `page`.

    Raises:
        BadInput: as for `page`.
        ControllerError: as for `page`.
    """
    return _attach(model, device, _wish("chunk", vram, -1, max_capacity), _habits(output_device, verify, retry))


def plan(
    model: nn.Module,
    vram: str | int | None = None,
    *,
    mode: str = "page",
    inputs: Any = None,
    device: torch.device | str | None = None,
    link: str | int | None = None,
    max_layer_size: int = -1,
    max_capacity: int | float | str = 1e9,
    curve: Sequence[str | int] | None = None,
) -> Plan:
    """Return the plan that `page`, `chunk` or `fit` would follow within `vram`, without following it.

    An attached model is planned from its own recording and times, and goes on undisturbed. One that is not is called once
    with `inputs`, recorded, and left as it was found: weights, buffers, gradients, hooks, modes and torch's random numbers.
    Without either nothing is run, and the weights may lie anywhere, on the meta device too: each weight counts once, in the
    order of registration, and only copies take time; the notes say so.

    The planner answers within this process, or through a child if its extension cannot be loaded; the answer is the same.

    Args:
        model: the model, in eval mode.
        vram: the device memory to assume, in the words of `page`; None takes all that is free on the device.
        mode: "page", "chunk", or "auto", which is that of `fit`.
        inputs: for one call: a tuple of positional arguments, a dict of keyword arguments, or a single argument.
        device: as for `page`; an attached model's own. If nothing is run it only tells how much memory is free.
        link: the way from RAM to the device to assume: "pcie4x16", "25GB/s", or bytes per second; None takes the measured
            one, else the planner's usual one.
        max_layer_size: as for `page`.
        max_capacity: as for `chunk`, and used in that mode alone.
        curve: budgets for weights alone, in the words of `vram`, to tell the period for; None takes some around the plan's.

    Returns:
        A `Plan`: the period in ns and its bound, bytes resident and in the arena, the placement of each page, the curve.

    Raises:
        BadInput: the model, the inputs, a budget or another wish cannot work; the text says which and what to do.
        ControllerError: there is neither the planner's extension nor optimemctl.
    """
    wish = _wish(mode, vram, max_layer_size, max_capacity if mode == "chunk" else "")
    manifest, times = _known(model, device, wish, inputs)
    free = 0 if wish.vram else times.free_bytes if times else _device_of(model, device).free()
    return forecast.ask(
        manifest, times, forecast.Question(wish, free, _size(link), None if curve is None else tuple(map(_size, curve)))
    )


def detach(model: Model) -> Model:
    """Untie `model` and leave it as it was found, on the CPU. Does nothing to a model that is not attached."""
    attachment = _attached.get(id(model))
    if attachment is not None:
        attachment.detach()
        if _attached.get(id(model)) is attachment:
            del _attached[id(model)]
    return model


def refresh(model: Model) -> Model:
    """Say that weights of `model` were written to, so that its next forward has all of them anew. Does nothing to a model
    that is not attached.

    In-place writes that torch counts, loading a state_dict, and writes that change most of a weight are noticed without it.
    It is for single rows or elements that were written through `.data`, numpy or in inference mode.
    """
    attachment = _find(model)
    if attachment is not None:
        attachment.refresh()
    return model


def status(model: nn.Module) -> Status | None:
    """Tell how an attached model stands; None for one that is not attached."""
    attachment = _find(model)
    return attachment.status() if attachment is not None else None


def _find(model: nn.Module) -> Attachment | None:
    attachment = _attached.get(id(model))
    return None if attachment is None or attachment.detached else attachment


@atexit.register
def _farewell() -> None:
    """Report on every model to its controller when the program ends."""
    for attachment in [each for each in _attached.values() if not each.detached]:
        attachment.report()
        attachment.close("the program ends")


def _attach(model: Model, device: torch.device | str | None, wish: Wish, habits: Habits) -> Model:
    card = open_card(device)
    before = _find(model)
    if before is not None and (before.wish, before.habits, before.card) == (wish, habits, card):
        return model
    detach(model)
    _refuse_tied(model)
    if card.device.computes_in_ram:
        return model
    try:
        _tie(model, card, wish, habits)
    except OptimemError:
        if before is not None:
            _tie(model, before.card, before.wish, before.habits)
        raise
    return model


def _tie(model: nn.Module, card: Card, wish: Wish, habits: Habits) -> None:
    attachment = Attachment(model, card, wish, habits)
    _attached[id(model)] = attachment  # before it ties: what is cut short must be found by `detach`
    try:
        attachment.attach()
    finally:
        if attachment.detached:
            del _attached[id(model)]
    weakref.finalize(attachment, _settle, card.device, os.getpid()).atexit = False  # before its bytes are freed


def _settle(device: Device, process: int) -> None:
    """Wait for all copies, where they are of this process and not of the one that it was forked from."""
    if os.getpid() == process:
        device.settle()


def _refuse_tied(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if is_tied(module):
            what = f"its module {path}" if path else "it, as part of another model,"
            raise BadInput(
                f"the model cannot be attached: {what} is attached already; call optimem.detach on that one first"
            )
    for other in _attached.values():
        name = None if other.detached else other.shares(model)
        if name is not None:
            raise BadInput(
                f"the model cannot be attached: its parameter {name} belongs to a model that is attached already; "
                "call optimem.detach on that one first"
            )


def _known(
    model: nn.Module, device: torch.device | str | None, wish: Wish, inputs: Any
) -> tuple[protocol.Manifest, protocol.Measured | None]:
    """Return the manifest and the times of `model` as far as they are known, or can be learnt without changing it."""
    attachment = _find(model)
    if attachment is None and inputs is not None:
        seen_by = "page" if wish.mode == "auto" else wish.mode  # page mode times steps on the device
        return rehearse(model, open_card(device), dataclasses.replace(wish, mode=seen_by), inputs)
    if attachment is None:
        if device is not None:
            open_device(device)  # or raise
        inventory = take_stock(model, loaded=False)
        return describe.manifest(model, wish, inventory, by_owner(inventory.spans), None), None
    if inputs is not None:
        raise BadInput(
            "inputs were given, but the model is attached and is planned from its own forwards; "
            "call it once and leave the inputs out, or call optimem.detach(model) first"
        )
    if device is not None and open_card(device) is not attachment.card:
        raise BadInput(
            f"the model is attached to {attachment.card.device.torch} and its times are of that device, not of {device}; "
            "leave the device out, or call optimem.detach(model) first"
        )
    manifest, times = attachment.told()
    return manifest, times and dataclasses.replace(times, held=[])  # present residents must not sway a plan for the future


def _device_of(model: nn.Module, device: torch.device | str | None) -> Device:
    attachment = _find(model)
    return attachment.card.device if attachment is not None else open_device(device)


def _habits(output_device: torch.device | str | None, verify: bool, retry: bool) -> Habits:
    output = None if output_device is None else open_device(output_device).torch
    return Habits(output, verify, retry)


def _wish(mode: str, vram: str | int | None, max_layer_size: int, max_capacity: int | float | str) -> Wish:
    size = 0 if max_layer_size == -1 else max_layer_size
    if size < 0:
        raise BadInput(f"max_layer_size is {max_layer_size}; give a number of parameters, or -1 to leave it to the planner")
    return Wish(mode=mode, vram=_size(vram), max_layer_size=size, max_capacity=_size(max_capacity))


def _size(value: str | int | float | None) -> str:
    """Return a size as text in the user's words; whole numbers lose their fraction."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)
