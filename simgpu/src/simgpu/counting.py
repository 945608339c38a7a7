"""What the card has done, counted: for tests and reports."""

from __future__ import annotations

from simgpu import _C


def counters() -> dict[str, int]:
    """Counts since the start or the last ``reset_counters``.

    ``h2d_bytes``, ``d2h_bytes``, ``d2d_bytes``: bytes copied from host to device, back, and on the device, in the
    target's type. ``h2d_copies``, ``d2h_copies``, ``d2d_copies``: copies. ``kernels``: operations run on the card;
    views are none. ``host_blocking_calls``: times the host had to wait, as on a real card: synchronising, ``.item()``,
    copies that are not ``non_blocking`` or whose host side is not pinned, results whose shape depends on data.
    """
    return _C.counters()


def reset_counters() -> None:
    """Sets all counts to zero."""
    _C.reset_counters()
