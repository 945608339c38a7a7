"""Models to measure with, made from their configurations with random weights: `optimemctl run bench/models.py:NAME`.

A factory returns the model and its inputs. Weights are float32 unless the factory says otherwise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, Any]


def resnet101() -> Made:
    """ResNet-101 with one picture of 512x512, 170 MiB."""
    import torchvision

    return torchvision.models.resnet101(weights=None), (torch.randn(1, 3, 512, 512),)


def vit_large() -> Made:
    """ViT-L/16 with one picture of 224x224, 1.1 GiB."""
    import torchvision

    return torchvision.models.vit_l_16(weights=None), (torch.randn(1, 3, 224, 224),)


def gpt2_medium() -> Made:
    """GPT-2 medium reading 256 tokens, 1.3 GiB."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=1024, n_layer=24, n_head=16, use_cache=False)
    return GPT2LMHeadModel(config), {
        "input_ids": torch.randint(config.vocab_size, (1, 256)),
        "logits_to_keep": 1,
        "return_dict": False,
    }


def flux_like() -> Made:
    """A transformer of diffusion built as FLUX.1 is, but smaller: 256 picture and 128 text tokens, 1.8 GiB.

    FLUX.1 has 19 double and 38 single blocks of 24 heads of 128; this has 6 and 12 of 12 heads, in bfloat16.
    """
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        num_layers=6, num_single_layers=12, num_attention_heads=12, joint_attention_dim=2048, pooled_projection_dim=768
    ).to(torch.bfloat16)
    tokens, words = 256, 128
    inputs = {
        "hidden_states": torch.randn(1, tokens, 64, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.randn(1, words, 2048, dtype=torch.bfloat16),
        "pooled_projections": torch.randn(1, 768, dtype=torch.bfloat16),
        "timestep": torch.tensor([0.5], dtype=torch.bfloat16),
        "guidance": None,
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(words, 3),
        "return_dict": False,
    }
    return model, inputs
