"""A controller of our own, for a script that finds none: one `optimemctl` child that ends with this process.

The child ends when its standard input does, so it goes however this process goes. It makes a folder for its socket and
removes it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from ..errors import ControllerError
from . import forks


class _Private:
    """The child, where one was started."""

    def __init__(self) -> None:
        self._changing = threading.RLock()  # which a signal handler may take too
        self._child: subprocess.Popen[bytes] | None = None
        self._path = ""
        forks.note(self)

    def socket(self) -> str:
        """Return the child's socket; start it if it does not run."""
        with self._changing:
            if self._child is None or self._child.poll() is not None:
                self.end()
                self._path, self._child = _start(binary())
            return self._path

    def end(self) -> None:
        """End the child, if one was started. Remove its folder where it was killed. Idempotent."""
        if self._child is None:
            return
        _close_pipes(self._child)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=5)
        shutil.rmtree(Path(self._path).parent, ignore_errors=True)
        self._child = None  # last, so that what is cut short can be done again

    def leave_to_parent(self) -> None:
        """Close this process's ends of the pipes, so that the child ends with the parent."""
        self._changing = threading.RLock()
        child, self._child = self._child, None
        if child is not None:
            child.returncode = 0  # it is the parent's to wait for
            _close_pipes(child)


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for end in (child.stdin, child.stdout):
        assert end is not None
        with contextlib.suppress(OSError):
            end.close()


_private = _Private()
atexit.register(_private.end)  # when this module is imported, so that whoever says goodbye through the child does so before


def socket() -> str:
    """Return the socket of the private controller; start it if it does not run. Raises ControllerError."""
    return _private.socket()


def binary() -> str:
    """Return the path of `optimemctl`: $OPTIMEM_CTL, beside the interpreter, in the source tree, or on the PATH."""
    named = os.environ.get("OPTIMEM_CTL")
    if named:
        return named
    places = [Path(sys.executable).parent / "optimemctl", Path(__file__).resolve().parents[3] / "bin" / "optimemctl"]
    for place in places:
        if os.access(place, os.X_OK):
            return str(place)
    found = shutil.which("optimemctl")
    if found is None:
        looked = ", ".join(map(str, places))
        raise ControllerError(f"optimemctl not found (looked at {looked} and on the PATH); set OPTIMEM_CTL to its path")
    return found


def _start(binary: str) -> tuple[str, subprocess.Popen[bytes]]:
    """Return the socket of a new child, and the child."""
    child = None
    try:
        child = _serve(binary)
        return _where(child, binary), child
    except BaseException:
        if child is not None:
            _close_pipes(child)  # Python keeps them open for a child that nobody waits for
        raise


def _serve(binary: str) -> subprocess.Popen[bytes]:
    command = [binary, "serve", "--private", "--until-eof"]
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    except OSError as error:
        raise ControllerError(f"{binary} cannot be started ({error}); set OPTIMEM_CTL to a working optimemctl") from error


def _where(child: subprocess.Popen[bytes], binary: str) -> str:
    """Return the path that a child says it listens at, once it does."""
    assert child.stdout is not None
    told = os.fsdecode(child.stdout.readline())
    if not told:
        ended = f"{binary} serve ended with exit code {child.wait()} before it listened"
        raise ControllerError(f"{ended}; set OPTIMEM_CTL to the optimemctl of this version")
    return told.removeprefix("listening on ").rstrip("\n")
