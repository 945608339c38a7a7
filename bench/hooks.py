"""The host's time for a pager's hooks: ours and accelerate's around the same modules, in one process, in turns.

    python bench/hooks.py            # a table, one to two minutes; wants a free core
    python bench/hooks.py --json

The modules compute nothing while they are timed (they read their parameters in the forwards that are recorded), so the time
of a forward beyond the plain one is that of the hooks. It is measured for several numbers of modules and of parameters, and
split by least squares: per forward, per module call, per parameter. There are two clocks: the wall's, and the simulated
card's host clock `measured`, which leaves out the card's own work, but counts the driver's part of a call and, as the
offloader below copies from pageable memory, its waits. There are two statistics: the median, and the least, which is the
time without disturbances.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import median

import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn

import optimem
import simgpu

ROOT = Path(__file__).parents[1]
MODULES = (8, 32)
PARAMETERS = (1, 4, 16, 64)
MODULE_BYTES = 64 << 10
WARM_UPS = 8  # recorded, timed step by step, steady
BLOCK_NS = 2_000_000  # forwards are timed so many ns together, short enough to fall between two disturbances
CLOCKS = ("wall", "host")
STATISTICS = (median, min)
CARD = torch.device("simgpu", 0)


class Reader(nn.Module):
    """Returns its input; while `reads` it adds its parameters to it."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        self.reads = True
        for index in range(parameters):
            self.register_parameter(f"p{index}", nn.Parameter(torch.randn(MODULE_BYTES // 4 // parameters)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum((p.sum() for p in self.parameters()), x) if self.reads else x


class Readers(nn.Module):
    """`modules` readers, one after the other. Held in a list, each may be called from outside and so keeps its hooks."""

    def __init__(self, modules: int, parameters: int) -> None:
        super().__init__()
        self.list = [Reader(parameters) for _ in range(modules)]
        self.readers = nn.ModuleList(self.list)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for reader in self.list:
            x = reader(x)
        return x


@dataclass(frozen=True)
class Sample:
    """Nanoseconds of one forward on one clock, by one statistic."""

    contender: str
    modules: int
    parameters: int
    clock: str
    statistic: str
    ns: float


@dataclass(frozen=True)
class Cost:
    """Microseconds beyond the plain model, split."""

    contender: str
    clock: str
    statistic: str
    per_forward_us: float
    per_call_us: float
    per_parameter_us: float


# The contenders: each makes a model on the CPU compute on the card.


def plain(model: Readers) -> None:
    model.to(CARD)


def accelerate_in_place(model: Readers) -> None:
    """The weights are on the card; the hook handles the inputs alone."""
    model.to(CARD)
    for reader in model.list:
        add_hook_to_module(reader, AlignDevicesHook(execution_device=CARD))


def accelerate_offload(model: Readers) -> None:
    cpu_offload(model, execution_device=CARD)


def ours_resident(model: Readers) -> None:
    page(model, "100%", streamed=0)


def ours_streamed(model: Readers) -> None:
    page(model, "25%", streamed=len(model.list))


CONTENDERS: dict[str, Callable[[Readers], None]] = {
    "plain": plain,
    "accelerate, in place": accelerate_in_place,
    "accelerate, offload": accelerate_offload,
    "optimem, resident": ours_resident,
    "optimem, streamed": ours_streamed,
}


def page(model: Readers, vram: str, *, streamed: int) -> None:
    """Make every reader a page. Raises RuntimeError unless `streamed` of them are streamed."""
    optimem.page(model, CARD, max_layer_size=MODULE_BYTES // 4, vram=vram)
    warm_up(model)
    status = optimem.status(model)
    if status is None or (status.pages, status.streamed_pages, status.misses) != (len(model.list), streamed, 0):
        raise RuntimeError(f"{streamed} streamed pages were wished for: {status}")


def warm_up(model: Readers) -> None:
    for _ in range(WARM_UPS):
        model(torch.zeros(1, device=CARD))


def prepared(contender: str, modules: int, parameters: int) -> Readers:
    """Return a model in its steady state that reads no more."""
    model = Readers(modules, parameters).eval()
    CONTENDERS[contender](model)
    warm_up(model)
    for reader in model.list:
        reader.reads = False
    return model


def samples(modules: int, parameters: int, rounds: int) -> list[Sample]:
    """Time all contenders in turns, so that all have the same noise."""
    models = {contender: prepared(contender, modules, parameters) for contender in CONTENDERS}
    x = torch.zeros(1, device=CARD)
    blocks = {contender: max(1, int(BLOCK_NS / timed(model, x, 3)[0])) for contender, model in models.items()}
    times: dict[str, list[tuple[float, float]]] = {contender: [] for contender in models}
    for _ in range(rounds):
        for contender, model in models.items():
            times[contender].append(timed(model, x, blocks[contender]))
    optimem.detach(models["optimem, resident"])
    optimem.detach(models["optimem, streamed"])
    return [
        Sample(contender, modules, parameters, clock, statistic.__name__, statistic(column))
        for contender, pairs in times.items()
        for clock, column in zip(CLOCKS, zip(*pairs, strict=True), strict=True)
        for statistic in STATISTICS
    ]


def timed(model: Readers, x: torch.Tensor, forwards: int) -> tuple[float, float]:
    """Return the ns of one forward on the wall's clock and on the host's, after one that brings its data near."""
    model(x)
    torch.accelerator.synchronize(CARD)
    wall, host = time.perf_counter_ns(), simgpu.now_ns()
    for _ in range(forwards):
        model(x)
    host, wall = simgpu.now_ns() - host, time.perf_counter_ns() - wall
    return wall / forwards, host / forwards


def costs(measured: list[Sample]) -> Iterator[Cost]:
    """Split the time of each contender beyond the plain model."""
    groups = groupby(sorted(measured, key=_how), key=_how)
    found = {how: {(s.modules, s.parameters): s.ns for s in group} for how, group in groups}
    for (contender, clock, statistic), cells in found.items():
        if contender != "plain":
            bare = found["plain", clock, statistic]
            sizes = [[1, modules, modules * parameters] for modules, parameters in cells]
            yield Cost(contender, clock, statistic, *fit(sizes, [(ns - bare[cell]) / 1e3 for cell, ns in cells.items()]))


def _how(sample: Sample) -> tuple[str, str, str]:
    return sample.contender, sample.clock, sample.statistic


def fit(sizes: list[list[int]], us: list[float]) -> list[float]:
    """Least squares of us = sizes @ costs; small and large cells weigh alike."""
    left, right = torch.tensor(sizes, dtype=torch.float64), torch.tensor(us, dtype=torch.float64)
    weights = 1 / right.abs().clamp(min=1)
    found = torch.linalg.lstsq(left * weights[:, None], (right * weights)[:, None]).solution
    return [float(value) for value in found.flatten()]


def table(found: list[Cost]) -> Iterator[str]:
    yield f"torch {torch.__version__}, microseconds beyond the plain model"
    yield "| hooks | clock | statistic | per forward | per module call | per parameter |"
    yield "|---|---|---|--:|--:|--:|"
    for c in found:
        us = f"{c.per_forward_us:.1f} | {c.per_call_us:.2f} | {c.per_parameter_us:.2f}"
        yield f"| {c.contender} | {c.clock} | {c.statistic} | {us} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="blocks of forwards per contender")
    parser.add_argument("--json", action="store_true", help="print samples and costs as JSON")
    wished = parser.parse_args()
    os.environ.setdefault("OPTIMEM_CTL", str(ROOT / "bin" / "optimemctl"))
    simgpu.set_host_clock("measured")
    simgpu.set_host_watched(False)  # it serves the other clock, and costs every operation a little
    torch.set_num_threads(1)
    with torch.no_grad():
        measured = [s for m in MODULES for n in PARAMETERS for s in samples(m, n, wished.rounds)]
    found = list(costs(measured))
    if wished.json:
        print(json.dumps({"samples": [asdict(s) for s in measured], "costs": [asdict(c) for c in found]}, indent=1))
    else:
        print("\n".join(table(found)))


if __name__ == "__main__":
    main()
