"""Measurements of earlier runs, kept in the user's cache: the link of a card, and the step times of models on it.

One JSON file per card, driver and link (docs/architecture.md, "What is kept between runs"). Files come from outside, so
every figure is checked on the way in; a wrong or impossible one is as good as absent. The folder may hold files of others:
only files with names of our own are read, replaced or deleted. If two processes write a file at once, one of the two stays.
Nothing here is worth an error: if the cache cannot be used, everything is measured again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from ..card.device import Device
from ..data import moving
from ..wire.protocol import Manifest
from .calibrate import Link

log = logging.getLogger("optimem")

_VERSION = 1
_MOST_BYTES = 4 << 20  # of a file
_MOST_CARDS, _MOST_MODELS = 32, 16
_MOST_STEPS = 1 << 16
_AGE_S = 30 * 24 * 3600  # a link may have been measured while others used it
_ROOM = 32 << 20  # bytes to measure with; more make a link no better
_OURS = re.compile(r"optimem-[0-9a-f]{32}\.json|\.optimem-\w{8}\.tmp")  # names that nothing but this module makes

# What is possible at all: a copy begins within a tenth of a second, and no RAM is read at 10 TB/s.
_LATENCY_NS, _RATE = (0, 10**8), (10**6, 10**13)
_STEP_NS, _BYTES, _SECONDS = (0, 10**13), (0, 1 << 50), (0, 1 << 40)
# What is possible for a forward that has just been recorded: the same steps took no more than that.
_SLOWER, _LEAST_NS = 100, 10**6  # times as long in all; the recording's resolution in ns
_LARGER, _LEAST_BYTES = 4, 256 << 20  # times the largest step; what libraries may reserve for work of their own, in bytes


@dataclass(frozen=True)
class KeptSteps:
    """The steps of a model's forward: ns of compute, and device bytes that are not weights."""

    compute_ns: list[int]
    activations: list[int]


def kept_link(device: Device, kind: str, room: int, measure: Callable[[], Link]) -> Link:
    """Return the link as measured in an earlier run, else as `measure` finds it now, which is kept.

    `kind` names the memory at its host end, `room` is the bytes to measure with: a link that was measured with less than
    that, and with less than `_ROOM`, is measured again.
    """
    shelf, most = _Shelf(device), _card_bytes(device)
    known = shelf.read().get("links", {}).get(kind)
    link = _link(known, min(room, _ROOM), most)
    if link is None:
        link = measure()
        if _link([*astuple(link), room, _now()], 0, most) is not None:
            shelf.change(lambda card: card["links"].update({kind: [*astuple(link), room, _now()]}))
    return link


def model_key(manifest: Manifest, inputs: Any) -> str:
    """Return a digest of all that step times depend on: the model's units, readers and steps, how it is paged, the shapes
    and dtypes of its inputs, and torch's version."""
    shapes = [(str(tensor.dtype), tuple(tensor.shape)) for tensor in moving.tensors(inputs)]
    return _digest(repr((manifest, shapes, str(torch.__version__))))


def recall(device: Device, key: str, recorded: KeptSteps) -> KeptSteps | None:
    """Return the kept times of a model on this card; None if there are none, and for times that are impossible for a forward
    that was `recorded` just now."""
    entry = _Shelf(device).read().get("models", {}).get(key)
    if not isinstance(entry, list) or len(entry) != 3 or not _is_within(entry[2], (0, _now())):
        return None
    count = len(recorded.compute_ns)
    most = min(_card_bytes(device), _LARGER * max(recorded.activations, default=0) + _LEAST_BYTES)
    compute, activations = _numbers(entry[0], count, _STEP_NS), _numbers(entry[1], count, (0, most))
    if compute is None or activations is None:
        return None
    if sum(compute) > _SLOWER * max(sum(recorded.compute_ns), _LEAST_NS):
        return None
    return KeptSteps(compute, activations)


def remember(device: Device, key: str, steps: KeptSteps) -> None:
    """Keep the step times of a model; the oldest ones make room. Writes a file."""

    def put(card: dict[str, Any]) -> None:
        models = card["models"]
        models.pop(key, None)
        models[key] = [steps.compute_ns, steps.activations, _now()]
        for old in list(models)[: len(models) - _MOST_MODELS]:
            del models[old]

    if len(steps.compute_ns) <= _MOST_STEPS:
        _Shelf(device).change(put)


def directory() -> Path | None:
    """Return where files are kept: $OPTIMEM_CACHE, else optimem/ in the user's cache. None if $OPTIMEM_CACHE is empty, which
    switches keeping off, or if there is no home directory."""
    named = os.environ.get("OPTIMEM_CACHE")
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "optimem"
    except RuntimeError:
        return None


class _Shelf:
    """The file of one card."""

    def __init__(self, device: Device) -> None:
        uuid = device.uuid() or f"{platform.node()} {device.torch}"
        self._card = [uuid, device.name(), device.driver(), device.link()]
        where = directory()
        self._path = where / f"optimem-{_digest(repr(self._card))}.json" if where else None

    def read(self) -> dict[str, Any]:
        """Return the file's parts; empty if there is no file that can be trusted."""
        if self._path is None:
            return {}
        try:
            told = json.loads(_own_file(self._path))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.debug("optimem: %s is ignored: %s", self._path, error)
            return {}
        if not _is_ours(told, self._card):
            log.debug("optimem: %s is ignored: it is not of this version, or of another card", self._path)
            return {}
        return dict(told)

    def change(self, how: Callable[[dict[str, Any]], None]) -> None:
        """Apply `how` to the file's parts and write it."""
        if self._path is None:
            return
        card = self.read() or {"version": _VERSION, "card": self._card, "links": {}, "models": {}}
        how(card)
        text = json.dumps(card, separators=(",", ":"))
        while len(text) > _MOST_BYTES and card["models"]:
            del card["models"][next(iter(card["models"]))]
            text = json.dumps(card, separators=(",", ":"))
        try:
            _write(self._path, text)
        except OSError as error:
            log.debug("optimem: nothing is kept for the next run: %s", error)


def _own_file(path: Path) -> str:
    """Read a file that only we can have written. Raises OSError or ValueError."""
    _check_owner(os.stat(path.parent))
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        _check_owner(about)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST_BYTES:
            raise ValueError("not a file, or too large")
        return file.read(_MOST_BYTES + 1).decode()


def _check_owner(about: os.stat_result) -> None:
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o022):
        raise ValueError("others own it or may write to it")


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, readable by nobody else. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".optimem-", suffix=".tmp", dir=path.parent)  # mode 0600
    try:
        with open(handle, "w") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _drop_oldest(path.parent)


def _drop_oldest(where: Path) -> None:
    """Keep those of our files that were written last. Half-written ones of interrupted runs count too."""
    files = sorted((file for file in where.iterdir() if _OURS.fullmatch(file.name)), key=_written, reverse=True)
    for file in files[_MOST_CARDS:]:
        file.unlink(missing_ok=True)


def _written(file: Path) -> float:
    try:
        return file.lstat().st_mtime
    except OSError:  # another process has deleted it
        return 0


def _is_ours(told: Any, card: list[str]) -> bool:
    if not isinstance(told, dict) or told.get("version") != _VERSION or told.get("card") != card:
        return False
    return isinstance(told.get("links"), dict) and isinstance(told.get("models"), dict)


def _link(told: Any, room: int, most: int) -> Link | None:
    """Return a kept link (latency, rate, bytes it was measured with, when), if it is fresh, was measured with `most` bytes
    at most, and `room` is not larger."""
    if not isinstance(told, list) or len(told) != 4:
        return None
    if not all(map(_is_within, told, (_LATENCY_NS, _RATE, (0, most), _SECONDS))):
        return None
    fresh = 0 <= _now() - told[3] < _AGE_S
    return Link(told[0], told[1]) if fresh and told[2] >= room else None


def _card_bytes(device: Device) -> int:
    """Return how many bytes the card has; where it does not tell, more than any card has."""
    return device.memory()[1] or _BYTES[1]


def _numbers(told: Any, count: int, limits: tuple[int, int]) -> list[int] | None:
    if not isinstance(told, list) or len(told) != count:
        return None
    return told if all(_is_within(number, limits) for number in told) else None


def _is_within(number: Any, limits: Sequence[int]) -> bool:
    return type(number) is int and limits[0] <= number <= limits[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _now() -> int:
    return int(time.time())
