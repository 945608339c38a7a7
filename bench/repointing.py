"""Ways to re-point a parameter, microseconds each: the figures of docs/adr/0010-re-pointing.md.

    python bench/repointing.py [--json]

Every way points 64 parameters of 1 KiB to other bytes and back, many times in turns. The least time counts: the rest is due
to other programs on the machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Callable

import torch
from torch import nn
from torch.profiler import record_function

import simgpu

COUNT, NUMBERS, ROUNDS = 64, 256, 400
CARD = torch.device("simgpu", 0)
Ways = dict[str, Callable[[], object]]


def views(block: torch.Tensor) -> list[torch.Tensor]:
    """Cut `block` (bytes) into COUNT tensors, shape (NUMBERS,), float32."""
    return list(block.view(torch.float32).split(NUMBERS))


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(NUMBERS), requires_grad=False) for _ in range(COUNT)]


def re_pointing() -> Ways:
    """Return the ways; each points there and back once per parameter."""
    ours, twins = parameters(), parameters()
    there, home = (views(torch.empty(COUNT * NUMBERS * 4, dtype=torch.uint8, device=at)) for at in (CARD, "cpu"))
    out, back = list(zip(ours, there, strict=True)), list(zip(ours, home, strict=True))
    setter = torch.Tensor.data.__set__
    plain = [(module, dict(module._parameters)) for module in (nn.Linear(2, 2) for _ in range(COUNT))]

    def assign() -> None:
        for parameter, view in out:
            parameter.data = view
        for parameter, view in back:
            parameter.data = view

    def bound() -> None:
        for look in (out, back):
            for parameter, view in look:
                setter(parameter, view)

    def mapped() -> None:
        deque(map(setter, ours, there), 0)
        deque(map(setter, ours, home), 0)

    def set_storage() -> None:
        for parameter, view in zip(twins, home, strict=True):
            parameter.data.set_(view)
            parameter.data.set_(view)

    def swap() -> None:
        for _ in range(2):
            for one, other in zip(ours, twins, strict=True):
                torch._C._swap_tensor_impl(one, other)

    def dictionaries() -> None:
        for module, other in plain:
            own = module._parameters
            module.__dict__["_parameters"] = other
            module.__dict__["_parameters"] = own

    return {
        "parameter.data = view": assign,
        "the same by the bound descriptor": bound,
        "the same by map": mapped,
        "parameter.data.set_(view), one device only": set_storage,
        "swapping with a twin, without swap_tensors' checks": swap,
        "exchanging a module's _parameters": dictionaries,
    }


def around() -> Ways:
    """Return other work that is done once per parameter or page."""
    some = parameters()
    event, stream, block = torch.Event(CARD), torch.Stream(CARD), torch.empty(1 << 16, dtype=torch.uint8, device=CARD)

    def span() -> None:
        with record_function("optimem::acquire layers.3"):
            pass

    once: Ways = {
        "a profiler's span where no profiler runs": span,
        "a new event": lambda: torch.Event(CARD),
        "recording an event": lambda: event.record(stream),
        "waiting for an event": lambda: stream.wait_event(event),
        "the current stream, asked by device": lambda: torch.accelerator.current_stream(CARD),
        "the current stream, asked by number": lambda: torch.accelerator.current_stream(0),
        "two slices of the arena": lambda: block[1024:][:1024],
    }
    every: Ways = {
        "data_ptr": lambda: list(map(torch.Tensor.data_ptr, some)),
        "_version": lambda: [parameter._version for parameter in some],
    }
    return {name: repeated(way) for name, way in once.items()} | every


def repeated(way: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(COUNT):
            way()

    return run


def least_us(ways: Ways, times: int) -> dict[str, float]:
    """Return the least time of each way per parameter. A round runs each way for COUNT parameters, `times` times."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter_ns()
            way()
            least[name] = min(least[name], (time.perf_counter_ns() - began) / 1e3 / COUNT / times)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the microseconds as JSON")
    as_json = parser.parse_args().json
    simgpu.set_host_clock("measured")
    simgpu.set_host_watched(False)
    torch.set_num_threads(1)
    with torch.no_grad():
        found = least_us(re_pointing(), 2) | least_us(around(), 1)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print(f"torch {torch.__version__}, microseconds each")
        print("\n".join(f"{name:52s} {us:6.2f}" for name, us in found.items()))


if __name__ == "__main__":
    main()
