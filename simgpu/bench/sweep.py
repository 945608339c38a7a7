"""Runs torch's own database of operations on the CPU and on the card and compares bits, shapes and strides.

    uv pip install --target /tmp/extra expecttest && PYTHONPATH=/tmp/extra python bench/sweep.py

Takes some ten seconds. What is listed at the end differs or was refused; `EXPECTED` says which of it is right, and why.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db  # type: ignore[import-untyped]
from torch.utils._pytree import tree_leaves, tree_map

import simgpu

EXPECTED = {
    "as_strided.partial_views": "reads beyond its view: the sample is moved to the card alone, without its base",
    "to.": "its samples say device=cpu",
    "tensor_split.": "wants its sections on the host, as on CUDA",
    "to_sparse.": "the card holds dense tensors only",
    "linalg.lstsq.": "on torch 2.9 the CPU differs from itself in the last bits, run to run",
    "nn.functional.embedding.": "max_norm changes the weight in place, so the second run starts from another one",
    "nn.functional.linear_cross_entropy.chunked": "torch's python code looks at the device",
    "nn.functional.linear_cross_entropy.chunked_none": "torch's python code looks at the device",
}
TYPES = (torch.float32, torch.complex64, torch.int64, torch.bfloat16)


def moved(tree: Any) -> Any:
    seen: dict[int, torch.Tensor] = {}

    def move(leaf: Any) -> Any:
        return seen.setdefault(id(leaf), leaf.detach().to("simgpu")) if isinstance(leaf, torch.Tensor) else leaf

    return tree_map(move, tree)


def difference(plain: torch.Tensor, card: torch.Tensor) -> str | None:
    if card.device.type != "simgpu":
        return "device"
    if (plain.shape, plain.dtype, plain.stride()) != (card.shape, card.dtype, card.stride()):
        return "geometry"
    one, other = plain.resolve_conj().resolve_neg(), card.cpu().resolve_conj().resolve_neg()
    try:
        same = torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())
    except NotImplementedError:  # no comparison for this type
        return None
    return None if same else "bits"


def sweep() -> tuple[int, Counter[tuple[str, str]]]:
    equal, found = 0, Counter[tuple[str, str]]()
    for op in op_db:
        name = f"{op.name}.{op.variant_test_name}"
        if "empty" in name or name.startswith(("sparse", "jiterator")):
            continue
        for dtype in [t for t in TYPES if t in op.dtypes]:
            for sample in list(op.sample_inputs("cpu", dtype))[:8]:
                try:
                    torch.manual_seed(0)
                    plain = op(sample.input, *sample.args, **sample.kwargs)
                except Exception:  # nothing to compare with
                    continue
                first, args, kwargs = moved((sample.input, sample.args, sample.kwargs))
                if kwargs.get("device") == "cpu":
                    kwargs["device"] = "simgpu"
                try:
                    torch.manual_seed(0)
                    card = op(first, *args, **kwargs)
                except Exception as error:
                    found[name, f"refused: {str(error).splitlines()[0][:100]}"] += 1
                    continue
                for one, other in zip(tree_leaves(plain), tree_leaves(card), strict=True):
                    if isinstance(one, torch.Tensor):
                        why = difference(one, other)
                        equal += why is None
                        if why:
                            found[name, f"{why}, {dtype}"] += 1
    return equal, found


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    simgpu.reset_counters()
    equal, found = sweep()
    print(f"torch {torch.__version__}: {equal} results equal, {simgpu.counters()['kernels']} kernels")
    unexpected = 0
    for (name, what), count in sorted(found.items()):
        unexpected += name not in EXPECTED
        print(f"{name:50s} {count:3d} {what}  [{EXPECTED.get(name, 'UNEXPECTED')}]")
    sys.exit(unexpected > 0)


if __name__ == "__main__":
    main()
