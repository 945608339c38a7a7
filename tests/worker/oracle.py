"""The best plan of a small list, found by trying all: what the planner is held against. None of its code is used here.

Times are whole nanoseconds, sizes bytes, periods exact fractions. The recurrence is that of a FIFO arena by bytes:

    copy end(k) = max(copy end(k-1), release(k - d(k))) + latency + bytes/rate       rounded up to ns
    step end(s) = max(step end(s-1), copy end of every k needed at s) + compute(s)
    d(k)        = min d such that bytes(k-d) + ... + bytes(k) > arena                 arena = budget - residents
    release(k)  = step end of the last step of copy k, and of all copies before it

No ring with fixed offsets does better with the same residents: of copies that together exceed the arena two overlap, and the
later of those waits for the earlier one.

In chunk mode nothing is copied. What the CPU and the device compute adds up, with what crosses between them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from typing import Any

LAPS = 84
RATE = 12_000_000_000
LATENCY = 10_000


@dataclass(frozen=True)
class Case:
    """A list to plan: bytes and uses (first, last step) per unit, compute time per step, a link, and a budget."""

    sizes: tuple[int, ...]
    uses: tuple[tuple[tuple[int, int], ...], ...]
    compute: tuple[int, ...]
    budget: int
    latency: int = LATENCY
    rate: int = RATE

    def request(self, **options: Any) -> dict[str, Any]:
        """Return it as a request of docs/contract.md, every unit a page of its own."""
        units = [
            {
                "path": f"layers.{i}",
                "kind": "Linear",
                "bytes": size,
                "parameters": size // 4,
                "readers": [f"layers.{i}"],
                "uses": [[first, last] for first, last in uses],
            }
            for i, (size, uses) in enumerate(zip(self.sizes, self.uses, strict=True))
        ]
        return {
            "manifest": {
                "model": "list",
                "steps": [{"compute_ns": ns} for ns in self.compute],
                "units": units,
            },
            "machine": {"link": {"latency_ns": self.latency, "bytes_per_second": self.rate}},
            "options": {"mode": "page", "vram": str(self.budget), "pages_as_given": True, "curve": [], **options},
        }

    @property
    def holds(self) -> bool:
        """True where a unit is held over several steps."""
        return any(last > first for uses in self.uses for first, last in uses)

    def transfer(self, size: int) -> int:
        """Return how long a copy of `size` bytes takes, in ns."""
        return self.latency - (-size * 1_000_000_000 // self.rate)

    def within(self, budget: int) -> Case:
        """Return the same list with another budget."""
        return replace(self, budget=budget)

    def rotated(self, by: int) -> Case:
        """Return the same lap, begun `by` steps later. Only for lists with one use of one step per unit."""
        order = [(i + by) % len(self.sizes) for i in range(len(self.sizes))]
        return chain([self.sizes[i] for i in order], [self.compute[i] for i in order], self.budget, self)

    def slower(self, by: int) -> Case:
        """Return the same list where all takes `by` times as long; `by` divides the rate."""
        assert self.rate % by == 0
        return replace(self, compute=tuple(by * ns for ns in self.compute), latency=by * self.latency, rate=self.rate // by)


def chain(sizes: list[int], compute: list[int], budget: int, like: Case | None = None) -> Case:
    """Return a list of units that are used once each, one step apart."""
    link = (like.latency, like.rate) if like else (LATENCY, RATE)
    return Case(tuple(sizes), tuple(((i, i),) for i in range(len(sizes))), tuple(compute), budget, *link)


# The recurrence.


@dataclass(frozen=True)
class Copy:
    """A copy of one lap: its bytes, how long it takes in ns, the steps (first, last) that hold it, and the step after whose
    end it and all before it in the lap are released."""

    unit: int
    size: int
    ns: int
    first: int
    last: int
    released: int


def copies(case: Case, resident: int) -> list[Copy]:
    """Return the copies of a lap with the units of the bit mask `resident` on the device for good: one for each use of the
    others. Uses of one unit that follow each other with no other copy between them share one."""
    visits: list[tuple[int, int, int]] = []
    for visit in sorted((*use, i) for i, uses in enumerate(case.uses) if not resident >> i & 1 for use in uses):
        before = visits.pop() if visits and visits[-1][2] == visit[2] else visit
        visits.append((before[0], max(before[1], visit[1]), visit[2]))
    released = accumulate((last for _, last, _ in visits), max)
    return [
        Copy(i, case.sizes[i], case.transfer(case.sizes[i]), first, last, done)
        for (first, last, i), done in zip(visits, released, strict=True)
    ]


def queue(sizes: list[int], arena: int) -> list[int]:
    """Return d for every copy of a FIFO arena; 0 where it does not fit."""
    waits = []
    for k in range(len(sizes)):
        d, total = 0, sizes[k]
        while total <= arena and d < 4 * len(sizes):  # farther back there is nothing left to wait for
            d += 1
            total += sizes[(k - d) % len(sizes)]
        waits.append(d)
    return waits


def plain_ring(sizes: list[int], arena: int) -> list[int]:
    """Return for every copy how many places before it the latest one lies whose bytes it takes, if each lies behind the one
    before, or at the start where the end has no room; 0 where it does not fit."""
    places, end = [], 0
    for size in sizes:
        start = 0 if end + size > arena else end
        end = start + size
        places.append((start, end))
    return [0 if places[k][1] > arena else _nearest(places, k) for k in range(len(sizes))]


def _nearest(places: list[tuple[int, int]], k: int) -> int:
    low, high = places[k]
    return next(d for d in range(1, len(places) + 1) if places[k - d][0] < high and low < places[k - d][1])


def period(case: Case, resident: int, layout: Callable[[list[int], int], list[int]] = queue) -> Fraction | None:
    """Return the period with the units of the bit mask `resident` on the device for good; None where they do not fit or the
    arena deadlocks."""
    arena = case.budget - _size(case, resident)
    if arena < 0:
        return None
    ring = copies(case, resident)
    waits = layout([copy.size for copy in ring], arena)
    return steady(case.compute, ring, waits) if all(waits) else None


def steady(compute: tuple[int, ...], ring: list[Copy], waits: list[int], laps: int = 1) -> Fraction | None:
    """Return the period of a ring whose copies are those of `laps` laps; None where a copy waits for bytes that come free
    only after it is needed."""
    now = copied = 0
    ends: list[list[int]] = []  # of the steps of all laps
    seen: dict[tuple[int, ...], tuple[int, int]] = {}
    each = len(ring) // laps  # copies of a lap
    horizon = 1 + laps + max(waits, default=0) // max(1, each)
    for lap in range(LAPS):
        ends.append([])
        k = lap % laps * each
        for step, ns in enumerate(compute):
            while k < (lap % laps + 1) * each and ring[k].first == step:
                from_lap = lap - lap % laps + (k - waits[k]) // each if each else 0
                free = 0
                if from_lap >= 0:
                    released = ring[(k - waits[k]) % len(ring)].released
                    if released >= len(ends[from_lap]):
                        return None
                    free = ends[from_lap][released]
                copied = max(copied, free) + ring[k].ns
                now = max(now, copied)
                k += 1
            now += ns
            ends[-1].append(now)
        state = (lap % laps, now - copied, *(now - end for steps in ends[-horizon:] for end in steps))
        if state in seen:
            before, then = seen[state]
            return Fraction(now - then, lap - before)
        seen[state] = lap, now
    return Fraction(now - ends[LAPS // 2 - 1][-1], LAPS // 2)


def best(case: Case) -> Fraction | None:
    """Return the shortest period of all choices of residents; None where none fits."""
    found: Fraction | None = None
    total = sum(case.compute)
    link = [case.transfer(size) for size in case.sizes]  # at least one copy of each
    for resident in range(1 << len(case.sizes)):
        if found is not None and sum(ns for i, ns in enumerate(link) if not resident >> i & 1) >= found:
            continue
        this = period(case, resident)
        if this is not None and (found is None or this < found):
            found = this
        if found == total:
            return found
    return found


# What others do.


def _even(case: Case) -> list[int]:
    """Return units such that the first k of them, for any k, lie spread over the bytes of the lap."""
    middles = [end - size / 2 for end, size in zip(accumulate(case.sizes), case.sizes, strict=True)]
    order: list[int] = []
    while len(order) < len(middles):
        far = {
            i: min((abs(middles[i] - middles[j]) for j in order), default=0) for i in range(len(middles)) if i not in order
        }
        order.append(max(far, key=lambda i: (far[i], -i)))
    return order


RULES: dict[str, Callable[[Case], list[int]]] = {
    "prefix": lambda case: list(range(len(case.sizes))),
    "suffix": lambda case: list(range(len(case.sizes)))[::-1],
    "even": _even,
    "largest first": lambda case: sorted(range(len(case.sizes)), key=lambda i: -case.sizes[i]),
    "smallest first": lambda case: sorted(range(len(case.sizes)), key=lambda i: case.sizes[i]),
}


def by_rule(case: Case, rule: str) -> Fraction | None:
    """Return the shortest period of a plain ring when a rule makes the first k units of its order resident, for the best k;
    None where none fits."""
    masks = accumulate((1 << i for i in RULES[rule](case)), initial=0)
    return min((found for mask in masks if (found := period(case, mask, plain_ring)) is not None), default=None)


# What a plan does.


def played(case: Case, answer: dict[str, Any]) -> Fraction | None:
    """Return the period of an answer's own copies at their own offsets. Raises AssertionError for a plan that reads what is
    not there: a use without a copy, or a copy into bytes that may still be held."""
    assert all(len(page["units"]) == 1 for page in answer["pages"])
    units = [int(page["units"][0].removeprefix("layers.")) for page in answer["pages"]]
    resident = residents(answer)
    told, laps = answer["copies"], answer.get("laps", 1)
    ring = copies(case, resident) * laps
    assert [(copy.unit, copy.first, copy.last) for copy in ring] == [(units[c["page"]], c["first"], c["last"]) for c in told]
    places = [(c["offset"], c["offset"] + copy.size) for c, copy in zip(told, ring, strict=True)]
    assert all(0 <= low < high <= answer["arena_bytes"] for low, high in places)
    waits = [c["after"] for c in told]
    for k, (low, high) in enumerate(places):
        between = (places[k - d] for d in range(1, min(waits[k], len(ring))))
        assert all(high <= other[0] or other[1] <= low for other in between), f"copy {k} may overwrite what is held"
    return steady(case.compute, ring, waits, laps)


def bound(case: Case) -> Fraction:
    """Return the interval bound on the period of any policy, best over anchors; latencies and later uses do not count."""
    first: dict[int, list[int]] = {}
    for i, uses in enumerate(case.uses):
        for step, _ in uses:
            first.setdefault(step, []).append(i)
    return max(_anchored(case, first, anchor) for anchor in range(len(case.compute)))


def _anchored(case: Case, first: dict[int, list[int]], anchor: int) -> Fraction:
    per_byte = Fraction(1_000_000_000, case.rate)
    c, x, seen = Fraction(0), None, set()
    for k in range(len(case.compute)):
        step = (anchor + k) % len(case.compute)
        for i in first.get(step, ()):
            if i not in seen:
                seen.add(i)
                head = c - case.budget * per_byte
                x = (head if x is None else max(x, head)) + case.sizes[i] * per_byte
                c = max(c, x)
        c += case.compute[step]
    return c


# Chunk mode.


@dataclass(frozen=True)
class TwoSided(Case):
    """A list of which the CPU may compute a part: ns of each step there, bytes of activations that pass where each step
    begins, and the bytes per second that the CPU reads from RAM (0: without limit)."""

    cpu: tuple[int, ...] = ()
    crossing: tuple[int, ...] = ()
    ram: int = 0

    def request(self, **options: Any) -> dict[str, Any]:
        """Return it as a request for a chunk of at most `budget` bytes."""
        asked = super().request(**{"mode": "chunk", **options})
        for step, ns, nbytes in zip(asked["manifest"]["steps"], self.cpu, self.crossing, strict=True):
            step |= {"cpu_ns": ns, "crossing_bytes": nbytes}
        if self.ram:
            asked["machine"]["host"] = {"bytes_per_second": self.ram}
        return asked


def chunk_period(case: TwoSided, resident: int) -> int:
    """Return how many ns a forward takes with the units of the bit mask `resident` on the device. Data starts and ends in
    RAM; it is on the device from where only residents begin to be read to where another unit does."""
    ns, on_device = 0, False
    for step, (here, there, nbytes) in enumerate(zip(case.compute, case.cpu, case.crossing, strict=True)):
        begun = [i for i, uses in enumerate(case.uses) if any(first == step for first, _ in uses)]
        wanted = all(resident >> i & 1 for i in begun) if begun else on_device
        if wanted != on_device:
            ns += case.transfer(nbytes)
        on_device = wanted
        ns += here if on_device else there
    if on_device:
        ns += case.transfer(0)
    read = sum(
        size * len(uses) for i, (size, uses) in enumerate(zip(case.sizes, case.uses, strict=True)) if not resident >> i & 1
    )
    return max(ns, -(-read * 1_000_000_000 // case.ram)) if case.ram else ns


def best_run(case: TwoSided) -> int:
    """Return the shortest forward of all runs of units, in the order of their first uses, that fit."""
    order = sorted((i for i, uses in enumerate(case.uses) if uses), key=lambda i: case.uses[i][0])
    runs = {sum(1 << i for i in order[start:end]) for end in range(len(order) + 1) for start in range(end + 1)}
    return min(chunk_period(case, run) for run in runs if _size(case, run) <= case.budget)


def _size(case: Case, mask: int) -> int:
    return sum(size for i, size in enumerate(case.sizes) if mask >> i & 1)


def residents(answer: dict[str, Any]) -> int:
    """Return the bit mask of an answer's resident units."""
    pages = (page for page in answer["pages"] if page["placement"] == "resident")
    return sum(1 << int(unit.removeprefix("layers.")) for page in pages for unit in page["units"])


# The families.

MIB = 1 << 20


def homogeneous(draw: random.Random, n: int) -> tuple[list[float], list[float]]:
    """Equal layers."""
    return [1.0] * n, [1.0] * n


def lognormal(draw: random.Random, n: int) -> tuple[list[float], list[float]]:
    """Sizes and times that have nothing to do with each other."""
    return [draw.lognormvariate(0, 0.8) for _ in range(n)], [draw.lognormvariate(0, 0.8) for _ in range(n)]


def convolutions(draw: random.Random, n: int) -> tuple[list[float], list[float]]:
    """Few bytes and much to compute in front, the other way round at the back."""
    sizes = [2 ** (6 * i / n) * draw.uniform(0.7, 1.4) for i in range(n)]
    return sizes, [2 ** (-2 * i / n) * draw.uniform(0.7, 1.4) for i in range(n)]


def ends(draw: random.Random, n: int) -> tuple[list[float], list[float]]:
    """A large embedding and a large head around equal layers."""
    large = draw.uniform(2, 4)
    return [large, *[1.0] * (n - 2), large], [0.05, *[1.0] * (n - 2), draw.uniform(0.5, 2)]


def attention(draw: random.Random, n: int) -> tuple[list[float], list[float]]:
    """Attention and MLP by turns, the MLP twice as large."""
    share = draw.uniform(0.8, 1.6)
    return [1.0 + i % 2 for i in range(n)], [share if i % 2 == 0 else 1.5 for i in range(n)]


FAMILIES = {f.__name__: f for f in (homogeneous, lognormal, convolutions, ends, attention)}


def cases(family: str, n: int, count: int, seed: int) -> Iterator[Case]:
    """Yield `count` lists of a family: compute 0.05 to 2 times the copies, a budget of 30 to 80 % of the weights."""
    draw = random.Random(f"{family} {n} {seed}")
    for _ in range(count):
        sizes, times = _scaled(draw, *FAMILIES[family](draw, n))
        yield chain(sizes, times, round(sum(sizes) * draw.uniform(0.3, 0.8)))


def twice(n: int, count: int, seed: int) -> Iterator[Case]:
    """Yield lists of `n` units of which two are read twice in a lap: a table that is also the head, a layer called again."""
    draw = random.Random(f"twice {n} {seed}")
    for _ in range(count):
        order = [*range(n), draw.randrange(n // 2)]
        order.insert(draw.randrange(n // 2 + 1, n), draw.randrange(n // 2))
        sizes, times = _scaled(draw, *lognormal(draw, len(order)))
        uses = tuple(tuple((step, step) for step, i in enumerate(order) if i == unit) for unit in range(n))
        yield Case(tuple(sizes[:n]), uses, tuple(times), round(sum(sizes[:n]) * draw.uniform(0.4, 0.8)))


def held(n: int, count: int, seed: int) -> Iterator[Case]:
    """Yield lists of `n` units of which the one in the middle, a small one, is held over the steps of its neighbours."""
    draw = random.Random(f"held {n} {seed}")
    for _ in range(count):
        sizes, times = _scaled(draw, *lognormal(draw, n))
        middle, reach = n // 2, draw.randint(1, 2)
        sizes[middle] = min(sizes)
        uses = [((i, i),) for i in range(n)]
        uses[middle] = ((middle - reach, middle + reach),)
        yield Case(tuple(sizes), tuple(uses), tuple(times), round(sum(sizes) * draw.uniform(0.4, 0.8)))


def two_sided(case: Case, seed: int) -> TwoSided:
    """Return a list as one of which the CPU may compute a part, more slowly, for any budget."""
    draw = random.Random(f"two sides {case} {seed}")
    cpu = tuple(round(ns * draw.choice([0.5, 1, 2, 5, 20])) for ns in case.compute)
    crossing = tuple(draw.randrange(MIB) for _ in case.compute)
    budget = round(sum(case.sizes) * draw.uniform(0.01, 1.1))
    ram = draw.choice([0, RATE // 2, 4 * RATE])
    return TwoSided(case.sizes, case.uses, case.compute, budget, case.latency, case.rate, cpu, crossing, ram)


def _scaled(draw: random.Random, relative: list[float], times: list[float]) -> tuple[list[int], list[int]]:
    """Return sizes in bytes and times in ns, such that compute takes a drawn multiple of what the copies do."""
    sizes = [512 * round(size * 4 * MIB / 512) for size in relative]
    scale = sum(sizes) * 1e9 / RATE * draw.choice([0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2]) / sum(times)
    return sizes, [round(ns * scale) for ns in times]
