"""Ask the planner from Python: a request as JSON text in, the answer as JSON text out. No torch in here, no models.

Two ways lead to the same Go code and give the same bytes. The extension module answers inside this process. `optimemctl`
answers as a child if the extension cannot: it was not built, it does not load, or this process was forked after it was
loaded (the threads of the Go runtime do not survive a fork, so a call would hang). `docs/contract.md` has the words.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import subprocess
from typing import Any

from ..errors import BadInput, ControllerError, OptimemError
from ..wire import private

log = logging.getLogger("optimem")

_BAD_INPUT = 2  # exit code of optimemctl, and of any Go program that panics
_OUR_FAULT = re.compile("^the planner panicked|^panic: |this is a fault of optimem")
_SURROGATE = re.compile("[\ud800-\udfff]")


def respond(request: str) -> str:
    """Return the planner's answer to `request`. Thread-safe; other threads run meanwhile.

    Raises BadInput with the planner's words if the request cannot be met, ControllerError if there is neither the extension
    nor optimemctl, OptimemError if the planner itself is at fault.
    """
    return inside(request) if usable() and _crosses(request) else beside(request)


def usable() -> bool:
    """Tell whether the extension can answer in this process."""
    _, loader = _extension()
    return loader == os.getpid()


def inside(request: str) -> str:
    """Answer in this process, through the extension. `request` has no NUL and no lone surrogate. Errors as for `respond`."""
    module, _ = _extension()
    try:
        return str(module.bindings_Plan(request))
    except RuntimeError as error:
        raise _error(str(error), bad_input=True) from None


def beside(request: str) -> str:
    """Answer in a child, through `optimemctl plan`. Errors as for `respond`."""
    binary = private.binary()
    text = request.encode(errors="surrogatepass")  # which the planner refuses, as it does NUL
    try:
        child = subprocess.run([binary, "plan", "-", "--json"], input=text, capture_output=True, check=False)
    except OSError as error:
        raise ControllerError(f"{binary} cannot be started ({error}); set OPTIMEM_CTL to a working optimemctl") from error
    if child.returncode == 0:
        return child.stdout.decode()
    said = child.stderr.decode(errors="replace").strip().removeprefix("optimemctl: ").removeprefix("stdin: ")
    raise _error(said or f"{binary} plan ended with exit code {child.returncode}", bad_input=child.returncode == _BAD_INPUT)


@functools.cache
def _extension() -> tuple[Any, int]:
    """Return the extension module and the process that loaded it; (None, 0) if it cannot be loaded."""
    try:
        return importlib.import_module("..._planner", __name__), os.getpid()
    except (ImportError, OSError) as error:
        log.debug("optimem: the planner's extension is not used (%s); optimemctl answers instead", error)
        return None, 0


def _crosses(request: str) -> bool:
    """Tell whether a C string can carry `request`: it holds neither NUL nor lone surrogates."""
    return "\0" not in request and (request.isascii() or not _SURROGATE.search(request))


def _error(text: str, *, bad_input: bool) -> OptimemError:
    return BadInput(text) if bad_input and not _OUR_FAULT.search(text) else OptimemError(text)
