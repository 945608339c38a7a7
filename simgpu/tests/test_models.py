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


@pytest.mark.parametrize(
    ("name", "side", "settings"),
    [
        ("vit_tiny_patch16_224", 32, {"img_size": 32}),
        ("eva02_tiny_patch14_224", 56, {"img_size": 56}),  # rotary positions
        ("convnext_atto", 64, {}),
        ("tf_efficientnetv2_b0", 64, {}),  # pads by itself, batch norm with its activation inside
        ("mixer_s32_224", 64, {"img_size": 64, "num_classes": 0}),  # its head starts at zero: features instead
        ("regnety_002", 64, {}),
        ("maxvit_pico_rw_256", 64, {"img_size": 64}),  # windows, grids, relative positions
        ("resnest14d", 64, {}),  # split attention
    ],
)
def test_timm(name: str, side: int, settings: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    assert_module_same(timm.create_model(name, pretrained=False, **settings), torch.randn(1, 3, side, side))


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


# Two layers each side, four heads of eight.
ENCODER_DECODER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 99,
}


def test_bart() -> None:
    config = transformers.BartConfig(max_position_embeddings=64, **ENCODER_DECODER)
    assert_module_same(
        transformers.BartForConditionalGeneration(config),
        pick=lambda out: (out.logits, out.encoder_last_hidden_state),
        input_ids=torch.randint(3, 99, (2, 7)),
        decoder_input_ids=torch.randint(3, 99, (2, 5)),
    )


def whisper() -> Any:
    config = transformers.WhisperConfig(
        num_mel_bins=16,
        max_source_positions=32,
        max_target_positions=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **ENCODER_DECODER,
    )
    return transformers.WhisperForConditionalGeneration(config)


def test_whisper() -> None:
    sound, ids = torch.randn(1, 16, 64), torch.randint(3, 99, (1, 5))
    assert_module_same(whisper(), pick=lambda out: out.logits, input_features=sound, decoder_input_ids=ids)


def mixtral(experts: str) -> Any:
    config = transformers.MixtralConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=99,
        max_position_embeddings=64,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    model = transformers.MixtralForCausalLM(config)
    model.set_experts_implementation(experts)
    return model


@pytest.mark.parametrize("experts", ["eager", "batched_mm", "grouped_mm"])
def test_a_mixture_of_experts(experts: str) -> None:
    assert_module_same(mixtral(experts), pick=lambda out: out.logits, input_ids=torch.randint(3, 99, (2, 7)))


def test_mamba() -> None:
    config = transformers.MambaConfig(hidden_size=32, state_size=8, num_hidden_layers=2, vocab_size=99)
    model = transformers.MambaForCausalLM(config)
    assert_module_same(model, pick=lambda out: out.logits, input_ids=torch.randint(3, 99, (2, 7)))


def test_a_conditional_unet() -> None:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    noisy, step, text = torch.randn(2, 4, 16, 16), torch.tensor(7), torch.randn(2, 5, 24)
    assert_module_same(model, noisy, step, text, pick=lambda out: out.sample)


def test_flux() -> None:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    assert_module_same(
        model,
        pick=lambda out: out.sample,
        hidden_states=torch.randn(1, 16, 4),
        encoder_hidden_states=torch.randn(1, 6, 32),
        pooled_projections=torch.randn(1, 32),
        timestep=torch.tensor([0.5]),
        guidance=torch.tensor([3.5]),
        img_ids=torch.rand(16, 3),
        txt_ids=torch.zeros(6, 3),
    )


class Decoding(torch.nn.Module):
    """The half of an autoencoder that a picture comes out of; the other half's weights lie idle."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        picture: torch.Tensor = self.autoencoder.decode(latents).sample
        return picture


def test_a_picture_from_latents() -> None:
    diffusers = pytest.importorskip("diffusers")
    autoencoder = diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )
    assert_module_same(Decoding(autoencoder), torch.randn(1, 4, 8, 8))
