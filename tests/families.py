"""Whole models of every family at small width, written by diffusers with random weights.

Weights are spread so that what a network makes of its text, its sizes and its latent is of the order of one: a mistake
in any of them is then far above the rounding errors that comparisons must allow.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
from tests.networks.conftest import randomise
from tests.prompt.test_t5_tokenizer import trained as train_t5
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from darkroom.prompt import Tokenizer

CROSS_DOWN, DOWN, CROSS_UP, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
WIDTH = 64  # Of every text encoder: one head of 64, as single files are read.


def clip(seed: int, open_clip: bool = False, projected: bool = False, layers: int = 3) -> Any:
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=1,
        hidden_act="gelu" if open_clip else "quick_gelu",
        projection_dim=WIDTH,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    return randomise((CLIPTextModelWithProjection if projected else CLIPTextModel)(config), seed)


def tokenizer(folder: Path, pad: str) -> CLIPTokenizer:
    Tokenizer.clip(pad).save(folder)
    return read_tokenizer(CLIPTokenizer, folder)


_TOKENIZERS: dict[tuple[type, str], Any] = {}


def read_tokenizer(kind: type, folder: Path) -> Any:
    """transformers' tokenizer of a folder. It takes 0.4 s to read, and most folders have the same files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
    key = kind, digest.hexdigest()
    if key not in _TOKENIZERS:
        _TOKENIZERS[key] = kind.from_pretrained(folder, local_files_only=True)  # type: ignore[attr-defined]
    return _TOKENIZERS[key]


def unet(seed: int, text: int, **changes: Any) -> UNet2DConditionModel:
    settings = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": (DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, UP),
        "attention_head_dim": 8,
        "cross_attention_dim": text,
    }
    return randomise(UNet2DConditionModel(**settings | changes), seed)


def vae(seed: int, channels: int = 4, levels: int = 4, **settings: Any) -> AutoencoderKL:
    network = AutoencoderKL(
        block_out_channels=(32,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=channels,
        sample_size=64,
        **settings,
    )
    return randomise(network, seed)


def write_sd1(
    folder: Path,
    seed: int = 0,
    scheduler: Any = None,
    pipeline: Any = StableDiffusionPipeline,
    **changes: Any,
) -> Path:
    """Stable Diffusion 1, as a `pipeline` of its kind; `changes` are of its U-Net's configuration."""
    pipeline(
        vae=vae(seed),
        text_encoder=clip(seed + 1),
        tokenizer=tokenizer(folder / "tokenizer", "<|endoftext|>"),
        unet=unet(seed + 2, WIDTH, **changes),
        scheduler=scheduler or DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def write_sd2(folder: Path, seed: int = 10, layers: int = 3, **changes: Any) -> Path:
    """Stable Diffusion 2, v-prediction: OpenCLIP's encoder, saved without its unused last layer."""
    StableDiffusionPipeline(
        vae=vae(seed),
        text_encoder=clip(seed + 1, open_clip=True, layers=layers),
        tokenizer=tokenizer(folder / "tokenizer", "!"),
        unet=unet(seed + 2, WIDTH, use_linear_projection=True, attention_head_dim=(1, 2), **changes),
        scheduler=DDIMScheduler(
            **NOISE, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def write_depth(folder: Path, seed: int = 64) -> Path:
    """Stable Diffusion 2 that is shown depth, without what measures it."""
    StableDiffusionDepth2ImgPipeline(
        vae=vae(seed),
        text_encoder=clip(seed + 1, open_clip=True),
        tokenizer=tokenizer(folder / "tokenizer", "!"),
        unet=unet(seed + 2, WIDTH, in_channels=5, use_linear_projection=True, attention_head_dim=(1, 2)),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        depth_estimator=None,
        feature_extractor=None,
    ).save_pretrained(folder)
    return folder


def write_upscaler(folder: Path, seed: int = 68, most: int = 350, **low_res: Any) -> Path:
    """Stable Diffusion's x4 upscaler."""
    noise = {"beta_schedule": "scaled_linear", "beta_start": 0.0001, "beta_end": 0.02}
    StableDiffusionUpscalePipeline(
        vae=vae(seed, levels=3, scaling_factor=0.08333),
        text_encoder=clip(seed + 1, open_clip=True),
        tokenizer=tokenizer(folder / "tokenizer", "!"),
        unet=unet(
            seed + 2,
            WIDTH,
            in_channels=7,
            num_class_embeds=1000,
            use_linear_projection=True,
            attention_head_dim=(1, 2),
            only_cross_attention=(True, False),
        ),
        low_res_scheduler=DDPMScheduler(**noise | low_res),
        scheduler=DDIMScheduler(
            **noise, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
        ),
        safety_checker=None,
        max_noise_level=most,
    ).save_pretrained(folder)
    return folder


def write_unclip(folder: Path, seed: int = 74) -> Path:
    """Stable Diffusion 2 unCLIP, which varies pictures."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        image_size=32,
        patch_size=8,
        hidden_act="gelu",
        projection_dim=WIDTH,
    )
    normalizer = StableUnCLIPImageNormalizer(embedding_dim=WIDTH)
    torch.manual_seed(seed)
    normalizer.mean.data, normalizer.std.data = torch.randn(1, WIDTH), torch.rand(1, WIDTH) + 0.5
    StableUnCLIPImg2ImgPipeline(
        vae=vae(seed),
        text_encoder=clip(seed + 1, open_clip=True),
        tokenizer=tokenizer(folder / "tokenizer", "!"),
        unet=unet(
            seed + 2,
            WIDTH,
            use_linear_projection=True,
            attention_head_dim=(1, 2),
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * WIDTH,
        ),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        image_encoder=randomise(CLIPVisionModelWithProjection(vision), seed + 3),
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        image_normalizer=normalizer,
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    ).save_pretrained(folder)
    return folder


def write_sdxl(
    folder: Path, seed: int = 20, zeros: bool = True, scheduler: Any = None, **changes: Any
) -> Path:
    """Stable Diffusion XL's base; `zeros`: an empty negative prompt is a row of zeros."""
    StableDiffusionXLPipeline(
        vae=vae(seed, scaling_factor=0.13025),
        text_encoder=clip(seed + 1),
        text_encoder_2=clip(seed + 2, open_clip=True, projected=True),
        tokenizer=tokenizer(folder / "tokenizer", "<|endoftext|>"),
        tokenizer_2=tokenizer(folder / "tokenizer_2", "!"),
        unet=unet(
            seed + 3,
            2 * WIDTH,
            use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=WIDTH + 6 * 256,
            **changes,
        ),
        scheduler=scheduler or EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def write_refiner(folder: Path, seed: int = 30, **changes: Any) -> Path:
    """Stable Diffusion XL's refiner."""
    StableDiffusionXLImg2ImgPipeline(
        vae=vae(seed, scaling_factor=0.13025),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=clip(seed + 2, open_clip=True, projected=True),
        tokenizer_2=tokenizer(folder / "tokenizer_2", "!"),
        unet=unet(
            seed + 3,
            WIDTH,
            use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=WIDTH + 5 * 256,
            **changes,
        ),
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=False,
        requires_aesthetics_score=True,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def write_sd3(folder: Path, seed: int = 40, t5: bool = True, shift: float = 3.0, **changes: Any) -> Path:
    """Stable Diffusion 3 and, with `qk_norm` and `dual_attention_layers`, 3.5."""
    joint = 160
    settings = {
        "sample_size": 8,
        "num_layers": 3,
        "attention_head_dim": 64,
        "num_attention_heads": 2,
        "joint_attention_dim": joint,
        "caption_projection_dim": 128,
        "pooled_projection_dim": 2 * WIDTH,
        "pos_embed_max_size": 12,
    }
    third: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None}
    if t5:
        peer = T5Tokenizer.from_pretrained(train_t5(folder / "tokenizer_3"))
        config = T5Config(
            vocab_size=len(peer),
            d_model=joint,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
        third = {"text_encoder_3": randomise(T5EncoderModel(config), seed + 4), "tokenizer_3": peer}
    StableDiffusion3Pipeline(
        transformer=randomise(SD3Transformer2DModel(**settings | changes), seed),
        vae=vae(
            seed + 1,
            16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=clip(seed + 2, projected=True),
        tokenizer=tokenizer(folder / "tokenizer", "<|endoftext|>"),
        text_encoder_2=clip(seed + 3, open_clip=True, projected=True),
        tokenizer_2=tokenizer(folder / "tokenizer_2", "!"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        **third,
    ).save_pretrained(folder)
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "sd1": write_sd1,
    "sd2": write_sd2,
    "sdxl": write_sdxl,
    "sdxl-said": lambda folder: write_sdxl(folder, 22, zeros=False),
    "refiner": write_refiner,
    "sd3": write_sd3,
    "sd3-clips": lambda folder: write_sd3(folder, 42, t5=False, shift=1.0),
    "sd35-medium": lambda folder: write_sd3(folder, 44, qk_norm="rms_norm", dual_attention_layers=(0, 1)),
    "sd35-large": lambda folder: write_sd3(folder, 46, qk_norm="rms_norm"),
    "pix2pix": lambda folder: write_sd1(
        folder, 60, pipeline=StableDiffusionInstructPix2PixPipeline, in_channels=8
    ),
    "depth": write_depth,
    "upscaler": write_upscaler,
    "unclip": write_unclip,
    "lcm": lambda folder: write_sd1(folder, 50, LCMScheduler(**NOISE), time_cond_proj_dim=16),
    "turbo": lambda folder: write_sdxl(
        folder,
        52,
        scheduler=EulerAncestralDiscreteScheduler(**NOISE, timestep_spacing="trailing"),
    ),
}


def absent(path: Path) -> dict[str, None]:
    """The parts a folder says it lacks, as both libraries' `from_pretrained` want to be told."""
    index = json.loads((path / "model_index.json").read_text())
    names = "text_encoder_3", "tokenizer_3", "depth_estimator", "feature_extractor"
    return {name: None for name in names if index.get(name) == [None, None]}


def peer(path: Path, own: bool = False) -> Any:
    """diffusers' pipeline of a folder, with a scheduler of its own. Its networks and tokenizers are read once and
    shared, as reading them takes ten times as long as a picture; `own`: copied, to be given LoRAs and words."""
    pipe = (copy.deepcopy if own else copy.copy)(_peer(path))
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    return pipe


@cache
def _peer(path: Path) -> Any:
    index = json.loads((path / "model_index.json").read_text())
    tokenizers = {
        name: read_tokenizer(getattr(transformers, kind[1]), path / name)
        for name, kind in index.items()
        if name.startswith("tokenizer") and kind[1]
    }
    pipe = DiffusionPipeline.from_pretrained(path, local_files_only=True, **absent(path) | tokenizers)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())
