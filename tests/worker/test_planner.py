"""The planner against an oracle that tries every choice of residents, and what must hold of any plan."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import oracle
from optimem import BadInput
from optimem.forecast import respond as planner
from oracle import Case

MEAN_GAP, MOST_GAP = 0.001, 0.05  # to the best of all choices of residents with an arena that is a queue of bytes


def planned(case: Case) -> dict[str, Any] | None:
    """Return the planner's answer, None where it says that the budget is too small."""
    try:
        answer: dict[str, Any] = json.loads(planner.respond(json.dumps(case.request())))
    except BadInput as error:
        assert "is too small" in str(error)
        return None
    return answer


def gaps(cases: Iterable[Case]) -> list[float]:
    """Return how far the planner's periods lie above the best, checking each against the bound."""
    found = []
    for case in cases:
        best, answer = oracle.best(case), planned(case)
        assert (best is None) == (answer is None) or (answer is None and case.holds)  # which the planner wants resident
        if best is None or answer is None:
            continue
        assert answer["period_ns"] >= oracle.bound(case)
        assert answer["bound_ns"] == pytest.approx(float(oracle.bound(case)), rel=1e-3, abs=100)
        found.append(float(answer["period_ns"] / best) - 1)
    return found


def assert_next_to_the_best(found: list[float]) -> None:
    assert max(found) <= MOST_GAP
    assert sum(found) / len(found) <= MEAN_GAP


# The oracle itself.


@given(n=st.integers(2, 7), buffers=st.integers(1, 3), compute=st.integers(1, 2000), size=st.integers(1, 2000))
def test_uniform_pages_take_what_the_formula_says(n: int, buffers: int, compute: int, size: int) -> None:
    assume(buffers <= n)
    case = Case((size,) * n, tuple(((i, i),) for i in range(n)), (compute,) * n, buffers * size, 0, 1_000_000_000)
    assert oracle.period(case, 0) == max(n * size, n * compute, Fraction(n * (size + compute), buffers))


@settings(deadline=None)
@given(seed=st.integers(0, 1000), family=st.sampled_from(sorted(oracle.FAMILIES)))
def test_the_oracle_never_beats_the_bound(seed: int, family: str) -> None:
    case = next(oracle.cases(family, 6, 1, seed))
    best = oracle.best(case)
    assume(best is not None)
    assert best is not None
    assert oracle.bound(case) <= best


# The planner against it.


@pytest.mark.parametrize("family", sorted(oracle.FAMILIES))
def test_plans_are_next_to_the_best_there_is(family: str) -> None:
    lists = [oracle.cases(family, n, count, 1) for n, count in ((6, 15), (8, 15), (10, 15), (12, 8), (14, 4))]
    found = gaps(chain(*lists))
    assert len(found) > 40
    assert_next_to_the_best(found)


@pytest.mark.parametrize("shape", [oracle.twice, oracle.held])
def test_units_that_are_read_again_or_held_over_steps_are_planned_as_well(shape: Any) -> None:
    found = gaps(chain(shape(7, 30, 1), shape(10, 10, 1)))
    assert len(found) > 20
    assert_next_to_the_best(found)


@settings(deadline=None)
@given(st.sampled_from([*oracle.FAMILIES, "twice", "held"]), st.integers(5, 14), st.integers(0, 10_000))
def test_a_chunk_is_the_best_of_all_runs_and_takes_as_long_as_it_says(family: str, n: int, seed: int) -> None:
    cases = getattr(oracle, family)(n, 1, seed) if family in ("twice", "held") else oracle.cases(family, n, 1, seed)
    case = oracle.two_sided(next(cases), seed)
    answer = planned(case)
    assert answer is not None
    assert answer["bound_ns"] <= answer["period_ns"] == oracle.chunk_period(case, oracle.residents(answer))
    assert answer["period_ns"] == oracle.best_run(case)


# What holds of any plan.


def lists(longest: int = 40) -> st.SearchStrategy[Case]:
    return st.builds(
        lambda family, n, seed: next(oracle.cases(family, n, 1, seed)),
        st.sampled_from(sorted(oracle.FAMILIES)),
        st.integers(3, longest),
        st.integers(0, 10_000),
    )


@settings(deadline=None, derandomize=True)  # a search is no proof: the same examples in every run
@given(lists(), st.lists(st.integers(25, 120), min_size=2, max_size=4, unique=True))
def test_more_budget_never_gives_a_longer_period(case: Case, shares: list[int]) -> None:
    total = sum(case.sizes)
    answers = [planned(case.within(total * share // 100)) for share in sorted(shares)]
    periods = [math.inf if answer is None else answer["period_ns"] for answer in answers]
    assert all(more <= less for less, more in pairwise(periods))


@settings(deadline=None)
@given(lists(longest=24), st.sampled_from(sorted(oracle.RULES)))
def test_no_simple_rule_does_better_at_its_best_arena(case: Case, rule: str) -> None:
    ruled, answer = oracle.by_rule(case, rule), planned(case)
    assume(ruled is not None)
    assert ruled is not None
    assert answer is not None
    assert answer["period_ns"] <= math.ceil(ruled)


@settings(deadline=None)
@given(lists())
def test_a_plan_fits_lies_above_the_bound_and_takes_as_long_as_it_says(case: Case) -> None:
    answer = planned(case)
    assume(answer is not None)
    assert answer is not None
    assert answer["resident_bytes"] + answer["arena_bytes"] <= case.budget
    assert sum(page["bytes"] for page in answer["pages"]) == sum(case.sizes)
    assert answer["period_ns"] >= max(oracle.bound(case), sum(case.compute))
    played = oracle.played(case, answer)
    assert played is not None
    assert answer["period_ns"] == math.ceil(played)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(oracle.FAMILIES)), st.integers(0, 1000), st.integers(1, 5))
def test_where_the_lap_begins_does_not_matter(family: str, seed: int, by: int) -> None:
    case = next(oracle.cases(family, 6, 1, seed))
    turned = case.rotated(by)
    best, answer = oracle.best(case), planned(turned)
    assert best == oracle.best(turned)
    assume(best is not None)
    assert best is not None
    assert answer is not None
    assert answer["period_ns"] <= best * Fraction(1 + MOST_GAP)


@settings(deadline=None, max_examples=50, derandomize=True)  # as above
@given(lists(), st.sampled_from([2, 3, 5]))
def test_where_all_takes_longer_so_does_the_forward(case: Case, by: int) -> None:
    answer, slower = planned(case), planned(case.slower(by))
    assert (answer is None) == (slower is None)
    assume(answer is not None)
    assert answer is not None
    assert slower is not None
    assert slower["period_ns"] == pytest.approx(by * answer["period_ns"], rel=1e-3)
