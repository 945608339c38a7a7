"""The steps that undo what a call has done (docs/adr/0012-one-undo-list-per-call.md)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress


class Undo:
    """A list of steps, run latest first. Steps are idempotent: one that was cut short is run again."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        """Note `step`, before the effect that it undoes."""
        self._steps.append(step)

    def run(self) -> None:
        """Run all steps. An error of one does not keep the others from running; the last error is raised. A step that raises
        is run once more, since the error may be that of a signal handler."""
        failed: Exception | None = None
        while self._steps:
            try:
                self._steps[-1]()
            except Exception as error:
                failed = error
                with suppress(Exception):
                    self._steps[-1]()
            self._steps.pop()
        if failed is not None:
            raise failed
