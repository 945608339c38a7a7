"""What trips pagers must not trip this one: equal bits, twice in a row, and as found after detach."""

from __future__ import annotations

import contextlib
import copy
import gc
import signal
import threading
import weakref
from types import GeneratorType
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from same import bits, found, values

ATTACH = {"page": optimem.page, "chunk": optimem.chunk}


def made(trap: str) -> models.Made:
    """Return the same model with the same weights each time."""
    torch.manual_seed(0)
    model, args, kwargs = models.TRAPS[trap].make()
    return model.eval(), args, kwargs


def said(output: Any) -> Any:
    """Return the bits of an output, of all that comes where it is a generator."""
    return bits(list(output) if isinstance(output, GeneratorType) else output)


def cases() -> list[Any]:
    """Return the names of all trapping models, each with the rows of the table that it shows."""
    marks = {name: [pytest.mark.trap(*trap.rows)] if trap.rows else [] for name, trap in models.TRAPS.items()}
    return [pytest.param(name, marks=marks[name]) for name in models.TRAPS]


@pytest.mark.usefixtures("slow_cpu")
@pytest.mark.parametrize("mode", ["page", "chunk"])
@pytest.mark.parametrize("vram", ["30%", "60%", "120%"])
@pytest.mark.parametrize("trap", cases())
def test_results_are_those_of_the_plain_model(card: torch.device, trap: str, vram: str, mode: str) -> None:
    with torch.no_grad():
        plain, args, kwargs = made(trap)
        untouched = found(plain)
        expected = [said(plain(*args, **kwargs)) for _ in range(4)]
        own = {name for name, held in found(plain).items() if held != untouched[name]}  # what the model itself changes
        model, args, kwargs = made(trap)
        before, refusal, outputs = found(model), "", []
        try:
            ATTACH[mode](model, card, vram=vram)
            outputs = [said(model(*args, **kwargs)) for _ in range(4)]
        except optimem.BadInput as error:
            refusal = str(error)
        optimem.detach(model)
        assert {name: held for name, held in found(model).items() if name not in own} == {
            name: held for name, held in before.items() if name not in own
        }
        if refusal:
            assert "missing" in refusal
            assert vram != "120%"
            pytest.skip("the budget is too small for the largest page")
        assert outputs == expected
        assert values(model) == values(plain)
        _, args, kwargs = made(trap)  # for what a call has put into its arguments is on the device
        assert said(model(*args, **kwargs)) == said(plain(*made(trap)[1], **made(trap)[2]))


@pytest.mark.trap(13)
def test_another_path_is_learnt(card: torch.device) -> None:
    plain = models.Branches().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    x = models.rows().abs()
    with torch.no_grad():
        for sign in (1, 1, -1, -1, 1, -1, 1, 1, -1, 1):
            assert bits(model(sign * x)) == bits(plain(sign * x))


@pytest.mark.trap(1)
@pytest.mark.parametrize("vram", ["60%", "110%"])
@pytest.mark.parametrize(
    "order",
    [["encode", "forward"] * 3, ["forward", "forward", "encode", "encode"], ["encode"] * 4],
    ids=["in turns", "later", "alone"],
)
def test_a_method_of_the_root_other_than_forward_works(card: torch.device, vram: str, order: list[str]) -> None:
    class Encoder(models.Stack):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            for layer in reversed(self.layers):
                x = layer(x).relu()
            return x

    plain = Encoder(12).eval()
    model = optimem.page(copy.deepcopy(plain), card, vram=vram)
    calls = {"encode": lambda m: m.encode(models.rows()), "forward": lambda m: m(models.rows())}
    with torch.no_grad():
        for name in order:
            output = calls[name](model)
            assert output.device.type == (card.type if name == "forward" else "cpu")
            assert bits(output) == bits(calls[name](plain)), name


@pytest.mark.trap(4)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_exception_in_forward_leaves_a_working_model(card: torch.device, error: type[BaseException], at: int) -> None:
    plain = models.Raises().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    x = models.rows()
    with torch.no_grad():
        for forward in range(6):
            model.armed = error if forward == at else None
            if model.armed:
                with pytest.raises(error, match="on purpose"):
                    model(x)
            else:
                assert bits(model(x)) == bits(plain(x))
    optimem.detach(model)
    model.armed = None
    assert bits(model(x)) == bits(plain(x))


@pytest.mark.trap(4)
@pytest.mark.parametrize("vram", ["40%", "120%"])
@pytest.mark.parametrize("at", [0, 2])
def test_ctrl_c_deep_inside_leaves_a_working_model(card: torch.device, at: int, vram: str) -> None:
    class Interrupted(nn.Linear):
        armed = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = super().forward(x)
            if self.armed:
                signal.raise_signal(signal.SIGINT)
            return x

    plain = models.Stack()
    plain.layers[2] = nn.Sequential(nn.Sequential(Interrupted(models.WIDTH, models.WIDTH)))
    plain.eval()
    model = optimem.page(copy.deepcopy(plain), card, vram=vram)
    with torch.no_grad():
        for forward in range(6):
            model.layers[2][0][0].armed = forward in (at, at + 1)
            if forward in (at, at + 1):
                with pytest.raises(KeyboardInterrupt):
                    model(models.rows())
            else:
                assert bits(model(models.rows())) == bits(plain(models.rows()))
    optimem.detach(model)
    with torch.no_grad():
        assert bits(model(models.rows())) == bits(plain(models.rows()))


@pytest.mark.trap(4)
def test_detaching_after_ctrl_c_leaves_all_as_found(card: torch.device) -> None:
    model = models.Raises().eval()
    before = found(model)
    optimem.page(model, card, vram="60%")
    for error in (None, None, KeyboardInterrupt):
        model.armed = error
        with pytest.raises(error) if error else contextlib.nullcontext():
            model(models.rows())
    model.armed = None
    optimem.detach(model)
    assert found(model) == before


@pytest.mark.trap(11)
def test_a_module_called_on_a_side_thread_is_refused_and_never_waits_for_ever(card: torch.device) -> None:
    plain = models.SideThread().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    with torch.no_grad():
        for _ in range(2):
            with pytest.raises(optimem.BadInput, match=r"from a thread .*optimem\.detach"):
                model(models.rows())
        assert bits(models.Stack.forward(model, models.rows())) == bits(models.Stack.forward(plain, models.rows()))
        optimem.detach(model)
        assert bits(model(models.rows())) == bits(plain(models.rows()))


@pytest.mark.trap(11)
@pytest.mark.parametrize("vram", ["30%", "120%"])
def test_a_generator_may_be_left_half_way_and_outlive_other_forwards(card: torch.device, vram: str) -> None:
    plain = models.LazyRoot().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram=vram)
    with torch.no_grad():
        expected = bits(list(plain(models.rows())))
        for _ in range(3):
            begun, left = model(models.rows()), model(models.rows())
            first = next(begun)
            next(left)
            left.close()
            assert bits(list(model(models.rows()))) == expected
            assert bits([first, *begun]) == expected


@pytest.mark.trap(9)
def test_a_buffer_put_in_from_outside_is_used(card: torch.device) -> None:
    plain = models.Buffers().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    with torch.no_grad():
        for step in range(4):
            for each in (plain, model):
                each.mean = models.rows(models.WIDTH) * step
            assert bits(model(models.rows())) == bits(plain(models.rows()))
    optimem.detach(model)
    assert values(model) == values(plain)


@pytest.mark.trap(8)
def test_a_plain_tensor_that_shared_a_weights_bytes_shares_them_again(card: torch.device) -> None:
    model = models.Stack().eval()
    alias = model.layers[1].weight.data
    optimem.page(model, card, vram="60%")
    with torch.no_grad():
        for _ in range(3):
            model(models.rows())
        torch.accelerator.synchronize()
        model.layers[1].weight.mul_(2)
        optimem.detach(model)
        assert alias.data_ptr() == model.layers[1].weight.data_ptr()
        assert bits(alias) == bits(model.layers[1].weight)


@pytest.mark.trap(28, 29, 9, 10)
def test_what_is_not_paged_is_named_with_the_reason(card: torch.device) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.hands = models.OwnTensorClass(), models.HandsOnWeights()
            self.packed, self.norm = models.quantised(), nn.BatchNorm1d(models.WIDTH)

        def forward(self, x: torch.Tensor) -> Any:
            return self.packed(self.norm(self.own(x))[None]), self.hands(x)

    model = optimem.page(Mixed().eval(), card)
    with torch.no_grad():
        for _ in range(2):
            model(models.rows())
    status = optimem.status(model)
    assert status is not None
    notes = dict(note.split(": ", maxsplit=1) for note in status.notes)
    assert "tensor class" in notes["own.pair"]
    assert "on the CPU" in notes["packed.linear"]
    assert "on the CPU" in notes["packed.lstm"]
    assert "a buffer" in notes["norm.running_mean"]
    assert "whole forward" in notes["hands.view.weight"]


@pytest.mark.trap(33)
def test_two_threads_share_a_model(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    wrong: list[int] = []

    def call(seed: int) -> None:
        for step in range(5):
            x = models.rows() * (seed + step)
            with torch.no_grad():
                if bits(model(x)) != bits(plain(x)):
                    wrong.append(seed)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


@pytest.mark.trap(30)
def test_grad_enabled_by_mistake_builds_no_graph(card: torch.device) -> None:
    model = optimem.page(models.Stack().eval(), card, vram="60%")
    for _ in range(3):
        assert not model(models.rows()).requires_grad
    with pytest.raises(optimem.BadInput, match="requires grad"):
        model(models.rows().requires_grad_())
    optimem.detach(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.trap(35)
def test_inference_mode_and_no_grad_in_any_order(card: torch.device) -> None:
    plain = models.Stack().eval()
    with torch.no_grad():
        expected = bits(plain(models.rows()))
    model = optimem.page(plain, card, vram="60%")
    for guard in (torch.inference_mode, torch.no_grad, torch.inference_mode, torch.no_grad):
        with guard():
            assert bits(model(models.rows())) == expected
    with torch.inference_mode():
        optimem.detach(model)
    with torch.no_grad():
        assert bits(model(models.rows())) == expected


@pytest.mark.trap(35)
def test_a_model_made_in_inference_mode_is_paged_too(card: torch.device) -> None:
    with torch.inference_mode():
        model = models.Tied().eval()
        tokens = torch.arange(6).view(2, 3)
        expected = bits(model(tokens))
    optimem.page(model, card, vram="60%")
    for guard in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with guard():
            assert bits(model(tokens)) == expected


@pytest.mark.trap(24)
def test_inputs_may_be_on_either_side(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    with torch.no_grad():
        for x in (models.rows(), models.rows().to(card)):
            output = model(x)
            assert output.device.type == card.type
            assert bits(output) == bits(plain(models.rows()))


def test_chunk_starts_and_ends_on_the_cpu(card: torch.device) -> None:
    model = optimem.chunk(models.Stack().eval(), card, vram="60%")
    with torch.no_grad():
        assert {model(models.rows()).device.type for _ in range(3)} == {"cpu"}


def test_a_forgotten_model_goes_and_so_does_its_device_memory(card: torch.device) -> None:
    gc.collect()
    before = torch.accelerator.memory_allocated()
    model = optimem.page(models.Stack().eval(), card, vram="60%")
    with torch.no_grad():
        for _ in range(3):
            model(models.rows())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert torch.accelerator.memory_allocated() == before


def test_weights_that_no_forward_reads_take_no_device_bytes(card: torch.device) -> None:
    class Half(models.Stack):
        def forward(self, x: torch.Tensor) -> Any:
            return self.layers[0](x)

    model = optimem.page(Half(8).eval(), card)
    with torch.no_grad():
        for _ in range(3):
            model(models.rows())
    status = optimem.status(model)
    assert status is not None
    assert status.resident_bytes + status.arena_bytes < status.weights_bytes / 4


@pytest.mark.parametrize(
    "change",
    [lambda m, x: torch.fx.symbolic_trace(m), lambda m, x: nn.Sequential(torch.jit.trace(m[0], (x,)), *m[1:])],
    ids=["FX", "traced by jit"],
)
@pytest.mark.parametrize("mode", ["page", "chunk"])
def test_modules_made_of_others_are_paged_too(card: torch.device, mode: str, change: Any) -> None:
    plain = nn.Sequential(*models.linears(4)).eval()
    with torch.no_grad():
        expected = bits(plain(models.rows()))
        model = ATTACH[mode](change(plain, models.rows()).eval(), card, vram="60%")
        for _ in range(4):
            assert bits(model(models.rows())) == expected
