"""What is to be undone when a call is over, written down as it is done."""

from __future__ import annotations

from collections.abc import Callable


class Undo:
    """A list of steps, the latest first. Steps are idempotent: one that Ctrl-C has cut short is done again."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        """Note `step`, before that which it undoes."""
        self._steps.append(step)

    def run(self) -> None:
        """Undo all. An error of one step does not keep the others from being done; the latest one is raised."""
        failed: Exception | None = None
        while self._steps:
            try:
                self._steps[-1]()
            except Exception as error:
                failed = error
            self._steps.pop()
        if failed is not None:
            raise failed
