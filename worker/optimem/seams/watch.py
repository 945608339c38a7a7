"""See what a forward does with tensors: every operation before it runs, and what it makes.

A dispatch mode sees every operation whoever calls it, also inside torch's composites. A function mode sees calls before
torch decides anything by the device of an argument, as its recurrent layers do.
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
        self._stay: Stay | None = None  # while it watches: a frame keeps what its call was given
        self._modes: tuple[_Functions, _Operations] | None = None
        self._go_on: Callable[[], Any] = lambda: None

    def start(self) -> None:
        """Begin to watch the operations of this thread."""
        self._go_on = go_on = weakref.finalize(self, pause_compiling())
        go_on.atexit = False
        self._stay = Stay()
        self._modes = _Functions(self), _Operations(self)  # others each time: earlier ones may lie on another thread's stack
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Cease to watch, whatever has happened. Leaves modes that others have put on top in peace."""
        for mode in self._modes or ():
            mode.end()
        self._modes = self._stay = None
        self._go_on()

    def see(self, tensor: torch.Tensor) -> None:
        """Tell of `tensor`, unless the forward has ended and nobody has said so: after Ctrl-C."""
        if isinstance(tensor, nn.Parameter) and self._stay is not None and not self._stay.lasts():
            self.stop()
            left_behind.add(threading.get_ident())  # the mode that runs now is off the stack only for this moment
        if self._modes is not None:
            self.saw(tensor)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Keep our own operations out of what is seen."""
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
                if isinstance(leaf, nn.Parameter):
                    watch.see(leaf)
        return func(*args, **(kwargs or {}))


class _Operations(Ours, TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping our method in its own mark for Dynamo, whose first call imports the compiler: seconds."""
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
    """Tell whether a call may read its arguments. Asking for the device counts: where a weight is decides where callers
    put tensors, so whoever asks must hold it."""
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__", "__delete__"):
        return bool(getattr(func, "__self__", None) is torch.Tensor.device)
    return name not in _HARMLESS
