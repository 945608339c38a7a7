"""One forward at a time: a lock that its holder may enter again, and that outlives an interrupted forward no longer than
the forward itself.

Torch runs no exit hook after Ctrl-C, so a forward can end without letting go. The gate therefore remembers the frame of the
call that holds it; when that frame runs no more, the hold is stale and the next caller takes over. A Ctrl-C may come within
the gate too: who holds it is written at once, and whatever else is left half done costs the next caller some patience.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType

from ..errors import BadInput
from .frames import is_ours

_PATIENCE_S = 0.5  # how often a waiting thread checks whether the holder still runs
_DETACH_LOOKS = 10  # after so many, a holder that waits for some thread is taken to wait for the one that detaches


class Gate:
    """Held from the entry of the outermost call to its exit. Calls inside are not counted, but for those of the module
    that was called outermost, which may call itself."""

    def __init__(self) -> None:
        self._claims = threading.RLock()  # held for moments, by whoever changes who holds the gate
        self._taken = threading.Lock()  # locked while somebody does: what other threads wait for
        self._owner = 0
        self._frame: FrameType | None = None
        self._path = ""
        self._below = ""  # what the paths of modules in the one that was called outermost begin with
        self._depth = 0

    def enter(self, path: str, frame: FrameType) -> bool:
        """Enter with the call of the module at `path`, made by `frame`; wait while another thread holds the gate. Return
        True if this call is the outermost one.

        Only calls that the holder does not make by itself look whether it is stale: the root's, and those outside of the
        module that was called outermost. So where the root's forward was interrupted, and a module of it is called next,
        that call counts as one of the interrupted forward.

        Raises BadInput where the holder waits for the calling thread: a module was called from a side thread of the forward.
        """
        if self._owner == threading.get_ident() and not ((self._path or not path) and self._is_apart(path) and self.stale()):
            self._depth += path == self._path
            return False
        while not self._claim(path, frame):
            if not self._wait() and path and self._holder_waits():
                raise BadInput(
                    "a module was called from a thread for which the model's own forward waits; Optimem follows a "
                    "forward in one thread: call the module in that one, or optimem.detach(model) first"
                )
        return True

    def enter_to_detach(self, frame: FrameType) -> None:
        """Enter as a call of the root would; `leave` it as such. Inside of a forward of this thread too.

        Raises BadInput where the holder seems to wait for the calling thread.
        """
        looks = 0
        if self._owner == threading.get_ident() and not self.stale():
            self._depth += not self._path
            return
        while not self._claim("", frame):
            looks = looks + 1 if not self._wait() and self._holder_waits() else 0
            if looks >= _DETACH_LOOKS:
                raise BadInput(
                    "optimem.detach was called from a thread for which the model's own forward seems to wait; call it in "
                    "the thread that runs the forward, or when that is over"
                )

    def is_inside(self, path: str) -> bool:
        """Tell whether a call of the module at `path` is one that is not counted."""
        if self._owner != threading.get_ident() or path == self._path:
            return False
        return not (self._path and self._is_apart(path) and self.stale())

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
        with self._claims:
            self._owner, self._frame = 0, None
            if self._taken.locked():
                self._taken.release()

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

    def _claim(self, path: str, frame: FrameType) -> bool:
        """Take the gate if nobody holds it, or nobody any more."""
        with self._claims:
            if self._owner and not self.stale():
                return False
            self._frame, self._path, self._below, self._depth = frame, path, f"{path}." if path else "", 1
            self._owner = threading.get_ident()
            self._taken.acquire(blocking=False)
        return True

    def _wait(self) -> bool:
        """Wait until the gate may be free; return False where patience ends first."""
        return self._taken.acquire(timeout=_PATIENCE_S)  # and stays locked: who comes first, claims

    def _is_apart(self, path: str) -> bool:
        """Tell whether the module at `path` is not in the one that was called outermost."""
        return not path or not path.startswith(self._below)

    def _holder_waits(self) -> bool:
        """Tell whether the model's code waits for another thread in the call that holds the gate."""
        frame = sys._current_frames().get(self._owner)
        waits = frame is not None and frame.f_code.co_filename == threading.__file__
        while frame is not None and frame is not self._frame:
            waits = waits and not is_ours(frame)  # we wait for plans ourselves
            frame = frame.f_back
        return waits and frame is not None
