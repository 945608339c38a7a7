"""The recorded forward: the readers of each weight, their order, and the times of the steps between.

Note: readers, borders, steps. A *reader* is the innermost module on the call stack when an operation takes a weight as an
argument. Hooks on every module keep the stack, a watch sees the operations. A *border* is an entry or exit of a reader, or
of the outermost call. A *step* runs between two borders. A span's *use* reaches from the border at which the first of its
readers enters to the one at which the last leaves. If a view of a weight is read while none of the weight's readers is on
the stack, all uses of the weight become one: its bytes must stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..card.device import Device
from ..data import moving
from ..model.recording import Border, Recording
from ..model.units import Reading, Span
from ..seams.watch import Watch
from .live import LiveBytes


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
    aside: set[str] = field(default_factory=set)


class Recorder:
    """Records one outermost call. `lookup` returns the span that a tensor views, `bring` makes a span usable before it is
    read if it is `missing`."""

    def __init__(
        self,
        clock: Device,
        lookup: Callable[[torch.Tensor], Span | None],
        bring: Callable[[Span], None],
        known: dict[Span, dict[str, None]],
        missing: Callable[[Span], bool],
    ) -> None:
        self._clock = clock
        self._missing = missing
        self._mark: Any = None  # the latest one
        self._ran = True  # since that mark
        self._lookup = lookup
        self._bring = bring
        self._log = _Log(reads={span: dict(readers) for span, readers in known.items()})
        self._seen: set[Span] = set()
        self._stack: list[str] = []
        self._streams: list[int] = []  # current at the entries of the modules on the stack
        self.live = LiveBytes()
        self._watch = Watch(self._saw, self._made, addresses=clock.capabilities.addresses)

    @property
    def stack(self) -> list[str]:
        """Dotted paths of the modules that run now, the innermost last."""
        return self._stack

    @property
    def reads(self) -> dict[Span, dict[str, None]]:
        """Readers of every span so far, those of earlier recordings included."""
        return self._log.reads

    @property
    def aside(self) -> frozenset[str]:
        """Readers that have left the stream that was current at their entry."""
        return frozenset(self._log.aside)

    def start(self) -> None:
        """Start to watch operations."""
        self._watch.start()

    def stop(self) -> None:
        """Stop watching, whatever has happened."""
        self._watch.stop()

    def enter(self, path: str, own: list[Span], passing: Any) -> None:
        """Note that module `path` begins with arguments `passing`; fetch its `own` weights."""
        if not self._stack:
            self.live.note(list(moving.tensors(passing)))
        self._border(path, passing, entry=True)
        self._stack.append(path)
        self._streams.append(self._clock.stream())
        for span in own:
            self._fetch(span)

    def leave(self, path: str, passing: Any) -> None:
        """Note that module `path` has ended and returned `passing`."""
        self._hand_on(passing)
        if path in self._stack:
            above = len(self._stack) - 1 - self._stack[::-1].index(path)
            del self._stack[above:], self._streams[above:]
        self._border(path, passing, entry=False)

    def _hand_on(self, output: Any) -> None:
        """Hold weights that a result views to the end of the call: they may be returned without being read."""
        for tensor in moving.tensors(output):
            span = self._lookup(tensor)
            if span is not None and self._stack:
                self._log.reads.setdefault(span, {}).setdefault(self._stack[0])

    def size_of_step(self, nbytes: int) -> None:
        """Note that the step behind the latest border uses `nbytes` beside weights."""
        if self._log.sizes:
            self._log.sizes[-1] = max(self._log.sizes[-1], nbytes)

    def result(self, left_behind: int = 0) -> Recording:
        """Return the recording. The clock's marks must have passed. `left_behind` are bytes that stay in use in the next
        forward."""
        keep = self._kept()
        step_of = _count(keep)
        borders = [border for border, kept in zip(self._log.borders, keep, strict=True) if kept]
        ns = [0] * (len(borders) - 1)
        sizes = [0] * (len(borders) - 1)
        for segment in self._log.segments:
            step = step_of[segment.border]
            if segment.end is not None and segment.end is not segment.start and 0 <= step < len(ns):
                ns[step] += self._clock.elapsed_ns(segment.start, segment.end)
        for index, nbytes in enumerate(self._log.sizes):
            step = min(step_of[index], len(sizes) - 1)  # sizes after the last border count for the last step
            if step >= 0:
                sizes[step] = max(sizes[step], nbytes + left_behind)
        crossings = [nbytes for nbytes, kept in zip(self._log.crossings, keep, strict=True) if kept][:-1]
        called = [border.path for border in self._log.borders if border.entry]
        return Recording(self._readings(borders), borders, ns, sizes, crossings, called, self.aside)

    def _saw(self, tensor: torch.Tensor) -> None:
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
        if self._clock.stream() != self._streams[-1]:
            self._log.aside.update(readers)
        if direct:
            self._fetch(span)

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
        mark = self._mark_now()
        if self._log.segments:
            self._log.segments[-1].end = mark
        self._log.borders.append(Border(path, entry))
        self._log.sizes.append(0)
        self._log.crossings.append(sum(tensor.numel() * tensor.element_size() for tensor in moving.tensors(passing)))
        self._log.segments.append(_Segment(len(self._log.borders) - 1, mark))

    def _made(self, output: Any) -> None:
        """Note that an operation has run: the next mark is a new one."""
        self._ran = True
        self.live.note(output)

    def _mark_now(self) -> Any:
        """Return a mark behind all operations so far; the latest mark if none has run since."""
        if self._ran:
            self._mark, self._ran = self._clock.timed_mark(), False
        return self._mark

    def _fetch(self, span: Span) -> None:
        if self._missing(span):
            with self._watch.aside(), self._uncounted():
                self._bring(span)

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        """Keep a fetch out of the step's time."""
        segment = self._log.segments[-1]
        segment.end = self._mark_now()
        yield
        self._ran = True
        self._log.segments.append(_Segment(segment.border, self._mark_now()))


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
