"""What trips pagers must not trip this one: equal bits, twice in a row, and as found after detach."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from same import bits

ATTACH = {"page": optimem.page, "chunk": optimem.chunk}


def found(model: nn.Module) -> dict[str, Any]:
    """Return what must be the same before attaching and after detaching."""
    return {
        "state": {name: bits(tensor) for name, tensor in model.state_dict().items()},
        "strides": {name: tensor.stride() for name, tensor in model.named_parameters()},
        "devices": {name: str(tensor.device) for name, tensor in [*model.named_parameters(), *model.named_buffers()]},
        "grads": {name: tensor.requires_grad for name, tensor in model.named_parameters()},
        "identity": [id(tensor) for tensor in [*model.parameters(), *model.buffers()]],
        "attributes": {path: sorted(module.__dict__) for path, module in model.named_modules()},
        "hooks": [
            (list(module._forward_hooks), list(module._forward_pre_hooks), list(module._forward_hooks_always_called))
            for module in model.modules()
        ],
    }


def made(trap: str) -> models.Made:
    """Return the same model with the same weights each time."""
    torch.manual_seed(0)
    model, args, kwargs = models.TRAPS[trap]()
    return model.eval(), args, kwargs


def plain_result(trap: str) -> Any:
    """Return the bits that a model nobody has attached gives."""
    model, args, kwargs = made(trap)
    return bits(model(*args, **kwargs))


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


@pytest.mark.parametrize("mode", ["page", "chunk"])
@pytest.mark.parametrize("vram", ["30%", "60%", "120%"])
@pytest.mark.parametrize("trap", models.TRAPS)
def test_results_are_those_of_the_plain_model(card: torch.device, trap: str, vram: str, mode: str) -> None:
    model, args, kwargs = made(trap)
    before = found(model)
    with torch.no_grad():
        plain = plain_result(trap)
        try:
            ATTACH[mode](model, card, vram=vram)
            outputs = [bits(model(*args, **kwargs)) for _ in range(4)]
        except optimem.BadInput as error:
            assert vram != "120%", error
            assert "missing" in str(error)
            outputs = []
        assert all(output == plain for output in outputs)
        optimem.detach(model)
        after = found(model)
        assert bits(model(*args, **kwargs)) == plain
    assert after == before


def test_mutated_buffers_lose_nothing(card: torch.device) -> None:
    plain = models.Buffers().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    with torch.no_grad():
        for step in range(4):
            x = models.rows() + step
            assert bits(model(x)) == bits(plain(x))
    optimem.detach(model)
    assert bits(list(model.buffers())) == bits(list(plain.buffers()))
    assert int(model.count) == 4


def test_another_path_is_learnt(card: torch.device) -> None:
    plain = models.Branches().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    x = models.rows().abs()
    with torch.no_grad():
        for sign in (1, 1, -1, -1, 1, -1, 1, 1, -1, 1):
            assert bits(model(sign * x)) == bits(plain(sign * x))


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
            assert output.device.type == card.type
            assert bits(output) == bits(calls[name](plain)), name


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


def test_grad_enabled_by_mistake_builds_no_graph(card: torch.device) -> None:
    model = optimem.page(models.Stack().eval(), card, vram="60%")
    for _ in range(3):
        assert not model(models.rows()).requires_grad
    with pytest.raises(optimem.BadInput, match="requires grad"):
        model(models.rows().requires_grad_())
    optimem.detach(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


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


def test_a_model_made_in_inference_mode_is_paged_too(card: torch.device) -> None:
    with torch.inference_mode():
        model = models.Tied().eval()
        tokens = torch.arange(6).view(2, 3)
        expected = bits(model(tokens))
    optimem.page(model, card, vram="60%")
    for guard in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with guard():
            assert bits(model(tokens)) == expected


def test_loading_a_state_dict_while_paged_takes_effect(card: torch.device) -> None:
    model, other = models.Stack().eval(), models.Stack().eval()
    optimem.page(model, card, vram="60%")
    x = models.rows()
    with torch.no_grad():
        for _ in range(3):
            model(x)
        model.load_state_dict(other.state_dict())
        for _ in range(3):
            assert bits(model(x)) == bits(other(x))
    assert {k: bits(v) for k, v in model.state_dict().items()} == {k: bits(v) for k, v in other.state_dict().items()}


@pytest.mark.parametrize("change", [lambda m: m.half(), lambda m: m.to("simgpu")], ids=["half", "to"])
def test_moving_a_paged_model_is_refused_with_the_way_out(card: torch.device, change: Any) -> None:
    model = optimem.page(models.Stack().eval(), card, vram="60%")
    model(models.rows())
    change(model)
    with pytest.raises(optimem.BadInput, match=r"optimem\.detach"):
        model(models.rows())


def test_a_paged_model_refuses_to_be_copied(card: torch.device) -> None:
    model = optimem.page(models.Stack().eval(), card, vram="60%")
    with pytest.raises(optimem.OptimemError, match="detach"):
        copy.deepcopy(model)


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


def test_attaching_and_detaching_twice_changes_nothing(card: torch.device) -> None:
    model = models.Stack().eval()
    before = found(model)
    assert optimem.page(optimem.page(model, card, vram="60%"), card, vram="60%") is model
    model(models.rows())
    optimem.detach(optimem.detach(model))
    assert found(model) == before


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


class TestBadInput:
    """Each is refused before anything is touched."""

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: models.Stack(), "training mode"),
            (lambda: models.Stack().eval().to("meta"), "meta device"),
            (lambda: models.Stack().eval().to("simgpu"), "must be on the CPU"),
            (lambda: nn.Sequential(nn.LazyLinear(3)).eval(), "not initialised"),
            (
                lambda: nn.Sequential(torch.jit.script(nn.Linear(3, 3).eval())).eval(),
                "module 0 was made by torch.jit.script",
            ),
        ],
    )
    def test_models(self, card: torch.device, make: Any, match: str) -> None:
        model = make()
        before = [id(parameter.data) for parameter in model.parameters()] and list(model._forward_hooks)
        with pytest.raises(optimem.BadInput, match=match):
            optimem.page(model, card)
        assert list(model._forward_hooks) == before

    def test_a_budget_below_the_largest_page_names_it_and_what_is_missing(self, card: torch.device) -> None:
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1000)).eval()
        with pytest.raises(optimem.BadInput, match=r"\b1\b.*missing"):
            optimem.page(model, card, vram="1KiB")
        assert not model._forward_hooks

    @pytest.mark.parametrize("vram", ["-1", "lots", "0%", "6 cows"])
    def test_sizes_that_are_none(self, card: torch.device, vram: str) -> None:
        with pytest.raises(optimem.BadInput, match=vram.split(maxsplit=1)[0]):
            optimem.page(models.Stack().eval(), card, vram=vram)

    @pytest.mark.parametrize("device", ["cuda", "nosuch", "cuda:99", "meta"])
    def test_devices_that_are_not_there(self, device: str) -> None:
        with pytest.raises(optimem.BadInput, match=device.split(":", maxsplit=1)[0]):
            optimem.page(models.Stack().eval(), device)

    def test_on_the_cpu_there_is_nothing_to_do(self) -> None:
        model = models.Stack().eval()
        assert optimem.page(model, "cpu") is model
        assert not model._forward_hooks
