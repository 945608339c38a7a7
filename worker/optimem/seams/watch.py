"""Watch a forward: every operation before it runs, and its result.

A dispatch mode sees every operation, inside torch's composites too. A function mode sees calls before torch decides anything
by the device of an argument, as its recurrent layers do. Where tensors have no addresses (torch_xla), writes through views
are lost under a dispatch mode: there the function mode watches alone, and what a composite reads inside is not seen.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from .compiled import outside_graphs, pause_compiling
from .modes import Ours, Stay, left_behind

# Calls that do not read a tensor, as torch's function mode names them.
_HARMLESS = frozenset(
    {"size", "dim", "numel", "stride", "element_size", "is_floating_point", "is_complex", "storage_offset"}
)


class Watch:
    """Calls `saw` with every tensor that is about to be read, and `made` with every result. `addresses` tells whether the
    tensors have any."""

    def __init__(self, saw: Callable[[torch.Tensor], None], made: Callable[[Any], None], *, addresses: bool) -> None:
        self.saw = saw
        self.made = made
        self.alone = not addresses  # the function mode watches alone
        self.busy = False  # our own operations run
        self._stay: Stay | None = None  # only while it watches: a frame keeps the arguments of its call
        self._modes: tuple[_Functions | _Operations, ...] | None = None
        self._go_on: Callable[[], Any] = lambda: None

    def start(self) -> None:
        """Start to watch the operations of this thread."""
        self._go_on = go_on = weakref.finalize(self, pause_compiling())
        go_on.atexit = False
        self._stay = Stay()
        self._modes = (
            (_Functions(self),) if self.alone else (_Functions(self), _Operations(self))
        )  # new each time: earlier ones may lie on another thread's stack
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Stop watching, whatever has happened. Leaves modes of others on top in peace."""
        for mode in self._modes or ():
            mode.end()
        self._modes = self._stay = None
        self._go_on()

    def see(self, tensor: torch.Tensor) -> None:
        """Pass `tensor` to `saw`, unless the forward has ended unnoticed: after Ctrl-C."""
        if isinstance(tensor, nn.Parameter) and self._stay is not None and not self._stay.lasts():
            self.stop()
            left_behind.add(threading.get_ident())  # the mode that runs now is off the stack only for this call
        if self._modes is not None:
            self.saw(tensor)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Hide our own operations from the watch."""
        before, self.busy = self.busy, True
        try:
            yield
        finally:
            self.busy = before


class _Functions(Ours, TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        watch = self.owner()
        if watch is not None and not watch.busy and _reads(func):
            for leaf in tree_iter((args, kwargs)):
                if isinstance(leaf, nn.Parameter) or (watch.alone and isinstance(leaf, torch.Tensor)):
                    watch.see(leaf)
        output = func(*args, **(kwargs or {}))
        if watch is not None and watch.alone and not watch.busy:
            watch.made(output)
        return output


class _Operations(Ours, TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping our method for Dynamo: the wrapper's first call imports the compiler, for seconds."""
        return False

    @outside_graphs
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        watch = self.owner()
        if watch is None or watch.busy:
            return func(*args, **(kwargs or {}))
        for leaf in tree_iter((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                watch.see(leaf)
        output = func(*args, **(kwargs or {}))
        if not watch.busy:
            watch.made(output)
        return output


def _reads(func: Any) -> bool:
    """Tell whether a call may read its arguments. Asking for the device counts: callers put tensors where a weight is, so a
    module that asks must hold the weight."""
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__", "__delete__"):
        return bool(getattr(func, "__self__", None) is torch.Tensor.device)
    return name not in _HARMLESS
