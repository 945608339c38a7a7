"""The frames on a stack that are ours: those of files in this package, in any room."""

from __future__ import annotations

from pathlib import Path
from types import FrameType

_PACKAGE = str(Path(__file__).parent.parent) + "/"


def is_ours(frame: FrameType) -> bool:
    """Tell whether `frame` runs code of this package."""
    return frame.f_code.co_filename.startswith(_PACKAGE)
