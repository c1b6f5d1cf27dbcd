"""Tiny pipelines of every family with random weights, saved as model directories."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from tests.fakes.gpu_worker_models import SHAPES_DIR, Stock

SIZE_PX = 32
_CHANNELS = 4
_WIDTH = 32


@dataclass(frozen=True)
class Family:
    """How a tiny pipeline is made, and how its calls name our fields.

    Attributes:
        key: of its model directory.
        build: makes it; weights are random, of the current seed.
        sampler: its default.
        guidance: the parameter of stock's call that takes the guidance.
        changes: further arguments of stock's call.
    """

    key: str
    build: Callable[[], Stock]
    sampler: str = "flow_euler"
    guidance: str = "guidance_scale"
    changes: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    """Parts that it does without, which stock wants to be told."""


def load_stock(family: Family, path: Path, dtype: torch.dtype = torch.float32) -> Stock:
    """Stock diffusers' pipeline of a saved family."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        path,
        dtype=dtype,
        local_files_only=True,
        low_cpu_mem_usage=False,
        **dict.fromkeys(family.absent),
    )
    for part in pipeline.components.values():
        if isinstance(part, diffusers.ModelMixin) and part.dtype != dtype:
            part.to(dtype)  # diffusers leaves some in single precision
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_family(family: Family, models_dir: Path) -> Path:
    """Its model directory, below `models_dir`."""
    torch.manual_seed(3)
    pipeline = family.build()
    path = models_dir / family.key
    pipeline.save_pretrained(path, safe_serialization=True)
    preset = {
        "key": family.key,
        "name": family.key,
        "base": family.key,
        "defaults": {
            "steps": 4,
            "guidance": 3.0,
            "width_px": SIZE_PX,
            "height_px": SIZE_PX,
            "sampler": family.sampler,
        },
    }
    (path / "easel.json").write_text(json.dumps(preset), encoding="utf-8")
    return path


# --- text -------------------------------------------------------------------------------------


def clip_tokenizer() -> Any:  # noqa: ANN401 (transformers is untyped)
    return transformers.CLIPTokenizer.from_pretrained(SHAPES_DIR / "tokenizer")


def _clip_config(**changes: object) -> Any:  # noqa: ANN401
    tokenizer = clip_tokenizer()
    plain: dict[str, object] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
        "hidden_size": _WIDTH,
        "intermediate_size": 37,
        "projection_dim": _WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 24,
    }
    return transformers.CLIPTextConfig(**plain | changes)


def clip(**changes: object) -> Any:  # noqa: ANN401
    return transformers.CLIPTextModel(_clip_config(**changes))


def projected_clip() -> Any:  # noqa: ANN401
    return transformers.CLIPTextModelWithProjection(_clip_config(hidden_act="gelu"))


def t5_tokenizer() -> Any:  # noqa: ANN401
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters = [(letter, -3.0 - index / 10) for index, letter in enumerate(string.ascii_lowercase)]
    words = [("▁red", -4.0), ("▁circle", -4.5), ("▁a", -2.5)]
    return transformers.T5TokenizerFast(vocab=marks + letters + words, extra_ids=0)


def t5(width: int) -> Any:  # noqa: ANN401
    config = transformers.T5Config(
        vocab_size=64, d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4
    )
    return transformers.T5EncoderModel(config)


def qwen_tokenizer() -> Any:  # noqa: ANN401
    letters = sorted(_byte_letters())
    vocab = {letter: number for number, letter in enumerate(letters)}
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab |= {special: len(vocab) + at for at, special in enumerate(specials)}
    return transformers.Qwen2Tokenizer(
        vocab=vocab, merges=[], extra_special_tokens=specials[1:], model_max_length=2048
    )


def _byte_letters() -> list[str]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + at) for at, _ in enumerate(others)]


def qwen_text_encoder() -> Any:  # noqa: ANN401
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 300,
            "hidden_size": _WIDTH,
            "intermediate_size": 37,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [1, 1, 2],
            },
            "bos_token_id": None,
            "eos_token_id": 256,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": _WIDTH,
        },
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


# --- pictures ---------------------------------------------------------------------------------


def kl(**changes: object) -> Any:  # noqa: ANN401
    plain: dict[str, object] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": _CHANNELS,
        "norm_num_groups": 4,
    }
    return diffusers.AutoencoderKL(**plain | changes)


def flow_kl(levels: int = 2) -> Any:  # noqa: ANN401
    return kl(
        block_out_channels=(8, 16, 16, 16)[:levels],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _unet(**changes: object) -> Any:  # noqa: ANN401
    plain: dict[str, object] = {
        "sample_size": 16,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": _WIDTH,
        "attention_head_dim": 4,
    }
    return diffusers.UNet2DConditionModel(**plain | changes)


_BETAS: Mapping[str, object] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


# --- families ---------------------------------------------------------------------------------


def _sd1() -> Stock:
    return diffusers.StableDiffusionPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        unet=_unet(),
        vae=kl(),
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True, **_BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sd2() -> Stock:
    return diffusers.StableDiffusionPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(hidden_act="gelu"),
        unet=_unet(attention_head_dim=(2, 4), use_linear_projection=True, upcast_attention=True),
        vae=kl(),
        scheduler=diffusers.DDIMScheduler(
            prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, **_BETAS
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Stock:
    return diffusers.StableDiffusionXLPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        tokenizer_2=clip_tokenizer(),
        text_encoder_2=projected_clip(),
        unet=_unet(
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 2),
            projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
            cross_attention_dim=2 * _WIDTH,
        ),
        vae=kl(scaling_factor=0.13025),
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", **_BETAS),
        add_watermarker=False,
    )


def _sd3(*, with_t5: bool) -> Stock:
    return diffusers.StableDiffusion3Pipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=projected_clip(),
        tokenizer_2=clip_tokenizer(),
        text_encoder_2=projected_clip(),
        tokenizer_3=t5_tokenizer() if with_t5 else None,
        text_encoder_3=t5(2 * _WIDTH) if with_t5 else None,
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=16,
            in_channels=_CHANNELS,
            out_channels=_CHANNELS,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=2 * _WIDTH,
            caption_projection_dim=_WIDTH,
            pooled_projection_dim=2 * _WIDTH,
            pos_embed_max_size=32,
        ),
        vae=flow_kl(2 if with_t5 else 4),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _flux(*, guided: bool) -> Stock:
    return diffusers.FluxPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        tokenizer_2=t5_tokenizer(),
        text_encoder_2=t5(_WIDTH),
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=4 * _CHANNELS,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=_WIDTH,
            pooled_projection_dim=_WIDTH,
            guidance_embeds=guided,
            axes_dims_rope=(4, 4, 8),
        ),
        vae=flow_kl(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guided else 1.0, use_dynamic_shifting=guided
        ),
    )


def _qwen_image() -> Stock:
    return diffusers.QwenImagePipeline(
        tokenizer=qwen_tokenizer(),
        text_encoder=qwen_text_encoder(),
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=4 * _CHANNELS,
            out_channels=_CHANNELS,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=_WIDTH,
            axes_dims_rope=(8, 4, 4),
        ),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=_CHANNELS,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[-0.7, 0.2, 0.1, -0.3],
            latents_std=[2.8, 1.4, 2.3, 1.9],
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, shift_terminal=0.02
        ),
    )


def _lcm() -> Stock:
    return diffusers.LatentConsistencyModelPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        unet=_unet(time_cond_proj_dim=16),
        vae=kl(),
        scheduler=diffusers.LCMScheduler(**_BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _heun() -> Stock:
    return diffusers.StableDiffusionImg2ImgPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        unet=_unet(),
        vae=kl(),
        scheduler=diffusers.HeunDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _pixart() -> Stock:
    return diffusers.PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(_WIDTH),
        vae=kl(),
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=16,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_channels=_WIDTH,
            in_channels=_CHANNELS,
            cross_attention_dim=_WIDTH,
            out_channels=2 * _CHANNELS,
            use_additional_conditions=False,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def _aura() -> Stock:
    return diffusers.AuraFlowPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=transformers.UMT5EncoderModel(
            transformers.UMT5Config(
                vocab_size=64, d_model=_WIDTH, d_kv=8, d_ff=37, num_layers=1, num_heads=4
            )
        ),
        vae=kl(),
        transformer=diffusers.AuraFlowTransformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=_CHANNELS,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=_WIDTH,
            joint_attention_dim=_WIDTH,
            out_channels=_CHANNELS,
            pos_embed_max_size=256,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


SD1 = Family("tiny-sd1", _sd1, "ddim")
SD2 = Family("tiny-sd2", _sd2, "ddim")
SDXL = Family("tiny-sdxl", _sdxl, "euler")
SD3 = Family("tiny-sd3", lambda: _sd3(with_t5=True))
SD3_NO_T5 = Family(
    "tiny-sd3-no-t5",
    lambda: _sd3(with_t5=False),
    absent=("text_encoder_3", "tokenizer_3"),
)
FLUX = Family("tiny-flux", lambda: _flux(guided=True))
FLUX_SCHNELL = Family(
    "tiny-flux-schnell", lambda: _flux(guided=False), changes={"max_sequence_length": 256}
)
QWEN = Family("tiny-qwen-image", _qwen_image, guidance="true_cfg_scale")

FAMILIES = (SD1, SD2, SDXL, SD3, SD3_NO_T5, FLUX, FLUX_SCHNELL, QWEN)

# Pipelines that run whole: their own schedulers, whatever they are.
LCM = Family("tiny-lcm", _lcm, "default")
HEUN = Family("tiny-heun", _heun, "default")
PIXART = Family("tiny-pixart", _pixart, "default")
AURA = Family("tiny-aura", _aura, "default")

WHOLE = (LCM, HEUN, PIXART, AURA)
