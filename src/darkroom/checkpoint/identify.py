"""Which family a model belongs to, and what was assumed on the way.

Shapes tell the family. What they leave open is looked for in the file's metadata, in a configuration beside it and,
for Stable Diffusion 2, in the weights; what is found nowhere is the family's usual value. Every such step is noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from darkroom.checkpoint.families import FAMILIES, SD2
from darkroom.checkpoint.family import Family, Shapes
from darkroom.checkpoint.foreign import OTHER_NOISE
from darkroom.checkpoint.preferences import Preferences
from darkroom.diffusion import Discrete, process
from darkroom.errors import UnsupportedModel
from darkroom.networks.configs import MMDiTConfig


@dataclass(frozen=True)
class Evidence:
    """What is known of a file besides shapes. metadata: its own, as text; beside: the text of a configuration file of
    the same name; read: the numbers of a tensor of its U-Net, or None; names: all tensors."""

    metadata: Mapping[str, str]
    beside: str
    read: Callable[[str], NDArray[np.float32] | None]
    names: Sequence[str] = ()


ZERO_SNR_NOTE = "its noise schedule ends in pure noise (zero terminal SNR): the file says so"

# Marks of models with Stable Diffusion XL's shapes that were trained on other noise (Karras et al. 2022).
_EDM = {
    "edm_vpred.sigma_max": "an EDM model such as CosXL",
    "edm_vpred.sigma_min": "an EDM model such as CosXL",
    "edm_mean": "an EDM model such as Playground v2.5",
    "edm_std": "an EDM model such as Playground v2.5",
}


def family_of(shapes: Shapes, evidence: Evidence) -> tuple[Family, list[str]]:
    """The family of a model by its shapes, with what the evidence says; and notes on what was assumed. Raises
    UnsupportedModel for one that was trained on noise of another kind."""
    family = next(each for each in FAMILIES if each.recognised(shapes))
    network = shapes.network
    if isinstance(network, MMDiTConfig):
        return replace(family, patch=network.patch_size, most_patches=network.pos_embed_max_size), []
    family = family.with_channels(network.in_channels)
    if network.time_cond_proj_dim is not None:
        family = replace(family, embeds_guidance=True, preferences=_TOLD_GUIDANCE)
    return _with_prediction(family, evidence)


# A latent consistency model that is told the guidance scale (LCM Dreamshaper and its kin).
_TOLD_GUIDANCE = Preferences(steps=4, guidance=8.5, sampler="lcm", schedule="lcm")


def _with_prediction(family: Family, evidence: Evidence) -> tuple[Family, list[str]]:
    """The family with what its network predicts, and how that was found."""
    notes = []
    if marks := [name for name in evidence.names if name in _EDM]:
        raise UnsupportedModel(f"is {_EDM[marks[0]]} (it holds {marks[0]}), {OTHER_NOISE}")
    found, why = _prediction(family, evidence)
    if found == "edm":
        raise UnsupportedModel(f"was trained on the noise of EDM ({why}), {OTHER_NOISE}")
    if found is None and _zero_snr(evidence):
        found, why = "v_prediction", "assumed, as it learned from pure noise, of which epsilon says nothing"
    if found is None:
        notes.append(
            f"predicts {family.process.name}, as {family.name} does (assumed: nothing in the file says so)"
        )
        return family, notes
    notes.append(f"predicts {found}: {why}")
    family = replace(family, process=process(found))
    if found == "v_prediction" and family.id == SD2.id:
        family = replace(family, native=768)
    if _zero_snr(evidence) and found == "epsilon":
        notes.append(
            "is marked for zero terminal SNR, of which a network that predicts the noise learns nothing: left out"
        )
    elif _zero_snr(evidence):
        family = replace(family, schedule=Discrete(zero_terminal_snr=True))
        notes.append(ZERO_SNR_NOTE)
    return family, notes


# What configurations beside a model say of its prediction: those of latent diffusion and of sgm (YAML), of diffusers,
# kohya's scripts and model specs (JSON), what Civitai calls the bases of Stable Diffusion 2.
_SAID_BESIDE = (
    r"\b(?:ss_)?(?:v_)?(?:parameterization|prediction(?:_type)?|predict_key)[\"']?\s*[:=]\s*[\"']?([\w-]+)",
    r"denoiser_scaling\.(\w+)",
    r"\"baseModel\"\s*:\s*\"(SD 2\.\d 768)\"",
)
_SAID_WITHIN = (
    "modelspec.prediction_type",
    "modelspec.predict_key",
    "prediction_type",
    "ss_v_parameterization",
    "v_parameterization",
    "parameterization",
    "prediction",
)
_WORDS = {
    "v_prediction": r"v|vpred|v_pred|v_prediction|velocity|true|1|vscaling|sd 2\.\d 768",
    "epsilon": r"eps|epsilon|false|epsscaling",
    "sample": r"sample|x0|x_start",
    "edm": r"edm\w*|vscalingwithedmcnoise",
}


_ZERO_SNR = r"\b(rescale_betas_zero_snr|(?:ss_)?zero_terminal_snr|ztsnr|zsnr)[\"']?\s*[:=]\s*[\"']?true"


def _prediction(family: Family, evidence: Evidence) -> tuple[str | None, str]:
    """What the network predicts and how that is known; None where nothing says it."""
    for pattern in _SAID_BESIDE:
        for word in re.findall(pattern, evidence.beside):
            if said := _understood(word):
                return said, "the configuration beside it says so"
    for key in _SAID_WITHIN:
        if said := _understood(evidence.metadata.get(key, "")):
            return said, f"its metadata says so ({key})"
    if "v_pred" in evidence.names:
        return "v_prediction", "it holds the mark 'v_pred'"
    if family.id != SD2.id:
        return None, ""
    steps = {"875000": "epsilon", "220000": "epsilon", "110000": "v_prediction", "140000": "v_prediction"}
    if (step := evidence.metadata.get("global_step", "")) in steps:
        return steps[step], f"it was trained for {step} steps, as Stability's own"
    return _prediction_by_weights(evidence)


def _understood(word: str) -> str | None:
    plain = word.strip().lower().replace("-", "_")
    return next((kind for kind, words in _WORDS.items() if re.fullmatch(words, plain)), None)


def _prediction_by_weights(evidence: Evidence) -> tuple[str | None, str]:
    """Both kinds of Stable Diffusion 2 have the same shapes, but in the v-prediction ones the last transformer's first
    norm grew a much wider bias (what ComfyUI goes by, too)."""
    for name in ("output_blocks.11.1", "up_blocks.3.attentions.2"):
        bias = evidence.read(f"{name}.transformer_blocks.0.norm1.bias")
        if bias is not None:
            spread = bias.std(ddof=1)
            kind = "v_prediction" if spread > 0.09 else "epsilon"
            return (
                kind,
                f"judged by its weights (the last norm's bias spreads by {spread:.3f}; v is above 0.09)",
            )
    return None, ""


def _zero_snr(evidence: Evidence) -> bool:
    beside = re.search(_ZERO_SNR, evidence.beside, re.IGNORECASE)
    said = evidence.metadata.get("ss_zero_terminal_snr", "").lower() == "true"
    return said or beside is not None or "ztsnr" in evidence.names
