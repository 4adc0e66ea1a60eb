"""Which layer a key of an adapter's file means.

Trainers name a layer after the code that they were written for: as the Hugging Face folders do, or as the model's
authors do, with dots or with underscores, behind a prefix that says which network. So a table of all spellings is made
from the network itself, with the rules that read its files (`darkroom.checkpoint.components`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from darkroom.checkpoint.blocks import BASE, blocks_of
from darkroom.checkpoint.components import ORIGINAL, component_of
from darkroom.checkpoint.rules import SAME, Change
from darkroom.networks.roles import Role


@dataclass(frozen=True)
class Place:
    """A layer that a file may name: one of a network, or several that the file's author keeps as one (the queries, keys
    and values), and how those are made of it. `role` is the network, `block` where in it, as in IN04, M00, OUT11."""

    role: Role
    layers: tuple[str, ...]
    change: Change = SAME
    block: str = BASE


PREFIXES: Mapping[str, tuple[str, ...]] = {
    "denoiser": (
        "lora_unet_",
        "lora_transformer_",
        "oft_unet_",
        "unet.",
        "transformer.",
        "model.diffusion_model.",
        "diffusion_model.",
    ),
    Role.TEXT_ENCODER: (
        "lora_te_model_",
        "lora_te_",
        "lora_te1_",
        "text_encoder.",
        "text_encoders.clip_l.transformer.",
        "text_encoders.clip_h.transformer.",
        "clip_l.",
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
    ),
    Role.TEXT_ENCODER_2: (
        "lora_te2_",
        "text_encoder_2.",
        "text_encoders.clip_g.transformer.",
        "clip_g.",
        "conditioner.embedders.1.model.",
    ),
    Role.TEXT_ENCODER_3: ("lora_te3_", "text_encoder_3.", "text_encoders.t5xxl.transformer.", "t5."),
}
"""What stands before a layer's name, by network; "denoiser" is the U-Net or the MMDiT. The first that fits counts."""

_ANY = "lycoris_"
"""What LyCORIS's own wrapper puts before the layers of whatever network it was given."""
_PEFT = "base_model.model."
"""What PEFT puts before everything, with or without another prefix on either side."""


def prefixed(key: str) -> tuple[str, str]:
    """The network that a key's prefix says, "" where it says none, and the rest of the key."""
    key = key.removeprefix(_PEFT)
    for role, prefixes in PREFIXES.items():
        for prefix in prefixes:
            if key.startswith(prefix):
                return role, key.removeprefix(prefix).removeprefix(_PEFT)
    return "", key.removeprefix(_ANY)


def spelt(layer: str) -> str:
    """A layer's name in the one spelling of the table: older diffusers name the processor that held the matrices."""
    return layer.replace(".processor.", ".").replace(".", "_")


def places(network: nn.Module, role: Role) -> dict[str, Place]:
    """The layers of a network by all the names that adapters' files may give them (see `spelt`)."""
    found: dict[str, Place] = {}
    ours = [name for name, module in network.named_modules() if dict(module.named_parameters(recurse=False))]
    originals = component_of(type(network)).rules(network, ORIGINAL)
    blocks = blocks_of(network)
    fused: list[tuple[str, tuple[str, ...], Change]] = []
    for rule in originals:
        theirs, _, leaf = rule.theirs.rpartition(".")
        layers = tuple(name.rpartition(".")[0] for name in rule.ours)
        if leaf == "weight" and all(name.endswith(".weight") for name in rule.ours):
            fused.append((theirs, layers, rule.change))
    for layer in ours:
        place = Place(role, (layer,), block=blocks.get(layer, BASE))
        for name in _variants(layer):
            found.setdefault(spelt(name), place)
    for theirs, layers, change in fused:
        found.setdefault(spelt(theirs), Place(role, layers, change, blocks.get(layers[0], BASE)))
    return found


def _variants(layer: str) -> list[str]:
    """A layer's names in our own layout, from today's to those that older releases used."""
    names = [layer, layer.removesuffix(".0")] if layer.endswith("to_out.0") else [layer]
    for old, new in (("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("out_proj", "to_out")):
        if layer.endswith(f"self_attn.{old}"):
            names.append(f"{layer.removesuffix(old)}{new}")
    return [*names, *(name.removeprefix("text_model.") for name in names if name.startswith("text_model."))]
