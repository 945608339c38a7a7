"""Random modules: a node of a program interprets a short list of steps, each of which is one thing that trips pagers.

A program is plain data, so that hypothesis can draw it, shrink it and print it. Nodes call only later nodes (or
themselves, to a depth), which makes shared children common and programs finite. All data are of shape (ROWS, WIDTH) and
of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from hypothesis import strategies as st
from torch import nn

ROWS, WIDTH = 2, 8
DEPTH = 2  # how often a node may be inside itself
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

Step = tuple[str, int, int]


class Planned(Exception):
    """Thrown by a program on purpose."""


@dataclass(frozen=True)
class Weight:
    """`source`: "own" bytes, "tied" to an earlier weight, a "turned" or "narrow" view of one. `columns` is its size."""

    source: str = "own"
    columns: int = WIDTH
    dtype: int = 0
    of: int = 0


@dataclass(frozen=True)
class Node:
    """`kind` is "program" or a layer of torch.nn; `children` are counted from the node itself."""

    kind: str = "program"
    weights: tuple[Weight, ...] = ()
    children: tuple[int, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass
class Bag:
    """Tensors in a container that is filled in place."""

    x: torch.Tensor
    log: list[torch.Tensor]


def mix(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return data that depend on every element of `weight`, of shape (WIDTH, n) or its transpose, whatever its dtype."""
    wide = weight if weight.shape[0] == WIDTH else weight.t()
    hidden = x.to(wide.dtype) @ wide
    return x + (hidden @ wide.t()).tanh().to(x.dtype)


def positive(x: torch.Tensor) -> bool:
    """Tell the sign of the first element: what branches depend on."""
    return float(x[0, 0]) > 0


class Program(nn.Module):
    """Interprets a node. `pool` holds every weight of the program, as aliases that no module registers."""

    def __init__(self, node: Node, children: list[nn.Module], pool: list[nn.Parameter], own: list[nn.Parameter]) -> None:
        super().__init__()
        self.steps = node.steps
        self.pool = pool
        self.depth = 0
        for index, child in enumerate(children):
            self.add_module(f"child{index}", child)
        for index, weight in enumerate(own):
            self.register_parameter(f"weight{index}", weight)
        self.register_buffer("count", torch.zeros(WIDTH), persistent=False)

    def forward(self, x: Any, *, shift: torch.Tensor | None = None, given: Any = None, lazy: bool = False) -> Any:
        if lazy:
            return self.stream(x)
        if isinstance(x, Bag):
            x.log.append(x.x)
            x.x = self.run(x.x)
            return x
        if isinstance(x, dict):
            return {**x, "x": self.run(x["x"])}
        x = x if shift is None else x + shift
        return self.run(x if given is None else mix(x, given))

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Do all steps. A node that is inside itself often enough does nothing."""
        if self.depth > DEPTH:
            return x
        self.depth += 1
        try:
            for name, a, b in self.steps:
                x = STEPS[name](self, x, a, b)
        finally:
            self.depth -= 1
        return x

    def stream(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield what the weights make of `x`, one by one, long after forward has returned."""
        for weight in self.own():
            x = mix(x, weight)
            yield x

    def own(self) -> list[torch.Tensor]:
        """Return the weights registered here."""
        return [cast(torch.Tensor, getattr(self, name)) for name in self._parameters]

    def one(self, index: int) -> torch.Tensor | None:
        """Return one of the weights registered here, None where there are none."""
        names = list(self._parameters)
        return getattr(self, names[index % len(names)]) if names else None

    def child(self, index: int) -> nn.Module | None:
        """Return a child, None where there are none."""
        names = list(self._modules)
        return self._modules[names[index % len(names)]] if names else None


def call(child: nn.Module | None, x: torch.Tensor, **extra: Any) -> torch.Tensor:
    """Call any child as it wants to be called."""
    if isinstance(child, Program):
        return cast(torch.Tensor, child(x, **extra))
    if isinstance(child, nn.ParameterList):
        for weight in child:
            x = mix(x, weight)
        return x
    if isinstance(child, (nn.LSTM, nn.GRU)):
        return cast(torch.Tensor, child(x)[0])
    if isinstance(child, nn.MultiheadAttention):
        return cast(torch.Tensor, child(x, x, x, need_weights=False)[0])
    if isinstance(child, nn.ModuleDict):  # of parametrisations
        return x
    return x if child is None else cast(torch.Tensor, child(x))


def _own(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    weight = node.one(a)
    return x if weight is None else mix(x, weight)


def _call(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    for _ in range(1 + b % 2):
        x = call(node.child(a), x)
    return x


def _residual(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return x + call(node.child(a), x)


def _alias(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return mix(x, node.pool[a % len(node.pool)]) if node.pool else x


def _peek(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    weights = list(child.parameters()) if (child := node.child(a)) is not None else []
    square = [weight for weight in weights if weight.dim() == 2 and WIDTH in weight.shape]
    return mix(x, square[b % len(square)]) if square else x


def _branch(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return call(node.child(a if positive(x) else b), x)


def _maybe(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return _alias(node, x, a, b) if positive(x) else -x


def _again(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return cast(torch.Tensor, node(x))


def _method(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    child = node.child(a)
    return child.run(x) if isinstance(child, Program) else x


def _shift(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    child = node.child(a)
    return call(child, x=x, shift=x) if isinstance(child, Program) else x


def _give(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    child, weight = node.child(a), node.one(b)
    return call(child, x, given=weight) if isinstance(child, Program) else x


def _turned(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    """Hold a view over a child's call."""
    weight = node.one(b)
    if weight is None:
        return x
    view = weight.t()
    return mix(call(node.child(a), x), view)


def _dict(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    child = node.child(a)
    return cast(torch.Tensor, child({"x": x, "n": 1})["x"]) if isinstance(child, Program) else x


def _bag(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    child, bag = node.child(a), Bag(x, [])
    return child(bag).x + bag.log[-1] if isinstance(child, Program) else x


def _lazy(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    child = node.child(a)
    return sum(child(x, lazy=True), x) if isinstance(child, Program) else x


def _count(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    node.count.add_(x.mean(0)).mul_(0.5)
    return x + node.count


def _device(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    weight = node.one(a)
    return x if weight is None else x + torch.arange(WIDTH, device=weight.device)


def _throw(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    if positive(x):
        raise Planned
    return -x


def _rescue(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    try:
        return call(node.child(a), x)
    except Planned:
        return call(node.child(b), -x) if not isinstance(node.child(b), Program) else -x


def _flip(node: Program, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return -x


STEPS: dict[str, Callable[[Program, torch.Tensor, int, int], torch.Tensor]] = {
    "own": _own,
    "call": _call,
    "residual": _residual,
    "alias": _alias,
    "peek": _peek,
    "flip": _flip,
    "branch": _branch,
    "maybe": _maybe,
    "again": _again,
    "method": _method,
    "shift": _shift,
    "give": _give,
    "turned": _turned,
    "dict": _dict,
    "bag": _bag,
    "lazy": _lazy,
    "count": _count,
    "device": _device,
    "throw": _throw,
    "rescue": _rescue,
}
WANDERS = frozenset({"branch", "maybe", "throw", "rescue"})  # steps that may do something else another time

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "batch norm": lambda: nn.BatchNorm1d(WIDTH),
    "sequential": lambda: nn.Sequential(nn.Linear(WIDTH, 3 * WIDTH), nn.GELU(), nn.Linear(3 * WIDTH, WIDTH)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "old weight norm": lambda: nn.utils.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "lstm": lambda: nn.LSTM(WIDTH, WIDTH),
    "gru": lambda: nn.GRU(WIDTH, WIDTH),
    "attention": lambda: nn.MultiheadAttention(WIDTH, 2),
    "encoder": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH),
    "list": lambda: nn.ParameterList([nn.Parameter(torch.randn(WIDTH, WIDTH) / 4) for _ in range(2)]),
}


class Root(nn.Module):
    """Calls the first node and returns its result as `result` says, beside a weight or a view of one."""

    def __init__(self, first: nn.Module, result: str) -> None:
        super().__init__()
        self.first = first
        self.result = result

    def forward(self, x: torch.Tensor) -> Any:
        y = call(self.first, x)
        weights = list(self.first.parameters())
        if self.result == "plain" or not weights:
            return y
        return {"weight": (y, weights[0]), "view": [y, weights[-1][:1]], "dict": {"y": y, "x": x}}[self.result]

    def other(self, x: torch.Tensor) -> torch.Tensor:
        """Do what forward does not: call the children of a node with methods of its own, then the node."""
        for child in self.first.children() if isinstance(self.first, Program) else ():
            x = call(child, x)
        return call(self.first, x)


@dataclass(frozen=True)
class Recipe:
    """A whole program. Nodes call later ones only."""

    nodes: tuple[Node, ...]
    result: str = "plain"

    @property
    def wanders(self) -> bool:
        """Tell whether its way may depend on data or on how often it was called."""
        return any(name in WANDERS for node in self.nodes for name, _, _ in node.steps)

    def build(self, seed: int = 0) -> Root:
        """Return the module, the same one for the same seed."""
        torch.manual_seed(seed)
        pool: list[nn.Parameter] = []
        built: list[nn.Module] = []
        for index in reversed(range(len(self.nodes))):
            built.append(self._node(index, built, pool))
        root = Root(built[-1], self.result).eval()
        registered = set(root.parameters())
        pool[:] = [weight for weight in pool if weight in registered]  # torch itself would not move the others to a device
        return root

    def _node(self, index: int, built: list[nn.Module], pool: list[nn.Parameter]) -> nn.Module:
        node = self.nodes[index]
        if node.kind != "program":
            return LAYERS[node.kind]()
        later = [built[-1 - (step - 1) % len(built)] for step in node.children] if built else []
        own = [_weight(weight, pool) for weight in node.weights]
        return Program(node, list(dict.fromkeys(later)), pool, own)


def _weight(weight: Weight, pool: list[nn.Parameter]) -> nn.Parameter:
    old = pool[weight.of % len(pool)] if pool else None
    if old is None or weight.source == "own":
        made = nn.Parameter((torch.randn(WIDTH, weight.columns) / 4).to(DTYPES[weight.dtype]))
    elif weight.source == "tied":
        made = old
    elif weight.source == "turned":
        made = nn.Parameter(old.data.t())
    else:
        made = nn.Parameter(old.data[:, :1] if old.shape[0] == WIDTH else old.data[:1])
    pool.append(made)
    return made


_index = st.integers(0, 7)
_weights = st.builds(
    Weight,
    source=st.sampled_from(["own", "own", "tied", "turned", "narrow"]),
    columns=st.sampled_from([WIDTH, 1, 64]),
    dtype=st.sampled_from([0, 0, 0, 1, 2, 3]),
    of=_index,
)
_steps = st.tuples(st.sampled_from(sorted(STEPS, key=list(STEPS).index)), _index, _index)
_calm_steps = st.tuples(st.sampled_from([name for name in STEPS if name not in WANDERS]), _index, _index)


def _nodes(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Node]:
    programs = st.builds(
        Node,
        weights=st.lists(_weights, max_size=3).map(tuple),
        children=st.lists(st.integers(1, 6), max_size=4).map(tuple),
        steps=st.lists(steps, max_size=6).map(tuple),
    )
    return programs | programs | st.sampled_from([Node(kind=kind) for kind in LAYERS])


def recipes(*, wandering: bool = True) -> st.SearchStrategy[Recipe]:
    """Draw programs; without `wandering` only such that go the same way in every call."""
    nodes = _nodes(_steps if wandering else _calm_steps)
    return st.builds(
        Recipe,
        nodes=st.lists(nodes, min_size=1, max_size=7).map(tuple),
        result=st.sampled_from(["plain", "plain", "weight", "view", "dict"]),
    )
