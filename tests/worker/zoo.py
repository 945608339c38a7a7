"""The zoo: many model families of the libraries that people use, small, with random weights. `make zoo` runs all of them.

Each specimen is a function without arguments: it returns the model and a call that takes a model and returns its result.
What the installed library cannot build is left out by the run, with the reason; it does not count as passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from families import VOCABULARY, Call, Made, generating, seeded, tokens

TOKENS = 32  # that each decoder generates
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LAYERS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    **SPECIAL,
}
GROUPED = {**LAYERS, "num_key_value_heads": 2}  # queries share keys and values
WIDE = {**GROUPED, "head_dim": 16}  # heads are wider together than the model
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
PAIR = {  # an encoder and a decoder
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
    **SPECIAL,
}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "feed_forward_proj": "gated-gelu",
    **SPECIAL,
}
PATCHES = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
STAGES = {"depths": [1, 1], "num_stages": 2, "hidden_sizes": [16, 32]}
TEXT = {**LAYERS, "projection_dim": 16}

DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": LAYERS,
    "gpt_neo": {**LAYERS, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {**LAYERS, "rotary_dim": 4},
    "gpt_neox": LAYERS,
    "gpt_bigcode": LAYERS,
    "codegen": {**LAYERS, "rotary_dim": 4},
    "openai-gpt": {**LAYERS, "n_positions": 64},
    "ctrl": {**LAYERS, "dff": 48, "n_positions": 64},
    "opt": {**LAYERS, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "xglm": {"vocab_size": 64, "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, **SPECIAL},
    "biogpt": LAYERS,
    "bloom": LAYERS,
    "falcon": {**LAYERS, "new_decoder_architecture": False},
    "mpt": {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "llama": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 8},
    "ministral": {**WIDE, "sliding_window": 8},
    "qwen2": GROUPED,
    "qwen3": WIDE,
    "gemma": WIDE,
    "gemma2": {**WIDE, "sliding_window": 8},
    "gemma3_text": {**WIDE, "sliding_window": 8},
    "phi": LAYERS,
    "phi3": GROUPED,
    "stablelm": GROUPED,
    "starcoder2": GROUPED,
    "persimmon": LAYERS,
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "olmo3": {**GROUPED, "sliding_window": 8},
    "cohere": GROUPED,
    "cohere2": {**GROUPED, "sliding_window": 8},
    "granite": GROUPED,
    "glm": {**GROUPED, "head_dim": 8},
    "glm4": {**GROUPED, "head_dim": 8},
    "helium": {**GROUPED, "head_dim": 8},
    "nemotron": GROUPED,
    "smollm3": GROUPED,
    "exaone4": {**GROUPED, "sliding_window": 8},
    "diffllama": GROUPED,
    "bitnet": GROUPED,
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "qwen2_moe": {**GROUPED, **MOE, "shared_expert_intermediate_size": 24},
    "qwen3_moe": {**WIDE, **MOE},
    "olmoe": {**GROUPED, **MOE},
    "granitemoe": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {**WIDE, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "deepseek_v3": {
        **LAYERS,
        "moe_intermediate_size": 24,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "mamba": {**LAYERS, "state_size": 4},
    "mamba2": {**LAYERS, "state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 2, "chunk_size": 8},
    "falcon_mamba": {**LAYERS, "state_size": 4},
    "recurrent_gemma": {**GROUPED, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16, "head_dim": 8},
    "rwkv": {**LAYERS, "context_length": 64, "attention_hidden_size": 32},
    "lfm2": {**GROUPED, "block_ff_dim": 48, "layer_types": ["conv", "full_attention"]},
    "bamba": {
        **GROUPED,
        "attn_layer_indices": [1],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 4,
        "mamba_chunk_size": 8,
    },
    "qwen3_next": {
        **WIDE,
        **MOE,
        "shared_expert_intermediate_size": 24,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": LAYERS,
    "roberta": LAYERS,
    "xlm-roberta": LAYERS,
    "distilbert": {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "pad_token_id": 0},
    "albert": {**LAYERS, "embedding_size": 16},
    "electra": {**LAYERS, "embedding_size": 16},
    "mpnet": LAYERS,
    "deberta": {**LAYERS, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {**LAYERS, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "modernbert": {**LAYERS, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2},
    "squeezebert": {**LAYERS, "embedding_size": 32},
    "fnet": LAYERS,
    "convbert": {**LAYERS, "embedding_size": 32},
    "funnel": {**LAYERS, "block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "architectures": ["FunnelModel"]},
    "xlnet": {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    "roformer": {**LAYERS, "embedding_size": 32},
    "longformer": {**LAYERS, "attention_window": 4},
    "esm": {**LAYERS, "position_embedding_type": "rotary", "mask_token_id": 3},
    "nystromformer": {**LAYERS, "segment_means_seq_len": 8, "num_landmarks": 8},
    "layoutlm": LAYERS,
}
PAIRS: dict[str, dict[str, Any]] = {
    "t5": T5,
    "mt5": T5,
    "umt5": T5,
    "longt5": {**T5, "encoder_attention_type": "transient-global", "local_radius": 4, "global_block_size": 4},
    "switch_transformers": {**T5, "num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    "bart": PAIR,
    "mbart": PAIR,
    "pegasus": PAIR,
    "marian": PAIR,
    "m2m_100": PAIR,
    "blenderbot": PAIR,
    "blenderbot-small": PAIR,
    "led": {**PAIR, "attention_window": 4, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64},
    "prophetnet": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 64,
        "decoder_start_token_id": 1,
        **SPECIAL,
    },
}
VISION: dict[str, dict[str, Any]] = {
    "vit": PATCHES,
    "deit": PATCHES,
    "beit": {**PATCHES, "use_relative_position_bias": True},
    "dinov2": PATCHES,
    "dinov2_with_registers": PATCHES,
    "dinov3_vit": PATCHES,
    "yolos": {**PATCHES, "image_size": [32, 32], "num_detection_tokens": 4},
    "swin": {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    "swinv2": {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    "convnext": STAGES,
    "convnextv2": STAGES,
    "resnet": {**STAGES, "embedding_size": 16, "layer_type": "basic"},
    "regnet": {**STAGES, "embedding_size": 16, "groups_width": 8},
    "segformer": {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "sr_ratios": [2, 1],
        "hidden_sizes": [16, 32],
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "num_attention_heads": [1, 2],
        "mlp_ratios": [2, 2],
    },
    "mobilevit": {
        "image_size": 32,
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [8, 8, 16, 16, 16, 24, 32],
        "num_attention_heads": 4,
    },
}


def _built(kind: str, name: str, config: dict[str, Any]) -> nn.Module:
    """Return a model of transformers: AutoModel, AutoModelForCausalLM and so on."""
    import transformers

    made: nn.Module = getattr(transformers, kind).from_config(transformers.AutoConfig.for_model(name, **config))
    return made


def _results(call: Call) -> Call:
    """Let a call that generates tell the logits too: other ones may lead to the same tokens."""

    def told(model: nn.Module) -> Any:
        out = call(model)
        return out.sequences, out.logits

    return told


def _generates(prompt: torch.Tensor, **more: Any) -> Call:
    return _results(generating(prompt, count=TOKENS, return_dict_in_generate=True, output_logits=True, **more))


def decoder(name: str) -> Made:
    """Generates, with whatever cache or state the model has."""
    return _built("AutoModelForCausalLM", name, DECODERS[name]), _generates(tokens(2, 3))


def encoder(name: str) -> Made:
    """Reads sentences, the second of which is padded."""
    given = tokens(2, 8)
    mask = torch.ones_like(given)
    mask[1, 6:] = 0
    return _built("AutoModel", name, ENCODERS[name]), lambda m: m(input_ids=given, attention_mask=mask).last_hidden_state


def pair(name: str) -> Made:
    """Generates from what its encoder has read."""
    return _built("AutoModelForSeq2SeqLM", name, PAIRS[name]), _generates(tokens(2, 5))


def vision(name: str) -> Made:
    """Looks at pictures."""
    size = {"image_size": 32, **VISION[name]}["image_size"]
    side = size if isinstance(size, int) else size[0]
    return _built("AutoModel", name, VISION[name]), lambda m: m(pixel_values=seeded(2, 3, side, side)).last_hidden_state


def towers(name: str) -> Made:
    """Compares pictures with sentences; then each tower is called by itself."""
    seen = {**PATCHES, "projection_dim": 16}
    more = {} if name == "siglip" else {"projection_dim": 16}
    model = _built("AutoModel", name, {"text_config": TEXT, "vision_config": seen, **more})

    def call(m: Any) -> Any:
        words, pictures = tokens(2, 6), seeded(2, 3, 32, 32)
        out = m(input_ids=words, pixel_values=pictures)
        texts, images = m.get_text_features(input_ids=words), m.get_image_features(pixel_values=pictures)
        return out.logits_per_image, out.text_embeds, out.image_embeds, texts, images

    return model, call


def sound(name: str) -> Made:
    """Listens to samples."""
    sizes = {"conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_conv_pos_embeddings": 8}
    config = {**LAYERS, **sizes, "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 2}
    return _built("AutoModel", name, config), lambda m: m(seeded(2, 400)).last_hidden_state


def whisper() -> Made:
    """Writes down what its encoder has heard."""
    config = {**PAIR, "num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 64}
    model = _built("AutoModelForSpeechSeq2Seq", "whisper", {**config, "begin_suppress_tokens": None})
    given, start = seeded(1, 8, 32), torch.ones(1, 1, dtype=torch.long)
    options = {"return_dict_in_generate": True, "output_logits": True, "decoder_input_ids": start}
    return model, _results(generating(given, count=TOKENS, **options))


CLASSIFIERS = (
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
    "resnet18",
    "resnext50_32x4d",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "googlenet",
    "inception_v3",
)


def classifier(name: str) -> Made:
    """A classifier of torchvision as it is."""
    import torchvision

    more = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    side = 96 if name == "inception_v3" else 64
    return torchvision.models.get_model(name, weights=None, num_classes=9, **more), lambda m: m(seeded(2, 3, side, side))


def small_classifier(name: str) -> Made:
    """A classifier of torchvision whose smallest kind is large, made smaller."""
    from torchvision import models

    if name == "vit":
        model = models.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=9)
    elif name == "convnext":
        model = models.ConvNeXt([models.convnext.CNBlockConfig(16, 32, 2), models.convnext.CNBlockConfig(32, None, 2)])
    elif name == "maxvit":
        model = models.MaxVit((64, 64), 16, 4, [16, 32], [1, 1], 8, 0.0)
    else:
        model = models.SwinTransformer(
            [4, 4],
            16,
            [2, 2],
            [2, 4],
            [4, 4],
            num_classes=9,
            block=models.swin_transformer.SwinTransformerBlockV2 if name == "swin_v2" else None,
            downsample_layer=(
                models.swin_transformer.PatchMergingV2 if name == "swin_v2" else models.swin_transformer.PatchMerging
            ),
        )
    side = 32 if name == "vit" else 64
    return model, lambda m: m(seeded(2, 3, side, side))


def segmentation(name: str) -> Made:
    """Segmentation of torchvision."""
    import torchvision

    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
    return model, lambda m: m(seeded(1, 3, 64, 64))


def detection(name: str) -> Made:
    """Detection of torchvision, whose shapes depend on data. More classes: see `families.detection`."""
    import torchvision

    size = {} if name.startswith("ssd") else {"min_size": 64, "max_size": 96}
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=3, **size)
    return model, lambda m: m([seeded(3, 64, 80).sigmoid()])


TIMM = (
    "convnext_atto",
    "vit_tiny_patch16_224",
    "mobilenetv3_small_050",
    "mixer_s32_224",
    "efficientnet_lite0",
    "resnet10t",
    "ghostnet_050",
    "mobileone_s0",
    "repvgg_a0",
    "edgenext_xx_small",
    "poolformer_s12",
    "xcit_nano_12_p16_224",
    "levit_128s",
    "fastvit_t8",
    "tinynet_e",
)


def timm_model(name: str) -> Made:
    """A model of timm, whose `forward_features` is called after the whole."""
    import timm

    sized = {"img_size": 64} if name.endswith("224") and not name.startswith("xcit") else {}
    side = 224 if name.startswith("levit") else 64

    def call(m: Any) -> Any:
        return m(seeded(1, 3, side, side)), m.forward_features(seeded(1, 3, side, side))

    return timm.create_model(name, num_classes=5, **sized), call


def unet() -> Made:
    """A conditional UNet of diffusers, called for two steps."""
    import diffusers

    model = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )

    def call(m: Any) -> Any:
        latent = seeded(1, 4, 8, 8)
        for step in (900, 400):
            latent = latent - 0.5 * m(latent, timestep=step, encoder_hidden_states=seeded(1, 5, 16)).sample.cpu()
        return latent

    return model, call


def unconditional_unet() -> Made:
    """A UNet of diffusers without text."""
    import diffusers

    model = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return model, lambda m: m(seeded(1, 3, 8, 8), timestep=7).sample


def controlnet() -> Made:
    """A ControlNet of diffusers."""
    import diffusers

    model = diffusers.ControlNetModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        conditioning_embedding_out_channels=(8, 16),
    )

    def call(m: Any) -> Any:
        out = m(seeded(1, 4, 8, 8), 7, encoder_hidden_states=seeded(1, 5, 16), controlnet_cond=seeded(1, 3, 16, 16))
        return out.down_block_res_samples, out.mid_block_res_sample

    return model, call


def vae() -> Made:
    """Autoencoder of diffusers: the whole, then `encode` and `decode` by themselves."""
    import diffusers

    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=4,
    )

    def call(m: Any) -> Any:
        picture = seeded(1, 3, 16, 16)
        whole, latent = m(picture).sample, m.encode(picture).latent_dist.mode()
        return whole, latent, m.decode(latent).sample

    return model, call


def vq() -> Made:
    """Quantising autoencoder of diffusers: the whole, then `encode` and `decode` by themselves."""
    import diffusers

    model = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        num_vq_embeddings=16,
    )

    def call(m: Any) -> Any:
        picture = seeded(1, 3, 16, 16)
        return m(picture).sample, m.decode(m.encode(picture).latents).sample

    return model, call


def diffusion(name: str) -> Made:
    """A transformer of diffusers."""
    import diffusers

    heads = {"attention_head_dim": 16, "num_attention_heads": 2, "num_layers": 2}
    picture, text, step = seeded(1, 4, 8, 8), seeded(1, 6, 32), torch.tensor([3])
    sizes: dict[str, Any] = {}
    given: dict[str, Any] = {"hidden_states": picture, "timestep": step, "encoder_hidden_states": text}
    if name == "DiTTransformer2DModel":
        sizes = {"in_channels": 4, "sample_size": 8, "norm_num_groups": 4, "num_embeds_ada_norm": 10}
        given = {"hidden_states": picture, "timestep": step, "class_labels": torch.tensor([1])}
    elif name == "FluxTransformer2DModel":
        sizes = {"patch_size": 1, "in_channels": 4, "num_single_layers": 2, "joint_attention_dim": 32}
        sizes |= {"pooled_projection_dim": 32, "axes_dims_rope": (4, 4, 8), "guidance_embeds": False}
        given |= {"hidden_states": seeded(1, 16, 4), "pooled_projections": seeded(1, 32), "timestep": torch.tensor([0.5])}
        given |= {"img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(6, 3)}
    elif name == "SD3Transformer2DModel":
        sizes = {"sample_size": 8, "in_channels": 4, "joint_attention_dim": 32, "caption_projection_dim": 32}
        sizes |= {"pooled_projection_dim": 32, "out_channels": 4, "pos_embed_max_size": 8}
        given |= {"pooled_projections": seeded(1, 32)}
    elif name == "PixArtTransformer2DModel":
        sizes = {"sample_size": 8, "cross_attention_dim": 32, "caption_channels": 32, "norm_num_groups": 4}
        given |= {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    elif name == "SanaTransformer2DModel":
        sizes = {"in_channels": 4, "out_channels": 4, "num_cross_attention_heads": 2, "cross_attention_head_dim": 16}
        sizes |= {"cross_attention_dim": 32, "caption_channels": 32, "sample_size": 8}
    elif name == "WanTransformer3DModel":
        sizes = {"in_channels": 4, "out_channels": 4, "text_dim": 32, "freq_dim": 16, "ffn_dim": 48}
        given |= {"hidden_states": seeded(1, 4, 2, 8, 8)}
    elif name == "AuraFlowTransformer2DModel":
        heads = {"attention_head_dim": 16, "num_attention_heads": 2, "num_mmdit_layers": 1, "num_single_dit_layers": 1}
        sizes = {"sample_size": 8, "joint_attention_dim": 32, "caption_projection_dim": 32, "pos_embed_max_size": 64}
    elif name == "LTXVideoTransformer3DModel":
        sizes = {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 32, "caption_channels": 32}
        given |= {"hidden_states": seeded(1, 32, 4), "encoder_attention_mask": torch.ones(1, 6)}
        given |= {"num_frames": 2, "height": 4, "width": 4}
    model = getattr(diffusers, name)(**heads, **sizes)
    return model, lambda m: m(**given).sample


DIFFUSION = (
    "DiTTransformer2DModel",
    "FluxTransformer2DModel",
    "SD3Transformer2DModel",
    "PixArtTransformer2DModel",
    "SanaTransformer2DModel",
    "AuraFlowTransformer2DModel",
    "WanTransformer3DModel",
    "LTXVideoTransformer3DModel",
)


def _group(title: str, make: Callable[[str], Made], names: Any) -> dict[str, Callable[[], Made]]:
    return {f"{title} {name}": lambda name=name: make(name) for name in names}  # type: ignore[misc]


ZOO: dict[str, Callable[[], Made]] = {
    **_group("decoder", decoder, DECODERS),
    **_group("encoder", encoder, ENCODERS),
    **_group("pair", pair, PAIRS),
    "pair whisper": whisper,
    **_group("vision", vision, VISION),
    **_group("towers", towers, ("clip", "siglip", "altclip", "chinese_clip", "clipseg")),
    **_group("sound", sound, ("wav2vec2", "hubert", "wavlm")),
    **_group("torchvision", classifier, CLASSIFIERS),
    **_group("torchvision small", small_classifier, ("vit", "swin", "swin_v2", "convnext", "maxvit")),
    **_group("torchvision", segmentation, ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")),
    **_group("torchvision", detection, ("ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn")),
    **_group("timm", timm_model, TIMM),
    "diffusers UNet2DConditionModel": unet,
    "diffusers UNet2DModel": unconditional_unet,
    "diffusers ControlNetModel": controlnet,
    "diffusers AutoencoderKL": vae,
    "diffusers VQModel": vq,
    **_group("diffusers", diffusion, DIFFUSION),
}


class Table:
    """A pytest plugin that prints what became of each specimen."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a case once: by its call, or by whatever else did not go well."""
        if report.when != "call" and report.passed:
            return
        told = {str(key): str(value) for key, value in report.user_properties}
        result = "left out" if report.skipped else report.outcome
        why = told.get("reason", "") if report.skipped else _last_line(report) if report.failed else ""
        columns = (told.get(name, "") for name in ("family", "mode", "poison", "calls", "share", "misses", "over"))
        self.rows.append((*columns, f"{result}: {why}" if why else result))
        self.counts[result] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table and the counts."""
        terminalreporter.section("zoo")
        heads = ("family", "mode", "poison", "calls", "share", "misses", "over", "result")
        order = {family: place for place, family in enumerate(ZOO)}
        for row in [heads, *sorted(self.rows, key=lambda row: order.get(row[0], -1))]:
            family, mode, poison, calls, share, misses, over, result = row
            figures = f"{mode:<5} {poison:<6} {calls:>5} {share:>6} {misses:>6} {over:>8}"
            terminalreporter.write_line(f"{family:<50} {figures}  {result}")
        counts = ", ".join(f"{count} {result}" for result, count in sorted(self.counts.items()))
        terminalreporter.write_line(f"{len({row[0] for row in self.rows})} families: {counts or 'nothing ran'}")


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).partition("\n")[0]
