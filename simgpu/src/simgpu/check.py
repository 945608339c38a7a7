"""`simgpu check`: times that people published for real cards, beside what the simulated card says of the same work.

Every workload is the real code: the model from its own library, the offloading of the peer whose figure it is. It is
run dry, so a model of 60 GB needs no such memory: weights are untouched, results have shapes and no values, and only
the clock counts. No figure of the simulation is fitted to a line of this table, and none of it is a benchmark of the
machine it runs on.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

import simgpu

DEVICE = "simgpu"
SLOW = 2.0  # seconds after which somebody wants to know what is going on

BLIND = (
    (
        "shapes",
        "every kernel reaches the same part of the peak: one factor for compute and one for memory, whatever the "
        "shape, the library or the algorithm; convolutions and small matrix products reach less in truth",
    ),
    (
        "fusion",
        "no compilation, no fused kernels: what was published with torch.compile or CUDA graphs runs here operation "
        "by operation",
    ),
    ("TF32", "fp32 is timed as fp32, also where the program allows TF32"),
    ("caches", "no L2: a result that the next kernel reads at once pays for memory in full, though an L40 keeps 96 MB"),
    (
        "contention",
        "copies and kernels do not slow each other down on the card's memory, nor do other programs on the host's",
    ),
    (
        "host",
        "an operation costs the host the same few microseconds, whichever it is, and Python outside of torch nothing; "
        "small batches wait for the host several times as long in truth",
    ),
    ("driver", "no locks in the driver, no limit on how much may be queued, no allocation that has to wait"),
    ("clocks", "no power limit, no heat, no clocks that rise and fall"),
    ("pageable", "one rate for copies from pageable memory; real ones differ threefold from machine to machine"),
    ("several cards", "two cards that work in turn are one card with twice the memory"),
)


@dataclass(frozen=True)
class Published:
    """A time that somebody published for named hardware."""

    id: str
    what: str
    card: str
    link: str
    host: str
    published: float  # ms
    unit: str  # what one of them is: "ms per token"
    bound: str  # what it mostly waits for: compute, memory, link or host
    source: str


@dataclass(frozen=True)
class Outcome:
    """What the simulated card says of it, or why it says nothing."""

    published: Published
    simulated: float | None = None  # ms, in the unit of `published`
    problem: str = ""

    @property
    def ratio(self) -> float | None:
        """Simulated over published: above 1 the simulated card is slower than the real one."""
        return None if self.simulated is None else self.simulated / self.published.published


@dataclass(frozen=True)
class Work:
    """Something to time: `step` is called for its work on the card, and does `parts` of what is counted."""

    step: Callable[[], object]
    parts: int = 1


def published() -> list[Published]:
    """The published times, in the order of the table."""
    rows = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
    return [Published(**row) for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 1 where a workload could not be run; argparse ends with 2 on wrong arguments."""
    rows = published()
    parser = argparse.ArgumentParser(
        prog="simgpu check", description="Compare the simulated card with times that were published for real ones."
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument(
        "--only",
        action="append",
        metavar="ID",
        choices=[row.id for row in rows],
        help="only this line; may be repeated",
    )
    arguments = parser.parse_args(argv)
    chosen = [row for row in rows if not arguments.only or row.id in arguments.only]
    before = simgpu.current_profile()
    outcomes = [run(row, note=f"{number} of {len(chosen)}") for number, row in enumerate(chosen, 1)]
    gc.collect()
    simgpu.use_profile(before)  # not after Ctrl-C, which leaves tensors on the card
    write_json(outcomes, sys.stdout) if arguments.json else write_table(outcomes, sys.stdout)
    return 1 if any(outcome.problem for outcome in outcomes) else 0


def run(row: Published, *, note: str = "") -> Outcome:
    """Times one line on the simulated card, which has the line's profile and link from then on."""
    told = threading.Timer(SLOW, lambda: print(f"simgpu check: {row.id} ({note})", file=sys.stderr, flush=True))
    told.daemon = True
    told.start()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()  # models with hooks are rings, and a card may only be changed when it is empty
    try:
        simgpu.use_profile(row.card, link=row.link, host=row.host, name=f"check-{os.getpid()}")
        with simgpu.dry_run(), torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries about each other
            work = WORKLOADS[row.id]()
            simulated = _timed(work) / work.parts / 1e6
        return Outcome(row, simulated)
    except ModuleNotFoundError as error:
        return Outcome(row, problem=f"needs the package {error.name}: uv pip install {error.name}")
    except Exception as error:  # one line that fails must not hide the others
        text = " ".join(str(error).split())
        return Outcome(row, problem=f"{type(error).__name__}: {text[:200]}")
    finally:
        told.cancel()
        torch.set_num_threads(threads)


def write_table(outcomes: Sequence[Outcome], out: TextIO) -> None:
    """Writes the lines, and what none of them can show."""
    heads = ("", "card", "link", "bound by", "published", "simulated", "ratio")
    lines = [heads, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    print(
        "Times in ms. Simulated times come from the simulated card, published ones from the sources below.\n", file=out
    )
    for line in lines:
        left = "  ".join(cell.ljust(width) for cell, width in zip(line[:4], widths[:4], strict=True))
        right = "  ".join(cell.rjust(width) for cell, width in zip(line[4:], widths[4:], strict=True))
        print(f"{left}  {right}".rstrip(), file=out)
    for outcome in outcomes:
        row = outcome.published
        print(f"\n{row.id}: {row.what}; {row.unit}\n    {row.source}", file=out)
        if outcome.problem:
            print(f"    could not be run: {outcome.problem}", file=out)
    print("\nRatio is simulated over published. Nothing is fitted to it. Where the simulation is blind:", file=out)
    for name, text in BLIND:
        print(f"  {name}: {text}", file=out)


def write_json(outcomes: Sequence[Outcome], out: TextIO) -> None:
    """Writes the same as an object: ``results`` and ``blind``. Times are in ms; what could not be run has null."""
    results = [
        {**asdict(o.published), "simulated": o.simulated, "ratio": o.ratio, "problem": o.problem or None}
        for o in outcomes
    ]
    json.dump({"results": results, "blind": dict(BLIND)}, out, indent=2)
    out.write("\n")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    row, simulated, ratio = outcome.published, outcome.simulated, outcome.ratio
    return (
        row.id,
        row.card,
        row.link,
        row.bound,
        _ms(row.published),
        "failed" if simulated is None else _ms(simulated),
        "" if ratio is None else f"{ratio:.2f}",
    )


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}"


def _timed(work: Work, *, again: int = 2) -> float:
    """Nanoseconds of the virtual clock for one step, after two to warm up: offloading learns its order in the first."""
    for _ in range(2):
        work.step()
    simgpu.synchronize()
    start = simgpu.now_ns()
    for _ in range(again):
        work.step()
    simgpu.synchronize()
    return float(simgpu.now_ns() - start) / again


def _library(name: str) -> Any:
    """A package that only some workloads need."""
    return importlib.import_module(name)


# Models without weights. A model is built on the meta device, then each parameter and buffer becomes untouched memory
# of the same shape where it belongs. Untouched memory takes address space and no RAM.

Place = Callable[[Tensor], Tensor]


def _on_card(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device=DEVICE)


def _pinned(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=DEVICE != "meta")


def _pageable(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _give_memory(module: nn.Module, place: Place, *, buffers: Place = _on_card) -> None:
    """Replaces every parameter and buffer that is still on the meta device; tied ones stay tied."""
    made: dict[int, Any] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_meta:
                if id(parameter) not in made:
                    made[id(parameter)] = (nn.Parameter(place(parameter), requires_grad=False), parameter)
                part._parameters[name] = made[id(parameter)][0]
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta:
                if id(buffer) not in made:
                    made[id(buffer)] = (buffers(buffer), buffer)
                part._buffers[name] = made[id(buffer)][0]


def _without_weights(build: Callable[[], Any], *, dtype: torch.dtype = torch.float32) -> Any:
    """The model that `build` makes, in `dtype`, on the meta device, for inference."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            model = build()
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def _images(batch: int) -> Tensor:
    return torch.empty(batch, 3, 224, 224, device=DEVICE).contiguous(memory_format=torch.channels_last)


def _mixed_precision() -> AbstractContextManager[Any]:
    return torch.autocast(DEVICE, dtype=torch.float16)


def _classifier(model: Any, batch: int, *, mixed: bool) -> Work:
    _give_memory(model, _on_card)
    images = _images(batch)

    def step() -> object:
        if not mixed:
            return model(images)
        with _mixed_precision():
            return model(images)

    return Work(step)


def _resnet50(batch: int, *, mixed: bool) -> Work:
    return _classifier(_without_weights(_library("torchvision").models.resnet50), batch, mixed=mixed)


def _timm(name: str, batch: int) -> Work:
    return _classifier(_without_weights(lambda: _library("timm").create_model(name)), batch, mixed=True)


def _flux(place: Place, *, prepare: Callable[[Any], object] = lambda model: None) -> Work:
    """The transformer of FLUX.1-dev, on the inputs of diffusers' benchmark: 1024 x 1024 pixels, 512 tokens."""
    transformer = _library("diffusers").FluxTransformer2DModel
    model = _without_weights(lambda: transformer(guidance_embeds=True), dtype=torch.bfloat16)
    _give_memory(model, place, buffers=place)
    prepare(model)
    inputs = {
        "hidden_states": (1, 4096, 64),
        "encoder_hidden_states": (1, 512, 4096),
        "pooled_projections": (1, 768),
        "img_ids": (4096, 3),
        "txt_ids": (512, 3),
        "timestep": (1,),
        "guidance": (1,),
    }
    given = {name: torch.empty(shape, dtype=torch.bfloat16, device=DEVICE) for name, shape in inputs.items()}
    return Work(lambda: model(**given))


def _offload_leaves(model: Any) -> None:
    _library("diffusers.hooks").apply_group_offloading(
        model,
        onload_device=torch.device(DEVICE),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=True,
        non_blocking=True,
    )


def _decoder(config: Any, dtype: torch.dtype) -> Any:
    return _without_weights(lambda: _library("transformers").AutoModelForCausalLM.from_config(config), dtype=dtype)


def _tokens(model: Any, *, batch: int = 1, prompt: int = 5, count: int = 4) -> Work:
    """Greedy decoding, `count` tokens after a short prompt that is read beforehand."""
    cache = _library("transformers").DynamicCache(config=model.config)
    model(input_ids=torch.zeros(batch, prompt, dtype=torch.long, device=DEVICE), past_key_values=cache, use_cache=True)

    def step() -> object:
        token = torch.zeros(batch, 1, dtype=torch.long, device=DEVICE)
        for _ in range(count):
            logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits
            token = logits[:, -1:].argmax(-1)
            token.cpu()  # the program wants to see it
        return token

    return Work(step, count)


def _llama() -> Work:
    model = _decoder(_library("transformers").LlamaConfig(), torch.bfloat16)  # the defaults are those of Llama-2-7B
    _give_memory(model, _on_card)
    return _tokens(model)


def _gptj() -> Work:
    model = _decoder(_library("transformers").GPTJConfig(), torch.float16)  # the defaults are those of GPT-J-6B
    _give_memory(model, _on_card)
    return _tokens(_library("accelerate").dispatch_model(model, device_map={"": DEVICE}, force_hooks=True))


def _opt() -> Any:
    config = _library("transformers").OPTConfig(
        hidden_size=7168, ffn_dim=28672, num_hidden_layers=48, num_attention_heads=56, word_embed_proj_dim=7168
    )
    return _decoder(config, torch.float16)


def _opt_by_accelerate() -> Work:
    simgpu.set_capacity("48GiB")  # two cards that work in turn
    model = _opt()
    layers = model.model.decoder.layers
    in_ram = 11  # of 48: 13.6 GB, the whole number of layers that is nearest to the 14.1 GB that were published
    for layer in layers[-in_ram:]:
        _give_memory(layer, _pageable)
    _give_memory(model, _on_card)
    where = {f"model.decoder.layers.{n}": "cpu" if n >= len(layers) - in_ram else DEVICE for n in range(len(layers))}
    others = ("embed_tokens", "embed_positions", "final_layer_norm")
    where |= {f"model.decoder.{name}": DEVICE for name in others} | {"lm_head": DEVICE}
    return _tokens(_library("accelerate").dispatch_model(model, device_map=where, main_device=DEVICE), count=1)


def _opt_layer_by_layer() -> Work:
    """Each layer's weights are copied from pinned memory before it and dropped after it; nothing is fetched ahead."""
    model = _opt()
    layers = model.model.decoder.layers
    for layer in layers:
        _give_memory(layer, _pinned)
        home = {name: parameter.data for name, parameter in layer.named_parameters()}

        def fetch(layer: nn.Module, *_: object, home: dict[str, Tensor] = home) -> None:
            for name, parameter in layer.named_parameters():
                parameter.data = home[name].to(DEVICE, non_blocking=True)

        def drop(layer: nn.Module, *_: object, home: dict[str, Tensor] = home) -> None:
            for name, parameter in layer.named_parameters():
                parameter.data = home[name]

        layer.register_forward_pre_hook(fetch)
        layer.register_forward_hook(drop)
    _give_memory(model, _on_card)
    return _tokens(model, batch=256, prompt=4, count=1)


WORKLOADS: dict[str, Callable[[], Work]] = {
    "resnet50-t4-fp32": lambda: _resnet50(128, mixed=False),
    "resnet50-t4-amp": lambda: _resnet50(128, mixed=True),
    "resnet50-v100-amp": lambda: _resnet50(128, mixed=True),
    "resnet50-v100-one": lambda: _resnet50(1, mixed=False),
    "resnet50-rtx3090": lambda: _timm("resnet50", 1024),
    "efficientnet-rtx4090": lambda: _timm("efficientnet_b0", 512),
    "vit-rtx4090": lambda: _timm("vit_base_patch16_224", 512),
    "flux-l40": lambda: _flux(_on_card),
    "flux-h100": lambda: _flux(_on_card),
    "llama-a100": _llama,
    "gptj-titanrtx": _gptj,
    "flux-l40-leaf": lambda: _flux(_pinned, prepare=_offload_leaves),
    "opt-titanrtx": _opt_by_accelerate,
    "opt-v100": _opt_layer_by_layer,
}


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    if time.monotonic() - started > SLOW:
        print(f"simgpu check: {time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(code)
