"""The worker's part of `optimemctl run`: the plain model, then the paged one, and whether they agree bit for bit."""

from __future__ import annotations

import importlib
import logging
import runpy
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import nn

import optimem

from ..card.device import Device
from ..card.names import open_device
from ..data import moving
from ..errors import BadInput
from ..learning import describe
from ..model import units
from ..seams.fastpaths import has_fast_paths
from ..wire import protocol, session
from . import targets

log = logging.getLogger("optimem")

_PLAIN_FORWARDS = 3
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Order:
    """The run that was ordered. `size` is (width, height) in pixels."""

    target: str
    device: str
    mode: str
    forwards: int
    photo: str | None
    size: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class Plain:
    """The unpaged model's output on the CPU, and its ns per forward on the device; None and 0 if it had no room."""

    output: Any
    period_ns: int


def import_modules(names: Iterable[str]) -> None:
    """Import the modules that the user named, so that devices in packages of their own are known. Raises BadInput."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise BadInput(f"--import {name}: {error}") from error


def run_script(path: str, arguments: list[str]) -> None:
    """Run a user's script as the main program."""
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def run_model(order: Order) -> None:
    """Run the model plainly, then `order.forwards` times under a plan, and tell the controller the outcome."""
    stop = threading.Event()
    session.on_stop = lambda reason: stop.set()
    device = open_device(order.device)
    call = targets.load(order.target, order.photo, order.size, order.seed)
    notes = _leave_fast_paths(call.model)
    if device.computes_in_ram:
        notes.append("on the CPU there is nothing to page: the model ran as it is")
    plain = _run_plain(call, device)
    talk, outputs = _run_under_plan(call, device, order, stop)
    if call.judge is not None:
        notes.append(call.judge(outputs[-1]))
    talk.tell(
        protocol.Outcome(
            forwards=len(outputs),
            plain_period_ns=plain.period_ns,
            equal=_verdict(plain, outputs),
            notes=[*notes, *_difference(plain, outputs)],
        )
    )
    optimem.detach(call.model)
    talk.close("done")


def _run_plain(call: targets.Call, device: Device) -> Plain:
    try:
        call.model.to(device.torch)
        args, kwargs = moving.move(call.args, device.torch), moving.move(call.kwargs, device.torch)
        with torch.inference_mode():
            output = moving.move(call.model(*args, **kwargs), _CPU)
        return Plain(output, _time_plain(call.model, args, kwargs, device))
    except torch.OutOfMemoryError:
        log.info("optimem: the plain model has no room on the device; nothing to compare with")
        return Plain(None, 0)
    finally:
        call.model.to(_CPU)
        device.give_back()


def _time_plain(model: nn.Module, args: Any, kwargs: Any, device: Device) -> int:
    marks = [device.timed_mark()]
    for _ in range(_PLAIN_FORWARDS):
        with torch.inference_mode():
            model(*args, **kwargs)
        marks.append(device.timed_mark())
    device.settle()
    return int(median(device.elapsed_ns(a, b) for a, b in pairwise(marks)))


def _run_under_plan(
    call: targets.Call, device: Device, order: Order, stop: threading.Event
) -> tuple[session.Session, list[Any]]:
    start = _CPU if order.mode == "chunk" else device.torch
    args, kwargs = moving.move(call.args, start), moving.move(call.kwargs, start)
    device.reset_peak()
    if order.mode == "auto":
        optimem.fit(call.model, device=device.torch)
    else:
        attach = optimem.page if order.mode == "page" else optimem.chunk
        attach(call.model, device.torch)
    attachment = optimem._attached.get(id(call.model))
    talk = None if attachment else _talk_of_the_cpu(call.model, device)
    outputs = []
    for _ in range(order.forwards):
        if stop.is_set():
            raise KeyboardInterrupt
        with torch.inference_mode():
            outputs.append(_fetched(call.model(*args, **kwargs), device))
    device.settle()
    if attachment:
        attachment.report()
        talk = attachment.session
    assert talk is not None
    return talk, outputs


def _fetched(output: Any, device: Device) -> Any:
    """Return `output` on the CPU, valid once the device has settled: the host does not wait between forwards."""
    copies = {id(tensor): _copy_of(tensor, device) for tensor in moving.tensors(output)}
    return moving.substitute(output, copies)


def _copy_of(tensor: torch.Tensor, device: Device) -> torch.Tensor:
    if tensor.device == _CPU or not device.capabilities.pinned:
        return tensor.to(_CPU)
    return torch.empty_like(tensor, device=_CPU, pin_memory=True).copy_(tensor, non_blocking=True)


def _talk_of_the_cpu(model: nn.Module, device: Device) -> session.Session:
    """Open a session for a model that runs as it is, on the CPU: a chunk of nothing."""
    talk = session.Session.open(describe.hello(device))
    wish = protocol.Wish(mode="chunk", vram="", max_layer_size=0, max_capacity="")
    inventory = units.take_stock(model)
    talk.ask_for_plan(describe.manifest(model, wish, inventory, units.by_owner(inventory.spans), None))
    return talk


def _leave_fast_paths(model: nn.Module) -> list[str]:
    """Switch torch's fused attention paths off if the model has any: a paged model runs without them, and only like can be
    compared with like."""
    if not has_fast_paths(model):
        return []
    torch.backends.mha.set_fastpath_enabled(False)
    return ["torch's fused attention path is off, for the plain model too"]


def _verdict(plain: Plain, outputs: list[Any]) -> str:
    if plain.output is None or not _is_comparable(plain.output):
        return "unknown"
    return "equal" if all(_same(plain.output, output) for output in outputs) else "different"


def _is_comparable(output: Any) -> bool:
    """Tell whether there are bytes in `output` to compare."""
    return any(tensor.numel() for tensor in moving.tensors(output))


def _same(left: Any, right: Any) -> bool:
    ours, theirs = list(moving.tensors(left)), list(moving.tensors(right))
    return len(ours) == len(theirs) and all(map(_same_bits, ours, theirs))


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (left, right)))


def _difference(plain: Plain, outputs: list[Any]) -> list[str]:
    """Say how far apart the results are, if they differ."""
    if plain.output is None:
        return []
    if not _is_comparable(plain.output):
        return [f"nothing was compared: no tensors were found in the result, a {type(plain.output).__name__}"]
    if all(_same(plain.output, output) for output in outputs):
        return []
    gaps = [
        float((a.double() - b.double()).abs().max())
        for output in outputs
        for a, b in zip(moving.tensors(plain.output), moving.tensors(output), strict=False)
        if a.shape == b.shape and a.numel() and not a.is_complex()
    ]
    return [f"largest difference from the plain model: {max(gaps):.3g}" if gaps else "the outputs differ in shape"]
