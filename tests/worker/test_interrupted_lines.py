"""Ctrl-C at lines of Optimem's own, in every file that runs: every call after it is right, and detaching leaves the model
as it was found."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from ctrl_c import Line, TimeLimit, choose, interrupt, lines_in, lines_of, stack
from effort import tries
from optimem.card import hostmemory
from optimem.card.hostmemory import HostMemory
from optimem.life.attachment import Attachment
from optimem.life.calls import Call
from optimem.life.tied import Tied
from optimem.rooms import MAY
from optimem.seams.hooks import _Tie
from optimem.wire.protocol import Shrink
from same import bits, found

pytestmark = pytest.mark.trap(4)

DEPTH = 5
MODES = {"page": optimem.page, "fit": optimem.fit, "chunk": optimem.chunk}
NEVER_RUN = {"forecast", "drive"}  # rooms that neither a forward nor attaching and detaching enter


def plain() -> nn.Sequential:
    """Return the same model each time."""
    torch.manual_seed(0)
    return stack(DEPTH)


@functools.cache
def expected() -> list[Any]:
    """Return the bits of the plain model's result."""
    with torch.no_grad():
        return bits(plain()(models.rows()))


def of(model: nn.Module) -> Attachment:
    """Return what is tied to a model."""
    attachment = optimem._find(model)
    assert attachment is not None
    return attachment


def attach(model: nn.Sequential, mode: str) -> None:
    MODES[mode](model, device="sim", vram="60%")


def call(model: nn.Sequential, mode: str) -> None:
    with torch.no_grad():
        assert bits(model(models.rows())) == expected()


def call_with_a_new_plan(model: nn.Sequential, mode: str) -> None:
    plan = of(model)._agreed.agreement.plan
    of(model).session._take(replace(plan, version=plan.version + 1))
    call(model, mode)
    assert of(model)._agreed.agreement.plan.version > plan.version


def call_when_bytes_were_asked_back(model: nn.Sequential, mode: str) -> None:
    of(model).session._take(Shrink(models.WIDTH**2 * 4, 0))
    call(model, mode)


def detach(model: nn.Sequential, mode: str) -> None:
    optimem.detach(model)


def nothing(model: nn.Sequential, mode: str) -> None:
    """Nothing happened before."""


def attached(calls: int, *, cut: bool = False) -> Callable[[nn.Sequential, str], None]:
    """Return what attaches a model and makes so many calls, and one that is `cut` short in the model's own code."""

    def happen(model: nn.Sequential, mode: str) -> None:
        attach(model, mode)
        of(model).session.tell = lambda message: None  # type: ignore[method-assign]  # no plan comes that was not asked for
        for _ in range(calls):
            call(model, mode)
        if cut:
            model[DEPTH // 2].armed = True
            with pytest.raises(KeyboardInterrupt):
                call(model, mode)

    return happen


@dataclass(frozen=True)
class Moment:
    """When Ctrl-C comes: in `does`, after `before`."""

    does: Callable[[nn.Sequential, str], None]
    before: Callable[[nn.Sequential, str], None]


MOMENTS = {
    "attaching": Moment(attach, nothing),
    "the first call": Moment(call, attached(0)),
    "the second call": Moment(call, attached(1)),
    "the third call": Moment(call, attached(2)),
    "the sixth call": Moment(call, attached(5)),
    "a call with a new plan": Moment(call_with_a_new_plan, attached(4)),
    "a call when bytes were asked back": Moment(call_when_bytes_were_asked_back, attached(4)),
    "the call after a cut one": Moment(call, attached(3, cut=True)),
    "the call after a cut first one": Moment(call, attached(0, cut=True)),
    "detaching": Moment(detach, attached(4)),
    "detaching after a cut call": Moment(detach, attached(2, cut=True)),
}


@functools.cache
def lines(name: str, mode: str) -> Counter[tuple[str, int]]:
    """Return how often each line of the package runs in a moment, at least: some hang on how soon an answer comes."""
    return dry_run(name, mode) & dry_run(name, mode)


def dry_run(name: str, mode: str) -> Counter[tuple[str, int]]:
    """Return how often each line of the package runs in a moment, this time."""
    model, moment = plain(), MOMENTS[name]
    moment.before(model, mode)
    ran = lines_of(lambda: moment.does(model, mode))
    optimem.detach(model)
    return ran


@pytest.fixture
def steady_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock some calls would report to the controller and others not."""
    monkeypatch.setattr("optimem.life.journal._REPORT_S", 0)


def interrupted_at(line: Line, name: str, mode: str, error: type[BaseException] = KeyboardInterrupt) -> bool:
    """Have `error` come at `line`, and see that all is well then. Return False where it did not come."""
    model, moment = plain(), MOMENTS[name]
    before = found(model)
    moment.before(model, mode)
    slab = None if moment.does is attach else of(model)._tied.store.slab
    came = interrupt(line, lambda: moment.does(model, mode), error)
    try:
        if moment.does is attach:
            attach(model, mode)
        if moment.does is not detach:
            for _ in range(4):
                call(model, mode)
        optimem.detach(model)
        assert optimem.status(model) is None
        assert found(model) == before
        assert slab is None or not slab.is_pinned()
        call(model, mode)
    except BaseException as wrong:
        raise AssertionError(f"after {error.__name__} at {line}") from wrong
    return came


# In a call torch runs our exit hooks after a time limit, and none after Ctrl-C.
COMINGS = [(name, KeyboardInterrupt) for name in MOMENTS] + [
    (name, TimeLimit) for name, moment in MOMENTS.items() if moment.does not in (attach, detach)
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "error"), COMINGS)
def test_an_interrupt_in_our_own_code_leaves_a_working_model(
    card: torch.device, steady_reports: None, name: str, mode: str, error: type[BaseException]
) -> None:
    """Each mode has a share of the files, which are all interrupted in one mode or another, at lines drawn from those that
    ran before; where an interrupt does not come, at another one."""
    files = choose(lines(name, mode), seed=f"{name} {mode} {error.__name__}")
    for index, (file, candidates) in enumerate(files.items()):
        for _ in range(turns(index + (error is TimeLimit), name, mode)):
            assert any(interrupted_at(line, name, mode, error) for line in candidates), f"no interrupt came in {file}"


# Functions that leave things half done until their last line, and when.
HALVES: list[tuple[str, Callable[..., Any]]] = [
    ("attaching", Attachment._attach),
    ("attaching", Tied.__init__),
    ("the call after a cut one", Attachment._begin),
    ("the call after a cut one", Attachment._bring_and_begin),
    ("the call after a cut one", Call.begin),
    ("the call after a cut first one", _Tie.off),
    ("detaching after a cut call", Attachment._leave_as_found),
    ("detaching after a cut call", HostMemory.unlock),
    ("detaching after a cut call", hostmemory._unlock),
]


@pytest.mark.parametrize(("name", "function"), HALVES, ids=lambda each: getattr(each, "__qualname__", each))
def test_ctrl_c_at_every_line_of_what_leaves_things_half_done(
    card: torch.device, steady_reports: None, name: str, function: Callable[..., Any]
) -> None:
    ran = [Line(*here, run=1) for here in sorted(lines(name, "page")) if here in lines_in(function)]
    assert [line for line in ran if interrupted_at(line, name, "page")] == ran != []


def turns(index: int, name: str, mode: str) -> int:
    """Return at how many lines the file of that number is interrupted: the modes take turns."""
    turn = index + list(MOMENTS).index(name) + list(MODES).index(mode)
    return tries(1) if turn % len(MODES) == 0 or tries(1) > 1 else 0


def test_every_room_is_interrupted(card: torch.device, steady_reports: None) -> None:
    rooms = {file.partition("/")[0] for name in MOMENTS for file, _ in lines(name, "page") if "/" in file}
    assert rooms == MAY.keys() - NEVER_RUN
