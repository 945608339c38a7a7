"""Our modes on torch's stacks. Each thread has stacks of its own, and only the thread can take a mode off.

After Ctrl-C a mode stays on its stack. So a mode whose forward is over lets all calls pass, and is taken off when its thread
next calls us.
"""

from __future__ import annotations

import sys
import threading
import weakref
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from .frames import is_ours

left_behind: set[int] = set()  # threads whose stacks may hold modes of ours that are over


class Ours:
    """Base of our modes. A mode lasts no longer than `owner`, and does not keep it alive."""

    def __init__(self, owner: Any) -> None:
        super().__init__()
        self._thread = thread = threading.get_ident()
        self._owner = weakref.ref(owner, lambda gone: left_behind.add(thread))
        self._over = False

    def owner(self) -> Any:
        """Return the owner; None once the mode lets all calls pass."""
        return None if self._over else self._owner()

    def end(self) -> None:
        """Let all calls pass from now on, and leave this thread's stack unless a mode of others lies on top. Idempotent."""
        if not self._over:
            self._over = True
            left_behind.add(self._thread)
        if threading.get_ident() in left_behind:
            sweep()


def sweep() -> None:
    """Take modes that are over off this thread's stacks, unless modes of others lie on top."""
    me = threading.get_ident()
    left_behind.discard(me)
    for stack_now in (torch.overrides._get_current_function_mode_stack, _get_current_dispatch_mode_stack):
        while (stack := stack_now()) and _is_over(stack[-1]):
            stack.pop().__exit__(None, None, None)
        if any(map(_is_over, stack)):
            left_behind.add(me)


def _is_over(mode: object) -> bool:
    return isinstance(mode, Ours) and mode.owner() is None


class Stay:
    """The nearest call on the stack that is not ours, when this is made."""

    def __init__(self) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and is_ours(frame):
            frame = frame.f_back
        self._frame = frame

    def lasts(self) -> bool:
        """Tell whether that call still runs. Only for its own thread."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None
