"""What begins after something has gone wrong: calls that are refused, cut short or find no room, at their entries."""

from __future__ import annotations

import copy
import dataclasses
import gc
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
import simgpu
from optimem.card.device import AsyncDevice
from optimem.life.attachment import Attachment
from optimem.wire.protocol import Shrink
from same import bits

WIDTH = 256


class Cut(nn.Module):
    """Layers that take their input from a dictionary; the forward is cut short when it is told to be."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(6)], nn.Dropout())
        self.cut = False

    def forward(self, given: dict[str, torch.Tensor]) -> Any:
        if self.cut:
            self.cut = False
            raise KeyboardInterrupt
        return self.layers(given["x"])


def attached(model: nn.Module) -> Attachment:
    attachment = optimem._find(model)
    assert attachment is not None
    return attachment


def frozen(model: nn.Module) -> int:
    """Return how many parameters do not require grad."""
    return sum(not parameter.requires_grad for parameter in model.parameters())


@pytest.fixture
def x() -> torch.Tensor:
    return models.rows(2, WIDTH)


@pytest.fixture
def model(card: torch.device, x: torch.Tensor) -> Cut:
    """A paged model whose last call was cut short, with grad enabled."""
    model = optimem.page(Cut().eval(), card, vram="50%")
    for _ in range(3):
        model({"x": x})
    model.cut = True
    with pytest.raises(KeyboardInterrupt):
        model({"x": x})
    return model


def is_sound(model: Cut, x: torch.Tensor) -> None:
    """Check that calls are right, and that detaching leaves the model as it was."""
    results = [bits(model({"x": x})) for _ in range(3)]
    assert frozen(model) == 0
    optimem.detach(model)
    assert frozen(model) == 0
    assert results == [bits(model({"x": x}))] * 3


def test_a_call_may_be_cut_short_at_its_entry_after_another_one(
    model: Cut, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*, lap: bool) -> None:
        raise KeyboardInterrupt

    given = {"x": x}
    with monkeypatch.context() as patch:
        patch.setattr(attached(model)._tied.engine, "begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(given)
    is_sound(model, x)
    assert given["x"] is x


def test_a_call_that_finds_no_room_after_one_that_was_cut_short_leaves_its_arguments(
    model: Cut, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AsyncDevice.bring

    def bring(self: AsyncDevice, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[0] == 3:
            raise torch.OutOfMemoryError("no room")
        return real(self, tensor)

    monkeypatch.setattr(AsyncDevice, "bring", bring)
    given = {"x": x, "y": torch.ones(3, 4)}
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        model(given)
    assert given["x"] is x
    is_sound(model, x)


def test_a_call_that_is_refused_after_one_that_was_cut_short_lets_others_in(model: Cut, x: torch.Tensor) -> None:
    model.train()
    with pytest.raises(optimem.BadInput, match="training mode"):
        model({"x": x})
    model.eval()
    assert not attached(model)._gate.mine()
    with torch.no_grad():
        assert model.layers(x.to("simgpu")).device.type == "simgpu"
    is_sound(model, x)


def test_a_call_in_an_error_handler_does_not_keep_what_the_error_holds(card: torch.device, x: torch.Tensor) -> None:
    model = optimem.page(Cut().eval(), card, vram="50%")

    def failing() -> None:
        large = torch.empty(8 << 20, dtype=torch.uint8, device=card)
        raise ValueError(large.numel())

    with torch.no_grad():
        for _ in range(6):
            model({"x": x})
        before = simgpu.memory_allocated()
        try:
            failing()
        except ValueError:
            model({"x": x})
    gc.collect()
    assert simgpu.memory_allocated() - before < 1 << 20


def test_the_programs_own_peak_is_left_alone_by_steady_forwards(card: torch.device, x: torch.Tensor) -> None:
    model = optimem.page(Cut().eval(), card, vram="50%")
    with torch.no_grad():
        for _ in range(6):
            model({"x": x})
        simgpu.reset_peak_memory_stats()
        torch.empty(32 << 20, dtype=torch.uint8, device=card)
        peak = simgpu.max_memory_allocated()
        model({"x": x})
    assert simgpu.max_memory_allocated() == peak


class Short(nn.Module):
    """Takes a shorter way when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.short = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), False

    def forward(self, x: torch.Tensor) -> Any:
        return self.first(x) if self.short else self.second(self.first(x))


def test_times_of_a_recording_that_came_to_nothing_are_forgotten(
    card: torch.device, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Short().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    attachment = attached(model)

    def interrupt(*messages: object) -> None:
        raise KeyboardInterrupt

    with torch.no_grad():
        assert bits(model(x)) == bits(plain(x))
        attachment._agreed.curriculum.record_next("first")
        attachment._agreed.curriculum.record_next("")
        model.short = True
        with monkeypatch.context() as patch:
            patch.setattr(attachment.session, "ask_for_plan", interrupt)
            with pytest.raises(KeyboardInterrupt):
                model(x)
        model.short = False
        recording = attachment._agreed.agreement.recording
        assert recording is not None
        assert len(attachment._tied.times.steps.compute_ns) == recording.steps
        for _ in range(8):
            assert bits(model(x)) == bits(plain(x))


def test_bytes_that_a_plan_accounts_for_are_not_given_back_once_more(card: torch.device, x: torch.Tensor) -> None:
    model = optimem.page(Cut().eval(), card, vram="110%")
    attachment = attached(model)
    with torch.no_grad():
        for _ in range(7):
            model({"x": x})
        held = attachment._tied.engine.weight_bytes
        attachment.session._take(Shrink(held // 2, 0))
        attachment._agreed.allowance.room()  # which is asked for at the end of every forward
        plan = attachment._agreed.agreement.plan
        answers = attachment.session._measured
        attachment.session._take(dataclasses.replace(plan, version=plan.version + 1, answers=answers))
        model({"x": x})
    assert attachment._agreed.agreement.plan.version == plan.version + 1
    assert attachment._tied.engine.weight_bytes == held
    assert not attachment.session.debt
