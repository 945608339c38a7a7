"""What a plan's placements mean to the worker: one table, a row for each."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ControllerError


@dataclass(frozen=True)
class Placement:
    """Where a page lives and computes. `resident`: its bytes stay on the device. `streamed`: they take turns in the arena.
    `on_cpu`: its readers compute on the CPU. `read`: forwards read it."""

    name: str
    resident: bool = False
    streamed: bool = False
    on_cpu: bool = False
    read: bool = True

    @property
    def moves(self) -> bool:
        """True where the page is copied to the device as one."""
        return self.resident or self.streamed


_TABLE = (
    Placement("resident", resident=True),
    Placement("streamed", streamed=True),
    Placement("cpu", on_cpu=True),
    Placement("unread", read=False),
)
_BY_NAME = {placement.name: placement for placement in _TABLE}


def placement_of(name: str) -> Placement:
    """Return the placement that is called `name` on the wire. Raises ControllerError for one that is not in the table."""
    placement = _BY_NAME.get(name)
    if placement is None:
        known = ", ".join(_BY_NAME)
        raise ControllerError(f"the plan places a page as {name!r}, and this worker knows {known}: are both of one version?")
    return placement
