"""Models of the libraries that people use, with random weights: equal bits, within budget plus reserve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import optimem
from same import bits

Made = tuple[nn.Module, Callable[[nn.Module], Any]]


def _vision(name: str, size: int = 64) -> Made:
    import torchvision

    model = torchvision.models.get_model(name, weights=None, **({"weights_backbone": None} if "_mobilenet" in name else {}))
    return model, lambda m: m(torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1)))


def _bert() -> Made:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=99, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128)
    tokens = torch.arange(12).view(2, 6)
    return BertModel(config), lambda m: m(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state


def _gpt2() -> Made:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=99, n_positions=32, n_embd=64, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0)
    )
    prompt = torch.tensor([[5, 6, 7]])
    return model, lambda m: m.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)


def _llama() -> Made:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    prompt = torch.tensor([[5, 6, 7]])
    return LlamaForCausalLM(config), lambda m: m.generate(
        prompt, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None
    )


FAMILIES: dict[str, Callable[[], Made]] = {
    "resnet18": lambda: _vision("resnet18"),
    "mobilenet_v3_small": lambda: _vision("mobilenet_v3_small"),
    "convnext_tiny": lambda: _vision("convnext_tiny"),
    "swin_t": lambda: _vision("swin_t"),
    "vit_b_32": lambda: _vision("vit_b_32", 224),
    "segmentation": lambda: _vision("lraspp_mobilenet_v3_large"),
    "BERT": _bert,
    "GPT-2, generating": _gpt2,
    "Llama, generating": _llama,
}


def made(family: str) -> Made:
    """Return the same model each time."""
    torch.manual_seed(0)
    model, call = FAMILIES[family]()
    return model.eval(), call


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_right_within_their_budget(card: torch.device, family: str) -> None:
    with torch.no_grad():
        plain, call = made(family)
        expected = bits(call(plain))
        del plain
        model, call = made(family)
        torch.accelerator.reset_peak_memory_stats()
        before = torch.accelerator.memory_allocated()
        optimem.page(model, card, vram="60%")
        for _ in range(3):
            assert bits(call(model)) == expected
        status = optimem.status(model)
        assert status is not None
        assert status.state == "steady"
        torch.accelerator.reset_peak_memory_stats()
        assert bits(call(model)) == expected
        assert torch.accelerator.max_memory_allocated() - before <= status.budget_bytes + status.reserve_bytes
        optimem.detach(model)
        assert bits(call(model)) == expected


@pytest.mark.parametrize("share", [12, 25, 40, 55, 70, 85, 100, 110])
def test_the_peak_stays_within_budget_and_reserve_at_every_budget(card: torch.device, share: int) -> None:
    model = nn.Sequential(*[layer for _ in range(16) for layer in (nn.Linear(96, 96), nn.ReLU())]).eval()
    x = torch.randn(7, 96)
    with torch.no_grad():
        expected = bits(model(x))
        before = torch.accelerator.memory_allocated()
        torch.accelerator.reset_peak_memory_stats()
        optimem.page(model, card, vram=f"{share}%")
        peaks = []
        for _ in range(5):
            assert bits(model(x)) == expected
            peaks.append(torch.accelerator.max_memory_allocated() - before)
        status = optimem.status(model)
        assert status is not None
        assert max(peaks) <= status.budget_bytes + status.reserve_bytes
        assert status.resident_bytes + status.arena_bytes <= status.budget_bytes
