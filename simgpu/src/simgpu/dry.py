"""Dry runs: everything is timed, allocated and ordered, nothing is computed or copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from simgpu import _C


@contextmanager
def dry_run() -> Iterator[None]:
    """Inside the block operations on the card give results of the right shape and no values.

    Device and pinned memory stays untouched, so a model larger than this machine's RAM can be timed. ``.item()``
    gives 0. What the CPU computes is computed.
    """
    before = _C.dry()
    _C.set_dry(True)
    try:
        yield
    finally:
        _C.set_dry(before)
