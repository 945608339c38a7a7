"""A question about a model in the planner's words, and its answer as a value.

This file knows no model and no device, only figures. `respond` carries question and answer; `docs/contract.md` has their
spelling.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ..wire import protocol
from . import respond as planner


@dataclass(frozen=True)
class PlannedPage:
    """A run of units that would move as one copy."""

    units: tuple[str, ...]  # dotted paths, in the order in which they lie in the page
    bytes: int
    placement: str  # "resident", "streamed", "cpu", "unread"


@dataclass(frozen=True)
class Point:
    """The plan of another budget. `missing_bytes` is how many bytes it is short of the least that works, 0 if it works; the
    times are 0 if it does not."""

    budget_bytes: int
    period_ns: int
    bound_ns: int
    missing_bytes: int


@dataclass(frozen=True)
class Plan:
    """The planner's answer. Sizes are bytes; times are nanoseconds, 0 if not known.

    `str(plan)` is one sentence.
    """

    mode: str
    period_ns: int  # of one forward, back to back
    bound_ns: int  # no schedule within the budget takes less
    gap: float  # period / bound - 1
    first_forward_ns: int
    weights_bytes: int
    resident_bytes: int  # of those, on the device for good
    arena_bytes: int  # in which the others take turns
    budget_bytes: int  # that weights may take; residents and arena lie within it
    reserve_bytes: int  # left to activations
    pages: tuple[PlannedPage, ...] = field(repr=False)
    bottleneck: str  # "compute", "link", "memory", "cpu", "unknown"
    estimated: bool  # times are not measured on this device
    notes: tuple[str, ...]
    curve: tuple[Point, ...] = field(repr=False)
    json: str = field(repr=False)  # the planner's answer as it came

    def __str__(self) -> str:
        """Say the figures in one line: 12.4 ms per forward, 2.1 % above what this link and 2.0 GiB allow; 1.5 GiB of ..."""
        text = f"{_time(self.period_ns)} per forward" if self.period_ns else "nobody knows how long a forward takes"
        if self.bound_ns:
            text += f", {100 * self.gap:.1f} % above what this link and {_size(self.budget_bytes)} allow"
        text += (
            f"; {_size(self.resident_bytes)} of {_size(self.weights_bytes)} resident, an arena of {_size(self.arena_bytes)}"
        )
        return text + (" (estimated)" if self.estimated else "")


@dataclass(frozen=True)
class Question:
    """Assumptions for the planner. An empty text or 0 leaves one to the planner."""

    wish: protocol.Wish
    free_bytes: int = 0  # device bytes; 0: as many as the wish says
    link: str = ""
    curve: tuple[str, ...] | None = None  # budgets for weights alone; None: around the plan's own


def ask(manifest: protocol.Manifest, times: protocol.Measured | None, question: Question) -> Plan:
    """Return the planner's answer. Raises the errors of `respond.respond`."""
    return read(planner.respond(request(manifest, times, question)))


def request(manifest: protocol.Manifest, times: protocol.Measured | None, question: Question) -> str:
    """Return the question as JSON text. Unknown figures are left out."""
    parts = {
        "manifest": _recorded(manifest, times, question.wish.mode) if manifest.recorded else _registered(manifest),
        "machine": _known(free_bytes=question.free_bytes, link=_link(times)),
        "options": _known(
            mode=question.wish.mode,
            vram=question.wish.vram,
            link=question.link,
            max_layer_size=question.wish.max_layer_size,
            max_capacity=question.wish.max_capacity,
        ),
    }
    if question.curve is not None:
        parts["options"]["curve"] = list(question.curve)
    return json.dumps(parts, separators=(",", ":"))


def read(answer: str) -> Plan:
    """Return the planner's answer as a value."""
    told = json.loads(answer)
    return Plan(
        mode=told["mode"],
        period_ns=told["period_ns"],
        bound_ns=told["bound_ns"],
        gap=float(told["gap"]),
        first_forward_ns=told["first_forward_ns"],
        weights_bytes=told["weights_bytes"],
        resident_bytes=told["resident_bytes"],
        arena_bytes=told["arena_bytes"],
        budget_bytes=told["budget_bytes"],
        reserve_bytes=told["reserve_bytes"],
        pages=tuple(PlannedPage(tuple(map(str, page["units"])), page["bytes"], page["placement"]) for page in told["pages"]),
        bottleneck=told["bottleneck"],
        estimated=told["estimated"],
        notes=tuple(told["notes"]),
        curve=tuple(Point(**point) for point in told["curve"]),
        json=answer,
    )


def _registered(manifest: protocol.Manifest) -> dict[str, Any]:
    """Return the units alone: the planner assumes that each is read once, in a step of its own."""
    units = [_unit(unit) for unit in manifest.units]
    note = "no forward was recorded: each weight counts once, in the order of registration"
    return {"model": manifest.model, **_kept(manifest), "estimated": True, "notes": [note], "units": units}


def _recorded(manifest: protocol.Manifest, times: protocol.Measured | None, mode: str) -> dict[str, Any]:
    units = [{**_unit(unit), "uses": [[use.first, use.last] for use in unit.uses]} for unit in manifest.units]
    told = {"model": manifest.model, **_kept(manifest), "steps": _steps(manifest.steps, times), "units": units}
    if manifest.wish.mode != mode:
        told["notes"] = [f"the forward was recorded in mode {manifest.wish.mode}, and its times are those of that mode"]
    return told


def _kept(manifest: protocol.Manifest) -> dict[str, int]:
    return _known(kept_bytes=manifest.kept_bytes)


def _unit(unit: protocol.Unit) -> dict[str, Any]:
    return {
        "path": unit.path,
        "kind": unit.kind,
        "bytes": unit.bytes,
        "parameters": unit.parameters,
        "readers": unit.readers,
    }


def _steps(count: int, times: protocol.Measured | None) -> list[dict[str, int]]:
    """Return the known figures of each step."""
    if times is None:
        return [{}] * count
    columns = _known(
        compute_ns=times.step_compute_ns,
        cpu_ns=times.step_cpu_ns,
        activation_bytes=times.step_activations,
        crossing_bytes=times.step_crossings,
    )
    return [{name: column[step] for name, column in columns.items()} for step in range(count)]


def _link(times: protocol.Measured | None) -> dict[str, int]:
    if times is None or not times.link_bytes_per_second:
        return {}
    return {"latency_ns": times.link_latency_ns, "bytes_per_second": times.link_bytes_per_second}


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _time(ns: int) -> str:
    """Write a time as the planner does: 12.4 ms."""
    if ns < 1_000:
        return f"{ns} ns"
    if ns < 1_000_000:
        return f"{ns / 1e3:.1f} us"
    return f"{ns / 1e6:.1f} ms" if ns < 1_000_000_000 else f"{ns / 1e9:.2f} s"


def _size(nbytes: int) -> str:
    """Write a size as the planner does: 2.0 GiB."""
    value, units = float(nbytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{nbytes} B" if units[0] == "B" else f"{value:.1f} {units[0]}"
