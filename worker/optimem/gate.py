"""One forward at a time: a lock that its holder may enter again, and that outlives an interrupted forward no longer than
the forward itself.

Torch runs no exit hook after Ctrl-C, so a forward can end without letting go. The gate therefore remembers the frame of the
call that holds it; when that frame runs no more, the hold is stale and the next caller takes over.
"""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType

from .errors import BadInput

_OURS = os.path.dirname(__file__)
_PATIENCE_S = 0.5  # how often a waiting thread checks whether the holder still runs


class Gate:
    """Held from the entry of the outermost call to its exit. Calls inside are not counted, but for those of the module
    that was called outermost, which may call itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._frame: FrameType | None = None
        self._path = ""
        self._depth = 0

    def enter(self, path: str, frame: FrameType) -> bool:
        """Enter with the call of the module at `path`, made by `frame`; wait while another thread holds the gate. Return
        True if this call is the outermost one. Only the root looks whether what holds the gate is stale.

        Raises BadInput where the holder waits for the calling thread: a module was called from a side thread of the forward.
        """
        me = threading.get_ident()
        if self._owner == me and not (path == "" and self.stale()):
            self._depth += path == self._path
            return False
        if self._owner != me:
            while not self._lock.acquire(timeout=_PATIENCE_S):
                if self.stale():
                    break
                if path and self._holder_waits():
                    raise BadInput(
                        "a module was called from a thread for which the model's own forward waits; Optimem follows a "
                        "forward in one thread: call the module in that one, or optimem.detach(model) first"
                    )
        self._owner, self._frame, self._path, self._depth = me, frame, path, 1
        return True

    def is_inside(self, path: str) -> bool:
        """Tell whether a call of the module at `path` is one that is not counted."""
        return self._owner == threading.get_ident() and path != self._path

    def is_last(self, path: str) -> bool:
        """Tell whether `leave` with `path` frees the gate."""
        return self._depth == 1 and path == self._path

    def leave(self, path: str) -> None:
        """Leave the call of the module at `path`."""
        if path != self._path:
            return
        self._depth -= 1
        if self._depth > 0:
            return
        self._owner, self._frame = 0, None
        if self._lock.locked():
            self._lock.release()

    def mine(self) -> bool:
        """Tell whether the calling thread holds the gate."""
        return self._owner == threading.get_ident()

    def stale(self) -> bool:
        """Tell whether the call that holds the gate has ended without leaving."""
        held = self._frame
        frame = sys._current_frames().get(self._owner)
        while frame is not None:
            if frame is held:
                return False
            frame = frame.f_back
        return held is not None

    def _holder_waits(self) -> bool:
        """Tell whether the model's code waits for another thread in the call that holds the gate."""
        frame = sys._current_frames().get(self._owner)
        waits = frame is not None and frame.f_code.co_filename == threading.__file__
        while frame is not None and frame is not self._frame:
            waits = waits and not frame.f_code.co_filename.startswith(_OURS)  # we wait for plans ourselves
            frame = frame.f_back
        return waits and frame is not None
