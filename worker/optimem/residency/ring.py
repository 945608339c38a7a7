"""The ring: streamed pages take turns in the arena, in the order of the plan, lap after lap.

It knows marks and copies, no modules and no parameters. Copies are counted through all laps by one number n; copy n is entry
n mod K of the plan. The plan's copies may span several laps, with the same pages at other offsets in each. A copy is issued
as soon as the host knows the mark after which its arena bytes are free, which is long before the device gets there: the copy
stream waits for the mark, the host does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..wire.protocol import Copy


@dataclass(slots=True)
class Turn:
    """One copy of one lap: `ready` is the mark of its end, `exits` counts the readers that have left the page since."""

    number: int
    entry: int
    page: int
    ready: Any = None
    exits: int = 0


class Ring:
    """Issues copies ahead and hands out turns. `issue(entry, after)` starts a copy and returns its mark."""

    def __init__(self, copies: Sequence[Copy], laps: int, issue: Callable[[int, Any], Any]) -> None:
        self._copies = copies
        self._after = [copy.after for copy in copies]
        self._per_lap = len(copies) // laps
        self._issue = issue
        self.restart()

    def restart(self) -> None:
        """Begin again with the first copy of a lap. Nothing may be in flight."""
        self._issued = 0
        self._freed = 0  # all turns below this number are over
        self._lap = 0
        self.begun = False  # a turn of this lap was taken
        self._over: set[int] = set()
        self._freed_mark: list[Any] = [None] * len(self._copies)
        self._latest_mark: Any = None
        self._waiting: dict[int, deque[Turn]] = {copy.page: deque() for copy in self._copies}
        self._ahead: deque[Turn] = deque()

    def issue_ahead(self) -> None:
        """Issue every copy whose arena bytes are free, or have a mark after which they will be."""
        count, number = len(self._copies), self._issued
        while count and number < self._freed + (distance := self._after[number % count]):
            entry, blocker = number % count, number - distance
            after = self._freed_mark[blocker % count] if blocker >= 0 else None
            turn = Turn(number, entry, self._copies[entry].page, self._issue(entry, after))
            self._waiting[turn.page].append(turn)
            self._ahead.append(turn)
            self._issued = number = number + 1

    def take(self, page: int, *, next_lap: bool) -> Turn | None:
        """Return the next turn of `page`; None if none is under way in this lap.

        Turns before it that nobody took are over: the forward went another way. With `next_lap` a turn of the next lap
        counts too, and ends this lap.
        """
        waiting = self._waiting.get(page)
        if not waiting:
            return None
        turn = waiting[0]
        if turn.number >= self._lap_end():
            if not next_lap:
                return None
            self._lap = turn.number // self._per_lap
        self.begun = True
        waiting.popleft()
        self._skip_to(turn.number)
        self._ahead.popleft()
        return turn

    def jump(self, page: int) -> bool:
        """Go on at the next copy of `page` that is not issued yet: the forward begins elsewhere. Turns before it that nobody
        took are over. Return False if no copy of `page` will come."""
        count = len(self._copies)
        ahead = range(self._issued, self._issued + count)
        number = next((number for number in ahead if self._copies[number % count].page == page), None)
        if number is None:
            return False
        self._lap = number // self._per_lap
        self._skip_to(number)
        self.issue_ahead()
        return True

    def give_back(self, turn: Turn, mark: Any) -> None:
        """End `turn`: its bytes are free once `mark` has passed."""
        self._latest_mark = mark
        self._over.add(turn.number)
        self._advance()

    def end_lap(self) -> None:
        """End the lap: turns that were not taken in it are over. Turns in use must have been given back."""
        self._skip_to(self._lap_end())
        self._lap += 1
        self.begun = False
        self.issue_ahead()

    def first_step(self, turn: Turn) -> int:
        """Return the step at which `turn` begins in the recorded order."""
        return self._copies[turn.entry].first

    def _skip_to(self, number: int) -> None:
        while self._ahead and self._ahead[0].number < number:
            skipped = self._ahead.popleft()
            self._waiting[skipped.page].popleft()
            self._over.add(skipped.number)
        # Copies of a lap that were never issued because the forward ended before their bytes came free.
        while self._issued < number and self._issued < self._lap_end():
            self._over.add(self._issued)
            self._issued += 1
        self._advance()

    def _advance(self) -> None:
        while self._freed in self._over:
            self._over.discard(self._freed)
            self._freed_mark[self._freed % len(self._copies)] = self._latest_mark
            self._freed += 1

    def _lap_end(self) -> int:
        return (self._lap + 1) * self._per_lap
