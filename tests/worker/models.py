"""Small models, each with one thing in it that trips pagers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

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


class ReturnsWeight(Stack):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), self.layers[0].weight, self.layers[1].weight.t()[:2].expand(2, WIDTH)


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


@dataclass
class Payload:
    x: torch.Tensor
    name: str = "kept"


class Containers(Stack):
    def forward(self, payload: Payload, *, extra: dict[str, Any], trace: list[str]) -> Any:  # type: ignore[override]
        trace.append(payload.name)
        return {"y": super().forward(payload.x + extra["shift"]), "pair": (payload.x, extra["n"])}


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


TRAPS: dict[str, Callable[[], Made]] = {
    "plain stack": lambda: (Stack(), (rows(),), {}),
    "a parent reads its children's weights": lambda: (ParentReads(), (rows(),), {}),
    "a parameter on the root, read twice": lambda: (RootParameter(), (rows(),), {}),
    "ParameterList and ParameterDict": lambda: (Lists(), (rows(),), {}),
    "a method other than forward reads": lambda: (OtherMethod(), (rows(),), {}),
    "weight_norm": lambda: (normed("weight_norm"), (rows(),), {}),
    "spectral_norm": lambda: (normed("spectral_norm"), (rows(),), {}),
    "old weight_norm": lambda: (normed("old weight_norm"), (rows(),), {}),
    "old spectral_norm": lambda: (normed("old spectral_norm"), (rows(),), {}),
    "a module calls itself": lambda: (Recursive(), (rows(),), {}),
    "a module under two names": lambda: (Shared(), (rows(),), {}),
    "tied embedding and head": lambda: (Tied(), (torch.arange(6).view(2, 3),), {}),
    "weights that view one storage": lambda: (Views(), (rows(),), {}),
    "aliases in a list and a closure": lambda: (Aliases(), (rows(),), {}),
    "the output is a weight": lambda: (ReturnsWeight(), (rows(),), {}),
    "a forward that returns a generator": lambda: (Generator(), (rows(),), {}),
    "dataclass, dict and list arguments": _containers,
    "mixture of experts": lambda: (Experts(), (rows(),), {}),
    "channels_last weights": lambda: (ChannelsLast(), (rows(1, 3, 9, 9).to(memory_format=torch.channels_last),), {}),
    "forward asks where the weights are": lambda: (AsksDevice(), (rows(),), {}),
    "MultiheadAttention": _attention,
    "TransformerEncoder": _encoder,
    "TransformerDecoder": _decoder,
    "LSTM": lambda: (nn.LSTM(WIDTH, WIDTH, 2, batch_first=True), (rows(2, 5, WIDTH),), {}),
    "GRU, bidirectional": lambda: (nn.GRU(WIDTH, WIDTH, bidirectional=True), (rows(5, 2, WIDTH),), {}),
    "half precision": lambda: (Stack().half(), (rows().half(),), {}),
    "bfloat16": lambda: (Stack().bfloat16(), (rows().bfloat16(),), {}),
}
