"""What runs a forward in ways of its own: torch.func, torch.autograd, torch.jit.trace, deep recursion, a default device."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models
import optimem
from models import WIDTH
from paged import MODES
from same import bits


class Transformed(nn.Module):
    """Calls modules, or plain functions, inside of a transform."""

    def __init__(self, transform: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.core, self.act, self.last = nn.Sequential(*models.linears(4)), nn.Tanh(), nn.Linear(WIDTH, WIDTH)
        self.transform = transform

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.transform(self, x))


OF_MODULES: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "jvp": lambda model, x: torch.func.jvp(model.core, (x,), (torch.ones_like(x),))[1],
    "grad": lambda model, x: torch.func.grad(lambda y: model.core(y).sum())(x),
    "vmap": lambda model, x: torch.func.vmap(model.core)(x),
    "of a weight": lambda model, x: torch.func.grad(lambda w: F.linear(model.core(x), w).sum())(model.last.weight),
}
OF_FUNCTIONS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "grad": lambda model, x: torch.func.grad(lambda y: (y * y).sin().sum())(x) + model.core(x),
    "vmap": lambda model, x: model.core(torch.func.vmap(lambda row: row.flip(0) * 2)(x)),
    "a module without weights": lambda model, x: torch.func.jvp(model.act, (x,), (torch.ones_like(x),))[1],
    "jacobian": lambda model, x: torch.func.jacrev(lambda y: (y * y).sum(0))(model.core(x)).sum((0, 1)),
}


def expected(model: nn.Module, x: torch.Tensor) -> Any:
    return bits(model(x).detach())


@pytest.mark.trap(43)
@pytest.mark.parametrize("vram", ["50%", "200%"])
@pytest.mark.parametrize("name", OF_MODULES)
def test_modules_in_transforms_are_right_or_refused(card: torch.device, name: str, vram: str) -> None:
    """In a process that may end: a transform once ended it."""
    plain, x = Transformed(OF_MODULES[name]).eval(), models.rows()
    wanted = expected(plain, x)
    model = optimem.page(copy.deepcopy(plain), card, vram=vram)
    for _ in range(3):
        try:
            assert expected(model, x) == wanted
        except optimem.BadInput as refusal:
            assert "torch.func transform" in str(refusal)
            assert "optimem.detach" in str(refusal)
    assert expected(optimem.detach(model), x) == wanted


@pytest.mark.trap(43)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OF_FUNCTIONS)
def test_functions_in_transforms_are_right(card: torch.device, name: str, mode: str) -> None:
    plain, x = Transformed(OF_FUNCTIONS[name]).eval(), models.rows()
    model = MODES[mode](copy.deepcopy(plain), device=card, vram="50%")
    with torch.no_grad():
        for _ in range(4):
            assert bits(model(x)) == bits(plain(x))


class Gradient(nn.Module):
    """Returns the gradient of a score with respect to its input, as guidance and energy models do."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Sequential(*models.linears(4), nn.Linear(WIDTH, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            return torch.autograd.grad(self.score(y).sum(), y)[0]


@pytest.mark.trap(43)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("vram", ["50%", "150%"])
@pytest.mark.parametrize("grad", [torch.no_grad, torch.enable_grad])
def test_a_gradient_inside_of_a_forward_is_right_or_refused_with_what_it_takes(
    card: torch.device, mode: str, vram: str, grad: Callable[[], Any]
) -> None:
    plain, x = Gradient().eval(), models.rows()
    with grad():
        wanted = bits(plain(x))
        model = MODES[mode](copy.deepcopy(plain), device=card, vram=vram)
        for _ in range(4):
            try:
                assert bits(model(x)) == wanted
            except optimem.BadInput as refusal:  # the way back reads all weights once more
                assert vram == "50%"
                assert "read over many steps" in str(refusal)
        optimem.detach(model)
        assert bits(model(x)) == wanted


@pytest.mark.trap(43)
def test_tracing_is_refused_at_once_and_the_session_goes_on(card: torch.device) -> None:
    plain, x = models.Stack().eval(), models.rows()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            with pytest.raises(optimem.BadInput, match=r"torch\.jit\.trace.*optimem\.detach"):
                torch.jit.trace(model, x)
            assert bits(model(x)) == bits(plain(x))
    status = optimem.status(model)
    assert status is not None
    assert status.controller == "connected"


class Deep(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.next = Deep(depth - 1) if depth else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return x if self.next is None else self.next(x)


@pytest.mark.trap(43)
def test_modules_nest_as_deeply_as_without_us(card: torch.device) -> None:
    model = Deep(230).eval()  # three frames each, of Python's usual thousand
    with torch.no_grad():
        wanted = bits(model(models.rows()))
        optimem.page(model, card, vram="60%")
        for _ in range(3):
            assert bits(model(models.rows())) == wanted


class Scaled(nn.Module):
    """Has a parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * self.scale


@pytest.mark.trap(44)
@pytest.mark.parametrize("mode", MODES)
def test_parameters_without_dimensions_are_paged(card: torch.device, mode: str) -> None:
    plain = nn.Sequential(*[Scaled() for _ in range(6)]).eval()
    model = MODES[mode](copy.deepcopy(plain), device=card, vram="60%")
    with torch.no_grad():
        for _ in range(4):
            assert bits(model(models.rows())) == bits(plain(models.rows()))


@pytest.mark.trap(46)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("since", [0, 3], ids=["from the start", "later"])
def test_hooks_on_all_modules_may_read_weights(card: torch.device, mode: str, since: int) -> None:
    plain, x = models.Stack(8).eval(), models.rows()
    model = copy.deepcopy(plain)
    seen: list[float] = []

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Linear):
            seen.append(float((module.weight * args[0].sum()).sum()))

    handle = None
    with torch.no_grad():
        wanted = bits(plain(x))
        MODES[mode](model, device=card, vram="150%")
        try:
            for forward in range(6):
                if forward == since:
                    handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
                    plain(x)
                    looked = list(seen)
                seen.clear()
                assert bits(model(x)) == wanted
                assert handle is None or seen == looked
        finally:
            if handle is not None:
                handle.remove()
    assert handle is not None


DEFAULT_DEVICE = """
import torch, optimem, simgpu
torch.set_grad_enabled(False)
model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(8)]).eval()
x = torch.randn(2, 256)
wanted = model(x)
torch.set_default_device("simgpu")
for attach in (optimem.page, optimem.chunk, optimem.fit):
    attach(model, vram="50%", device="simgpu")
    for _ in range(4):
        assert torch.equal(model(x).cpu(), wanted), attach
    status = optimem.status(model)
    assert status.pinned_bytes >= status.weights_bytes, status
    optimem.detach(model)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
"""


@pytest.mark.trap(44)
def test_a_default_device_changes_nothing() -> None:
    subprocess.run([sys.executable, "-c", DEFAULT_DEVICE], check=True, timeout=120)
