"""The frames on a stack that are ours: those of files in this package, in any room. And room for those of torch's hooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from types import FrameType

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep  # as the interpreter writes it, be it no tidy path


def is_ours(frame: FrameType) -> bool:
    """Tell whether `frame` runs code of this package."""
    return frame.f_code.co_filename.startswith(_PACKAGE)


_OURS = 100  # frames of our own below the innermost module, while a forward is recorded
_SHALLOW = 50  # nested modules that the usual limit has room for


def make_room(paths: Iterable[str]) -> None:
    """Raise Python's recursion limit for deeply nested modules at these dotted paths: torch calls a hooked module through
    one frame more. The limit is not lowered again, since others may rely on it by then."""
    depth = max(path.count(".") + 1 for path in paths)
    if depth > _SHALLOW:
        sys.setrecursionlimit(max(sys.getrecursionlimit(), _USUAL + depth + _OURS))


_USUAL = sys.getrecursionlimit()
