"""Whole models: the same bits as the CPU. Small inputs, random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import assert_module_same, assert_same

torchvision = pytest.importorskip("torchvision")
transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet18", 64),
        ("resnet101", 64),
        ("vit_b_16", 224),
        ("convnext_tiny", 64),
        ("swin_t", 64),
        ("mobilenet_v3_small", 64),
        ("efficientnet_b0", 64),
        ("densenet121", 64),
        ("googlenet", 64),
    ],
)
def test_classification(name: str, side: int) -> None:
    extra = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, **extra)
    assert_module_same(model, torch.randn(2, 3, side, side))


def test_channels_last_and_half() -> None:
    model = torchvision.models.resnet18(weights=None).to(memory_format=torch.channels_last).bfloat16()
    assert_module_same(model, torch.randn(1, 3, 64, 64).bfloat16().to(memory_format=torch.channels_last))


def test_segmentation() -> None:
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    assert_module_same(model, torch.randn(1, 3, 64, 64), pick=lambda out: out["out"])


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
def test_detection(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # torchvision suppresses boxes one way on the CPU and another on any other device, with other last bits.
    boxes = torchvision.ops.boxes
    monkeypatch.setattr(boxes, "_batched_nms_coordinate_trick", boxes._batched_nms_vanilla)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
    assert_module_same(model, [torch.rand(3, 96, 128)])


def test_bert() -> None:
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=99
    )
    ids, mask = torch.randint(0, 99, (2, 7)), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    assert_module_same(
        transformers.BertModel(config),
        pick=lambda out: (out.last_hidden_state, out.pooler_output),
        input_ids=ids,
        attention_mask=mask,
    )


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=99, n_positions=64, bos_token_id=0, eos_token_id=1
        )
    )


def llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            vocab_size=99,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
    )


@pytest.mark.parametrize("make", [gpt2, llama])
def test_decoders(make: Callable[[], Any]) -> None:
    assert_module_same(make(), pick=lambda out: out.logits, input_ids=torch.randint(3, 99, (2, 6)))


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("sample", [False, True])
def test_generation_with_a_cache(make: Callable[[], Any], sample: bool) -> None:
    model = make().eval()
    prompt = torch.randint(3, 99, (2, 6))
    settings = {"max_new_tokens": 12, "do_sample": sample, "pad_token_id": 2, "use_cache": True}

    def run(device: str) -> torch.Tensor:
        torch.manual_seed(4)
        ids = prompt.to(device)
        result: torch.Tensor = model.to(device).generate(ids, attention_mask=torch.ones_like(ids), **settings)
        return result

    expected = run("cpu")
    assert_same(expected, run("simgpu"))


def test_t5_generates() -> None:
    config = transformers.T5Config(
        d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=99, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    ids = torch.randint(3, 99, (1, 5))
    expected = model.generate(ids, max_new_tokens=5)
    assert_same(expected, model.to("simgpu").generate(ids.to("simgpu"), max_new_tokens=5))
