"""The first forward, which is recorded, beside the least that it could take: all bytes once over the link, and all compute.

    python bench/first.py                                   # the models of bench/models.py at half of their weights
    python bench/first.py --device sim:rtx4090 --models resnet101 --share 25

With an empty cache, so that the link is measured too. Times on a simulated card are virtual.
"""

from __future__ import annotations

import argparse
import os

import torch

import models
import optimem
from models import Made
from optimem.card.device import Device
from optimem.card.names import open_device
from optimem.data import moving

MODELS = ("resnet101", "vit_large", "gpt2_medium", "flux_like")


def call(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...] | dict[str, object]) -> object:
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def timed(device: Device, model: torch.nn.Module, inputs: object) -> int:
    """Return the ns until the result is there; copies for the next forward may still be under way."""
    device.settle()
    began = device.timed_mark()
    call(model, inputs)
    ended = device.timed_mark()
    device.settle()
    return device.elapsed_ns(began, ended)


def measure(device: Device, made: Made, share: int) -> tuple[int, int, int]:
    """Return the ns of the first forward, of the plain one on the device, and of the bytes over the link."""
    model, inputs = made
    model.eval().to(device.torch)
    inputs = moving.move(inputs, device.torch)
    plain = [timed(device, model, inputs) for _ in range(2)][-1]
    model.to("cpu")
    device.give_back()
    optimem.page(model, device.torch, vram=f"{share}%")
    first = timed(device, model, inputs)
    told = optimem._attached[id(model)].told()[1]
    assert told is not None
    nbytes = sum(p.nbytes for p in model.parameters())
    optimem.detach(model)
    return first, plain, int(nbytes * 1e9 / told.link_bytes_per_second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="sim:rtx3060", help="the card, as in optimemctl run")
    parser.add_argument("--models", default=",".join(MODELS), help="factories of bench/models.py, with commas")
    parser.add_argument("--share", type=int, default=50, help="percentage of the weights")
    wished = parser.parse_args()
    os.environ["OPTIMEM_CACHE"] = ""
    device = open_device(wished.device)
    print("| device | model | plain | bytes over the link | first forward | ratio |\n|---|---|--:|--:|--:|--:|")
    for name in wished.models.split(","):
        with torch.inference_mode():
            first, plain, link = measure(device, getattr(models, name)(), wished.share)
        times = " | ".join(f"{ns / 1e6:.2f} ms" for ns in (plain, link, first))
        print(f"| {wished.device} | {name} | {times} | {first / (plain + link):.2f} |", flush=True)


if __name__ == "__main__":
    main()
