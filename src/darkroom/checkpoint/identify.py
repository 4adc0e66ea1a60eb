"""Which family a model belongs to, and what was assumed on the way.

Shapes tell the family. What they leave open is looked for in the file's metadata, in a configuration beside it and,
for Stable Diffusion 2, in the weights; what is found nowhere is the family's usual value. Every such step is noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from darkroom.checkpoint.family import Family, Preferences
from darkroom.diffusion import Discrete, FlowSchedule, process
from darkroom.networks import MMDiTConfig, UNetConfig
from darkroom.prompt.conditioning import TextUse

PAD_OPENCLIP = "!"
SD1 = Family("Stable Diffusion 1", process("epsilon"), Discrete())
SD2 = replace(
    SD1,
    name="Stable Diffusion 2",
    # Trained to use the last layer but one, through the final norm.
    text={"text_encoder": TextUse(layer=-2, pad=PAD_OPENCLIP)},
)
SDXL = replace(
    SD1,
    name="Stable Diffusion XL",
    native=1024,
    preferences=Preferences(steps=25, guidance=6.0),
    text={
        "text_encoder": TextUse(layer=-2, normed=False),
        "text_encoder_2": TextUse(layer=-2, normed=False, pooled=True, pad=PAD_OPENCLIP),
    },
    sizes="base",
    zero_empty=True,
)
REFINER = replace(
    SDXL,
    name="Stable Diffusion XL refiner",
    text={"text_encoder_2": SDXL.text["text_encoder_2"]},
    sizes="refiner",
    zero_empty=False,
)
SD3 = Family(
    "Stable Diffusion 3",
    process("flow"),
    FlowSchedule(3.0),
    latent_channels=16,
    native=1024,
    preferences=Preferences(steps=28, guidance=5.0, sampler="euler", schedule="simple"),
    text={
        "text_encoder": TextUse(layer=-2, normed=False, pooled=True),
        "text_encoder_2": TextUse(layer=-2, normed=False, pooled=True, pad=PAD_OPENCLIP),
    },
)
SCALING = {"Stable Diffusion XL": 0.13025, "Stable Diffusion XL refiner": 0.13025}
"""How latents are scaled where no config.json says it; 0.18215 elsewhere, SD 3 in its own way."""

# Per number of input channels: what it is for, what it needs.
_INPUTS_1 = {9: ("inpainting", "a picture and a mask"), 8: ("InstructPix2Pix", "a picture")}
_INPUTS_2 = {
    9: ("inpainting", "a picture and a mask"),
    5: ("depth", "a picture and its depth"),
    7: ("x4 upscaler", "a picture"),
}


@dataclass(frozen=True)
class Evidence:
    """What is known of a file besides shapes. metadata: its own, as text; beside: the text of a configuration file of
    the same name; read: a tensor by its name in the file's U-Net, or None; names: all tensors; file: its name."""

    metadata: Mapping[str, str]
    beside: str
    read: Callable[[str], Tensor | None]
    names: Sequence[str] = ()
    file: str = ""


def family_of(
    network: UNetConfig | MMDiTConfig, openclip: bool, encoders: int, evidence: Evidence
) -> tuple[Family, list[str]]:
    """The family of a model by its denoising network, whether an encoder in the file is OpenCLIP's, and how many there
    are; with notes on what was assumed."""
    if isinstance(network, MMDiTConfig):
        newer = network.qk_norm is not None
        name = "Stable Diffusion 3.5" if newer else SD3.name
        size = " medium" if network.dual_attention_layers or not newer else " large"
        family = replace(
            SD3, name=name + size, patch=network.patch_size, most_patches=network.pos_embed_max_size
        )
        return family, []
    family = _unet_family(network, openclip, encoders)
    if network.time_cond_proj_dim is not None:
        family = replace(family, embeds_guidance=True, preferences=_TOLD_GUIDANCE)
    return _with_prediction(_with_speed(family, evidence), network, evidence)


def _unet_family(network: UNetConfig, openclip: bool, encoders: int) -> Family:
    if network.addition_embed_type == "text_time":
        refiner = encoders == 1 or (not encoders and network.cross_attention_dim == 1280)
        return _for_inputs(REFINER if refiner else SDXL, network, _INPUTS_1)
    if not openclip and network.cross_attention_dim != 1024:
        return _for_inputs(SD1, network, _INPUTS_1)
    if network.class_embed_type == "projection":
        return replace(SD2, name="Stable Diffusion 2 unCLIP", native=768, needs="a picture to vary")
    return _for_inputs(SD2, network, _INPUTS_2)


def _for_inputs(family: Family, network: UNetConfig, known: Mapping[int, tuple[str, str]]) -> Family:
    if network.in_channels not in known:
        return family
    use, needs = known[network.in_channels]
    return replace(family, name=f"{family.name} {use}", needs=needs)


# A latent consistency model that is told the guidance scale (LCM Dreamshaper and its kin).
_TOLD_GUIDANCE = Preferences(steps=4, guidance=8.5, sampler="lcm", schedule="lcm")

# Words by which the makers of distilled models name their files, and how these are run.
_DISTILLED = (
    (r"turbo", Preferences(steps=1, guidance=1.0, sampler="euler_ancestral", schedule="trailing")),
    (r"lightning", Preferences(steps=4, guidance=1.0, sampler="euler", schedule="trailing")),
    (r"hyper[-_ ]?sd", Preferences(steps=8, guidance=1.0, sampler="euler", schedule="trailing")),
    (r"\blcm|lcm\b", Preferences(steps=4, guidance=1.0, sampler="lcm", schedule="lcm")),
)


def _with_speed(family: Family, evidence: Evidence) -> Family:
    """Most distilled models look like any other of their family; only what they are called tells."""
    if family.embeds_guidance:
        return family
    called = f"{evidence.file} {evidence.metadata.get('modelspec.title', '')}".lower()
    for word, preferences in _DISTILLED:
        if re.search(word, called):
            return replace(family, preferences=preferences)
    return family


def _with_prediction(family: Family, network: UNetConfig, evidence: Evidence) -> tuple[Family, list[str]]:
    """The family with what its network predicts, and how that was found."""
    notes = []
    if family.preferences in [preferences for _, preferences in _DISTILLED]:
        notes.append(f"its name says that it is distilled: {family.preferences.steps} steps without guidance")
    found, why = _prediction(family, evidence)
    if found is None:
        notes.append(f"predicts epsilon, as {family.name} does (assumed: nothing in the file says so)")
        return family, notes
    notes.append(f"predicts {found}: {why}")
    family = replace(family, process=process(found))
    if found == "v_prediction" and family.name == SD2.name:
        family = replace(family, native=768)
    if _zero_snr(evidence):
        family = replace(family, schedule=Discrete(zero_terminal_snr=True))
        notes.append("its noise schedule ends in pure noise (zero terminal SNR): the file says so")
    return family, notes


def _prediction(family: Family, evidence: Evidence) -> tuple[str | None, str]:
    """What the network predicts and how that is known; None where nothing says it."""
    if parameterization := re.search(r"parameterization:\s*[\"']?(eps|v)\b", evidence.beside):
        return process(parameterization[1]).name, "the configuration beside it says so"
    for key in ("modelspec.prediction_type", "prediction_type", "ss_v_parameterization"):
        said = evidence.metadata.get(key, "").lower()
        if said in ("v", "v_prediction", "true"):
            return "v_prediction", f"its metadata says so ({key})"
        if said in ("epsilon", "eps", "false"):
            return "epsilon", f"its metadata says so ({key})"
    if "v_pred" in evidence.names:
        return "v_prediction", "it holds the mark 'v_pred'"
    if family.name != SD2.name:
        return None, ""
    steps = {"875000": "epsilon", "220000": "epsilon", "110000": "v_prediction", "140000": "v_prediction"}
    if (step := evidence.metadata.get("global_step", "")) in steps:
        return steps[step], f"it was trained for {step} steps, as Stability's own"
    return _prediction_by_weights(evidence)


def _prediction_by_weights(evidence: Evidence) -> tuple[str | None, str]:
    """Both kinds of Stable Diffusion 2 have the same shapes, but in the v-prediction ones the last transformer's first
    norm grew a much wider bias (what ComfyUI goes by, too)."""
    for name in ("output_blocks.11.1", "up_blocks.3.attentions.2"):
        bias = evidence.read(f"{name}.transformer_blocks.0.norm1.bias")
        if bias is not None:
            spread = bias.float().std().item()
            kind = "v_prediction" if spread > 0.09 else "epsilon"
            return (
                kind,
                f"judged by its weights (the last norm's bias spreads by {spread:.3f}; v is above 0.09)",
            )
    return None, ""


def _zero_snr(evidence: Evidence) -> bool:
    said = evidence.metadata.get("ss_zero_terminal_snr", "").lower() == "true"
    return said or "ztsnr" in evidence.names
