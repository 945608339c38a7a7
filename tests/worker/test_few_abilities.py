"""Devices with few abilities, played by the simulated card: no streams, no events, no pinned memory, no statistics, as MPS;
tensors that refuse to be re-pointed and tell no addresses, as torch_xla's."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import optimem
from effort import examples
from families import FAMILIES, seeded
from models import TRAPS, WIDTH
from optimem.card import device as devices
from optimem.card import names
from optimem.card.card import Card
from optimem.model import weights
from paged import MODES, attach_at_smallest
from same import bits
from test_tensor_classes import LAYERS, stack


@pytest.fixture
def bare(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The simulated card without all that a device may lack."""
    monkeypatch.setattr(devices, "module_of", lambda device: SimpleNamespace(synchronize=torch.accelerator.synchronize))
    for module in (devices, names):
        monkeypatch.setattr(module, "has_streams", lambda device: False)
    found = Card(names.open_device("sim"))
    assert isinstance(found.device, devices.SyncDevice)
    assert not any(dataclasses.astuple(found.device.capabilities)[:-1])
    assert (found.device.memory(), found.device.allocated(), found.device.peak()) == ((0, 0), 0, 0)
    monkeypatch.setattr(optimem, "open_card", lambda device: found)
    return card


@pytest.fixture
def values_only(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The simulated card as if its tensors were values: nothing can be re-pointed to it, and no tensor has an address."""
    monkeypatch.setattr(weights, "repoints", lambda device: False)
    found = Card(devices.SyncDevice(card))
    can = found.device.capabilities
    found.device.capabilities = dataclasses.replace(can, streams=False, pinned=False, registers=False, addresses=False)
    monkeypatch.setattr(optimem, "open_card", lambda device: found)
    return card


@pytest.mark.parametrize(("family", "mode"), list(zip(FAMILIES, cycle(MODES), strict=False)))
@examples(1)
@given(choices=st.data())
@torch.no_grad()
def test_families_are_right_without_any_ability(bare: torch.device, family: str, mode: str, choices: Any) -> None:
    torch.manual_seed(0)
    model, call = FAMILIES[family](choices.draw)
    model.eval()
    expected = bits(call(model))

    def first() -> None:
        assert bits(call(model)) == expected

    attach_at_smallest(model, bare, mode, 50, first)
    for _ in range(3):
        assert bits(call(model)) == expected
    status = optimem.status(model)
    assert status is not None
    assert status.pinned_bytes == 0
    optimem.detach(model)
    assert bits(call(model)) == expected


def made(trap: str) -> Any:
    """Return the same model and arguments each time."""
    torch.manual_seed(0)
    model, args, kwargs = TRAPS[trap].make()
    return model.eval(), args, kwargs


def called(trap: str, model: Any, args: Any, kwargs: Any) -> Any:
    torch.manual_seed(0)  # of dropout
    output = model(*args, **kwargs)
    return bits([list(output)] if "generator" in trap else output)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("trap", [trap for trap in TRAPS if "buffers" not in trap])
@torch.no_grad()
def test_traps_where_tensors_are_values(values_only: torch.device, trap: str, mode: str) -> None:
    plain, model = made(trap), made(trap)
    before = [(id(weight), weight.device, bits(weight)) for weight in model[0].parameters()]
    expected = called(trap, *plain)

    def first() -> None:
        assert called(trap, model[0], *made(trap)[1:]) == expected

    attach_at_smallest(model[0], values_only, mode, 60, first)
    for _ in range(3):
        first()
    optimem.detach(model[0])
    assert [(id(weight), weight.device, bits(weight)) for weight in model[0].parameters()] == before
    first()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@torch.no_grad()
def test_tensor_classes_where_tensors_are_values(values_only: torch.device, mode: str, make: Any) -> None:
    model, x = stack(make), seeded(3, WIDTH)
    expected = bits(stack(make)(x))

    def first() -> None:
        assert bits(model(x)) == expected

    attach_at_smallest(model, values_only, mode, 60, first)
    for _ in range(3):
        first()
    optimem.detach(model)
    first()


def test_writes_are_seen_where_tensors_are_values(values_only: torch.device) -> None:
    model, args, _ = made("plain stack")
    optimem.page(model, values_only, vram="60%")
    with torch.no_grad():
        model(*args)
        model(*args)
        model.layers[2].weight.mul_(2)
        plain, _, _ = made("plain stack")
        plain.layers[2].weight.mul_(2)
        for _ in range(2):
            assert bits(model(*args)) == bits(plain(*args))


def test_buffers_that_would_come_apart_are_refused(values_only: torch.device) -> None:
    model, _, _ = made("buffers that are replaced, and views of others")
    with pytest.raises(optimem.BadInput, match=r"sums and first share bytes.*clone"):
        optimem.page(model, values_only, vram="60%")


# torch_xla itself, in a process of its own: it and the simulated card both want to be the machine's other device.

XLA = """
import sys
import torch
import optimem
from models import TRAPS, WIDTH
from optimem.data import moving
from paged import MODES, attach_at_smallest

torch.backends.mha.set_fastpath_enabled(False)
torch.set_grad_enabled(False)

def made(trap):
    torch.manual_seed(0)
    model, args, kwargs = TRAPS[trap].make()
    return model.eval(), args, kwargs

def right(trap, model, expected):
    _, args, kwargs = made(trap)
    found = list(moving.tensors(model(*args, **kwargs)))
    return all(torch.allclose(a.cpu(), b, atol=1e-4) for a, b in zip(found, expected, strict=True))

for trap in sys.argv[1:]:
    for mode in MODES:
        model, args, kwargs = made(trap)
        expected = list(moving.tensors(model(*args, **kwargs)))
        model = made(trap)[0]
        before = [(id(tensor), tensor.clone()) for tensor in (*model.parameters(), *model.buffers())]
        attach_at_smallest(model, "xla", mode, 60, lambda: right(trap, model, expected) or sys.exit(f"{trap} {mode}"))
        for _ in range(3):
            assert right(trap, model, expected), (trap, mode)
        optimem.detach(model)
        now = [(id(tensor), tensor) for tensor in (*model.parameters(), *model.buffers())]
        assert [a for a, _ in now] == [a for a, _ in before], (trap, mode)
        assert all(torch.equal(a, b) and a.device.type == "cpu" for (_, a), (_, b) in zip(now, before)), (trap, mode)
"""


@pytest.mark.parametrize(
    "traps",
    [
        ["plain stack", "tied embedding and head", "mixture of experts", "weight_norm"],
        ["ParameterList and ParameterDict", "a parent reads its children's weights", "the output is a weight"],
        ["weights that view one storage", "LSTM", "channels_last weights", "BatchNorm", "MultiheadAttention"],
    ],
    ids=lambda traps: traps[0],
)
def test_traps_on_torch_xla(traps: list[str]) -> None:
    pytest.importorskip("torch_xla", exc_type=ImportError)
    done = subprocess.run(
        [sys.executable, "-c", XLA, *traps],
        env={**os.environ, "PJRT_DEVICE": "CPU", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
