"""The frames on a stack that are ours: those of files in this package, in any room."""

from __future__ import annotations

import os
from types import FrameType

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep  # as the interpreter writes it, be it no tidy path


def is_ours(frame: FrameType) -> bool:
    """Tell whether `frame` runs code of this package."""
    return frame.f_code.co_filename.startswith(_PACKAGE)
