"""Profiles: what a real card, a link and a host can do, read from JSON beside this file or from one of your own.

Peaks are the published ones; two factors per card say which part of them work reaches, and nothing is tuned to a model.
This module knows figures only: no torch, no card, no time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_CARDS = _HERE / "profiles"
_LARGEST_FILE = 1 << 20  # bytes; the built-in ones are a few thousand
_WIDTHS = (1, 2, 4, 8, 16)
_KINDS = ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8")
_OPTIONAL_KINDS = frozenset({"tf32", "fp8"})
_HOST_KINDS = ("fp64", "fp32", "bf16")
_INSTEAD = {"tf32": "fp32", "fp8": "fp16"}  # what a card without a unit for it computes in
_HOST_INSTEAD = {"fp16": "fp32", "tf32": "fp32", "fp8": "fp32", "int8": "fp32"}


@dataclass(frozen=True)
class Link:
    """What joins host and card. Rates are in bytes per second, one direction."""

    generation: int
    width: int
    pinned: int
    pageable: int
    latency_ns: int

    def __str__(self) -> str:
        return f"pcie{self.generation}x{self.width}"


@dataclass(frozen=True)
class Efficiency:
    """Which part of a published peak work reaches; above 0, up to 1."""

    compute: float
    memory: float


@dataclass(frozen=True)
class Host:
    """A host: operations and bytes per second at peak, and what calls cost it, in nanoseconds."""

    key: str
    name: str
    flops: Mapping[str, int]
    memory_bytes_per_second: int
    efficiency: Efficiency
    operation_ns: int  # one PyTorch call: Python, dispatcher and driver
    copy_ns: int
    event_ns: int
    view_ns: int
    driver_ns: int  # the driver's part of an operation
    sources: Mapping[str, str]

    def flops_per_second(self, kind: str) -> float:
        """What it reaches in `kind` (``fp32``, ...)."""
        return _rate(self.flops, kind, _HOST_INSTEAD, self.key) * self.efficiency.compute

    @property
    def bytes_per_second(self) -> float:
        """What its memory reaches."""
        return self.memory_bytes_per_second * self.efficiency.memory


@dataclass(frozen=True)
class Profile:
    """A card: bytes, operations and bytes per second at peak, nanoseconds."""

    key: str
    name: str
    memory_bytes: int
    memory_bytes_per_second: int
    flops: Mapping[str, int]
    efficiency: Efficiency
    launch_ns: int
    link: Link  # the fastest that the card can
    power_limit_mw: int
    compute_capability: tuple[int, int]
    sources: Mapping[str, str]

    def flops_per_second(self, kind: str) -> float:
        """What it reaches in `kind` (``fp16``, ``tf32``, ...); without a unit for it as fp32, fp8 as fp16."""
        return _rate(self.flops, kind, _INSTEAD, self.key) * self.efficiency.compute

    @property
    def bytes_per_second(self) -> float:
        """What its memory reaches."""
        return self.memory_bytes_per_second * self.efficiency.memory


def names() -> list[str]:
    """The cards that are built in."""
    return sorted(path.stem for path in _CARDS.glob("*.json"))


def host_names() -> list[str]:
    """The hosts that are built in."""
    return sorted(_read(_HERE / "hosts.json"))


def load(name_or_path: str) -> Profile:
    """The card of that name, or the one that a file describes (a path ends in ``.json``).

    ``ValueError`` names the file, the field, its value and what is accepted, or the names that are known.
    """
    text = str(name_or_path)
    if text.endswith(".json"):
        return _profile(Path(text))
    if text not in names():
        raise ValueError(
            f"{_shown(text)} is not a profile: known are {', '.join(names())}, or give the path of a .json file"
        )
    return _profile(_CARDS / f"{text}.json")


def load_host(name: str) -> Host:
    """The host of that name; ``ValueError`` lists the names that are known."""
    path = _HERE / "hosts.json"
    hosts = _read(path)
    if name not in hosts:
        raise ValueError(f"{_shown(name)} is not a host profile: known are {', '.join(sorted(hosts))}")
    return _host(name, _Fields(f"{path}: {name}", hosts[name]))


def link(text: str, *, profile: Profile | None = None) -> Link:
    """The link that ``pcie4x16``, ``pcie4`` or ``x4`` means.

    What is left out is taken from `profile`, and a link faster than that card can is refused; without a profile both
    must be there. ``ValueError`` says what is accepted.
    """
    match = re.fullmatch(r"(?:pcie(\d{1,2}))?(?:x(\d{1,2}))?", text.strip().lower(), re.ASCII) if text.strip() else None
    if match is None:
        raise ValueError(f"link {_shown(text)} is not understood: give pcie4x16, pcie4 or x4")
    if profile is None and not (match[1] and match[2]):
        raise ValueError(f"link {_shown(text)} needs a card for what it leaves out: give both, as in pcie4x16")
    generation = int(match[1] or (profile.link.generation if profile else 0))
    width = int(match[2] or (profile.link.width if profile else 0))
    made = _link(generation, width, f"link {_shown(text)}")
    if profile and (generation > profile.link.generation or width > profile.link.width):
        raise ValueError(f"link {_shown(text)} is more than the card {profile.key} can: up to {profile.link}")
    return made


def pinned_per_lane(generation: int) -> int:
    """Bytes per second that a lane of that PCIe generation carries from pinned memory; of a generation that nobody
    measured the nearest one."""
    per_lane = _Fields(str(_HERE / "links.json"), _read(_HERE / "links.json")).part("per_lane")
    nearest = min(per_lane.names(), key=lambda key: abs(int(key) - generation))
    return per_lane.whole(nearest, most=10**12)


def _rate(flops: Mapping[str, int], kind: str, instead: Mapping[str, str], owner: str) -> int:
    found = flops.get(kind) or flops.get(instead.get(kind, ""))
    if found is None:
        raise ValueError(f"{kind!r} is not a kind of number that {owner} computes with: {', '.join(flops)}")
    return found


def _link(generation: int, width: int, where: str) -> Link:
    path = _HERE / "links.json"
    measured = _Fields(str(path), _read(path))
    per_lane = measured.part("per_lane")
    generations = sorted(int(key) for key in per_lane.names())
    if generation not in generations:
        raise ValueError(f"{where}: generation {generation} is not known: {_one_of(generations)}")
    if width not in _WIDTHS:
        raise ValueError(f"{where}: width {width} is not accepted: {_one_of(_WIDTHS)} lanes")
    return Link(
        generation=generation,
        width=width,
        pinned=per_lane.whole(str(generation), most=10**12) * width,
        pageable=measured.whole("pageable_bytes_per_second", most=10**13),
        latency_ns=measured.whole("latency_ns", least=0, most=10**9),
    )


def _profile(path: Path) -> Profile:
    fields = _Fields(str(path), _read(path))
    fields.only(
        *("name", "memory_bytes", "memory_bytes_per_second", "flops", "efficiency", "launch_ns", "link"),
        *("power_limit_mw", "compute_capability", "sources"),
    )
    lanes = fields.part("link").only("generation", "width")
    return Profile(
        key=path.stem,
        name=fields.text("name"),
        memory_bytes=fields.whole("memory_bytes", most=1 << 50),
        memory_bytes_per_second=fields.whole("memory_bytes_per_second", most=10**15),
        flops=_flops(fields.part("flops"), _KINDS, _OPTIONAL_KINDS),
        efficiency=_efficiency(fields.part("efficiency")),
        launch_ns=fields.whole("launch_ns", least=0, most=10**9),
        link=_link(lanes.whole("generation", most=99), lanes.whole("width", most=99), f"{path}: link"),
        power_limit_mw=fields.whole("power_limit_mw", most=10**8),
        compute_capability=fields.pair("compute_capability", most=99),
        sources=fields.texts("sources"),
    )


def _host(key: str, fields: _Fields) -> Host:
    fields.only(
        *("name", "flops", "memory_bytes_per_second", "efficiency", "operation_ns", "copy_ns", "event_ns", "view_ns"),
        *("driver_ns", "sources"),
    )
    return Host(
        key=key,
        name=fields.text("name"),
        flops=_flops(fields.part("flops"), _HOST_KINDS, frozenset()),
        memory_bytes_per_second=fields.whole("memory_bytes_per_second", most=10**15),
        efficiency=_efficiency(fields.part("efficiency")),
        operation_ns=fields.whole("operation_ns", least=0, most=10**9),
        copy_ns=fields.whole("copy_ns", least=0, most=10**9),
        event_ns=fields.whole("event_ns", least=0, most=10**9),
        view_ns=fields.whole("view_ns", least=0, most=10**9),
        driver_ns=fields.whole("driver_ns", least=0, most=10**9),
        sources=fields.texts("sources"),
    )


def _flops(fields: _Fields, kinds: tuple[str, ...], optional: frozenset[str]) -> dict[str, int]:
    fields.only(*kinds)
    return {kind: fields.whole(kind, most=10**19) for kind in kinds if kind not in optional or fields.has(kind)}


def _efficiency(fields: _Fields) -> Efficiency:
    fields.only("compute", "memory")
    return Efficiency(compute=fields.fraction("compute"), memory=fields.fraction("memory"))


class _Fields:
    """An object of a JSON file, read field by field; every error says where."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: {_shown(value)} is not accepted: an object with named fields")
        self._where = where
        self._fields: dict[str, object] = value

    def names(self) -> list[str]:
        return list(self._fields)

    def has(self, field: str) -> bool:
        return field in self._fields

    def only(self, *known: str) -> _Fields:
        for field in self._fields:
            if field not in known:
                raise ValueError(f"{self._where}: field {_shown(field)} is not known: {', '.join(known)}")
        return self

    def part(self, field: str) -> _Fields:
        return _Fields(f"{self._where}: {field}", self._take(field))

    def text(self, field: str) -> str:
        return str(self._checked(field, _is_text, "a text of 1 to 90 printable characters"))

    def texts(self, field: str) -> dict[str, str]:
        """An object of texts; where it is left out, an empty one."""
        if field not in self._fields:
            return {}
        part = self.part(field)
        return {name: part._checked(name, _is_remark, "a text") for name in part.names()}

    def whole(self, field: str, *, most: int, least: int = 1) -> int:
        return int(self._checked(field, lambda v: _is_whole(v, least, most), f"a whole number from {least} to {most}"))

    def fraction(self, field: str) -> float:
        return float(self._checked(field, lambda v: _is_number(v) and 0 < v <= 1, "a number above 0, up to 1"))

    def pair(self, field: str, *, most: int) -> tuple[int, int]:
        major, minor = self._checked(
            field, lambda v: _is_pair(v, most), f"two whole numbers from 0 to {most}, as in [8, 6]"
        )
        return int(major), int(minor)

    def _take(self, field: str) -> object:
        if field not in self._fields:
            raise ValueError(
                f"{self._where}: field {field!r} is missing; there are {', '.join(self._fields) or 'none'}"
            )
        return self._fields[field]

    def _checked(self, field: str, right: Callable[[Any], bool], accepted: str) -> Any:
        value = self._take(field)
        if not right(value):
            raise ValueError(f"{self._where}: {field} = {_shown(value)} is not accepted: {accepted}")
        return value


def _read(path: Path) -> dict[str, object]:
    """The object in a file; ``ValueError`` names the file and says what is wrong with it."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(raw) > _LARGEST_FILE:
        raise ValueError(f"{path}: more than {_LARGEST_FILE} bytes: a profile is a small JSON file")
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file in UTF-8: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: {_shown(found)} is not accepted: an object with named fields")
    return found


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError(f"a field is there twice in {{{', '.join(name for name, _ in pairs)}}}"[:200])
    return made


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
    )


def _is_whole(value: Any, least: int, most: int) -> bool:
    return _is_number(value) and least <= value <= most and value == int(value)


def _is_pair(value: Any, most: int) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_whole(number, 0, most) for number in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 90 and value.isprintable() and not value.isspace()


def _is_remark(value: Any) -> bool:
    return isinstance(value, str) and not value.isspace() and value != ""


def _one_of(values: list[int] | tuple[int, ...]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python prints
        text = "a number of very many digits"
    return text if len(text) <= 60 else text[:57] + "..."
