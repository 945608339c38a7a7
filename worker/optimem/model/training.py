"""Modules whose results depend on the flag `training`, by the names that their code mentions.

Libraries put new modules into models that are in eval mode: adapters, quantised layers, embeddings. Their flag is on, as
that of every new module, and most of them never look at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn

# Methods that set the flag, or that no forward calls.
_ELSEWHERE = frozenset({"__init__", "train", "eval", "extra_repr", "__repr__", "__setstate__", "__getstate__"})


def first_in_training(modules: Iterable[tuple[str, nn.Module]]) -> str | None:
    """Return the first path of `modules` at which training mode may change a result; None if there is none."""
    return next((path for path, module in modules if module.training and _matters(module)), None)


def _matters(module: nn.Module) -> bool:
    """Tell whether the flag may change what `module` computes."""
    if type(module).__module__.startswith("torch.nn.") and _never_drops(module):
        return False
    return _asks(type(module)) or any(map(_code_asks, _functions(vars(module))))


def _never_drops(module: nn.Module) -> bool:
    """Tell whether a module of torch's own only drops out, and with probability 0."""
    chances = [vars(module)[name] for name in ("p", "dropout") if isinstance(vars(module).get(name), (int, float))]
    return bool(chances) and not any(chances)


_known: dict[type[nn.Module], bool] = {}  # the answers of `_asks`


def _asks(kind: type[nn.Module]) -> bool:
    """Tell whether a method of `kind`, or of a class below nn.Module that it derives from, mentions the flag."""
    if kind not in _known:
        classes = kind.__mro__[: kind.__mro__.index(nn.Module)]
        _known[kind] = any(_code_asks(function) for each in classes for function in _functions(vars(each)))
    return _known[kind]


def _functions(table: Any) -> Iterator[FunctionType]:
    """Yield the functions among the values of `table`, out of properties and wrappers too."""
    for name, value in table.items():
        inner = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
        while hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        if name not in _ELSEWHERE and isinstance(inner, FunctionType):
            yield inner


def _code_asks(function: FunctionType) -> bool:
    return _mentions(function.__code__)


def _mentions(code: CodeType) -> bool:
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return "training" in code.co_names or any(map(_mentions, inner))
