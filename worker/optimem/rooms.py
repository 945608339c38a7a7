"""The floor plan of this package: which room may import which others. `tests/worker/test_rooms.py` holds it.

A room is a folder; its promise is the docstring of its `__init__`. Below the line of a room lie the rooms that it may
import. All may import `errors`.
"""

from __future__ import annotations

_RESIDENCY = {"card", "model", "data", "seams", "wire"}
_LEARNING = _RESIDENCY | {"residency"}
_LIFE = _LEARNING | {"learning"}
_FORECAST = _LIFE | {"life"}
_DRIVE = _FORECAST | {"forecast"}

MAY: dict[str, set[str]] = {
    "wire": set(),
    "card": set(),
    "model": set(),
    "data": set(),
    "seams": set(),
    "residency": _RESIDENCY,
    "learning": _LEARNING,
    "life": _LIFE,
    "forecast": _FORECAST,
    "drive": _DRIVE,
}

# Modules of others that a room may not import, by the first part of their names: `wire` is tried without torch.
NEVER: dict[str, set[str]] = {"wire": {"torch"}}
