"""The recording of one forward: its borders, its steps, and the readers of every weight."""

from __future__ import annotations

from dataclasses import dataclass

from .units import Reading, Span


@dataclass(frozen=True)
class Border:
    """An entry to or exit from the module at `path`."""

    path: str
    entry: bool


@dataclass
class Recording:
    """One recorded forward. Steps are numbered from the outermost entry; times are nanoseconds, sizes bytes."""

    readings: dict[Span, Reading]
    borders: list[Border]
    step_ns: list[int]
    step_bytes: list[int]  # device bytes that are not weights
    step_crossings: list[int]  # bytes of tensors that pass the border at which a step begins
    called: list[str]  # paths of all module calls
    aside: frozenset[str] = frozenset()  # readers that read on another stream than the one that was current at their entry

    @property
    def steps(self) -> int:
        """Number of steps, one less than borders."""
        return len(self.borders) - 1
