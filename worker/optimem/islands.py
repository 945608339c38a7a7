"""Chunk mode: which modules compute on the device.

An *island* is a topmost module that is called and all of whose weights, and all weights that it or its children read, are
resident. Data enters an island at its entry and leaves at its exit; everything between islands computes on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .units import Unit


def find_islands(paths: Iterable[str], units: Sequence[Unit], resident: set[int]) -> list[str]:
    """Return the dotted paths of the islands, given the `paths` of called modules and the indexes of `resident` units."""
    ordered = sorted(set(paths), key=lambda path: (path.count(".") + bool(path), path))
    islands: list[str] = []
    for path in ordered:
        if any(is_under(path, island) for island in islands):
            continue
        members = [index for index, unit in enumerate(units) if _belongs(unit, path)]
        if members and resident.issuperset(members):
            islands.append(path)
    return islands


def enclosed(units: Sequence[Unit], resident: set[int], islands: Sequence[str]) -> set[int]:
    """Return the resident units that only modules in islands read."""
    return {
        index
        for index in resident
        if all(any(is_under(reader, island) for island in islands) for reader in units[index].readers)
    }


def is_under(path: str, ancestor: str) -> bool:
    """Tell whether `path` is `ancestor` or one of its descendants."""
    return not ancestor or path == ancestor or path.startswith(ancestor + ".")


def _belongs(unit: Unit, path: str) -> bool:
    owners = (span.owner for span in unit.spans)
    return any(is_under(owner, path) for owner in owners) or any(is_under(reader, path) for reader in unit.readers)
