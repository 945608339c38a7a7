"""Weights in tensor classes of their own: paged by the tensors that they are made of, or kept whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_map

import models
import optimem
from models import WIDTH, rows
from optimem.model.units import by_owner, take_stock
from same import bits, found, values

MODES = pytest.mark.parametrize("attach", [optimem.page, optimem.chunk, optimem.fit])
TABLE = torch.linspace(-1, 1, 256)  # one for all layers of this process, as bitsandbytes has it


class Scaled(torch.Tensor):
    """A wrapper: whole numbers and a scale per row, as torchao and quanto have them."""

    @staticmethod
    def __new__(cls, numbers: torch.Tensor, scale: torch.Tensor) -> Scaled:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, numbers.size(), strides=numbers.stride(), dtype=scale.dtype, device=numbers.device
        )

    def __init__(self, numbers: torch.Tensor, scale: torch.Tensor) -> None:
        self.numbers, self.scale = numbers, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["numbers", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: dict[str, Any], context: None, size: object, stride: object) -> Scaled:
        return cls(inner["numbers"], inner["scale"])

    def plain(self) -> torch.Tensor:
        return self.numbers.to(self.scale.dtype) * self.scale

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return return_and_correct_aliasing(func, args, kwargs, cls(args[0].numbers, args[0].scale))
        opened = tree_map(lambda leaf: leaf.plain() if isinstance(leaf, Scaled) else leaf, (args, kwargs or {}))
        return func(*opened[0], **opened[1])


class Wrapped(Scaled):
    """A wrapper whose numbers are in a wrapper too."""

    def plain(self) -> torch.Tensor:
        return self.numbers.plain() * self.scale  # type: ignore[attr-defined,no-any-return]


def scaled(weight: torch.Tensor, kind: type[Scaled] = Scaled) -> nn.Parameter:
    scale = weight.abs().amax(1, keepdim=True) / 127
    inner: torch.Tensor = (weight / scale).round().to(torch.int8)
    if kind is Wrapped:
        inner = Scaled(inner, torch.full((1,), 0.5))
    return nn.Parameter(kind(inner, scale), requires_grad=False)


class State:
    """What lies beside the bytes of a quantised parameter: a scale, and a table that is everybody's."""

    def __init__(self, scale: torch.Tensor) -> None:
        self.scale, self.more = scale, {"tables": [TABLE]}


class Bytes(nn.Parameter):
    """Plain bytes, with a state beside them, as bitsandbytes' 4-bit parameters are."""

    state: State | None

    @staticmethod
    def made(weight: torch.Tensor) -> Bytes:
        scale = weight.abs().amax(1, keepdim=True)
        nearest = (weight / scale).unsqueeze(-1).sub(TABLE).abs().argmin(-1).to(torch.uint8)
        made = torch.Tensor._make_subclass(Bytes, nearest)
        made.state = State(scale)
        return made

    def __deepcopy__(self, memo: object) -> Bytes:
        made = torch.Tensor._make_subclass(Bytes, self.data.clone())
        made.state = copy.deepcopy(self.state)
        return made


class Looked(nn.Linear):
    """Computes with `Bytes`, which anybody may read through `.data` alone."""

    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH)
        self.weight = Bytes.made(self.weight.data)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.weight.state
        return F.linear(x, state.more["tables"][0][self.weight.data.int()] * state.scale, self.bias)


class Moves(nn.Linear):
    """Moves what lies beside its weight to a state of its own in its first forward, and re-points the weight in each, as
    bitsandbytes' 8-bit layers do."""

    class State:
        numbers: torch.Tensor | None = None
        scale: torch.Tensor | None = None

    class Weight(nn.Parameter):
        numbers: torch.Tensor | None
        scale: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH)
        scale = self.weight.data.abs().amax(1, keepdim=True) / 127
        numbers = (self.weight.data / scale).round().to(torch.int8)
        self.weight = torch.Tensor._make_subclass(Moves.Weight, numbers)
        self.weight.numbers, self.weight.scale = numbers, scale
        self.state = Moves.State()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight.numbers is not None:
            self.state.numbers, self.state.scale = self.weight.numbers, self.weight.scale
            self.weight.numbers = self.weight.scale = None
        y = F.linear(x, self.state.numbers.float() * self.state.scale, self.bias)
        self.weight.data = self.state.numbers
        return y


def stack(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the same layers each time, of which three are made by `make`."""
    torch.manual_seed(0)
    plain = models.linears(2)
    return nn.Sequential(plain[0], make(), nn.ReLU(), make(), make(), plain[1]).eval()


def wrapped(kind: type[Scaled]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = nn.Linear(WIDTH, WIDTH)
        layer.weight = scaled(layer.weight.data, kind)
        return layer

    return make


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "a wrapper": wrapped(Scaled),
    "a wrapper in a wrapper": wrapped(Wrapped),
    "a state beside plain bytes": Looked,
    "a state that moves": Moves,
}


def right(model: nn.Module, expected: Any, x: torch.Tensor, count: int = 5) -> None:
    with torch.no_grad():
        for _ in range(count):
            assert bits(model(x)) == expected


@pytest.mark.trap(28)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("share", ["40%", "70%", "200%"])
@MODES
def test_they_are_paged_by_the_tensors_that_they_are_made_of(card: torch.device, attach: Any, share: str, make: Any) -> None:
    model, x = stack(make), rows(3, WIDTH)
    with torch.no_grad():
        expected = bits(stack(make)(x))
    before, held = found(model), values(model)
    paged = {weight.name for span in take_stock(model).spans for weight in span.weights}
    assert {"1.weight", "3.weight", "4.weight"} <= paged
    attach(model, device=card, vram=share)
    right(model, expected, x)
    status = optimem.status(model)
    assert status is not None
    assert not [note for note in status.notes if "weight" in note]
    assert not status.misses
    optimem.detach(model)
    right(model, expected, x, 1)
    if make is not Moves:  # which moves what it holds, and so has it elsewhere
        assert found(model) == before
    assert values(model) == held


def test_what_everybody_reads_is_left_alone(card: torch.device) -> None:
    first, second, x = stack(Looked), stack(Looked), rows(3, WIDTH)
    where, was = TABLE.data_ptr(), TABLE.clone()
    with torch.no_grad():
        expected = bits(stack(Looked)(x))
    for model in (first, second):
        optimem.page(model, card, vram="60%")
    for _ in range(2):
        for model in (first, second):
            right(model, expected, x, 2)
    optimem.detach(first)
    right(second, expected, x, 2)
    optimem.detach(second)
    assert TABLE.data_ptr() == where
    assert torch.equal(TABLE, was)
    assert all(layer.weight.state.more["tables"][0] is TABLE for model in (first, second) for layer in (model[1], model[4]))


@pytest.mark.parametrize("make", [wrapped(Scaled), Looked], ids=["a wrapper", "a state beside"])
def test_two_parameters_with_bytes_in_common_move_together(card: torch.device, make: Any) -> None:
    def tied() -> nn.Module:
        model = stack(make)
        model[4].weight = model[1].weight
        return model

    model, x = tied(), rows(3, WIDTH)
    with torch.no_grad():
        expected = bits(tied()(x))
    optimem.page(model, card, vram="60%")
    right(model, expected, x)
    optimem.detach(model)
    assert model[4].weight is model[1].weight


class ReadsData(nn.Module):
    """A parent that reads its child's bytes, and what lies beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.child, self.first, self.last = Looked(), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.child.weight
        x = F.linear(self.first(x), weight.state.more["tables"][0][weight.data.int()] * weight.state.scale)
        return self.last(x)


@MODES
def test_a_parent_reads_them_through_data(card: torch.device, attach: Any) -> None:
    torch.manual_seed(0)
    model, x = ReadsData().eval(), rows(3, WIDTH)
    with torch.no_grad():
        expected = bits(model(x))
    attach(model, device=card, vram="80%")
    right(model, expected, x)


def test_a_write_to_what_is_inside_is_noticed(card: torch.device) -> None:
    model, x = stack(wrapped(Scaled)), rows(3, WIDTH)
    optimem.page(model, card, vram="60%")
    with torch.no_grad():
        first = bits(model(x))
        model(x)
        torch.accelerator.synchronize()
        model[3].weight.scale.mul_(2)
        plain = stack(wrapped(Scaled))
        assert bits(plain(x)) == first
        plain[3].weight.scale.mul_(2)
        right(model, bits(plain(x)), x, 3)


class Whole(nn.Module):
    """One weight of a class whose inner tensors may not lie side by side in one block."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.Sequential(*models.linears(4))
        self.pair = nn.Parameter(TwoTensor(rows(width, WIDTH), rows(width, WIDTH) + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = self.pair * 2
        return self.layers(x) + both.a[: len(x)] * both.b[: len(x)]


@MODES
def test_a_class_that_cannot_be_paged_is_kept_whole_and_named(card: torch.device, attach: Any) -> None:
    torch.manual_seed(0)
    model, x = Whole().eval(), rows(3, WIDTH)
    with torch.no_grad():
        expected = bits(model(x))
    attach(model, device=card, vram="90%")
    right(model, expected, x)
    status = optimem.status(model)
    assert status is not None
    assert [note for note in status.notes if note.startswith("pair: a TwoTensor")]
    optimem.detach(model)
    right(model, expected, x, 1)


@pytest.mark.parametrize("attach", [optimem.page, optimem.fit])
def test_what_is_kept_counts_in_the_budget(card: torch.device, attach: Any) -> None:
    model = Whole(256).eval()
    paged = sum(unit.nbytes for unit in by_owner(take_stock(model).spans))
    kept = 2 * 256 * WIDTH * 4
    with pytest.raises(optimem.BadInput, match=rf"too small: .*cannot be paged.*pair \({kept} bytes\): quantise"):
        attach(model, device=card, vram="50%")
    attach(model, device=card, vram="90%")
    status = optimem.status(model)
    assert status is not None
    assert status.budget_bytes == (paged + kept) * 9 // 10 - kept
    assert f"pair: a TwoTensor, a tensor class that cannot be paged, {kept} bytes" in status.notes


@pytest.mark.parametrize("attach", [optimem.page, optimem.fit])
def test_bytes_for_what_is_kept_and_too_few_for_the_rest_are_refused(card: torch.device, attach: Any) -> None:
    model = Whole(256).eval()
    with pytest.raises(optimem.BadInput, match=r"pair \(65536 bytes\)"):
        attach(model, device=card, vram=66_000)
    assert optimem.status(model) is None


@pytest.mark.parametrize("vram", ["50%", 66_000, "90%"])
@pytest.mark.usefixtures("slow_cpu")
def test_a_chunk_counts_what_is_kept(card: torch.device, vram: str | int) -> None:
    model, x = Whole(256).eval(), rows(3, WIDTH)
    with torch.no_grad():
        expected = bits(model(x))
    optimem.chunk(model, card, vram=vram)
    right(model, expected, x)
    status = optimem.status(model)
    assert status is not None
    assert (status.resident_bytes > 0) == (vram == "90%")


def test_a_plan_counts_what_is_kept(card: torch.device) -> None:
    with pytest.raises(optimem.BadInput, match="cannot be paged"):
        optimem.plan(Whole(256).eval(), vram="50%")
    whole = optimem.plan(Whole(256).eval(), vram="90%")
    assert whole.budget_bytes < 0.9 * whole.weights_bytes


@MODES
def test_a_model_of_nothing_else_is_refused(card: torch.device, attach: Any) -> None:
    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = nn.Parameter(TwoTensor(rows(WIDTH), rows(WIDTH)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (self.pair * 2).a

    with pytest.raises(optimem.BadInput, match=r"nothing to page.*pair \(256 bytes\)"):
        attach(Nothing().eval(), device=card, vram="100%")


# The packages that people use.


def bitsandbytes_4bit(**options: Any) -> nn.Module:
    bnb = pytest.importorskip("bitsandbytes", exc_type=ImportError)
    layer = bnb.nn.Linear4bit(64, 64, compute_dtype=torch.float32, **options)
    layer.load_state_dict(nn.Linear(64, 64).state_dict())
    return layer.to("cpu")  # type: ignore[no-any-return]


def bitsandbytes_8bit() -> nn.Module:
    bnb = pytest.importorskip("bitsandbytes", exc_type=ImportError)
    layer = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
    layer.load_state_dict(nn.Linear(64, 64).state_dict())
    return layer.to("cpu")  # type: ignore[no-any-return]


def torchao(config: str) -> nn.Module:
    quantization = pytest.importorskip("torchao.quantization", exc_type=ImportError)
    layer = nn.Sequential(nn.Linear(64, 64))
    quantization.quantize_(layer, getattr(quantization, config)())
    return layer


def quanto(weights: str) -> nn.Module:
    package = pytest.importorskip("optimum.quanto", exc_type=ImportError)
    layer = nn.Sequential(nn.Linear(64, 64))
    package.quantize(layer, weights=getattr(package, weights))
    package.freeze(layer)
    return layer


def gguf(kind: str) -> nn.Module:
    package = pytest.importorskip("gguf", exc_type=ImportError)
    utils = pytest.importorskip("diffusers.quantizers.gguf.utils", exc_type=ImportError)
    plain, kind = nn.Linear(64, 64), package.GGMLQuantizationType[kind]
    numbers = torch.from_numpy(package.quants.quantize(plain.weight.detach().numpy(), kind))
    layer = utils.GGUFLinear(64, 64, bias=True, compute_dtype=torch.float32)
    layer.weight, layer.bias = utils.GGUFParameter(numbers, quant_type=kind), plain.bias
    return layer  # type: ignore[no-any-return]


PACKAGES: dict[str, Callable[[], nn.Module]] = {
    "bitsandbytes nf4": lambda: bitsandbytes_4bit(quant_type="nf4"),
    "bitsandbytes fp4": lambda: bitsandbytes_4bit(quant_type="fp4", compress_statistics=False),
    "bitsandbytes int8": bitsandbytes_8bit,
    "torchao int8": lambda: torchao("Int8WeightOnlyConfig"),
    "torchao intx": lambda: torchao("IntxWeightOnlyConfig"),
    "torchao float8": lambda: torchao("Float8WeightOnlyConfig"),
    "quanto qint8": lambda: quanto("qint8"),
    "quanto qint4": lambda: quanto("qint4"),
    "quanto qfloat8": lambda: quanto("qfloat8"),
    "gguf Q8_0": lambda: gguf("Q8_0"),
    "gguf Q4_0": lambda: gguf("Q4_0"),
}


@pytest.fixture
def no_repacking() -> Iterator[None]:
    """Keep bitsandbytes from packing weights anew in the forward of the plain model."""
    try:
        from bitsandbytes.nn import modules
    except ImportError:
        yield
        return
    before, modules.has_avx512bf16 = modules.has_avx512bf16, lambda: False
    yield
    modules.has_avx512bf16 = before


@pytest.mark.trap(28)
@pytest.mark.parametrize("make", PACKAGES.values(), ids=PACKAGES)
@pytest.mark.usefixtures("no_repacking")
@MODES
def test_classes_of_packages_are_paged(card: torch.device, attach: Any, make: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), make(), make(), nn.ReLU(), make(), nn.Linear(64, 64)).eval()
    x = rows(3, 64)
    with torch.no_grad():
        expected = bits(model(x))
    assert len({weight.name for span in take_stock(model).spans for weight in span.weights}) == 10
    attach(model, device=card, vram="60%")
    right(model, expected, x)
    optimem.detach(model)
    right(model, expected, x, 1)


@MODES
def test_4bit_weights_that_were_packed_for_the_cpu_stay_there(card: torch.device, attach: Any) -> None:
    layer = bitsandbytes_4bit(quant_type="nf4")
    if not getattr(layer, "support_avx512bf16_for_cpu", False):
        pytest.skip("this CPU has no format of its own")
    model = nn.Sequential(nn.Linear(64, 64), layer, nn.Linear(64, 64)).eval()
    x = rows(3, 64)
    with torch.no_grad():
        expected = bits(model(x))
    attach(model, device=card, vram="60%")
    right(model, expected, x)
    status = optimem.status(model)
    assert status is not None
    assert "1: packed parameters, computed on the CPU" in status.notes


@MODES
def test_4bit_weights_are_not_packed_while_attached(card: torch.device, attach: Any) -> None:
    layer = bitsandbytes_4bit(quant_type="nf4")
    before = getattr(layer, "support_avx512bf16_for_cpu", False)
    model = nn.Sequential(nn.Linear(64, 64), layer, nn.Linear(64, 64)).eval()
    attach(model, device=card, vram="60%")
    with torch.no_grad():
        first = bits(model(rows(3, 64)))
    right(model, first, rows(3, 64), 4)
    optimem.detach(model)
    assert getattr(layer, "support_avx512bf16_for_cpu", False) == before
    assert not getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
