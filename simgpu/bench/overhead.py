"""What the simulated card costs over the plain CPU: microseconds an operation, whole forwards, with the race detector
off and on. Wants a free core. "plain" is the CPU without anybody watching it.

python bench/overhead.py [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

import simgpu

Prepare = Callable[[torch.device], Callable[[], object]]
CALLS = 1000


@dataclass(frozen=True)
class Row:
    """Seconds of wall time for one run: on the plain CPU, on the card, and on the card while races are looked for."""

    name: str
    plain: float
    card: float
    watched: float


@contextmanager
def plain_cpu() -> Iterator[None]:
    simgpu.set_host_watched(False)
    yield
    simgpu.set_host_watched(True)


@contextmanager
def races() -> Iterator[None]:
    simgpu.set_race_detection(True)
    yield
    simgpu.set_race_detection(False)


def seconds(run: Callable[[], object], *, repeat: int) -> float:
    """The fastest of ``repeat`` runs."""
    run()
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def measured(name: str, prepare: Prepare, *, repeat: int, rounds: int = 5) -> Row:
    """The three in turn, so that all see the same load: medians of the fastest."""
    plain, card = prepare(torch.device("cpu")), prepare(torch.device("simgpu"))
    samples: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        with plain_cpu():
            alone = seconds(plain, repeat=repeat)
        ours = seconds(card, repeat=repeat)
        with races():
            samples.append((alone, ours, seconds(card, repeat=repeat)))
    return Row(name, *(statistics.median(column) for column in zip(*samples, strict=True)))


def operations() -> list[Row]:
    cases: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
        "add": lambda a, b: a + b,
        "relu": lambda a, b: a.relu(),
        "add_": lambda a, b: a.add_(b),
        "mm": lambda a, b: a @ b,
        "transpose (view)": lambda a, b: a.t(),
        "view": lambda a, b: a.view(-1),
        "layer_norm": lambda a, b: torch.nn.functional.layer_norm(a, (8,)),
        "linear": lambda a, b: torch.nn.functional.linear(a, b),
        "clone": lambda a, b: a.clone(),
        "cat": lambda a, b: torch.cat([a, b]),
    }

    def prepared(case: Callable[..., object]) -> Prepare:
        def on(device: torch.device) -> Callable[[], object]:
            a, b = torch.ones(8, 8, device=device), torch.zeros(8, 8, device=device)

            def run() -> None:
                for _ in range(CALLS):
                    case(a, b)

            return run

        return on

    return [measured(name, prepared(case), repeat=5) for name, case in cases.items()]


def models() -> list[Row]:
    import torchvision.models as zoo

    def prepared(name: str, side: int) -> Prepare:
        torch.manual_seed(0)
        image = torch.randn(1, 3, side, side)

        def on(device: torch.device) -> Callable[[], object]:
            model, there = zoo.get_model(name).eval().to(device), image.to(device)
            return lambda: model(there)

        return on

    return [measured(name, prepared(name, side), repeat=5) for name, side in (("resnet101", 224), ("vit_b_16", 224))]


def table(calls: list[Row], forwards: list[Row]) -> Iterator[str]:
    us = 1e6 / CALLS
    yield f"{'operation':20s} {'plain us':>9s} {'more us':>9s} {'more us, races looked for':>26s}"
    for row in calls:
        more, watched = (row.card - row.plain) * us, (row.watched - row.plain) * us
        yield f"{row.name:20s} {row.plain * us:9.2f} {more:9.2f} {watched:26.2f}"
    yield f"{'forward':20s} {'plain ms':>9s} {'ratio':>9s} {'ratio, races looked for':>26s}"
    for row in forwards:
        yield f"{row.name:20s} {row.plain * 1e3:9.2f} {row.card / row.plain:9.3f} {row.watched / row.plain:26.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the seconds as JSON")
    as_json = parser.parse_args().json
    torch.set_num_threads(1)
    with torch.inference_mode():
        calls, forwards = operations(), models()
    if as_json:
        print(json.dumps([asdict(row) for row in calls + forwards], indent=2))
    else:
        print("\n".join(table(calls, forwards)))


if __name__ == "__main__":
    main()
