"""One forward at a time: a lock that its holder may enter again, and that does not outlive an interrupted forward.

Torch runs no exit hook after Ctrl-C, so a forward can end without leaving the gate. The gate therefore remembers the frame
of the call that holds it. When that frame runs no more, the hold is stale and the next caller takes over. A Ctrl-C may come
within the gate too: the owner is written in one step, and anything else left half done costs the next caller some patience.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType

from ..errors import BadInput
from .frames import is_ours

_PATIENCE_S = 0.5  # how often a waiting thread checks whether the holder still runs
_DETACH_LOOKS = 10  # checks after which a holder that waits for some thread is taken to wait for the detaching one


class Gate:
    """Held from the entry of the outermost call to its exit. Calls inside are not counted, except those of the outermost
    module, which may call itself."""

    def __init__(self) -> None:
        self._claims = threading.RLock()  # held briefly, to change the holder
        self._taken = threading.Lock()  # locked while the gate is held; other threads wait for it
        self._owner = 0
        self._frame: FrameType | None = None
        self._path = ""
        self._depth = 0

    def enter(self, path: str, frame: FrameType) -> bool:
        """Enter with a call of the module at `path`, made by `frame`; wait while another thread holds the gate. Return True
        if this call is the outermost one.

        Raises BadInput if the holder waits for the calling thread: a side thread of the forward has called a module.
        """
        if self._owner == threading.get_ident() and not self.stale():
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
        """Enter as a call of the root; `leave` it as such. Works inside a forward of this thread too.

        Raises BadInput if the holder seems to wait for the calling thread.
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
        """Tell whether a call of the module at `path` is inside the outermost call, uncounted."""
        return self._owner == threading.get_ident() and path != self._path and not self.stale()

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
        """Tell whether the call that holds the gate has ended without leaving. Its frame is cleared then: a frame that still
        runs refuses to be, which is the one quick way to tell."""
        try:
            if self._frame is None:
                return False
            self._frame.clear()
        except RuntimeError:
            return False
        return True

    def _claim(self, path: str, frame: FrameType) -> bool:
        """Take the gate if nobody holds it, or the hold is stale."""
        with self._claims:
            if self._owner and not self.stale():
                return False
            self._frame, self._path, self._depth = frame, path, 1
            self._owner = threading.get_ident()
            self._taken.acquire(blocking=False)
        return True

    def _wait(self) -> bool:
        """Wait until the gate may be free; return False if patience ends first."""
        return self._taken.acquire(timeout=_PATIENCE_S)  # and leave it locked for the claim

    def _holder_waits(self) -> bool:
        """Tell whether the call that holds the gate waits for another thread, in the model's code."""
        frame = sys._current_frames().get(self._owner)
        waits = frame is not None and frame.f_code.co_filename == threading.__file__
        while frame is not None and frame is not self._frame:
            waits = waits and not is_ours(frame)  # our own waits are for plans
            frame = frame.f_back
        return waits and frame is not None
