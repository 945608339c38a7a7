"""Virtual time: the host's clock, which of two kinds it is, and what the card has done, counted. All times are ns."""

from __future__ import annotations

from simgpu import _C

HOST_CLOCKS = ("model", "measured")


def now_ns() -> int:
    """The host's clock, ns since the process began to use the card. It goes on with every call and with every wait."""
    return _C.now()


def set_host_clock(clock: str) -> None:
    """Chooses what host time is made of.

    ``"model"``: every call costs what the host's profile says, and what the CPU computes costs by its profile; the same
    on every machine and in every run. ``"measured"``: the CPU time of this process's own threads outside of the card's
    work, and the driver's part of each call on top. The same as ``SIMGPU_HOST_CLOCK`` in the environment.
    ``ValueError`` for anything else.
    """
    if clock not in HOST_CLOCKS:
        raise ValueError(f"{clock!r} is not a host clock: give {' or '.join(map(repr, HOST_CLOCKS))}")
    _C.set_measured_host(clock == "measured")


def host_clock() -> str:
    """``"model"`` or ``"measured"``."""
    return "measured" if _C.measured_host() else "model"


def set_host_watched(on: bool) -> None:
    """Whether operations that the CPU computes cost host time in the model clock (they do, at first).

    Watching them costs each about a microsecond of real time.
    """
    _C.watch_host(on)


def _sleep(duration_ns: int) -> None:
    """Keeps the card's compute engine busy for ``duration_ns`` on the current stream, as ``torch.cuda._sleep`` does."""
    if duration_ns < 0:
        raise ValueError(f"duration_ns={duration_ns} is negative")
    _C.sleep(duration_ns)


def counters() -> dict[str, int]:
    """Counts since the start or the last ``reset_counters``.

    ``h2d_bytes``, ``d2h_bytes``, ``d2d_bytes``: bytes copied from host to device, back, and on the device, in the
    target's type. ``h2d_copies``, ``d2h_copies``, ``d2d_copies``: copies. ``kernels``: operations run on the card;
    views are none. ``host_blocking_calls``: times the host had to wait, as on a real card: synchronising, ``.item()``,
    copies that are not ``non_blocking`` or whose host side is not pinned, results whose shape depends on data.

    For each engine (``compute``, ``h2d``, ``d2h``), in ns: ``..._busy_ns``; ``..._stalled_ns``, it stood still while
    the work that came next waited for other work; ``..._starved_ns``, it stood still since the host had not asked.
    """
    return _C.counters()


def host_blocking_calls() -> dict[str, int]:
    """How often the host had to wait since the last ``reset_counters``, by the Python line (``file:12 in f``) that made
    it wait: the innermost one outside of torch."""
    return _C.blocking_lines()


def reset_counters() -> None:
    """Sets all counts to zero; clocks go on."""
    _C.reset_counters()
