"""Residency under a plan: which pages are on the device now, and where their parameters point.

`acquire` makes the pages of a reader usable on the current stream, `release` ends that use; each is a no-op if there is
nothing to do. The pager decides nothing: reads that the plan does not foresee are fetched on touch and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..card.device import Device
from ..model.recording import Border, Recording
from ..model.units import Span, Unit, aligned, storage_pointer, use_count
from ..model.weights import Looks, take
from ..seams.profiling import profiled
from ..wire.protocol import Copy, Plan
from .pieces import Held, gaps, in_one_block, keep
from .placements import Placement, placement_of
from .ring import Ring, Turn
from .sides import CPU
from .store import Store, poison
from .touch import Touched


@dataclass(eq=False)
class Page:
    """A page and its state. `turn` is its place in the arena, if it has one now."""

    index: int
    name: str
    placement: Placement
    spans: tuple[Span, ...]
    source: torch.Tensor | None  # its bytes in the store; None for pages that never move as one
    uses: tuple[tuple[int, int], ...]
    holds: int = 0
    turn: Turn | None = None
    rests: bool = False  # the turn goes on, and no call runs
    pieces: Held = field(default_factory=dict)  # a resident page's bytes
    look: Looks = field(default_factory=list)  # where a resident page's parameters point
    home: Looks = field(default_factory=list)  # where they point when the page is not on the device

    @property
    def nbytes(self) -> int:
        """Bytes as laid out on the device."""
        return sum(aligned(span.nbytes) for span in self.spans)


class Pager:
    """Follows one plan. Between forwards all parameters point to the masters."""

    def __init__(
        self,
        device: Device,
        store: Store,
        plan: Plan,
        units: Sequence[Unit],
        recording: Recording,
        *,
        held: Held,
        start: torch.device,
    ) -> None:
        """`held` is emptied: spans that the plan keeps on the device stay, all others are dropped. `start` is the side of
        modules that the plan does not mention."""
        self._device = device
        self._store = store
        self._plan = plan
        self._touched = Touched(device, store)
        self._touched.settles = bool(recording.aside)
        self._poison = poison()
        self.moved = 0  # bytes copied to the device by the plan so far
        self.misses = 0  # pages fetched on touch so far
        self.pages = [self._page(index, units) for index in range(len(plan.pages))]
        self._start = start
        self._page_of = {span: page for page in self.pages for span in page.spans}
        self._needs = _needs(self.pages, units, plan, set(recording.called))
        self._resident_bytes = 0
        missing = self._make_residents(held)
        self._arena = device.empty(plan.arena_bytes)
        self._slots = [self._slot(copy) for copy in plan.copies]
        self._looks = [self._look(self.pages[copy.page], self._arena, copy.offset) for copy in plan.copies]
        # The host waits before such bytes are used again: a reader leaves the stream on which we could mark its end.
        self._settles = [not recording.aside.isdisjoint(_readers(page.units, units)) for page in plan.pages]
        self._exits = [
            _exits(_readers(plan.pages[copy.page].units, units), recording.borders[copy.first + 1 : copy.last + 2])
            for copy in plan.copies
        ]
        self._lookers = use_count(self._arena.untyped_storage())  # all are ours
        self._note_residents()
        self._ring = Ring(plan.copies, plan.laps, self._issue)
        self._pending = [self._fetch(*gap) for gap in missing]
        self._ring.issue_ahead()

    @property
    def bytes_moved(self) -> int:
        """Bytes copied to the device so far, planned or on touch."""
        return self.moved + self._touched.moved

    @property
    def weight_bytes(self) -> int:
        """Device bytes that weights take now."""
        return self._resident_bytes + self._plan.arena_bytes + self._touched.nbytes

    def residents(self) -> set[Span]:
        """Return the spans of the pages that stay on the device."""
        return {span for page in self.pages for span in page.pieces}

    def readers(self, *, every: bool) -> set[str]:
        """Return the paths of the modules that must acquire: those with pages that may be off the device, or all."""
        return {path for path, needs in self._needs.items() if every or not all(page.pieces for page, _ in needs)}

    def sides(self) -> dict[str, torch.device]:
        """Return where each reader computes: on the CPU if it reads a page that stays in RAM."""
        return {
            path: CPU if any(self._stays_in_ram(page) for page, _ in needs) else self._device.torch
            for path, needs in self._needs.items()
        }

    def places(self) -> set[torch.device]:
        """Return the sides of the pages that forwards read."""
        read = [page for page in self.pages if page.placement.read]
        return {CPU if self._stays_in_ram(page) else self._device.torch for page in read}

    def storages(self) -> set[int]:
        """Return the storage pointers of all device bytes that weights view now."""
        return self._storages | self._touched.storages()

    def is_looked_into(self) -> bool:
        """Tell, between forwards, whether somebody keeps a view of the arena, whose bytes will change."""
        return use_count(self._arena.untyped_storage()) > self._lookers

    def spoil(self) -> None:
        """Fill the arena with NaN, so that no view of it can be right by luck. Only `close` may follow."""
        self._device.settle()
        self._arena.fill_(0xFF)

    def begin(self, *, lap: bool) -> None:
        """Begin an outermost call: residents are usable from here on. `lap`: it is one of the whole model, and what calls of
        parts have begun ends."""
        if lap:
            self._end_lap_of_parts()
        for mark in self._pending:
            self._device.wait(mark)
        self._pending = []
        take(self._out)

    def acquire(self, path: str, *, next_lap: bool) -> int | None:
        """Make every page that `path` reads usable. Return the copy that the device has to wait for, if any.

        `next_lap` allows a turn of the next lap, for calls that do not come through the root.
        """
        waited = None
        for page, spans in self._needs.get(path, ()):
            page.holds += 1
            if page.turn is not None and page.rests:
                self._look_again(page)
            if page.pieces or page.turn is not None or self._stays_in_ram(page):
                continue
            turn = self._take(page, next_lap=next_lap) if page.holds == 1 else None
            if turn is None:
                self._fetch_on_touch(page, spans)
                continue
            if self._touched.nbytes:
                self._touched.drop(page.spans)  # spans that a stray reader has fetched
            with profiled("acquire", page.name):
                self._device.wait(turn.ready)
                page.turn = turn
                take(self._looks[turn.entry])
            waited = turn.entry
        return waited

    def release(self, path: str) -> None:
        """Release every page that `path` reads."""
        for page, _ in self._needs.get(path, ()):
            page.holds = max(0, page.holds - 1)
            if page.turn is not None:
                page.turn.exits += 1
                if page.holds == 0 and page.turn.exits >= self._exits[page.turn.entry]:
                    self._end_turn(page)
                    self._ring.issue_ahead()
            elif page.holds == 0 and not page.pieces:
                self._touched.drop(page.spans)

    def touch(self, span: Span) -> None:
        """Fetch `span` for a reader that has not acquired it, until its page is released or the forward ends."""
        page = self._page_of[span]
        if not (page.pieces or page.turn is not None or span in self._touched or self._stays_in_ram(page)):
            self._fetch_on_touch(page, [span])

    def finish(self, *, lap: bool) -> None:
        """End an outermost call: release all pages, and point all parameters to the masters."""
        self._touched.drop_all()
        for page in self.pages:
            page.holds = 0
            if page.turn is not None and lap:
                self._end_turn(page)
            page.rests = page.turn is not None
            if self._poison or page.rests:
                take(page.home)
        take(self._back)
        if lap:
            self._ring.end_lap()

    def shrink(self, nbytes: int, *, at_start: bool, all_tied: bool) -> int | None:
        """Evict residents that nobody holds now until `nbytes` are free. Return how many are; None if the holders are not
        known. They are known at the start of a forward, if all readers are tied, and while a streamed page is held."""
        step = None if at_start else self._step()
        if step is None and not at_start and not all_tied:
            return None
        freed = 0
        for page in map(self.pages.__getitem__, self._plan.eviction):
            if freed >= nbytes:
                break
            if page.pieces and not page.holds and not _lasts(page, step):
                page.pieces, page.look = {}, []
                take(page.home)
                freed += page.nbytes
        self._note_residents()
        self._device.give_back()
        return freed

    def _step(self) -> int | None:
        """Return the recorded step that runs now, as far as held pages tell."""
        steps = [self._ring.first_step(page.turn) for page in self.pages if page.turn is not None]
        return max(steps, default=None)

    def refresh(self) -> None:
        """The masters have changed: copy everything again."""
        self._device.settle()
        for page in self.pages:
            page.turn = None  # which calls of parts may have left
        self._ring.restart()
        self._pending = [
            self._fetch(block[at:][: aligned(span.nbytes)], self._store.bytes_of([span]), page.name)
            for page in self.pages
            for span, (block, at) in page.pieces.items()
        ]
        self._ring.issue_ahead()

    def close(self) -> Held:
        """Leave the device; return the residents' bytes there. Parameters point to the masters."""
        self._device.settle()
        held: Held = {}
        for page in self.pages:
            held.update(page.pieces)
            page.turn, page.pieces, page.look, page.source = None, {}, [], None
            take(page.home)
        self._touched.drop_all()
        self._looks, self._slots = [], []
        self._arena = self._device.empty(0)
        self._note_residents()
        return held

    def _page(self, index: int, units: Sequence[Unit]) -> Page:
        planned = self._plan.pages[index]
        members = [units[unit] for unit in planned.units]
        spans = tuple(self._store.in_order(span for unit in members for span in unit.spans))
        placement = placement_of(planned.placement)
        source = self._store.bytes_of(spans) if placement.moves and spans else None
        uses = tuple(use for unit in members for use in unit.uses)
        home = [look for span in spans for weight in span.weights for look in self._store.home_of(weight)]
        return Page(index, members[0].path, placement, spans, source, uses, home=home)

    def _make_residents(self, held: Held) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
        """Make residents of spans that are `held`. Return the copies still to issue: target, source, and the page's name."""
        residents = [page for page in self.pages if page.placement.resident and page.source is not None]
        keep(held, {span for page in residents for span in page.spans}, self._device, self._plan.budget_bytes)
        self._device.settle()  # coming copies may land in freed bytes
        self._device.give_back()
        return [gap for page in residents for gap in self._fill(page, held)]

    def _fill(self, page: Page, held: Held) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
        """Make `page` resident with its spans that are `held` and new blocks for the gaps; return the copies into these."""
        assert page.source is not None
        page.pieces = {span: held.pop(span) for span in page.spans if span in held}
        brought = []
        for at, spans in gaps(page.spans, page.pieces):
            block = self._device.empty(sum(aligned(span.nbytes) for span in spans))
            page.pieces |= in_one_block(spans, block)
            brought.append((block, page.source[at:][: block.numel()], page.name))
        page.look = [
            look for span, (block, at) in page.pieces.items() for weight in span.weights for look in weight.looks(block, at)
        ]
        return brought

    def _note_residents(self) -> None:
        """Note the looks and bytes of the pages that are resident now, for every outermost call."""
        residents = [page for page in self.pages if page.pieces]
        self._resident_bytes = sum(page.nbytes for page in residents)
        blocks = [self._arena, *(piece.block for page in residents for piece in page.pieces.values())]
        self._out = [look for page in residents for look in page.look]
        self._back = [look for page in residents for look in page.home]
        self._storages = {storage_pointer(block) for block in blocks}

    def _fetch(self, target: torch.Tensor, source: torch.Tensor, name: str, after: Any = None) -> Any:
        self.moved += target.numel()
        with profiled("prefetch", name):
            return self._device.fetch(target, source, after)

    def _issue(self, entry: int, after: Any) -> Any:
        page = self.pages[self._plan.copies[entry].page]
        assert page.source is not None
        return self._fetch(self._slots[entry], page.source, page.name, after)

    def _slot(self, copy: Copy) -> torch.Tensor:
        """Return the arena bytes of a copy."""
        return self._arena[copy.offset :][: self._plan.pages[copy.page].bytes]

    def _take(self, page: Page, *, next_lap: bool) -> Turn | None:
        turn = self._ring.take(page.index, next_lap=next_lap)
        if turn is None and page.placement.streamed:
            self._end_idle_turns()
            turn = self._ring.take(page.index, next_lap=next_lap)
            if turn is None and next_lap and self._ring.jump(page.index):
                turn = self._ring.take(page.index, next_lap=True)
        return turn

    def _end_idle_turns(self) -> None:
        """End turns that wait for a reader that this forward seems to skip."""
        for page in self.pages:
            if page.turn is not None and page.holds == 0:
                self._end_turn(page)
        self._ring.issue_ahead()

    def _end_lap_of_parts(self) -> None:
        """End the lap in which calls of parts have taken turns, if there is one."""
        for page in self.pages:
            if page.turn is not None:
                self._end_turn(page)
        if self._ring.begun:
            self._ring.end_lap()

    def _look_again(self, page: Page) -> None:
        """Take up a turn that rests: the current stream may be another one than that of the call before."""
        assert page.turn is not None
        self._device.wait(page.turn.ready)
        take(self._looks[page.turn.entry])
        page.rests = False

    def _end_turn(self, page: Page) -> None:
        assert page.turn is not None
        page.rests = False
        if self._settles[page.index]:
            self._device.settle()
        with profiled("release", page.name):
            if self._poison:
                self._store.release(page.spans)
                self._slots[page.turn.entry].fill_(0xFF)
            else:
                take(page.home)
            self._ring.give_back(page.turn, self._device.mark())
            page.turn = None

    def _stays_in_ram(self, page: Page) -> bool:
        """Tell whether the CPU computes with `page`: by the plan, or because it is not on the device and forwards start in
        RAM."""
        return page.placement.on_cpu or (self._start == CPU and not page.pieces and page.turn is None)

    def _fetch_on_touch(self, page: Page, spans: Iterable[Span]) -> None:
        self.misses += 1
        for span in spans:
            if span not in self._touched:
                self._touched.fetch(span)

    def _look(self, page: Page, block: torch.Tensor, at: int) -> Looks:
        pieces = in_one_block(page.spans, block)
        return [
            look for span, piece in pieces.items() for weight in span.weights for look in weight.looks(block, at + piece.at)
        ]


def _needs(
    pages: Sequence[Page], units: Sequence[Unit], plan: Plan, called: set[str]
) -> Mapping[str, list[tuple[Page, list[Span]]]]:
    """Return, per reader, its pages and the spans that it reads of each. A module that was not called yet reads its own."""
    needs: dict[str, dict[Page, list[Span]]] = {}
    for page in pages:
        for index in plan.pages[page.index].units:
            unit = units[index]
            for path in {*unit.readers} | {path for span in unit.spans for path in span.owners} - called:
                needs.setdefault(path, {}).setdefault(page, []).extend(unit.spans)
    return {path: list(by_page.items()) for path, by_page in needs.items()}


def _lasts(page: Page, step: int | None) -> bool:
    return step is not None and any(first <= step <= last for first, last in page.uses)


def _readers(members: Sequence[int], units: Sequence[Unit]) -> set[str]:
    return {path for index in members for path in units[index].readers}


def _exits(readers: set[str], borders: Sequence[Border]) -> int:
    return sum(not border.entry and border.path in readers for border in borders)
