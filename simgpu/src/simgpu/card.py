"""The card as a device: that it is there, its name, and the context that makes it current. There is one, index 0."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from types import TracebackType

import torch

from simgpu import _C

Device = torch.device | str | int | None

NAME = "Simulated GPU"
UUID = str(uuid.uuid5(uuid.NAMESPACE_OID, "simgpu:0"))


def check(device: Device = None) -> int:
    """The index of ``device``, which is 0; ``ValueError`` for a device of another kind or number."""
    if device is None:
        return 0
    if isinstance(device, str):
        device = torch.device(device)
    if isinstance(device, torch.device):
        if device.type != "simgpu":
            raise ValueError(f"expected a simgpu device, got {device}")
        device = device.index or 0
    if device not in (0, -1):
        raise ValueError(f"there is one simulated card, index 0; got {device}")
    return 0


def is_available() -> bool:
    """Always: the card is simulated."""
    return True


def is_initialized() -> bool:
    """Always: there is no context to make."""
    return True


def init() -> None:
    """Does nothing; torch asks for it."""


def device_count() -> int:
    """One."""
    return 1


def current_device() -> int:
    """The index of the current card, 0."""
    return 0


def set_device(device: Device) -> None:
    """Makes ``device`` the current card; ``ValueError`` if it is not simgpu:0."""
    check(device)


class device:
    """``with torch.simgpu.device(0):`` as for other accelerators; with one card it changes nothing."""

    def __init__(self, device: Device) -> None:
        self.idx = check(device)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class device_of(device):
    """The same for the card that holds a tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__(0 if tensor.device.type == "simgpu" else None)


@dataclass(frozen=True)
class DeviceProperties:
    """What there is to know of the card; ``total_memory`` in bytes."""

    name: str
    total_memory: int
    uuid: str


def get_device_name(device: Device = None) -> str:
    """``"Simulated GPU"``."""
    check(device)
    return NAME


def get_device_properties(device: Device = None) -> DeviceProperties:
    """Name, memory in bytes and UUID of the card."""
    check(device)
    return DeviceProperties(name=NAME, total_memory=_C.capacity(), uuid=UUID)


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The types that autocast may cast to."""
    return [torch.float16, torch.bfloat16]


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Always."""
    return True
