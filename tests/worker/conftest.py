"""What all tests of the worker share: one thread, the simulated card, and NaN wherever bytes have been released."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import traps
import zoo

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "worker"))
os.environ.setdefault("OPTIMEM_CTL", str(ROOT / "bin" / "optimemctl"))
os.environ.pop("OPTIMEM_SOCKET", None)
os.environ["OPTIMEM_CACHE"] = ""  # nothing is kept from one test to the next, nor in the user's cache
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is off in what a shell runs in the background
collect_ignore = [] if os.environ.get("OPTIMEM_ZOO") == "1" else ["test_zoo.py"]  # which takes long
os.environ["SIMGPU_CARD"] = f"worker-test-{os.getpid()}"  # a card of our own


def pytest_configure(config: pytest.Config) -> None:
    """Print the table of traps, or that of the zoo, where those are what is asked for."""
    if config.getoption("markexpr") == "trap":
        config.pluginmanager.register(traps.Table())
    if not collect_ignore:
        config.pluginmanager.register(zoo.Table())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Bits may depend on how many threads share an operation."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The simulated card, its freed bytes filled with NaN, races looked for. In nine tests of ten all released bytes are
    filled with NaN too; filling points weights elsewhere, and so may hide where they would point without it."""
    import simgpu

    if zlib.crc32(request.node.nodeid.encode()) % 10:
        monkeypatch.setenv("OPTIMEM_POISON", "1")
    simgpu.set_fill_freed(True)
    simgpu.set_race_detection(True)
    yield torch.device("simgpu", 0)
    simgpu.set_race_detection(False)
    simgpu.set_fill_freed(False)


@pytest.fixture
def slow_cpu() -> Iterator[None]:
    """A CPU so slow that a chunk of the smallest model is better off on the card."""
    import simgpu
    from simgpu import profile

    host = profile.load_host("desktop")
    flops = {kind: rate // 100_000 for kind, rate in host.flops.items()}
    simgpu.use_profile(
        host=dataclasses.replace(host, flops=flops, memory_bytes_per_second=host.memory_bytes_per_second // 100_000)
    )
    yield
    simgpu.use_profile(host=host)


@pytest.fixture(autouse=True)
def no_fast_paths() -> Iterator[None]:
    """Torch's fused attention paths may differ in the last bits, and hooks switch them off: compare like with like."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)
