"""What a forked child lets go of: connections and children of this process stay its own."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """Something that a forked child has a copy of and must not use."""

    def leave_to_parent(self) -> None:
        """Let go of it in the child, where no other thread runs. The parent must not notice."""


_inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()


def note(thing: Inherited) -> None:
    """Have `thing` left to the parent in every child that this process forks."""
    _inherited.add(thing)


def _leave_all() -> None:
    for thing in list(_inherited):
        thing.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
