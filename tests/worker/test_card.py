"""A card and the claims on it: what one model's forward takes is not what others hold."""

from __future__ import annotations

import copy
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import models
import optimem
from optimem.card.card import Card
from optimem.card.names import open_card, open_device
from same import bits

MIB = 1 << 20


class Owner:
    """Somebody with a claim."""

    held = 0


class Counter:
    """A device of which only the counters matter."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def use(self, nbytes: int) -> None:
        """Use so many bytes more; a negative number frees."""
        self.now += nbytes
        self.most = max(self.most, self.now)

    def allocated(self) -> int:
        return self.now

    def peak(self) -> int:
        return self.most

    def reset_peak(self) -> None:
        self.most = self.now

    def free(self) -> int:
        return 1000 - self.now


def card_of_two() -> tuple[Counter, Card, Owner, Owner]:
    counter = Counter()
    card, owners = Card(counter), (Owner(), Owner())  # type: ignore[arg-type]
    for owner in owners:
        card.join(owner)
        card.claim(owner, lambda owner: owner.held)
    return counter, card, *owners


def test_there_is_one_card_for_each_torch_device(card: torch.device) -> None:
    assert open_card("sim") is open_card(card)
    assert open_card("cpu") is not open_card("sim")
    assert open_device("sim") is not open_device("sim")


def test_what_was_there_before_belongs_to_nobody() -> None:
    counter = Counter()
    counter.use(100)
    card, owner = Card(counter), Owner()  # type: ignore[arg-type]
    card.join(owner)
    counter.use(30)
    assert (card.others(owner), card.used(owner), card.free(owner)) == (100, 30, 900)


def test_claims_count_as_they_are_now() -> None:
    counter, card, first, second = card_of_two()
    counter.use(50)
    second.held = 50
    assert (card.used(first), card.used(second)) == (0, 50)
    counter.use(-20)
    second.held = 30
    assert (card.used(first), card.used(second)) == (0, 30)
    card.leave(second)
    assert card.used(first) == 30


def test_an_owner_that_is_collected_claims_nothing() -> None:
    counter, card, first, second = card_of_two()
    counter.use(40)
    second.held = 40
    del second
    gc.collect()
    assert card.used(first) == 40


@given(st.lists(st.tuples(st.sampled_from(["use", "bytes", "take"]), st.integers(0, 50)), min_size=1, max_size=40))
def test_measurements_that_overlap_do_not_disturb_each_other(steps: list[tuple[str, int]]) -> None:
    counter, card, first, second = card_of_two()
    outer, inner = card.measured(first), card.measured(second)
    outer.start()
    inner.start()
    most = seen = 0
    for what, nbytes in steps:
        if what == "use":
            counter.use(nbytes)
            most, seen = max(most, counter.now), max(seen, counter.now)
            counter.use(-nbytes // 2)
        elif what == "bytes":
            assert outer.bytes() == most
        else:
            assert inner.take() == seen
            seen = counter.now
    outer.stop()
    assert outer.bytes() == most


def test_highs_outside_of_a_measurement_do_not_count() -> None:
    counter, card, first, _ = card_of_two()
    peak = card.measured(first)
    counter.use(500)
    counter.use(-500)
    peak.start()
    counter.use(30)
    peak.stop()
    counter.use(400)
    assert peak.bytes() == 30
    assert counter.most == 500  # the program's own counter is left alone


def test_an_earlier_high_is_not_measured_against_later_claims() -> None:
    counter, card, first, second = card_of_two()
    counter.use(100)
    first.held = 100
    peak = card.measured(second)
    peak.start()
    counter.use(20)
    peak.stop()
    peak.start()
    counter.use(-100)
    card.leave(first)
    assert peak.bytes() == 20


def test_bytes_of_nobody_that_are_freed_are_forgotten() -> None:
    counter = Counter()
    counter.use(100)
    card, owner = Card(counter), Owner()  # type: ignore[arg-type]
    card.join(owner)
    counter.use(-100)
    card.measured(owner).start()
    counter.use(30)
    assert card.used(owner) == 30


def test_a_card_is_read_while_owners_come_and_go() -> None:
    """Without a lock, reading ends with a RuntimeError once another thread changes what is read."""
    _, card, first, _ = card_of_two()
    over = threading.Event()
    failed: list[BaseException] = []

    def come_and_go() -> None:
        while not over.is_set():
            owners = [Owner() for _ in range(20)]
            for owner in owners:
                card.join(owner)
                card.claim(owner, lambda owner: owner.held)
                card.measured(owner)
            for owner in owners:
                card.leave(owner)

    def read() -> None:
        try:
            for _ in range(2000):
                card.others(first)
                card.reset_peaks()
        except BaseException as error:
            failed.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=come_and_go), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        threads[1].join(60)
        over.set()
        threads[0].join(60)
    finally:
        sys.setswitchinterval(before)
    assert failed == []


def test_threads_keep_their_streams(card: torch.device) -> None:
    """Two models share the card's copy stream; a stream object remembers one stream to restore."""
    device, source = open_card(card).device, torch.ones(64, dtype=torch.uint8)
    strayed: list[object] = []

    def fetch() -> None:
        own = torch.Stream(card)
        with own:
            target = device.empty(64)
            for _ in range(300):
                device.fetch(target, source)
                if torch.accelerator.current_stream(0) != own:
                    strayed.append(own)
                    return

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=fetch) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    torch.accelerator.synchronize()
    assert strayed == []


def rows() -> torch.Tensor:
    return models.rows(8, 256)


def linears() -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(256, 256) for _ in range(16)]).eval()


def reserve(model: nn.Module) -> int:
    told = optimem.status(model)
    assert told is not None
    return told.reserve_bytes


@pytest.mark.parametrize("attach", [optimem.page, optimem.fit, optimem.chunk])
@pytest.mark.parametrize("count", [2, 3])
def test_models_that_take_turns_are_not_taken_for_each_others_activations(
    card: torch.device, attach: Callable[..., Any], count: int
) -> None:
    """All are attached before any is called, so that none is there yet when the others come."""
    plain = [linears() for _ in range(count)]
    x = rows()
    alone = attach(copy.deepcopy(plain[0]), device="sim", vram="3MiB")
    with torch.no_grad():
        for _ in range(3):
            alone(x)
    wanted = reserve(alone)
    optimem.detach(alone)
    paged = [attach(copy.deepcopy(model), device="sim", vram="3MiB") for model in plain]
    with torch.no_grad():
        expected = [bits(model(x)) for model in plain]
        for _ in range(4):
            assert [bits(model(x)) for model in paged] == expected
    assert [reserve(model) for model in paged] == [wanted] * count
