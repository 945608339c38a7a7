"""What the simulated card costs over the plain CPU: microseconds an operation, whole forwards. Wants a free core.

python bench/overhead.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

import simgpu


def seconds(run: Callable[[], object], *, repeat: int) -> float:
    """The fastest of ``repeat`` runs."""
    run()
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def both(run: Callable[[torch.device], Callable[[], object]], *, repeat: int) -> tuple[float, float]:
    """``run`` on the CPU and on the card, in turn, so that both see the same load: medians of the fastest."""
    plain, card = run(torch.device("cpu")), run(torch.device("simgpu"))
    pairs = [(seconds(plain, repeat=repeat), seconds(card, repeat=repeat)) for _ in range(5)]
    return statistics.median(p for p, _ in pairs), statistics.median(c for _, c in pairs)


def operations() -> None:
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
    print(f"{'operation':20s} {'cpu us':>8s} {'card us':>8s} {'more us':>8s}")
    for name, case in cases.items():

        def prepared(device: torch.device, case: Callable[..., object] = case) -> Callable[[], object]:
            a, b = torch.ones(8, 8, device=device), torch.zeros(8, 8, device=device)

            def run() -> None:
                for _ in range(1000):
                    case(a, b)

            return run

        plain, card = both(prepared, repeat=5)
        print(f"{name:20s} {plain * 1e3:8.2f} {card * 1e3:8.2f} {(card - plain) * 1e3:8.2f}")


def models() -> None:
    import torchvision.models as zoo

    print(f"{'model':20s} {'cpu ms':>8s} {'card ms':>8s} {'ratio':>8s} {'kernels':>8s}")
    for name, side in (("resnet101", 224), ("resnet18", 64), ("vit_b_16", 224)):
        torch.manual_seed(0)
        image = torch.randn(1, 3, side, side)

        def prepared(device: torch.device, name: str = name, image: torch.Tensor = image) -> Callable[[], object]:
            model, there = zoo.get_model(name).eval().to(device), image.to(device)
            return lambda: model(there)

        plain, card = both(prepared, repeat=5)
        run = prepared(torch.device("simgpu"))
        simgpu.reset_counters()
        run()
        print(f"{name:20s} {plain * 1e3:8.2f} {card * 1e3:8.2f} {card / plain:8.3f} {simgpu.counters()['kernels']:8d}")


def main() -> None:
    torch.set_num_threads(1)
    with torch.inference_mode():
        operations()
        models()


if __name__ == "__main__":
    main()
