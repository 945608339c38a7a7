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
from optimem import device as devices
from optimem.errors import BadInput
from same import bits


def test_the_simulated_card_can_do_everything_and_says_that_it_is_simulated(card: torch.device) -> None:
    found = devices.open_device("sim")
    assert isinstance(found, devices.AsyncDevice)
    assert found.capabilities == devices.Capabilities(streams=True, pinned=True, asynchronous=True, simulated=True)


@pytest.mark.parametrize("mode", [optimem.page, optimem.chunk])
def test_a_device_without_streams_takes_the_synchronous_way(
    card: torch.device, mode: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = devices.SyncDevice(card)
    slow.capabilities = dataclasses.replace(slow.capabilities, streams=False, pinned=False, asynchronous=False)
    monkeypatch.setattr(optimem, "open_device", lambda device: slow)
    plain = models.Tied().eval()
    model = mode(copy.deepcopy(plain), vram="60%")  # type: ignore[operator]
    tokens = torch.arange(6).view(2, 3)
    with torch.no_grad():
        for _ in range(5):
            assert bits(model(tokens)) == bits(plain(tokens))
    status = optimem.status(model)
    assert status is not None
    assert status.pinned_bytes == 0


def test_pinned_memory_that_cannot_be_had_is_said_aloud(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    found = devices.open_device("sim")
    real = torch.empty

    def refuse(*args: object, **kwargs: object) -> torch.Tensor:
        if kwargs.get("pin_memory"):
            raise RuntimeError("memlock")
        return real(*args, **kwargs)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.warns(UserWarning, match="1000 bytes of pinned memory cannot be had"):
        assert found.host(1000).numel() == 1000


def test_the_environment_chooses_the_device(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMEM_DEVICE", "cpu")
    assert devices.resolve(None).type == "cpu"
    assert devices.resolve("sim").type == "simgpu"


def test_the_simulated_card_plays_the_model_that_is_asked_for() -> None:
    code = "from optimem.device import open_device; print(open_device('sim:rtx4090').name(), open_device('sim').name())"
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
        devices.resolve(spec)


def test_a_simulated_card_tells_the_host_its_time(card: torch.device) -> None:
    clock = devices.HostClock(devices.open_device("sim"))
    first, second = clock.timed_mark(), clock.timed_mark()
    assert clock.elapsed_ns(first, second) == 0  # nothing was asked of the card in between
    torch.randn(64, 64) @ torch.randn(64, 64)
    assert clock.elapsed_ns(first, clock.timed_mark()) > 0
