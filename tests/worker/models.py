"""Small models, each with one thing in it that trips pagers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.testing._internal.two_tensor import TwoTensor

WIDTH = 32


def rows(*shape: int) -> torch.Tensor:
    """Return seeded numbers of the given shape, (2, WIDTH) by default."""
    return torch.randn(*(shape or (2, WIDTH)), generator=torch.Generator().manual_seed(1))


def linears(count: int) -> list[nn.Linear]:
    """Return layers from WIDTH to WIDTH."""
    return [nn.Linear(WIDTH, WIDTH) for _ in range(count)]


class Stack(nn.Module):
    """Plain layers, as a base to hang tricks on."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linears(depth))

    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = layer(x).relu()
        return x


class ParentReads(Stack):
    def forward(self, x: torch.Tensor) -> Any:
        x = F.linear(x, self.layers[1].weight, self.layers[2].bias)
        return super().forward(x)


class RootParameter(Stack):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(rows(WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x * self.scale) + self.scale


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.list = nn.ParameterList([nn.Parameter(rows(WIDTH, WIDTH) / 8) for _ in range(4)])
        self.dict = nn.ParameterDict({"a": nn.Parameter(rows(WIDTH)), "b": nn.Parameter(rows(WIDTH))})

    def forward(self, x: torch.Tensor) -> Any:
        for weight in self.list:
            x = (x @ weight).tanh()
        return x * self.dict["a"] + self.dict["b"]


class OtherMethod(Stack):
    class Inner(nn.Linear):
        def project(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    def __init__(self) -> None:
        super().__init__()
        self.inner = OtherMethod.Inner(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner.project(super().forward(x))


class Raises(Stack):
    def __init__(self) -> None:
        super().__init__()
        self.armed: type[BaseException] | None = None

    def forward(self, x: torch.Tensor) -> Any:
        x = self.layers[0](x)
        if self.armed is not None:
            raise self.armed("on purpose")
        return super().forward(x)


class Recursive(Stack):
    def forward(self, x: torch.Tensor, depth: int = 2) -> Any:
        x = super().forward(x)
        return self(x, depth - 1) if depth else x


class Shared(Stack):
    def __init__(self) -> None:
        super().__init__()
        self.again = self.layers[1]

    def forward(self, x: torch.Tensor) -> Any:
        return self.again(super().forward(self.again(x)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, WIDTH)
        self.middle = Stack()
        self.head = nn.Linear(WIDTH, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.middle(self.embed(x)))


class Views(Stack):
    """Two weights that look into one storage, one transposed."""

    def __init__(self) -> None:
        super().__init__()
        both = torch.randn(2, WIDTH, WIDTH) / 8
        self.layers[0].weight = nn.Parameter(both[0])
        self.layers[3].weight = nn.Parameter(both[1].t())
        self.layers[2].weight = nn.Parameter(both[0][:, :].t())


class Aliases(Stack):
    def __init__(self) -> None:
        super().__init__()
        self.tricks = [layer.weight for layer in self.layers]
        self.closure: Callable[[torch.Tensor], torch.Tensor] = lambda x: x @ self.layers[3].weight

    def forward(self, x: torch.Tensor) -> Any:
        for weight in self.tricks:
            x = (x @ weight).tanh()
        return self.closure(x)


class Buffers(Stack):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(WIDTH), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        self.count += 1
        self.mean.mul_(0.5).add_(x.mean(0))
        return super().forward(x) + self.count + self.mean


class ReplacedBuffers(Stack):
    """Counts with a new tensor each time, and keeps views of one buffer as others."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("sums", torch.zeros(2, WIDTH))
        self.register_buffer("first", self.sums[0])
        self.register_buffer("ones", torch.ones(1).expand(WIDTH), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        self.count = self.count + 1
        self.sums.add_(x)
        return super().forward(x) + self.count + self.first + self.ones


class ReturnsWeight(Stack):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), self.layers[0].weight, self.layers[1].weight.t()[:2].expand(2, WIDTH)


class HandsOnWeights(Stack):
    """Children return what nobody reads: one its weight, one a view of it."""

    class Itself(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight

    class View(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight.t()[:2]

    def __init__(self) -> None:
        super().__init__()
        self.itself, self.view = HandsOnWeights.Itself(WIDTH, WIDTH), HandsOnWeights.View(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        itself, view = self.itself(x), self.view(x)
        return super().forward(x), [itself], {"view": view, "thrice": view.expand(3, 2, WIDTH)}


class Generator(Stack):
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(linears(3))

        def forward(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
            for layer in self.layers:
                x = F.linear(x, layer.weight, layer.bias)
                yield x

    def __init__(self) -> None:
        super().__init__()
        self.lazy = Generator.Lazy()

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(sum(self.lazy(x)))


class LazyRoot(Stack):
    """The whole model is a generator, which reads some weights itself."""

    def forward(self, x: torch.Tensor) -> Any:
        for index, layer in enumerate(self.layers):
            x = layer(x) if index % 2 else F.linear(x, layer.weight, layer.bias)
            yield x


class SideThread(Stack):
    """Has another thread call a layer, and waits for it."""

    def forward(self, x: torch.Tensor) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return super().forward(pool.submit(self._apart, x).result())

    def _apart(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.layers[0](x)


@dataclass
class Payload:
    x: torch.Tensor
    name: str = "kept"


class Containers(Stack):
    def forward(self, payload: Payload, *, extra: dict[str, Any], trace: list[str]) -> Any:  # type: ignore[override]
        trace.append(payload.name)
        return {"y": super().forward(payload.x + extra["shift"]), "pair": (payload.x, extra["n"])}


class Caches(Stack):
    """Lets a list grow, writes to tensors in a dict and puts others there, sets a field."""

    def forward(self, x: torch.Tensor, grown: list[Any], fixed: dict[Any, torch.Tensor], *, box: Payload) -> Any:  # type: ignore[override]
        for index, layer in enumerate(self.layers):
            x = layer(x).relu()
            grown.append((x, x * 2))
            fixed[index % 2].add_(x)
            fixed[f"new {index}"] = fixed[0] + 1
        box.x = box.x + x
        return x, grown, sum(pair[1].sum() for pair in grown), fixed


class Branches(Stack):
    def forward(self, x: torch.Tensor) -> Any:
        first, second = (0, 1) if float(x.sum()) > 0 else (2, 3)
        return self.layers[second](self.layers[first](x).relu())


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(linears(4))

    def forward(self, x: torch.Tensor) -> Any:
        chosen = self.gate(x).argmax(-1)
        return torch.stack([self.experts[int(index)](row) for index, row in zip(chosen, x, strict=True)])


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> Any:
        return self.convs(x)


class OddStrides(Stack):
    """Weights with gaps, in other orders, with all rows the same, and complex ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[0].weight = nn.Parameter(rows(WIDTH, 2 * WIDTH)[:, ::2] / 8)
        self.layers[1].weight = nn.Parameter((rows(WIDTH, WIDTH) / 8).t())
        self.layers[2].weight = nn.Parameter((rows(1, WIDTH) / 8).expand(WIDTH, WIDTH))
        self.turn = nn.Parameter(torch.complex(rows(WIDTH), rows(WIDTH) + 1))

    def forward(self, x: torch.Tensor) -> Any:
        return (super().forward(x) * self.turn).abs()


class OwnTensorClass(Stack):
    """One weight is a tensor of a class of its own, made of two plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.Parameter(TwoTensor(rows(WIDTH), rows(WIDTH) + 1))

    def forward(self, x: torch.Tensor) -> Any:
        both = self.pair * 2
        return super().forward(x) + both.a * both.b


class Dropouts(Stack):
    def __init__(self) -> None:
        super().__init__()
        self.layers.insert(1, nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(F.dropout(x, 0.5, self.training))


class Lora(nn.Module):
    """An adapter around a layer, as peft has them."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(WIDTH, rank, bias=False), nn.Linear(rank, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x)) * 0.5


class AsksDevice(Stack):
    def forward(self, x: torch.Tensor) -> Any:
        ramp = torch.arange(WIDTH, device=next(self.parameters()).device, dtype=x.dtype)
        return super().forward(x + ramp)


def normed(kind: str) -> nn.Module:
    """Return a stack whose second layer's weight is computed by a parametrisation of `kind`."""
    model = Stack()
    apply = {
        "weight_norm": nn.utils.parametrizations.weight_norm,
        "spectral_norm": nn.utils.parametrizations.spectral_norm,
        "old weight_norm": nn.utils.weight_norm,
        "old spectral_norm": nn.utils.spectral_norm,
    }[kind]
    apply(model.layers[1])
    return model


def quantised() -> nn.Module:
    """Return layers of which two have packed parameters."""
    packed = torch.ao.quantization.quantize_dynamic(
        nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LSTM(WIDTH, WIDTH)), {nn.Linear, nn.LSTM}
    )

    class Mixed(Stack):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.lstm = packed

        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(self.lstm(self.linear(super().forward(x)))[0])

    return Mixed()


Made = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


def _attention() -> Made:
    return nn.MultiheadAttention(WIDTH, 4, batch_first=True), (rows(2, 5, WIDTH),) * 3, {}


def _encoder() -> Made:
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (rows(2, 5, WIDTH),), {}


def _decoder() -> Made:
    layer = nn.TransformerDecoderLayer(WIDTH, 4, 64, batch_first=True)
    return nn.TransformerDecoder(layer, 2), (rows(2, 5, WIDTH), rows(2, 7, WIDTH)), {}


def _containers() -> Made:
    return Containers(), (Payload(rows()),), {"extra": {"shift": rows(), "n": 3}, "trace": []}


def _caches() -> Made:
    fixed = {index: rows() for index in range(2)}
    return Caches(), (rows(), [(rows(), rows())], fixed), {"box": Payload(rows())}


@dataclass(frozen=True)
class Trap:
    """A way to make a model with its arguments, and the rows of the table that it shows."""

    rows: tuple[int, ...]
    make: Callable[[], Made]


TRAPS: dict[str, Trap] = {
    "plain stack": Trap((), lambda: (Stack(), (rows(),), {})),
    "a parent reads its children's weights": Trap((1,), lambda: (ParentReads(), (rows(),), {})),
    "a parameter on the root, read twice": Trap((2,), lambda: (RootParameter(), (rows(),), {})),
    "ParameterList and ParameterDict": Trap((2,), lambda: (Lists(), (rows(),), {})),
    "a method other than forward reads": Trap((1,), lambda: (OtherMethod(), (rows(),), {})),
    "weight_norm": Trap((1,), lambda: (normed("weight_norm"), (rows(),), {})),
    "spectral_norm": Trap((1, 9), lambda: (normed("spectral_norm"), (rows(),), {})),
    "old weight_norm": Trap((3,), lambda: (normed("old weight_norm"), (rows(),), {})),
    "old spectral_norm": Trap((3, 9), lambda: (normed("old spectral_norm"), (rows(),), {})),
    "a module calls itself": Trap((5,), lambda: (Recursive(), (rows(),), {})),
    "a module under two names": Trap((5,), lambda: (Shared(), (rows(),), {})),
    "tied embedding and head": Trap((6,), lambda: (Tied(), (torch.arange(6).view(2, 3),), {})),
    "weights that view one storage": Trap((7, 27), lambda: (Views(), (rows(),), {})),
    "aliases in a list and a closure": Trap((8,), lambda: (Aliases(), (rows(),), {})),
    "the output is a weight": Trap((10,), lambda: (ReturnsWeight(), (rows(),), {})),
    "a forward that returns a generator": Trap((11,), lambda: (Generator(), (rows(),), {})),
    "dataclass, dict and list arguments": Trap((12,), _containers),
    "mixture of experts": Trap((13,), lambda: (Experts(), (rows(),), {})),
    "channels_last weights": Trap(
        (27,), lambda: (ChannelsLast(), (rows(1, 3, 9, 9).to(memory_format=torch.channels_last),), {})
    ),
    "forward asks where the weights are": Trap((24,), lambda: (AsksDevice(), (rows(),), {})),
    "MultiheadAttention": Trap((1,), _attention),
    "TransformerEncoder": Trap((1,), _encoder),
    "TransformerDecoder": Trap((1,), _decoder),
    "LSTM": Trap((8,), lambda: (nn.LSTM(WIDTH, WIDTH, 2, batch_first=True), (rows(2, 5, WIDTH),), {})),
    "GRU, bidirectional": Trap((8,), lambda: (nn.GRU(WIDTH, WIDTH, bidirectional=True), (rows(5, 2, WIDTH),), {})),
    "half precision": Trap((), lambda: (Stack().half(), (rows().half(),), {})),
    "bfloat16": Trap((), lambda: (Stack().bfloat16(), (rows().bfloat16(),), {})),
    "children hand their weights on": Trap((10,), lambda: (HandsOnWeights(), (rows(),), {})),
    "the model is a generator": Trap((11,), lambda: (LazyRoot(), (rows(),), {})),
    "weights with odd strides": Trap((27,), lambda: (OddStrides(), (rows(),), {})),
    "a weight of a tensor class of its own": Trap((28,), lambda: (OwnTensorClass(), (rows(),), {})),
    "packed parameters": Trap((29,), lambda: (quantised(), (rows(5, 2, WIDTH),), {})),
    "dropout": Trap((36,), lambda: (Dropouts(), (rows(),), {})),
    "buffers that are written to": Trap((9,), lambda: (Buffers(), (rows(),), {})),
    "buffers that are replaced, and views of others": Trap((9,), lambda: (ReplacedBuffers(), (rows(),), {})),
    "caches that grow and are written to": Trap((12,), _caches),
    "BatchNorm": Trap((9,), lambda: (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (rows(1, 3, 9, 9),), {})),
}
