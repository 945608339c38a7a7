"""Plays plans on the simulated card with torch's own streams and events: a case a line on stdin, an answer a line on stdout.

It is not the worker: the card has free launches and infinite memory, the host is infinitely fast, so all that takes time
is what the recurrence knows, copies and computation. It knows no recurrence either; it only orders work and reads clocks.
Races are looked for, and every step reads the pages it holds, so an answer is an error where a plan's ring is wrong.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace

import torch

import simgpu
from simgpu.profile import Efficiency, Link

WORD = 8  # bytes; pages and offsets are multiples of it
FREE = Efficiency(compute=math.inf, memory=math.inf)
CARD = replace(simgpu.profile.load("rtx3060"), key="toy", efficiency=FREE, launch_ns=0)
HOST = replace(
    simgpu.profile.load_host("desktop"),
    key="toy",
    efficiency=FREE,
    operation_ns=0,
    copy_ns=0,
    event_ns=0,
    view_ns=0,
    driver_ns=0,
)


@dataclass(frozen=True)
class Copy:
    """One copy of a turn of the ring; see planner.Copy."""

    page: int
    offset: int
    first: int
    last: int
    after: int


@dataclass(frozen=True)
class Case:
    """A plan, a link and a number of laps. Sizes in bytes, times in ns."""

    latency: int
    rate: int
    lanes: int
    laps: int
    turn: int  # laps that a turn of the ring takes
    arena: int
    compute: list[int]
    pages: list[int]
    copies: list[Copy]

    @property
    def per_lap(self) -> int:
        """Copies of one lap."""
        return len(self.copies) // self.turn

    def of_lap(self, lap: int) -> range:
        """The copies of a lap, by their places in the turn."""
        first = lap % self.turn * self.per_lap
        return range(first, first + self.per_lap)


class Marks:
    """Events by lap and place; a time is asked for once the card has done all."""

    def __init__(self) -> None:
        self._laps: list[list[torch.Event]] = []

    def start_lap(self) -> None:
        self._laps.append([])

    def record(self, stream: torch.Stream) -> torch.Event:
        self._laps[-1].append(timed(stream))
        return self._laps[-1][-1]

    def __getitem__(self, at: tuple[int, int]) -> torch.Event:
        return self._laps[at[0]][at[1]]

    def since(self, start: torch.Event) -> list[list[int]]:
        return [[round(start.elapsed_time(event) * 1e6) for event in lap] for lap in self._laps]


def timed(stream: torch.Stream) -> torch.Event:
    event = torch.Event(device="simgpu", enable_timing=True)
    event.record(stream)
    return event


class Player:
    """Two streams, an arena, and the pages on both sides: masters to copy from, twins to compare with."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._compute, self._copies = torch.accelerator.current_stream(), torch.Stream(device="simgpu")
        self._masters = [torch.randint(1 << 62, (size // WORD,)).pin_memory() for size in case.pages]
        self._twins = [master.to("simgpu") for master in self._masters]
        self._arena = torch.empty(case.arena // WORD, dtype=torch.int64, device="simgpu")
        self._wrong = torch.zeros(len(case.copies) + 1, dtype=torch.bool, device="simgpu")
        self._marks = {name: Marks() for name in ("step_start", "step_end", "copy_start", "copy_end")}
        simgpu.synchronize()

    def play(self) -> dict[str, object]:
        """The start and end of every step and copy, by lap, from the start of the first; or what went wrong."""
        began = simgpu.now_ns()
        start = timed(self._compute)
        self._copies.wait_event(start)
        for lap in range(self._case.laps):
            self._lap(lap)
        if simgpu.now_ns() != began:
            return {"error": f"the host took {simgpu.now_ns() - began} ns, so times are not the card's alone"}
        simgpu.synchronize()
        if wrong := self._wrong.nonzero().flatten().tolist():
            return {"error": f"steps read other bytes than those of copies {wrong}"}
        return {name: marks.since(start) for name, marks in self._marks.items()}

    def _lap(self, lap: int) -> None:
        for marks in self._marks.values():
            marks.start_lap()
        for step, compute in enumerate(self._case.compute):
            for k in self._case.of_lap(lap):
                if self._case.copies[k].first == step:
                    self._compute.wait_event(self._bring(lap, k))
            self._marks["step_start"].record(self._compute)
            for k in self._case.of_lap(lap):
                if self._case.copies[k].first <= step <= self._case.copies[k].last:
                    self._read(k)
            simgpu._sleep(compute)
            self._marks["step_end"].record(self._compute)

    def _bring(self, lap: int, k: int) -> torch.Event:
        """Copies once the bytes are released; the event of its end."""
        number = lap * self._case.per_lap + k % self._case.per_lap
        blocker = number - self._case.copies[k].after
        if blocker >= 0:
            last = self._case.copies[blocker % len(self._case.copies)].last
            self._copies.wait_event(self._marks["step_end"][blocker // self._case.per_lap, last])
        self._marks["copy_start"].record(self._copies)
        with self._copies:
            self._place(k).copy_(self._masters[self._case.copies[k].page], non_blocking=True)
        return self._marks["copy_end"].record(self._copies)

    def _read(self, k: int) -> None:
        self._wrong[k].logical_or_((self._place(k) != self._twins[self._case.copies[k].page]).any())

    def _place(self, k: int) -> torch.Tensor:
        copy = self._case.copies[k]
        return self._arena[copy.offset // WORD : (copy.offset + self._case.pages[copy.page]) // WORD]


def answer(line: str) -> dict[str, object]:
    fields = json.loads(line)
    case = Case(**(fields | {"copies": [Copy(**copy) for copy in fields["copies"]]}))
    link = Link(generation=4, width=case.lanes, pinned=case.rate, pageable=case.rate, latency_ns=case.latency)
    simgpu.use_profile(CARD, link=link, host=HOST)
    try:
        return Player(case).play()
    except simgpu.RaceError as error:
        simgpu.synchronize()
        return {"error": f"race: {error}"}


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(answer(line)), flush=True)


if __name__ == "__main__":
    main()
