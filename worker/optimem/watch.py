"""See what a forward does with tensors: every operation before it runs, and what it makes.

A dispatch mode sees every operation whoever calls it, also inside torch's composites. A function mode sees calls before
torch decides anything by the device of an argument, as its recurrent layers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_iter

from .compiled import pause_compiling

# What may be asked of a tensor without reading it, as named by torch's function mode.
_HARMLESS = frozenset(
    {"size", "dim", "numel", "stride", "element_size", "is_floating_point", "is_complex", "storage_offset"}
)


class Watch:
    """Tells `saw` of every tensor that is about to be read, and `made` of every result."""

    def __init__(self, saw: Callable[[torch.Tensor], None], made: Callable[[Any], None]) -> None:
        self.saw = saw
        self.made = made
        self.busy = False  # our own operations run
        self._modes = (_Functions(self), _Operations(self))
        self._go_on: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to watch the operations of this thread."""
        self._go_on = pause_compiling()
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Cease to watch, whatever has happened. Leaves modes that others have put on top in peace."""
        for mode in reversed(self._modes):
            if mode.is_on_top():
                mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._go_on()
        self._go_on = lambda: None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Keep our own operations out of what is seen."""
        before, self.busy = self.busy, True
        try:
            yield
        finally:
            self.busy = before


class _Functions(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._watch.busy and _reads(func):
            for leaf in tree_iter((args, kwargs)):
                if isinstance(leaf, nn.Parameter):
                    self._watch.saw(leaf)
        return func(*args, **(kwargs or {}))

    def is_on_top(self) -> bool:
        stack = torch.overrides._get_current_function_mode_stack()
        return bool(stack) and stack[-1] is self


class _Operations(TorchDispatchMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._watch.busy:
            for leaf in tree_iter((args, kwargs)):
                if isinstance(leaf, torch.Tensor):
                    self._watch.saw(leaf)
        output = func(*args, **(kwargs or {}))
        if not self._watch.busy:
            self._watch.made(output)
        return output

    def is_on_top(self) -> bool:
        return _get_current_dispatch_mode() is self


def _reads(func: Any) -> bool:
    """Tell whether a call may read its arguments. Asking for the device counts: where a weight is decides where callers
    put tensors, so whoever asks must hold it."""
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__", "__delete__"):
        return bool(getattr(func, "__self__", None) is torch.Tensor.device)
    return name not in _HARMLESS
