"""Ctrl-C in the model's code, and at a line of Optimem's own, chosen among those that ran when the same was done before. A
signal handler may raise an error of its own there too, as time limits do."""

from __future__ import annotations

import ast
import functools
import inspect
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import torch
from torch import nn

import models
import optimem

PACKAGE = Path(str(optimem.__file__)).parent
_PREFIX = f"{PACKAGE}/"


class Stop(nn.Linear):
    """Raises KeyboardInterrupt once when `armed`."""

    def __init__(self) -> None:
        super().__init__(models.WIDTH, models.WIDTH)
        self.armed = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
        return x


def stack(depth: int) -> nn.Sequential:
    """Layers, the middle one of which may stop."""
    layers = [nn.Linear(models.WIDTH, models.WIDTH) for _ in range(depth)]
    layers[depth // 2] = Stop()
    return nn.Sequential(*layers).eval()


class TimeLimit(Exception):
    """What a signal handler raises when a job has had its time."""


class Line(NamedTuple):
    """The `run`th run, from 1, of a line of a file that is named as in the package."""

    file: str
    number: int
    run: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}, run {self.run}"


class Trace:
    """Counts, by file and number, the runs of the package's lines on this thread within a block.

    Raises `error` when `stop` is about to run: `came` tells whether it did, `in_finalizer` whether Python let it
    end there, as it does with whatever finalizers and callbacks of weak references raise.
    """

    def __init__(self, stop: Line | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.runs: Counter[tuple[str, int]] = Counter()
        self.came = self.in_finalizer = False
        self._stop, self._error = stop, error

    def __enter__(self) -> Trace:
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._not_raised
        sys.settrace(self._called)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        sys.settrace(None)
        sys.unraisablehook = self._unraisable

    def _not_raised(self, what: Any) -> None:
        if self.came and issubclass(what.exc_type, self._error):
            self.in_finalizer = True
        else:
            self._unraisable(what)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(_PREFIX) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event != "line" or _leaves_a_block(frame):
            return self._line
        here = frame.f_code.co_filename.removeprefix(_PREFIX), frame.f_lineno
        self.runs[here] += 1
        if self._stop is not None and here == self._stop[:2] and self.runs[here] == self._stop.run:
            sys.settrace(None)
            self.came = True
            raise self._error(f"at {self._stop}")
        return self._line


def _leaves_a_block(frame: FrameType) -> bool:
    """Tell whether a `with` statement is about to end its block: Python looks for signals before that and after it."""
    if frame.f_lineno not in _headers(frame.f_code.co_filename):
        return False
    return frame.f_lasti != next(start for start, _, number in frame.f_code.co_lines() if number == frame.f_lineno)


@functools.cache
def _headers(file: str) -> set[int]:
    """Return the numbers of the lines on which the `with` statements of a file begin their blocks."""
    nodes = [node for node in ast.walk(ast.parse(Path(file).read_text())) if isinstance(node, ast.With)]
    return {number for node in nodes for number in range(node.lineno, node.body[0].lineno)}


def lines_of(act: Callable[[], object]) -> Counter[tuple[str, int]]:
    """Return how often each line of the package runs in `act`."""
    with Trace() as trace:
        act()
    return trace.runs


def lines_in(function: Callable[..., Any]) -> set[tuple[str, int]]:
    """Return all lines of a function of the package, by file and number."""
    source, first = inspect.getsourcelines(function)
    file = str(inspect.getsourcefile(function)).removeprefix(_PREFIX)
    return {(file, number) for number in range(first, first + len(source))}


def interrupt(line: Line, act: Callable[[], object], error: type[BaseException] = KeyboardInterrupt) -> bool:
    """Do `act`, cut short at `line` by `error`. Return False where that line did not run, or in a finalizer. An interrupt
    that ends elsewhere, caught by the package, is an AssertionError."""
    trace = Trace(line, error)
    try:
        with trace:
            act()
    except error:
        assert trace.came, "an interrupt came that is none of ours"
        return True
    assert not trace.came or trace.in_finalizer, f"{error.__name__} at {line} was swallowed"
    return False


def choose(runs: Counter[tuple[str, int]], seed: str) -> dict[str, Iterator[Line]]:
    """Return for every file all of its lines that ran, in an order that `seed` draws, each in one of its runs."""
    files: dict[str, list[Line]] = {}
    draw = random.Random(seed)
    for (file, number), count in sorted(runs.items()):
        files.setdefault(file, []).append(Line(file, number, draw.choice([1, count, draw.randint(1, count)])))
    return {file: iter(draw.sample(lines, len(lines))) for file, lines in files.items()}
