"""Containers of tensors: what is looked into, what is rebuilt, and what stays the caller's own object."""

from __future__ import annotations

import collections
import copy
import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import models
import optimem
from optimem.data import moving
from optimem.data.lending import Loan
from same import bits

CPU = torch.device("cpu")
MODES = pytest.mark.parametrize("attach", [optimem.page, optimem.fit, optimem.chunk])


@dataclasses.dataclass
class Node:
    """May look back at itself, and has a field that nobody sets."""

    x: torch.Tensor
    parent: Any = None
    later: Any = dataclasses.field(init=False)


class Pair(collections.namedtuple("Pair", "x y")):
    """Is made of one thing and holds two."""

    def __new__(cls, x: torch.Tensor) -> Pair:
        return super().__new__(cls, x, x + 1)


def cyclic_node() -> Node:
    """Return a node that is its own parent."""
    node = Node(models.rows())
    node.parent = node
    return node


def cyclic_list() -> list[Any]:
    """Return a list that holds itself."""
    made: list[Any] = [models.rows()]
    made.append((made, {"self": made}))
    return made


MAKES: dict[str, Callable[[], Any]] = {
    "a field that is not set": lambda: Node(models.rows()),
    "a back reference": cyclic_node,
    "a list that holds itself": cyclic_list,
    "a named tuple made in its own way": lambda: Pair(models.rows()),
    "a deque": lambda: collections.deque([models.rows()], maxlen=3),
    "a namespace": lambda: SimpleNamespace(x=models.rows()),
    "what torch returns": lambda: torch.max(models.rows(3, 2, models.WIDTH), 0),
}


class Takes(models.Stack):
    """Takes a container, and returns it with a result."""

    def forward(self, box: Any) -> Any:
        first = next(moving.tensors(box))
        return super().forward(first), box


@MODES
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_containers_go_in_and_out(card: torch.device, attach: Any, make: Callable[[], Any]) -> None:
    plain = Takes(8).eval()
    model = attach(copy.deepcopy(plain), device=card, vram="60%", output_device="cpu")
    with torch.no_grad():
        for _ in range(4):
            box = make()
            output, back = model(box)
            assert output.device == CPU
            assert {tensor.device for tensor in moving.tensors((box, back))} == {CPU}
            assert bits((output, back)) == bits(plain(make()))


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_what_moves_is_a_copy_of_the_same_shape(card: torch.device, make: Callable[[], Any]) -> None:
    box = make()
    moved = moving.move(box, card)
    assert type(moved) is type(box)
    assert {tensor.device for tensor in moving.tensors(box)} == {CPU}
    assert {tensor.device for tensor in moving.tensors(moved)} == {card}
    assert bits(moved) == bits(box)
    assert moving.move(moved, card) is moved


def test_a_copy_holds_itself_where_the_original_does(card: torch.device) -> None:
    node, looped = moving.move(cyclic_node(), card), moving.move(cyclic_list(), card)
    assert node.parent is node
    assert (looped[1][0] is looped, looped[1][1]["self"] is looped) == (True, True)
    shared = [models.rows()]
    first, second = moving.move([shared, shared], card)
    assert first is second


def test_only_what_holds_a_tensor_elsewhere_is_rebuilt(card: torch.device) -> None:
    here, there = [models.rows()], [models.rows().to(card)]
    moved = moving.move({"here": here, "there": there, "number": 3}, card)
    assert moved["there"] is there
    assert moved["here"] is not here


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_what_is_lent_is_filled_in_place_and_given_back(card: torch.device, make: Callable[[], Any]) -> None:
    box = make()
    before, loan = list(moving.tensors(box)), Loan()
    lent = loan.bring(box, card)
    assert {tensor.device for tensor in moving.tensors(lent)} == {card}
    assert (lent is box) == (not isinstance(box, tuple))
    loan.give_back()
    after = list(moving.tensors(box))
    assert all(old is new for old, new in zip(before, after, strict=True))


class Packs(nn.Module):
    """Packs sequences on its way, or is given packed ones."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(models.WIDTH, models.WIDTH, batch_first=True)
        self.gru = nn.GRU(models.WIDTH, models.WIDTH, batch_first=True, bidirectional=True)
        self.after = nn.Sequential(nn.Linear(2 * models.WIDTH, models.WIDTH), *models.linears(6))

    def forward(self, x: Any, lengths: torch.Tensor | None = None) -> Any:
        if lengths is not None:
            x = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed = self.gru(self.lstm(x)[0])[0]
        return self.after(pad_packed_sequence(packed, batch_first=True)[0]), packed


@MODES
@pytest.mark.parametrize("given", ["packed", "packed on the device", "lengths"])
def test_packed_sequences_keep_their_batch_sizes_on_the_cpu(card: torch.device, attach: Any, given: str) -> None:
    plain = Packs().eval()
    model = attach(copy.deepcopy(plain), device=card, vram="85%")
    x, lengths = models.rows(3, 5, models.WIDTH), torch.tensor([3, 5, 2])
    arguments: tuple[Any, ...] = (x, lengths)
    if given != "lengths":
        arguments = (pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False),)
    with torch.no_grad():
        expected = bits(plain(*arguments))
        if given == "packed on the device":
            arguments = (arguments[0].to(card),)
        for _ in range(6):
            output, packed = model(*arguments)
            assert isinstance(packed, PackedSequence)
            assert packed.batch_sizes.device == CPU
            assert bits((output, packed)) == expected
