"""Devices by capability: what has no streams takes the synchronous way, what cannot pin uses pageable memory and says so."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

import models
import optimem
from optimem import device as devices
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
