"""The ring under any plan and any order of readers: no byte is overwritten that somebody holds or will be handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from optimem.residency.ring import Ring, Turn
from optimem.wire.protocol import Copy


def lay_out(sizes: list[int], arena: int, laps: int) -> list[Copy]:
    """Place the copies of a turn one behind the other, from another start in every lap, back to 0 where there is no room."""
    pages = list(range(len(sizes))) * laps
    places: list[tuple[int, int]] = []
    for number, page in enumerate(pages):
        start = number // len(sizes) if page == 0 else places[-1][1]
        start = 0 if start + sizes[page] > arena else start
        places.append((start, start + sizes[page]))

    def after(index: int) -> int:
        low, high = places[index]
        for distance in range(1, len(sizes) + 1):
            other = places[index - distance]
            if other[0] < high and low < other[1]:
                return distance
        return len(sizes)

    return [Copy(page, places[i][0], page, page, after(i)) for i, page in enumerate(pages)]


@dataclass
class Card:
    """Remembers what lies in the arena. A mark is the number of turns given back when it was made."""

    copies: list[Copy]
    sizes: list[int]
    content: dict[int, tuple[int, int]] = field(default_factory=dict)  # turn number by issue order -> bytes
    held: set[int] = field(default_factory=set)
    ended_at: dict[int, int] = field(default_factory=dict)
    issued: int = 0
    clock: int = 0

    def issue(self, entry: int, after: Any) -> int:
        copy = self.copies[entry]
        low, high = copy.offset, copy.offset + self.sizes[copy.page]
        for number, (start, end) in list(self.content.items()):
            if start < high and low < end:
                assert number not in self.held, "bytes in use are overwritten"
                if number in self.ended_at:
                    assert after is not None
                    assert after >= self.ended_at[number], "the copy does not wait for the last reader"
                del self.content[number]
        self.issued += 1
        self.content[self.issued] = (low, high)
        return self.issued


plans = st.lists(st.integers(1, 9), min_size=1, max_size=8).flatmap(
    lambda sizes: st.tuples(
        st.just(sizes),
        st.integers(max(sizes), 3 * max(sizes)),
        st.integers(1, 3),
    )
)
forwards = st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=4)


def drive(plan: tuple[list[int], int, int], walk: Callable[[Ring, Card, list[int]], None]) -> None:
    sizes, arena, laps = plan
    pages = list(range(len(sizes)))
    copies = lay_out(sizes, arena, laps)
    card = Card(copies, sizes)
    ring = Ring(copies, laps, card.issue)
    ring.issue_ahead()
    walk(ring, card, pages)


def use(ring: Ring, card: Card, turn: Turn) -> None:
    assert turn.ready in card.content, "the bytes of this turn have been overwritten"
    card.held.add(turn.ready)


def give_back(ring: Ring, card: Card, turn: Turn) -> None:
    card.clock += 1
    card.held.discard(turn.ready)
    card.ended_at[turn.ready] = card.clock
    ring.give_back(turn, card.clock)
    ring.issue_ahead()


@given(plans)
def test_in_the_planned_order_every_page_is_there(plan: Any) -> None:
    def walk(ring: Ring, card: Card, pages: list[int]) -> None:
        for _ in range(4):
            for page in pages:
                turn = ring.take(page, next_lap=False)
                assert turn is not None
                use(ring, card, turn)
                give_back(ring, card, turn)
            assert all(ring.take(page, next_lap=False) is None for page in pages), "the next lap has begun by itself"
            ring.end_lap()

    drive(plan, walk)


@given(plans, st.lists(st.integers(0, 8), min_size=1, max_size=12))
def test_a_part_may_begin_at_any_page_and_go_on_from_there(plan: Any, begins: list[int]) -> None:
    def walk(ring: Ring, card: Card, pages: list[int]) -> None:
        for begin in begins:
            for page in pages[begin % len(pages) :]:
                turn = ring.take(page, next_lap=True)
                if turn is None:
                    assert page == begin % len(pages), "after a jump the copies go on in order"
                    assert ring.jump(page)
                    turn = ring.take(page, next_lap=True)
                assert turn is not None
                use(ring, card, turn)
                give_back(ring, card, turn)
        ring.end_lap()
        assert ring.take(pages[0], next_lap=False) is not None

    drive(plan, walk)


@given(plans, forwards)
def test_in_any_other_order_nothing_is_overwritten_in_use(plan: Any, orders: list[list[int]]) -> None:
    def walk(ring: Ring, card: Card, pages: list[int]) -> None:
        for order in orders:
            held: list[Turn] = []
            for wish in order:
                part = wish > 5
                turn = ring.take(wish % len(pages), next_lap=part)
                if turn is None and part and ring.jump(wish % len(pages)):
                    turn = ring.take(wish % len(pages), next_lap=True)
                if turn is not None:
                    use(ring, card, turn)
                    held.append(turn)
                if len(held) > wish % 3:
                    give_back(ring, card, held.pop(0))
            for turn in held:
                give_back(ring, card, turn)
            ring.end_lap()
        for page in pages:  # the planned order works again, whatever was before
            turn = ring.take(page, next_lap=False)
            assert turn is not None
            use(ring, card, turn)
            give_back(ring, card, turn)

    drive(plan, walk)
