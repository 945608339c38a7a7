"""Sizes in bytes, as people write them: ``12GiB``, ``500 MB``, ``4096``. Not a general unit parser."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse(text: str, *, name: str) -> int:
    """The bytes that ``text`` means.

    ``name`` is where it came from; ``ValueError`` names both and says what is accepted.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{name}={text!r} is not a size: give bytes, or a number with KiB, MiB, GiB, KB, MB or GB")
    size = int(match[1]) * unit if match[1].isdigit() else int(float(match[1]) * unit)
    if not 0 <= size < 1 << 62:
        raise ValueError(f"{name}={text!r} is more bytes than can be counted")
    return size


def given(size: int | str, *, name: str) -> int:
    """The bytes of a number or of a text; ``ValueError`` as `parse`, and for a negative number."""
    if isinstance(size, str):
        return parse(size, name=name)
    if not 0 <= size < 1 << 62:
        raise ValueError(f"{name}={size} is not a size: give 0 to {(1 << 62) - 1} bytes")
    return int(size)
