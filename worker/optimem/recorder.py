"""The recorded forward: who reads which weight, in which order, and how long the steps between take.

Note: readers, borders, steps. A *reader* is the module that is innermost on the call stack when an operation takes a weight
as an argument. Hooks on every module keep the stack; a dispatch mode sees every operation, a function mode those composites
that compare devices before anything is dispatched. Only entries and exits of readers (and of the outermost call) are
*borders*; what runs between two is a *step*. A span's *use* reaches from the border at which the first of its readers
enters to the one at which the last leaves. A view of a weight that is read when none of the weight's readers is on the stack
makes all uses of the weight one: its bytes must stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_iter

from . import moving
from .compiled import pause_compiling
from .device import Device
from .live import LiveBytes
from .units import Reading, Span

# What may be asked of a tensor without reading it, as named by torch's function mode.
_HARMLESS = frozenset(
    {"size", "dim", "numel", "stride", "element_size", "is_floating_point", "is_complex", "storage_offset"}
)


@dataclass(frozen=True)
class Border:
    """An entry or exit of `path`."""

    path: str
    entry: bool


@dataclass
class Recording:
    """What one forward taught. Steps are numbered from the outermost entry; times are nanoseconds, sizes bytes."""

    readings: dict[Span, Reading]
    borders: list[Border]
    step_ns: list[int]
    step_bytes: list[int]  # device bytes that are not weights
    step_crossings: list[int]  # bytes of tensors that pass the border at which a step begins
    called: list[str]  # paths of all module calls

    @property
    def steps(self) -> int:
        """Number of steps, one less than borders."""
        return len(self.borders) - 1


@dataclass
class _Segment:
    """A stretch of time that counts for the border before it; fetches lie between segments."""

    border: int
    start: Any
    end: Any = None


@dataclass
class _Log:
    borders: list[Border] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # per border, bytes in use in the step that begins there
    crossings: list[int] = field(default_factory=list)  # per border, bytes of tensors that pass it
    segments: list[_Segment] = field(default_factory=list)
    reads: dict[Span, dict[str, None]] = field(default_factory=dict)
    carried: set[Span] = field(default_factory=set)


class Recorder:
    """Records one outermost call. `lookup` tells whose weight a tensor is, `bring` makes it usable before it is read."""

    def __init__(
        self,
        clock: Device,
        lookup: Callable[[torch.Tensor], Span | None],
        bring: Callable[[Span], None],
        known: dict[Span, dict[str, None]],
    ) -> None:
        self._clock = clock
        self._lookup = lookup
        self._bring = bring
        self._log = _Log(reads={span: dict(readers) for span, readers in known.items()})
        self._seen: set[Span] = set()
        self._stack: list[str] = []
        self._busy = False
        self.live = LiveBytes()
        self._modes = (_Functions(self), _Operations(self))
        self._go_on: Callable[[], None] = lambda: None

    @property
    def stack(self) -> list[str]:
        """Dotted paths of the modules that run now, the innermost last."""
        return self._stack

    @property
    def reads(self) -> dict[Span, dict[str, None]]:
        """Readers of every span so far, those of earlier recordings included."""
        return self._log.reads

    def start(self) -> None:
        """Begin to watch operations."""
        self._go_on = pause_compiling()
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Cease to watch, whatever has happened. Leaves modes that others have put on top in peace."""
        for mode in reversed(self._modes):
            if mode.is_on_top():
                mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._go_on()

    def enter(self, path: str, own: list[Span], passing: Any) -> None:
        """Note that module `path` begins, called with `passing`; bring its `own` weights."""
        if not self._stack:
            self.live.note(list(moving.tensors(passing)))
        self._border(path, passing, entry=True)
        self._stack.append(path)
        for span in own:
            self._fetch(span)

    def leave(self, path: str, passing: Any) -> None:
        """Note that module `path` has ended and returned `passing`."""
        if path in self._stack:
            del self._stack[len(self._stack) - 1 - self._stack[::-1].index(path) :]
        self._border(path, passing, entry=False)

    def size_of_step(self, nbytes: int) -> None:
        """Say that the step which began at the latest border has `nbytes` in use beside weights."""
        if self._log.sizes:
            self._log.sizes[-1] = max(self._log.sizes[-1], nbytes)

    def saw(self, tensor: torch.Tensor) -> None:
        """Note that the innermost module reads `tensor`."""
        span = self._lookup(tensor)
        if span is None or not self._stack:
            return
        direct = isinstance(tensor, nn.Parameter)
        readers = self._log.reads.setdefault(span, {})
        if not direct and span in self._seen and not any(path in readers for path in self._stack):
            self._log.carried.add(span)
        if direct or not any(path in readers for path in self._stack):
            readers.setdefault(self._stack[-1])
        self._seen.add(span)
        if direct:
            self._fetch(span)

    def result(self) -> Recording:
        """Return what was learnt. The clock's marks must have passed."""
        keep = self._kept()
        step_of = _count(keep)
        borders = [border for border, kept in zip(self._log.borders, keep, strict=True) if kept]
        ns = [0] * (len(borders) - 1)
        sizes = [0] * (len(borders) - 1)
        for segment in self._log.segments:
            step = step_of[segment.border]
            if segment.end is not None and 0 <= step < len(ns):
                ns[step] += self._clock.elapsed_ns(segment.start, segment.end)
        for index, nbytes in enumerate(self._log.sizes):
            if 0 <= step_of[index] < len(sizes):
                sizes[step_of[index]] = max(sizes[step_of[index]], nbytes)
        crossings = [nbytes for nbytes, kept in zip(self._log.crossings, keep, strict=True) if kept][:-1]
        called = [border.path for border in self._log.borders if border.entry]
        return Recording(self._readings(borders), borders, ns, sizes, crossings, called)

    def _kept(self) -> list[bool]:
        readers = {path for paths in self._log.reads.values() for path in paths}
        last = len(self._log.borders) - 1
        return [index in (0, last) or border.path in readers for index, border in enumerate(self._log.borders)]

    def _readings(self, borders: list[Border]) -> dict[Span, Reading]:
        uses = _uses(borders, {span: set(paths) for span, paths in self._log.reads.items()})
        found = {}
        for span, paths in self._log.reads.items():
            held = uses[span]
            if span in self._log.carried and held:
                held = [(held[0][0], held[-1][1])]
            found[span] = Reading(tuple(paths), tuple(held))
        return found

    def _border(self, path: str, passing: Any, *, entry: bool) -> None:
        mark = self._clock.timed_mark()
        if self._log.segments:
            self._log.segments[-1].end = mark
        self._log.borders.append(Border(path, entry))
        self._log.sizes.append(0)
        self._log.crossings.append(sum(tensor.numel() * tensor.element_size() for tensor in moving.tensors(passing)))
        self._log.segments.append(_Segment(len(self._log.borders) - 1, mark))

    def _fetch(self, span: Span) -> None:
        with self._alone(), self._uncounted():
            self._bring(span)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep our own operations out of the record."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        """Keep a fetch out of the step's time."""
        segment = self._log.segments[-1]
        segment.end = self._clock.timed_mark()
        yield
        self._log.segments.append(_Segment(segment.border, self._clock.timed_mark()))

    @property
    def busy(self) -> bool:
        """True while our own operations run."""
        return self._busy


class _Functions(TorchFunctionMode):
    """Sees calls before torch decides anything by the device of an argument."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._recorder.busy and _reads(func):
            for leaf in tree_iter((args, kwargs)):
                if isinstance(leaf, nn.Parameter):
                    self._recorder.saw(leaf)
        return func(*args, **(kwargs or {}))

    def is_on_top(self) -> bool:
        stack = torch.overrides._get_current_function_mode_stack()
        return bool(stack) and stack[-1] is self


class _Operations(TorchDispatchMode):
    """Sees every operation, whoever calls it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._recorder.busy:
            for leaf in tree_iter((args, kwargs)):
                if isinstance(leaf, torch.Tensor):
                    self._recorder.saw(leaf)
        output = func(*args, **(kwargs or {}))
        if not self._recorder.busy:
            self._recorder.live.note(output)
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


def _count(keep: list[bool]) -> list[int]:
    """Return, per border, the step that it begins or lies in."""
    steps, step = [], -1
    for kept in keep:
        step += kept
        steps.append(step)
    return steps


def _uses(borders: list[Border], readers: dict[Span, set[str]]) -> dict[Span, list[tuple[int, int]]]:
    """Count readers in and out; a use lasts while any is inside."""
    read_by: dict[str, list[Span]] = {}
    for span, paths in readers.items():
        for path in paths:
            read_by.setdefault(path, []).append(span)
    inside = dict.fromkeys(readers, 0)
    began = dict.fromkeys(readers, 0)
    uses: dict[Span, list[tuple[int, int]]] = {span: [] for span in readers}
    for index, border in enumerate(borders):
        for span in read_by.get(border.path, ()):
            inside[span] += 1 if border.entry else -1
            if border.entry and inside[span] == 1:
                began[span] = index
            if not border.entry and inside[span] == 0:
                uses[span].append((began[span], index - 1))
    return uses
