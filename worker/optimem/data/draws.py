"""The torch functions that draw random numbers. Each device has a generator of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_FILLS = ("bernoulli", "normal", "uniform", "random", "exponential", "geometric", "cauchy", "log_normal")
_ALWAYS = frozenset(
    {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"}
    | {"normal", "bernoulli", "multinomial", "poisson", "binomial"}
    | {f"{name}_" for name in _FILLS}
)
# Functions that draw if an argument says so: its position, its name, and its default.
_IF_ASKED = {
    **{
        f"{kind}dropout{dimensions}": (2, "training", True)
        for kind in ("", "alpha_", "feature_", "feature_alpha_")
        for dimensions in ("", "_", "1d", "2d", "3d")
    },
    "rrelu": (3, "training", False),
    "rrelu_": (3, "training", False),
    "scaled_dot_product_attention": (4, "dropout_p", 0.0),
}


def draws(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a call of the function `name`, as torch's function mode gives it, draws from a device's own generator."""
    if kwargs.get("generator") is not None:
        return False
    if name in _ALWAYS:
        return True
    position, asked, default = _IF_ASKED.get(name, (0, "", False))
    return bool(asked) and bool(args[position] if len(args) > position else kwargs.get(asked, default))
