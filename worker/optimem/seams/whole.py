"""Work that Ctrl-C must not cut in two.

Python runs signal handlers in the main thread alone, so such work runs in another thread. A caller that is interrupted while
it waits leaves the work running. It starts and waits with what the interpreter itself has: a signal handler that raises
within the Python code of `threading` leaves its locks in disorder.
"""

from __future__ import annotations

import _thread
import queue
from collections.abc import Callable


class Whole:
    """Runs one piece of work after the other, each to its end."""

    def __init__(self) -> None:
        self._latest: _Work | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Run `work` and raise its error."""
        self._latest = latest = _Work(work)
        _thread.start_new_thread(latest.run, ())
        latest.wait()
        if latest.error is not None:
            raise latest.error

    def settle(self) -> None:
        """Wait for work that was left running. Work that has not begun never will."""
        if self._latest is not None and not self._latest.claim():
            self._latest.wait()
        self._latest = None


class _Work:
    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._claims = [True]
        self._over = False
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # rung after that
        self.error: BaseException | None = None

    def claim(self) -> bool:
        """Tell whether the caller is the first to ask."""
        try:
            return self._claims.pop()
        except IndexError:
            return False

    def wait(self) -> None:
        """Wait until it is over."""
        while not self._over:
            self._bell.get()

    def run(self) -> None:
        try:
            if self.claim():
                self._work()
        except BaseException as error:
            self.error = error
        finally:
            self._over = True
            self._bell.put(None)
