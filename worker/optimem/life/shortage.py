"""Out of memory is an event: what was in use, and what follows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..card.device import Device
from ..model.recording import Recording
from ..wire.protocol import Short

_ASKED = re.compile(r"[Tt]ried to allocate ([0-9.]+) (bytes|[KMGT]iB)")
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True)
class Shortage:
    """What a forward that ran out of device memory tells, in bytes: what it asked for last (0 where torch does not say),
    what was free of how much, what weights held, and what activations need at the least."""

    requested: int
    free: int
    total: int
    weights: int
    activations: int

    @classmethod
    def of(cls, error: BaseException, device: Device, weights: int, peak: int) -> Shortage:
        """Read the allocator's figures; `peak` is the most that was in use for the model, its weights included."""
        requested = _requested(str(error))
        free, total = device.memory()
        return cls(requested, free, total, weights, max(0, peak - weights) + requested)

    def room(self) -> int:
        """Return how many bytes of weights to hold while the next forward is recorded: half as many."""
        return max(1, self.weights // 2)

    def noted_in(self, recording: Recording) -> Recording:
        """Return `recording` with the bytes that activations need, in the step that needs most."""
        sizes = list(recording.step_bytes)
        most = max(range(len(sizes)), key=sizes.__getitem__)
        sizes[most] = max(sizes[most], self.activations)
        return replace(recording, step_bytes=sizes)

    def message(self) -> Short:
        """Say it to the controller."""
        return Short(self.requested, self.free, self.weights, self.activations)

    def words(self) -> str:
        """Say it to people."""
        asked = f"{self.requested} bytes were asked for, " if self.requested else ""
        return (
            f"a forward ran out of device memory: {asked}{self.free} of {self.total} bytes were free, weights held "
            f"{self.weights}, activations need at least {self.activations}"
        )

    def explain(self, error: BaseException, *, retried: bool) -> None:
        """Add to the error's text what happened and what comes next."""
        comes = "it is run again" if retried else "call again, or attach with retry=True to have that done for you"
        told = f"optimem: {self.words()}. The next forward holds fewer weights; {comes}."
        error.args = (f"{error.args[0] if error.args else error}\n{told}", *error.args[1:])


def _requested(text: str) -> int:
    found = _ASKED.search(text)
    return int(float(found[1]) * _UNITS[found[2]]) if found else 0
