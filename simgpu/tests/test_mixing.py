"""Tensors on two devices in one operation: refused as CUDA refuses them, accepted where CUDA accepts them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

CARD, HOST = "simgpu", "cpu"


def left_behind() -> dict[str, Callable[[], object]]:
    x = torch.randn(2, 3, 8, 8, device=CARD)
    flat = torch.randn(2, 3, device=CARD)
    ids = torch.tensor([0, 1], device=CARD)
    return {
        "add": lambda: flat + torch.ones(2, 3),
        "add, host first": lambda: torch.ones(2, 3) + flat,
        "add, one element but not 0-dim": lambda: flat + torch.ones(1),
        "a 0-dim card tensor with a host tensor": lambda: torch.ones(3) * torch.tensor(2.0, device=CARD),
        "in place on the host": lambda: torch.ones(2, 3).add_(flat),
        "in place on a host scalar": lambda: torch.tensor(1.0).add_(torch.tensor(2.0, device=CARD)),
        "out= on the host": lambda: torch.add(flat, flat, out=torch.empty(2, 3)),
        "matmul": lambda: flat @ torch.ones(3, 4),
        "linear weight": lambda: F.linear(flat, torch.ones(4, 3)),
        "linear bias": lambda: F.linear(flat, torch.ones(4, 3, device=CARD), torch.ones(4)),
        "conv2d": lambda: F.conv2d(x, torch.ones(4, 3, 3, 3)),
        "conv2d bias": lambda: F.conv2d(x, torch.ones(4, 3, 3, 3, device=CARD), torch.ones(4)),
        "batch_norm": lambda: F.batch_norm(x, torch.zeros(3), torch.ones(3)),
        "layer_norm": lambda: F.layer_norm(flat, (3,), torch.ones(3)),
        "group_norm": lambda: F.group_norm(x, 3, torch.ones(3)),
        "embedding weight": lambda: F.embedding(ids, torch.ones(5, 4)),
        "embedding ids": lambda: F.embedding(torch.tensor([0, 1]), torch.ones(5, 4, device=CARD)),
        "cat": lambda: torch.cat([flat, torch.ones(2, 3)]),
        "stack": lambda: torch.stack([flat, torch.ones(2, 3)]),
        "index of a host tensor by a card tensor": lambda: torch.ones(5)[ids],
        "index_put values": lambda: flat.index_put_((ids,), torch.ones(2, 3)),
        "where": lambda: torch.where(flat > 0, flat, torch.ones(2, 3)),
        "lstm": lambda: torch.nn.LSTM(3, 4)(flat),
        "lstm state": lambda: torch.nn.LSTM(3, 4).to(CARD)(flat, (torch.zeros(1, 4), torch.zeros(1, 4))),
        "gru": lambda: torch.nn.GRU(3, 4)(flat),
        "sdpa": lambda: F.scaled_dot_product_attention(x, x, torch.ones(2, 3, 8, 8)),
        "foreach": lambda: torch._foreach_add([flat], [torch.ones(2, 3)]),
    }


@pytest.mark.parametrize("name", list(left_behind()))
def test_a_tensor_left_behind_is_an_error_that_names_both_devices(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"same device|on the same|at the same device") as caught:
        left_behind()[name]()
    text = str(caught.value)
    assert "simgpu" in text
    assert "cpu" in text


def test_the_error_names_the_argument() -> None:
    with pytest.raises(RuntimeError, match=r"simgpu:0 and cpu! \(when checking argument for argument weight in method"):
        F.conv2d(torch.ones(1, 3, 4, 4, device=CARD), torch.ones(4, 3, 3, 3))


def test_nothing_is_lost_by_an_error() -> None:
    flat = torch.ones(2, 3, device=CARD)
    with pytest.raises(RuntimeError):
        flat.add_(torch.ones(2, 3))
    assert flat.tolist() == [[1.0] * 3] * 2


def accepted() -> dict[str, tuple[Callable[[], torch.Tensor], list[object]]]:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=CARD)
    mask = torch.tensor([True, False])
    return {
        "python number": (lambda: x + 1, [[2.0, 3.0], [4.0, 5.0]]),
        "host scalar tensor": (lambda: x * torch.tensor(2.0), [[2.0, 4.0], [6.0, 8.0]]),
        "host scalar tensor first": (lambda: torch.tensor(2.0) * x, [[2.0, 4.0], [6.0, 8.0]]),
        "where with host scalar": (lambda: torch.where(x > 2, x, torch.tensor(0.0)), [[0.0, 0.0], [3.0, 4.0]]),
        "masked_fill with host scalar": (lambda: x.masked_fill(x > 2, torch.tensor(9.0)), [[1.0, 2.0], [9.0, 9.0]]),
        "host index": (lambda: x[torch.tensor([1])], [[3.0, 4.0]]),
        "host index in a list": (lambda: x[[1, 0]], [[3.0, 4.0], [1.0, 2.0]]),
        "host mask": (lambda: x[mask], [[1.0, 2.0]]),
        "host index_put": (
            lambda: x.clone().index_put_((torch.tensor([0]),), torch.tensor(7.0, device=CARD)),
            [[7.0, 7.0], [3.0, 4.0]],
        ),
        "setitem with a number": (lambda: _set(x.clone(), torch.tensor([1]), 5.0), [[1.0, 2.0], [5.0, 5.0]]),
        "setitem with a host tensor": (
            lambda: _set(x.clone(), slice(0, 1), torch.tensor([8.0, 9.0])),
            [[8.0, 9.0], [3.0, 4.0]],
        ),
    }


def _set(tensor: torch.Tensor, where: object, value: object) -> torch.Tensor:
    tensor[where] = value  # type: ignore[index]
    return tensor


@pytest.mark.parametrize("name", list(accepted()))
def test_what_cuda_accepts_is_accepted(name: str) -> None:
    run, expected = accepted()[name]
    result = run()
    assert result.device.type == CARD
    assert result.tolist() == expected


def test_packed_sequences_keep_their_lengths_on_the_host() -> None:
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 4, batch_first=True).eval()
    x = torch.randn(2, 5, 3)
    lengths = torch.tensor([5, 3])
    pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
    with torch.no_grad():
        expected, _ = pad(lstm(pack(x, lengths, batch_first=True))[0], batch_first=True)
        lstm.to(CARD)
        got, got_lengths = pad(lstm(pack(x.to(CARD), lengths, batch_first=True))[0], batch_first=True)
    assert torch.equal(expected, got.cpu())
    assert got_lengths.device.type == HOST
