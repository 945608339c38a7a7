"""Torch's fused fast paths for attention: what is paged leaves them, whatever the budget, and equals the plain model without
them (docs/adr/0009-fused-fast-paths.md)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import optimem
from models import WIDTH, rows
from same import bits


class Attentions(nn.Module):
    """Several attentions, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.MultiheadAttention(WIDTH, 4, batch_first=True) for _ in range(6)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, x, x, need_weights=False)[0]
        return x


def encoder(layers: int = 6) -> nn.Module:
    """Return layers one after the other that take no nested tensors."""
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def nesting() -> nn.Module:
    """Return layers that torch gives nested tensors where there is a mask."""
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True), 6)


MASK = torch.arange(5) >= torch.tensor([[5], [3]])
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "MultiheadAttention": (Attentions, {}),
    "TransformerEncoder": (encoder, {}),
    "TransformerEncoder with a mask": (nesting, {"src_key_padding_mask": MASK}),
}


@pytest.mark.trap(1)
@pytest.mark.parametrize("attach", [optimem.page, optimem.chunk], ids=["page", "chunk"])
@pytest.mark.parametrize("case", CASES)
def test_a_paged_model_equals_the_plain_one_without_fast_paths_at_every_budget(
    card: torch.device, slow_cpu: None, case: str, attach: Any
) -> None:
    make, kwargs = CASES[case]
    plain, args = make().eval(), (rows(2, 5, WIDTH),)
    with torch.inference_mode():
        # The fixture of all tests has the fast paths off. A copy, as copies made in inference mode may round otherwise.
        expected = bits(copy.deepcopy(plain)(*args, **kwargs))
        torch.backends.mha.set_fastpath_enabled(True)
        for vram in ("30%", "120%"):
            model = attach(copy.deepcopy(plain), card, vram=vram)
            assert all(bits(model(*args, **kwargs)) == expected for _ in range(4))
            assert torch.backends.mha.get_fastpath_enabled()  # which is the caller's to switch
            optimem.detach(model)


@pytest.mark.trap(1)
def test_a_paged_model_takes_no_fast_path(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.mha.set_fastpath_enabled(True)
    calls: list[str] = []
    real = torch._transformer_encoder_layer_fwd

    def fused(*args: Any, **kwargs: Any) -> Any:
        calls.append("fused")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", fused)
    plain, args = encoder(1).eval(), (rows(2, 5, WIDTH),)
    with torch.inference_mode():
        plain(*args)
        assert calls, "torch has another fast path now: the decision is to be thought over"
        calls.clear()
        model = optimem.page(plain, card, vram="120%")
        for _ in range(4):
            model(*args)
        assert not calls
        optimem.detach(model)(*args)
        assert calls


@pytest.mark.trap(1, 4)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_switch_is_put_back_after_a_forward_that_failed(card: torch.device, error: type[BaseException]) -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = encoder(2)

        def forward(self, x: torch.Tensor) -> Any:
            self.layers(x)
            assert not torch.backends.mha.get_fastpath_enabled()
            raise error("on purpose")

    torch.backends.mha.set_fastpath_enabled(True)
    model = optimem.page(Fails().eval(), card, vram="120%")
    with torch.inference_mode(), pytest.raises(error, match="on purpose"):
        model(rows(2, 5, WIDTH))
    status = optimem.status(model)
    assert status is not None
    assert any("fused attention path is left" in note for note in status.notes)
    optimem.detach(model)
    assert torch.backends.mha.get_fastpath_enabled()
