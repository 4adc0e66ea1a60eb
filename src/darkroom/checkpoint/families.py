"""The families there are, a record each. Another family is another record, with a place in `FAMILIES`."""

from __future__ import annotations

from dataclasses import replace

from darkroom.checkpoint.components.component import HUGGING_FACE, ORIGINAL, Place
from darkroom.checkpoint.family import (
    DEPTH,
    MASKS,
    PICTURE,
    SMALL,
    VARIED,
    Augmentation,
    Family,
    Shapes,
    Variant,
)
from darkroom.checkpoint.preferences import Preferences
from darkroom.diffusion import Discrete, FlowSchedule, betas, process
from darkroom.networks.configs import MMDiTConfig, UNetConfig
from darkroom.networks.roles import Role
from darkroom.prompt.use import PAD_OPENCLIP, TextUse

_CLIP, _CLIP_2, _T5 = Role.TEXT_ENCODER, Role.TEXT_ENCODER_2, Role.TEXT_ENCODER_3


# What shapes say of each, where no family before it in `FAMILIES` has recognised them


def _is_sd1(shapes: Shapes) -> bool:
    network = shapes.network
    return isinstance(network, UNetConfig) and not shapes.openclip and network.cross_attention_dim != 1024


def _is_sd2(shapes: Shapes) -> bool:
    return isinstance(shapes.network, UNetConfig)


def _is_unclip(shapes: Shapes) -> bool:
    return isinstance(shapes.network, UNetConfig) and shapes.network.class_embed_type == "projection"


def _is_sdxl(shapes: Shapes) -> bool:
    return isinstance(shapes.network, UNetConfig) and shapes.network.addition_embed_type == "text_time"


def _is_refiner(shapes: Shapes) -> bool:
    """It looks at the second text encoder alone: at that one's width."""
    width = getattr(shapes.network, "cross_attention_dim", 0)
    return _is_sdxl(shapes) and (shapes.widths or (1280,)) == (width,)


def _is_sd3(shapes: Shapes) -> bool:
    return isinstance(shapes.network, MMDiTConfig)


def _is_sd35(shapes: Shapes) -> bool:
    return isinstance(shapes.network, MMDiTConfig) and shapes.network.qk_norm is not None


def _is_sd35_medium(shapes: Shapes) -> bool:
    return _is_sd35(shapes) and bool(getattr(shapes.network, "dual_attention_layers", ()))


# The records


_WIDE = Discrete(betas("scaled_linear", 0.0001, 0.02))
_UPSCALER = {
    "process": process("v_prediction"),
    "schedule": _WIDE,
    "scheduler": "DDIMScheduler",
    "scaling": 0.08333,
    "factor": 4,
    "augmentation": Augmentation(
        "low_res_scheduler",
        _WIDE,
        usual=20,
        most=350,
        config={
            "_class_name": "DDPMScheduler",
            "beta_schedule": "scaled_linear",
            "beta_start": 0.0001,
            "beta_end": 0.02,
        },
    ),
}

SD1 = Family(
    id="sd1",
    name="Stable Diffusion 1",
    process=process("epsilon"),
    schedule=Discrete(),
    places={_CLIP: Place("cond_stage_model.transformer.", HUGGING_FACE)},
    recognised=_is_sd1,
    variants={
        9: Variant("inpainting", "inpainting", MASKS, "StableDiffusionInpaintPipeline"),
        8: Variant("pix2pix", "InstructPix2Pix", PICTURE, "StableDiffusionInstructPix2PixPipeline"),
    },
)
SD2 = replace(
    SD1,
    id="sd2",
    name="Stable Diffusion 2",
    # Trained to use the last layer but one, through the final norm.
    text={_CLIP: TextUse(layer=-2, pad=PAD_OPENCLIP)},
    places={_CLIP: Place("cond_stage_model.model.", ORIGINAL)},
    recognised=_is_sd2,
    variants={
        9: Variant("inpainting", "inpainting", MASKS, "StableDiffusionInpaintPipeline"),
        5: Variant("depth", "depth", DEPTH, "StableDiffusionDepth2ImgPipeline"),
        7: Variant("upscaler", "x4 upscaler", SMALL, "StableDiffusionUpscalePipeline", _UPSCALER),
    },
)
UNCLIP = replace(
    SD2,
    id="sd2-unclip",
    name="Stable Diffusion 2 unCLIP",
    native=768,
    needs=VARIED,
    augmentation=Augmentation(
        "image_noising_scheduler",
        Discrete(betas("squaredcos_cap_v2")),
        usual=0,
        most=999,
        config={"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"},
    ),
    looks=True,
    pipeline="StableUnCLIPImg2ImgPipeline",
    recognised=_is_unclip,
    variants={},
)
SDXL = replace(
    SD1,
    id="sdxl",
    name="Stable Diffusion XL",
    scaling=0.13025,
    native=1024,
    preferences=Preferences(steps=25, guidance=6.0),
    text={
        _CLIP: TextUse(layer=-2, normed=False),
        _CLIP_2: TextUse(layer=-2, normed=False, pooled=True, pad=PAD_OPENCLIP),
    },
    sizes="base",
    zero_empty=True,
    places={
        _CLIP: Place("conditioner.embedders.0.transformer.", HUGGING_FACE),
        _CLIP_2: Place("conditioner.embedders.1.model.", ORIGINAL),
    },
    pipeline="StableDiffusionXLPipeline",
    scheduler="EulerDiscreteScheduler",
    encoders=(_CLIP, _CLIP_2),
    recognised=_is_sdxl,
    variants={
        9: Variant("inpainting", "inpainting", MASKS, "StableDiffusionXLInpaintPipeline"),
        8: Variant("pix2pix", "InstructPix2Pix", PICTURE, "StableDiffusionXLInstructPix2PixPipeline"),
    },
)
REFINER = replace(
    SDXL,
    id="sdxl-refiner",
    name="Stable Diffusion XL refiner",
    text={_CLIP_2: SDXL.text[_CLIP_2]},
    sizes="refiner",
    zero_empty=False,
    places={_CLIP_2: Place("conditioner.embedders.0.model.", ORIGINAL)},
    pipeline="StableDiffusionXLImg2ImgPipeline",
    recognised=_is_refiner,
)
SD3 = Family(
    id="sd3-medium",
    name="Stable Diffusion 3 medium",
    process=process("flow"),
    schedule=FlowSchedule(3.0),
    latent_channels=16,
    scaling=1.5305,
    shift=0.0609,
    native=1024,
    preferences=Preferences(steps=28, guidance=5.0, sampler="euler", schedule="simple"),
    text={
        _CLIP: TextUse(layer=-2, normed=False, pooled=True),
        _CLIP_2: TextUse(layer=-2, normed=False, pooled=True, pad=PAD_OPENCLIP),
    },
    places={
        _CLIP: Place("text_encoders.clip_l.transformer.", HUGGING_FACE),
        _CLIP_2: Place("text_encoders.clip_g.transformer.", HUGGING_FACE),
    },
    pipeline="StableDiffusion3Pipeline",
    scheduler="FlowMatchEulerDiscreteScheduler",
    encoders=(_CLIP, _CLIP_2, _T5),
    recognised=_is_sd3,
)
SD35_MEDIUM = replace(SD3, id="sd3.5-medium", name="Stable Diffusion 3.5 medium", recognised=_is_sd35_medium)
SD35_LARGE = replace(SD3, id="sd3.5-large", name="Stable Diffusion 3.5 large", recognised=_is_sd35)

FAMILIES = (SD35_MEDIUM, SD35_LARGE, SD3, REFINER, SDXL, SD1, UNCLIP, SD2)
"""The first that recognises a model's shapes is its family: the special before the general."""
