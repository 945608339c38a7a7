"""The table of states and outcomes: complete, and what it says."""

from __future__ import annotations

from itertools import product

import pytest

from optimem.life.curriculum import TABLE, Curriculum, Facts, following
from optimem.life.state import (
    Done,
    Failed,
    Learnt,
    Lesson,
    Outcome,
    Refused,
    Reopened,
    Replanned,
    Short,
    State,
    Strayed,
    Unbegun,
    Unplanned,
    Weighed,
)

OUTCOMES = (Done, Failed, Learnt, Refused, Reopened, Replanned, Short, Strayed, Unbegun, Unplanned, Weighed)
NONE, ALL = Facts(), Facts(*[True] * len(Facts._fields))


def test_every_outcome_in_every_state_leads_somewhere_whatever_the_facts() -> None:
    every = [Facts(*bits) for bits in product([False, True], repeat=len(Facts._fields))]
    reached = {following(state, kind(), facts) for state in State for kind in OUTCOMES for facts in every}
    assert reached == set(State)


def test_every_row_is_the_first_that_fits_somewhere() -> None:
    every = [Facts(*bits) for bits in product([False, True], repeat=len(Facts._fields))]

    def first(state: State, kind: type[Outcome], facts: Facts) -> int:
        return next(
            index
            for index, row in enumerate(TABLE)
            if row.state is state and issubclass(kind, row.outcome) and all(getattr(facts, name) for name in row.given)
        )

    assert {first(state, kind, facts) for state in State for kind in OUTCOMES for facts in every} == set(range(len(TABLE)))


@pytest.mark.parametrize(
    ("says", "state", "outcome", "facts", "then"),
    [
        ("what was recorded and planned is followed", State.LEARNING, Learnt(), NONE, State.STEADY),
        ("a mix that streams weighs the CPU first", State.LEARNING, Learnt(), Facts(weighs=True), State.WEIGHING),
        ("other entrances are recorded first", State.LEARNING, Learnt(), Facts(weighs=True, more=True), State.LEARNING),
        ("a forward that failed is recorded again", State.LEARNING, Failed(), ALL, State.LEARNING),
        ("one that ran out of memory too", State.LEARNING, Short(), ALL, State.LEARNING),
        ("a refused recording leaves the plan in force", State.LEARNING, Refused(), Facts(agreed=True), State.STEADY),
        ("without a plan a refusal is the end", State.LEARNING, Refused(), NONE, State.DETACHED),
        (
            "without a controller the last one goes on",
            State.LEARNING,
            Unplanned(),
            Facts(agreed=True, fits=True),
            State.STEADY,
        ),
        (
            "a refusal forgets no other entrances",
            State.LEARNING,
            Refused(),
            Facts(agreed=True, more=True),
            State.LEARNING,
        ),
        ("another plan is followed at once", State.LEARNING, Replanned(), NONE, State.STEADY),
        ("and is weighed no more", State.WEIGHING, Replanned(), ALL, State.STEADY),
        ("a step of a generator has the next call recorded", State.STEADY, Reopened(), NONE, State.LEARNING),
        ("whatever was to come", State.WEIGHING, Reopened(), NONE, State.LEARNING),
        ("unless it does not fit", State.LEARNING, Unplanned(), Facts(agreed=True), State.LEARNING),
        ("whatever comes of weighing, it is done once", State.WEIGHING, Weighed(), NONE, State.STEADY),
        ("but for a call that was refused at its entry", State.WEIGHING, Unbegun(), NONE, State.WEIGHING),
        ("another way is learnt", State.STEADY, Strayed(), Facts(again=True), State.LEARNING),
        ("until there have been enough", State.STEADY, Strayed(), NONE, State.STEADY),
        ("out of memory asks for a smaller plan", State.STEADY, Short(), ALL, State.STEADY),
        ("a call that was refused changes nothing", State.STEADY, Unbegun(), ALL, State.STEADY),
        ("nor does one that went as planned", State.STEADY, Done(), ALL, State.STEADY),
        ("what is detached stays so", State.DETACHED, Done(), ALL, State.DETACHED),
    ],
)
def test_the_table_says(says: str, state: State, outcome: Outcome, facts: Facts, then: State) -> None:
    assert following(state, outcome, facts) is then, says


def lesson(curriculum: Curriculum, path: str, *, watch: bool = False) -> Lesson:
    return curriculum.lesson(path, agreed=True, watch=watch)


def test_only_calls_that_begin_where_one_strayed_are_recorded_again() -> None:
    curriculum = Curriculum()
    curriculum.recorded("")
    curriculum.take(Learnt(), "", NONE)
    curriculum.watched()
    curriculum.take(Strayed(), "encoder", Facts(agreed=True, again=True))
    assert [lesson(curriculum, path) for path in ("", "encoder", "decoder")] == [Lesson.FOLLOW, Lesson.RECORD, Lesson.FOLLOW]
    curriculum.recorded("encoder")
    curriculum.take(Learnt(), "encoder", NONE)
    assert lesson(curriculum, "encoder") is Lesson.FOLLOW


def test_the_first_forward_under_a_new_recording_is_watched_and_every_one_that_is_asked_for() -> None:
    curriculum = Curriculum()
    curriculum.take(Learnt(), "", NONE)
    assert lesson(curriculum, "") is Lesson.WATCH
    curriculum.watched()
    assert (lesson(curriculum, ""), lesson(curriculum, "", watch=True)) == (Lesson.FOLLOW, Lesson.WATCH)
    curriculum.new_plan(recorded=False, both_sides=False)
    assert lesson(curriculum, "") is Lesson.FOLLOW
    curriculum.new_plan(recorded=True, both_sides=False)
    assert lesson(curriculum, "") is Lesson.WATCH


def test_calls_whose_recording_was_refused_are_watched_until_one_is_planned() -> None:
    curriculum, agreed = Curriculum(), Facts(agreed=True)
    curriculum.take(Learnt(), "encoder", NONE)
    curriculum.watched()
    curriculum.take(Refused(), "decoder", agreed)
    assert [lesson(curriculum, path) for path in ("encoder", "decoder")] == [Lesson.FOLLOW, Lesson.WATCH]
    curriculum.take(Learnt(), "decoder", agreed)
    assert lesson(curriculum, "decoder") is Lesson.FOLLOW


def test_without_a_plan_every_call_is_recorded_wherever_it_begins() -> None:
    curriculum = Curriculum()
    curriculum.record_next("encoder")
    assert curriculum.lesson("", agreed=False, watch=False) is Lesson.RECORD


def test_four_forwards_are_recorded_and_one_more_for_a_reader_that_nobody_foresaw() -> None:
    curriculum = Curriculum()
    for _ in range(4):
        assert curriculum.few
        curriculum.recorded("")
    assert not curriculum.few
    curriculum.unforeseen()
    assert curriculum.few


def test_steps_are_timed_again_under_few_plans_where_both_sides_compute() -> None:
    curriculum = Curriculum()
    assert curriculum.new_plan(recorded=True, both_sides=True)
    assert [curriculum.new_plan(recorded=False, both_sides=True) for _ in range(4)] == [True, True, True, False]
    assert not curriculum.new_plan(recorded=False, both_sides=False)
