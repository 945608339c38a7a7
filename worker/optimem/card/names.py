"""Names of devices: which device a name means, and how to open it. Errors list the devices that exist."""

from __future__ import annotations

import importlib
import importlib.util
import os

import torch

from ..errors import BadInput
from .card import Card, card_of, is_open
from .device import AsyncDevice, Device, LazyDevice, SyncDevice, first_line, has_streams, module_of, ran_out_of_memory

# Device types that need a package of their own, imported when the type is first named.
PACKAGES = {"simgpu": "simgpu", "xla": "torch_xla", "npu": "torch_npu", "hpu": "habana_frameworks.torch"}
LAZY = frozenset({"xla"})  # types of devices that compute only once they are told to
ALIASES = {"sim": "simgpu", "gpu": "cuda"}
# The device of `device=None` on a machine without an accelerator.
FALLBACK = "simgpu"


def resolve(device: torch.device | str | None) -> torch.device:
    """Return the torch device that `device` names.

    None and "auto" mean $OPTIMEM_DEVICE, else the machine's accelerator, else the simulated card; "sim:rtx4090" is the
    simulated card as that model. Raises BadInput if there is no such device, and if its memory is full.
    """
    spec = str(device) if device is not None else os.environ.get("OPTIMEM_DEVICE") or "auto"
    if spec == "auto":
        return _accelerator()
    kind, _, index = spec.partition(":")
    kind = ALIASES.get(kind, kind)
    _import_package(kind, spec)
    if index and not index.isdecimal():
        index = _play(kind, index, spec)
    try:
        found = torch.device(f"{kind}:{index}" if index else kind)
        if found.type == "meta":
            raise BadInput("device meta holds no numbers; choose a device that computes")
        torch.empty(1, device=found)
    except BadInput:
        raise
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        if ran_out_of_memory(error):
            if is_open(found):  # what is on the card may be the caller's models
                return found
            raise BadInput(_how_full(found, error)) from error
        raise BadInput(f"no such device: {spec} ({first_line(error)}); {_what_there_is()}") from error
    return found


def _how_full(found: torch.device, error: BaseException) -> str:
    there = SyncDevice(found)
    free, total = there.memory()
    figures = f"{free} of its {total} bytes are free, {there.allocated()} are in tensors of this process"
    return (
        f"{found} is full: {figures if total else first_line(error)}; delete tensors that lie there, end other programs "
        "that use it, or choose another device with device=... or --device"
    )


def open_device(device: torch.device | str | None) -> Device:
    """Return a new object, asynchronous if possible, for the device that `device` names. Raises BadInput."""
    found = resolve(device)
    if has_streams(found):
        return AsyncDevice(found)
    return LazyDevice(found) if found.type in LAZY else SyncDevice(found)


def open_card(device: torch.device | str | None) -> Card:
    """Return the card that `device` names: one object per torch device of this process. Raises BadInput."""
    return card_of(resolve(device), open_device)


def _accelerator() -> torch.device:
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is not None:
        return found
    if importlib.util.find_spec(PACKAGES[FALLBACK]) is None:
        raise BadInput(
            "no accelerator found and the simulated card is not installed; "
            "pass device='cpu' to run without paging, or install the package simgpu"
        )
    return resolve(FALLBACK)


def _import_package(kind: str, spec: str) -> None:
    package = PACKAGES.get(kind)
    if package is None:
        return
    try:
        importlib.import_module(package)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise BadInput(
            f"no such device: {spec} needs the package {package}, which cannot be imported ({first_line(error)})"
        ) from error


def _play(kind: str, model: str, spec: str) -> str:
    """Let a card that can play several models play `model`; return its index."""
    try:
        use_profile = getattr(module_of(torch.device(kind)), "use_profile", None)
        if use_profile is None:
            raise BadInput(f"no such device: {spec} ({kind} has no models to choose from); {_what_there_is()}")
        use_profile(model)
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"no such device: {spec} ({first_line(error)}); {_what_there_is()}") from error
    return ""


def _what_there_is() -> str:
    found = torch.accelerator.current_accelerator(check_available=True)
    have = f"torch sees {found.type}" if found is not None else "torch sees no accelerator here"
    return f"{have}; choose one with device=... or --device (sim is the simulated card)"
