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
from darkroom.checkpoint.family import Family, Preferences, Shapes
from darkroom.diffusion import Discrete, process
from darkroom.networks.configs import MMDiTConfig


@dataclass(frozen=True)
class Evidence:
    """What is known of a file besides shapes. metadata: its own, as text; beside: the text of a configuration file of
    the same name; read: the numbers of a tensor of its U-Net, or None; names: all tensors; file: its own."""

    metadata: Mapping[str, str]
    beside: str
    read: Callable[[str], NDArray[np.float32] | None]
    names: Sequence[str] = ()
    file: str = ""


def family_of(shapes: Shapes, evidence: Evidence) -> tuple[Family, list[str]]:
    """The family of a model by its shapes, with what the evidence says; and notes on what was assumed."""
    family = next(each for each in FAMILIES if each.recognised(shapes))
    network = shapes.network
    if isinstance(network, MMDiTConfig):
        return replace(family, patch=network.patch_size, most_patches=network.pos_embed_max_size), []
    family = family.with_channels(network.in_channels)
    if network.time_cond_proj_dim is not None:
        family = replace(family, embeds_guidance=True, preferences=_TOLD_GUIDANCE)
    return _with_prediction(_with_speed(family, evidence), evidence)


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


def _with_prediction(family: Family, evidence: Evidence) -> tuple[Family, list[str]]:
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
    if found == "v_prediction" and family.id == SD2.id:
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
    if family.id != SD2.id:
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
            spread = bias.std(ddof=1)
            kind = "v_prediction" if spread > 0.09 else "epsilon"
            return (
                kind,
                f"judged by its weights (the last norm's bias spreads by {spread:.3f}; v is above 0.09)",
            )
    return None, ""


def _zero_snr(evidence: Evidence) -> bool:
    said = evidence.metadata.get("ss_zero_terminal_snr", "").lower() == "true"
    return said or "ztsnr" in evidence.names
