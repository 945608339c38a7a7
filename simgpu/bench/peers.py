"""Other people's offloaders, unchanged, on the simulated card: time, memory, host waits and bytes of a forward.

Each contender runs in a process of its own, on a ResNet-101 with random weights and one picture, and every answer must
have the CPU's bits. Times are the simulated card's and a simulated host's, so they are the same on every machine and in
every run; host time is what torch's calls cost, not what a contender's own Python does between them. It says nothing of
how well a contender does on another model.

    python bench/peers.py                          # a table; the ancestor is fetched into a temporary folder
    python bench/peers.py --ancestor DIR --json    # after pip install --no-deps --target DIR pytorch-optimem==0.0.5
    python bench/peers.py --races --only "diffusers leaf, streams"
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import simgpu

ANCESTOR = "pytorch-optimem==0.0.5"
PROFILE = "rtx3060"
SIDES = (224, 512)
WARM_UPS = 2  # the first forward of a prefetching contender only looks at the order of the layers
FORWARDS = 3  # measured together, back to back
CARD = torch.device("simgpu", 0)

Prepare = Callable[[torch.nn.Module], torch.nn.Module]


@dataclass(frozen=True)
class Row:
    """What one contender needs for one forward at one size of picture; ``trouble`` is empty where it went well."""

    contender: str
    side: int
    ms: float = 0.0
    peak_mib: float = 0.0
    host_waits: float = 0.0
    to_card_mb: float = 0.0
    from_card_mb: float = 0.0
    same_bits: bool = False
    trouble: str = ""


# The contenders: each makes of a model on the CPU one that computes on the card.


def resident(model: torch.nn.Module) -> torch.nn.Module:
    return model.to(CARD)


def accelerate_offload(model: torch.nn.Module) -> torch.nn.Module:
    from accelerate import cpu_offload

    offloaded: torch.nn.Module = cpu_offload(model, execution_device=CARD)
    return offloaded


def accelerate_first_half(model: torch.nn.Module) -> torch.nn.Module:
    """The layers that come first stay on the card, half of the bytes; the others are offloaded."""
    from accelerate import dispatch_model, infer_auto_device_map

    room = {0: sum(parameter.nbytes for parameter in model.parameters()) // 2, "cpu": 1 << 40}
    places = infer_auto_device_map(model, max_memory=room, no_split_module_classes=["Bottleneck"])
    dispatched: torch.nn.Module = dispatch_model(model, places, main_device=CARD)
    return dispatched


def diffusers_groups(**settings: Any) -> Prepare:
    def prepare(model: torch.nn.Module) -> torch.nn.Module:
        from diffusers.hooks import apply_group_offloading

        apply_group_offloading(model, onload_device=CARD, **settings)
        return model

    return prepare


def ancestor_page(model: torch.nn.Module) -> torch.nn.Module:
    importlib.import_module("optimem").page(model, device=CARD)
    return model


def ancestor_chunk(model: torch.nn.Module) -> torch.nn.Module:
    """Half of the parameters stay on the card, the layers of the others are computed on the host."""
    half = sum(parameter.numel() for parameter in model.parameters()) // 2
    importlib.import_module("optimem").chunk(model, device=CARD, max_capacity=half)
    return model


BLOCK: dict[str, Any] = {"offload_type": "block_level", "num_blocks_per_group": 1}
LEAF: dict[str, Any] = {"offload_type": "leaf_level"}
CONTENDERS: dict[str, Prepare] = {
    "resident": resident,
    "ancestor page": ancestor_page,
    "ancestor chunk, half": ancestor_chunk,
    "accelerate cpu_offload": accelerate_offload,
    "accelerate dispatch_model, half": accelerate_first_half,
    "diffusers leaf": diffusers_groups(**LEAF),
    "diffusers leaf, streams": diffusers_groups(**LEAF, use_stream=True),
    "diffusers leaf, streams, record_stream": diffusers_groups(**LEAF, use_stream=True, record_stream=True),
    "diffusers block": diffusers_groups(**BLOCK),
    "diffusers block, streams": diffusers_groups(**BLOCK, use_stream=True),
    "diffusers block, streams, record_stream": diffusers_groups(**BLOCK, use_stream=True, record_stream=True),
}


# One contender, in the process that this is.


def set_up_card(*, races: bool) -> None:
    torch.set_num_threads(1)
    simgpu.use_profile(PROFILE, name=f"peers-{os.getpid()}")  # not the card that others use
    simgpu.set_race_detection(races)


def use_ancestor(folder: str) -> None:
    """Puts the ancestor's folder first, since its import name is also that of the worker's package."""
    sys.path.insert(0, folder)
    found = Path(str(importlib.import_module("optimem").__file__)).resolve()
    if Path(folder).resolve() not in found.parents:
        raise ImportError(f"optimem is {found}, not the one in {folder}: give --ancestor the folder of {ANCESTOR}")


def resnet101() -> torch.nn.Module:
    import torchvision

    torch.manual_seed(0)
    model: torch.nn.Module = torchvision.models.resnet101().eval()
    return model


def picture(side: int) -> torch.Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(side))


def measure(name: str, model: torch.nn.Module, image: torch.Tensor, expected: torch.Tensor) -> Row:
    """``FORWARDS`` forwards after the warm-ups; the picture is on the card already."""
    on_card = image.to(CARD)
    for _ in range(WARM_UPS):
        model(on_card)
    simgpu.synchronize()
    simgpu.reset_peak_memory_stats()
    simgpu.reset_counters()
    start = simgpu.now_ns()
    for _ in range(FORWARDS):
        answer = model(on_card)
    simgpu.synchronize()
    took, counted = simgpu.now_ns() - start, simgpu.counters()
    return Row(
        name,
        image.shape[-1],
        ms=took / FORWARDS / 1e6,
        peak_mib=simgpu.max_memory_allocated() / 2**20,
        host_waits=(counted["host_blocking_calls"] - 1) / FORWARDS,  # less the one in this function
        to_card_mb=counted["h2d_bytes"] / FORWARDS / 1e6,
        from_card_mb=counted["d2h_bytes"] / FORWARDS / 1e6,
        same_bits=torch.equal(answer.cpu(), expected),
    )


def rows_of(name: str) -> Iterator[Row]:
    """A row for each side; the first that fails is the last."""
    model = resnet101()
    images = [picture(side) for side in SIDES]
    expected = [model(image) for image in images]
    model = CONTENDERS[name](model)
    for image, answer in zip(images, expected, strict=True):
        try:
            yield measure(name, model, image, answer)
        except Exception:
            yield Row(name, image.shape[-1], trouble=traceback.format_exc())
            return


def run_here(name: str, *, ancestor: str, races: bool) -> list[Row]:
    """``name``'s rows, measured in this process."""
    set_up_card(races=races)
    if name.startswith("ancestor"):
        use_ancestor(ancestor)
    with torch.no_grad():
        return list(rows_of(name))


# All of them, each in a child.


def run_in_child(name: str, *, ancestor: str, races: bool) -> list[Row]:
    arguments = ["--child", name, "--ancestor", ancestor, *(["--races"] if races else [])]
    child = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if child.returncode:
        return [Row(name, SIDES[0], trouble=f"exit {child.returncode}\n{child.stderr}")]
    return [Row(**row) for row in json.loads(child.stdout.splitlines()[-1])]


@contextlib.contextmanager
def ancestor_in(folder: str | None) -> Iterator[str]:
    """``folder``, or a temporary one with the ancestor installed into it."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ancestor-") as made:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, "--target", made, ANCESTOR], check=True)
        yield made


def show(rows: list[Row]) -> None:
    heads = ("side", "ms", "peak MiB", "host waits", "MB to card", "MB from card", "same bits")
    print(f"{'contender':40s} {heads[0]:>4s} " + " ".join(f"{head:>12s}" for head in heads[1:]))
    for row in rows:
        figures = (row.ms, row.peak_mib, row.host_waits, row.to_card_mb, row.from_card_mb)
        cells = " ".join(f"{figure:12.1f}" for figure in figures)
        print(f"{row.contender:40s} {row.side:4d} " + (row.trouble.strip() or f"{cells} {row.same_bits!s:>12s}"))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ancestor", metavar="DIR", help=f"a folder with {ANCESTOR} in it; fetched if not given")
    parser.add_argument("--only", metavar="NAME", action="append", choices=CONTENDERS, help="this one; repeatable")
    parser.add_argument("--races", action="store_true", help="with the race detector on; a race is the row's trouble")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    chosen = options()
    if chosen.child:
        rows = run_here(chosen.child, ancestor=chosen.ancestor or "", races=chosen.races)
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    names = chosen.only or list(CONTENDERS)
    with ancestor_in(chosen.ancestor) as folder:
        rows = [row for name in names for row in run_in_child(name, ancestor=folder, races=chosen.races)]
    if chosen.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        show(rows)
    return int(any(row.trouble or not row.same_bits for row in rows))


if __name__ == "__main__":
    sys.exit(main())
