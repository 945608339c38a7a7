"""The card as a device: that it is there, which one it plays, and the context that makes it current. There is one,
index 0."""

from __future__ import annotations

import atexit
import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TypeVar

import torch

from simgpu import _C, profile, sizes
from simgpu.profile import Host, Link, Profile

Device = torch.device | str | int | None
T = TypeVar("T")

DEFAULT_PROFILE = "rtx3060"
DEFAULT_HOST = "desktop"
_GENERATIONS = 8  # of PCIe that _C keeps rates of
_KINDS = ("fp64", "fp32", "fp16", "bf16", "fp8", "int8")  # in the order of csrc/speeds.h


@dataclass(frozen=True)
class Played:
    """What the card plays: `uuid` without the prefix that NVML gives it."""

    card: str
    profile: Profile
    link: Link
    host: Host
    uuid: str


_played: Played | None = None
atexit.register(_C.leave_card)


def use_profile(
    card: str | Profile | None = None,
    *,
    link: str | Link | None = None,
    host: str | Host | None = None,
    capacity: int | str | None = None,
    name: str | None = None,
) -> None:
    """Makes this process's card another one. What is not given is what the environment says (``SIMGPU_PROFILE``,
    ``SIMGPU_LINK``, ``SIMGPU_HOST``, ``SIMGPU_CAPACITY``, ``SIMGPU_CARD``), and else as said below.

    Args:
        card: a built-in profile's name (``simgpu.profiles()``), the path of a ``.json`` file, or a ``Profile``;
            ``"rtx3060"``.
        link: ``"pcie4x8"``, ``"pcie3"``, ``"x4"``; the card's own at most, and that by default. Or a ``Link`` with any
            rates, of a generation up to 7; its lanes share the pinned rate, which has to be a multiple of them.
        host: the name of a host profile, or a ``Host``; ``"desktop"``.
        capacity: bytes, or a text such as ``"6GiB"``; the profile's.
        name: processes that use a card of the same name share its memory; the profile's.

    Raises ``ValueError`` for what is not known and ``RuntimeError`` while the present card's memory is in use, or where
    other processes use a card of that name as another model.
    """
    global _played
    model = _chosen(card, "SIMGPU_PROFILE", profile.load) or profile.load(DEFAULT_PROFILE)
    way = _checked(_chosen(link, "SIMGPU_LINK", lambda text: profile.link(text, profile=model)) or model.link)
    cpu = _chosen(host, "SIMGPU_HOST", profile.load_host) or profile.load_host(DEFAULT_HOST)
    asked = _asked_capacity(capacity)
    bytes_ = model.memory_bytes if asked is None else asked
    called = name or os.environ.get("SIMGPU_CARD") or model.key
    played = Played(card=called, profile=model, link=way, host=cpu, uuid=_C.uuid_of(called))
    if _played is None or replace(_played, host=cpu) != played or bytes_ != _C.capacity():
        _open(played, bytes_, asked=asked is not None)
    _C.set_speeds(_speeds(model, way, cpu))
    _played = played


def _chosen(given: str | T | None, variable: str, load: Callable[[str], T]) -> T | None:
    """`given` itself, or what `load` makes of it or of the environment's text; None where there is neither."""
    if given is not None and not isinstance(given, str):
        return given
    text = given or os.environ.get(variable)
    if not text:
        return None
    try:
        return load(text)
    except ValueError as error:
        if given:
            raise
        raise ValueError(f"{variable}={text!r}: {error}") from error


def _asked_capacity(capacity: int | str | None) -> int | None:
    if capacity is not None:
        return sizes.given(capacity, name="capacity")
    text = os.environ.get("SIMGPU_CAPACITY")
    return sizes.parse(text, name="SIMGPU_CAPACITY") if text else None


def _checked(link: Link) -> Link:
    if not 0 <= link.generation < _GENERATIONS:
        raise ValueError(f"link {link}: generation {link.generation} is not accepted: 0 to {_GENERATIONS - 1}")
    if link.width < 1 or link.pinned < link.width or link.pinned % link.width:
        raise ValueError(f"link {link}: pinned = {link.pinned} is not accepted: a positive multiple of its lanes")
    return link


def _open(played: Played, capacity: int, *, asked: bool) -> None:
    model, way = played.profile, played.link
    shown = f"Simulated {model.name}"
    _C.open_card(
        played.card,
        _C.Model(
            *(model.key, shown, played.uuid, capacity, way.generation, way.width),
            *(model.power_limit_mw, model.compute_capability),
        ),
    )
    if asked and _C.capacity() != capacity:
        warnings.warn(
            f"simgpu: other processes use the card {played.card!r}, which has {_C.capacity()} bytes, not the "
            f"{capacity} that were asked for; set SIMGPU_CARD to another name for a card of your own",
            stacklevel=4,
        )


def current_profile() -> Profile:
    """The profile of the card that this process uses."""
    return _now_played().profile


def _now_played() -> Played:
    assert _played is not None, "the package chooses a card when it is imported"
    return _played


def profiles() -> list[str]:
    """The names of the built-in profiles."""
    return profile.names()


def link_now() -> str:
    """The link as it is now, ``"pcie4x16"``; others may have changed it (``simgpu link``)."""
    generation, width = _C.link()
    return f"pcie{generation}x{width}"


def driver_version() -> str:
    """What times hang on, in place of a driver's version: the profile, the rates of the link, and the host."""
    played = _now_played()
    model, way, host = played.profile, played.link, played.host
    told = repr((model, way, host))
    return f"simgpu {model.key} {hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _speeds(model: Profile, way: Link, host: Host) -> _C.Speeds:
    speeds = _C.Speeds()
    speeds.card = _C.Processor(
        [model.flops_per_second(kind) for kind in _KINDS], model.bytes_per_second, model.launch_ns
    )
    speeds.cpu = _C.Processor(
        [host.flops_per_second(kind) for kind in _KINDS], host.bytes_per_second, host.operation_ns
    )
    per_lane = [profile.pinned_per_lane(generation) for generation in range(_GENERATIONS)]
    per_lane[way.generation] = way.pinned // way.width  # the same, unless the link is one of the caller's own
    speeds.pinned_per_lane = per_lane
    speeds.pageable, speeds.latency = way.pageable, way.latency_ns
    speeds.operation, speeds.view, speeds.driver = host.operation_ns, host.view_ns, host.driver_ns
    speeds.copy, speeds.event = host.copy_ns, host.event_ns
    return speeds


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
    major: int
    minor: int


def get_device_name(device: Device = None) -> str:
    """``"Simulated NVIDIA GeForce RTX 3060"``."""
    check(device)
    return f"Simulated {_now_played().profile.name}"


def get_device_properties(device: Device = None) -> DeviceProperties:
    """Name, memory in bytes, UUID and compute capability of the card."""
    major, minor = _now_played().profile.compute_capability
    return DeviceProperties(
        name=get_device_name(device), total_memory=_C.capacity(), uuid=_now_played().uuid, major=major, minor=minor
    )


def get_device_capability(device: Device = None) -> tuple[int, int]:
    """The compute capability of the card that is played."""
    check(device)
    return _now_played().profile.compute_capability


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The types that autocast may cast to."""
    return [torch.float16, torch.bfloat16]


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Always."""
    return True
