"""A controller of our own, for a script that finds none: one `optimemctl` child that ends with this process.

The child ends when its standard input does, so it goes however this process goes.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from ..errors import ControllerError

_lock = threading.Lock()
_child: subprocess.Popen[bytes] | None = None
_path = Path()


def socket() -> str:
    """Return the socket of the private controller; start it if it does not run. Raises ControllerError."""
    global _child, _path
    with _lock:
        if _child is None or _child.poll() is not None:
            _end()
            _path = Path(tempfile.mkdtemp(prefix="optimem-")) / "controller.sock"  # mode 0700
            _child = _start(binary(), str(_path))
        return str(_path)


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


def _start(binary: str, path: str) -> subprocess.Popen[bytes]:
    command = [binary, "serve", "--socket", path, "--until-eof"]
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    except OSError as error:
        raise ControllerError(f"{binary} cannot be started ({error}); set OPTIMEM_CTL to a working optimemctl") from error
    assert child.stdout is not None
    if not child.stdout.readline():  # it says where it listens once it does
        raise ControllerError(f"{binary} serve ended with exit code {child.wait()} before it listened on {path}")
    return child


@atexit.register  # when this module is imported, so that whoever says goodbye through the controller does so before
def _end() -> None:
    """End the private controller, if one was started, and remove its directory. Idempotent."""
    global _child
    child, _child = _child, None
    if child is None:
        return
    for end in (child.stdin, child.stdout):
        assert end is not None
        with contextlib.suppress(OSError):
            end.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=5)
    shutil.rmtree(_path.parent, ignore_errors=True)
