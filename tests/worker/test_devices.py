"""Devices by capability: what has no streams takes the synchronous way, what cannot pin uses pageable memory and says so."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys

import pytest
import torch

import models
import optimem
from optimem.card import device as devices
from optimem.card import names
from optimem.card.card import Card
from optimem.card.hostmemory import HostMemory
from optimem.errors import BadInput
from same import bits


def test_the_simulated_card_can_do_everything_and_says_that_it_is_simulated(card: torch.device) -> None:
    found = names.open_device("sim")
    assert isinstance(found, devices.AsyncDevice)
    assert found.capabilities == devices.Capabilities(True, True, True, True, True, True)


@pytest.mark.parametrize("mode", [optimem.page, optimem.chunk])
def test_a_device_without_streams_takes_the_synchronous_way(
    card: torch.device, mode: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = devices.SyncDevice(card)
    slow.capabilities = dataclasses.replace(
        slow.capabilities, streams=False, pinned=False, registers=False, asynchronous=False
    )
    monkeypatch.setattr(optimem, "open_card", lambda device: Card(slow))
    plain = models.Tied().eval()
    model = mode(copy.deepcopy(plain), vram="60%")  # type: ignore[operator]
    tokens = torch.arange(6).view(2, 3)
    with torch.no_grad():
        for _ in range(5):
            assert bits(model(tokens)) == bits(plain(tokens))
    status = optimem.status(model)
    assert status is not None
    assert status.pinned_bytes == 0


def test_a_device_that_cannot_register_pins_by_allocating(card: torch.device) -> None:
    found = names.open_device("sim")
    found.capabilities = dataclasses.replace(found.capabilities, registers=False)
    memory = HostMemory(found, 1000)
    assert memory.bytes.is_pinned()
    memory.lock()
    memory.unlock()
    assert memory.bytes.is_pinned()


def locked(device: devices.Device, nbytes: int) -> HostMemory:
    memory = HostMemory(device, nbytes)
    memory.lock()
    return memory


@pytest.mark.parametrize("registers", [True, False])
def test_pinned_memory_that_cannot_be_had_is_said_aloud(
    card: torch.device, monkeypatch: pytest.MonkeyPatch, registers: bool
) -> None:
    found = names.open_device("sim")
    found.capabilities = dataclasses.replace(found.capabilities, registers=registers)
    real = torch.empty

    def refuse(*args: object, **kwargs: object) -> torch.Tensor:
        if kwargs.get("pin_memory", not kwargs):
            raise RuntimeError("memlock")
        return real(*args, **kwargs)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch, "empty", refuse)
    monkeypatch.setattr(torch.simgpu, "host_register", refuse)  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match=r"1000 bytes of pinned memory cannot be had \(memlock\).*ulimit -l"):
        memory = locked(found, 1000)
    assert not memory.bytes.is_pinned()
    memory.bytes.fill_(1)
    memory.unlock()


class Runtime:
    """CUDA's runtime as torch binds it: addresses and sizes in, codes out."""

    def __init__(self, code: int) -> None:
        self.code, self.calls = code, list[tuple[object, ...]]()

    def cudaHostRegister(self, *call: object) -> int:
        self.calls.append(call)
        return self.code

    def cudaHostUnregister(self, *call: object) -> int:
        self.calls.append(call)
        return self.code


def test_a_device_with_a_runtime_like_cudas_registers_through_it(
    card: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(0)
    monkeypatch.delattr(torch.simgpu, "host_register")  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.simgpu, "cudart", lambda: runtime, raising=False)  # type: ignore[attr-defined]
    found = names.open_device("sim")
    assert found.capabilities.registers
    memory = HostMemory(found, 5000)
    memory.lock()
    memory.lock()
    at = memory.bytes.data_ptr()
    assert at % 4096 == 0
    assert runtime.calls == [(at, 5000, 0)]
    del memory
    assert runtime.calls == [(at, 5000, 0), (at,)]
    runtime.code = 2
    with pytest.warns(UserWarning, match="CUDA error 2"):
        HostMemory(found, 5000).lock()


def test_the_environment_chooses_the_device(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMEM_DEVICE", "cpu")
    assert names.resolve(None).type == "cpu"
    assert names.resolve("sim").type == "simgpu"


def test_the_simulated_card_plays_the_model_that_is_asked_for() -> None:
    code = "from optimem.card.names import open_device; print(open_device('sim:rtx4090').name(), open_device('sim').name())"
    # In a process of its own: a card is changed only while nothing is on it.
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SIMGPU_CARD": f"played-{os.getpid()}", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == " ".join(["Simulated NVIDIA GeForce RTX 4090"] * 2)


@pytest.mark.parametrize(
    ("spec", "words"), [("sim:gtx", "'gtx' is not a profile: known are"), ("cpu:rtx4090", "cpu has no models")]
)
def test_models_of_cards_that_there_are_not(card: torch.device, spec: str, words: str) -> None:
    with pytest.raises(BadInput, match=f"no such device: {spec} .*{words}"):
        names.resolve(spec)


def test_a_simulated_card_tells_the_host_its_time(card: torch.device) -> None:
    clock = devices.HostClock(names.open_device("sim"))
    first, second = clock.timed_mark(), clock.timed_mark()
    assert clock.elapsed_ns(first, second) == 0  # nothing was asked of the card in between
    torch.randn(64, 64) @ torch.randn(64, 64)
    assert clock.elapsed_ns(first, clock.timed_mark()) > 0
