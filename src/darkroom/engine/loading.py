"""A model on disk as networks ready for an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from darkroom.checkpoint.load import Progress, readers
from darkroom.checkpoint.source import Source
from darkroom.engine.devices import Placement, keep_freed_memory, return_freed_memory
from darkroom.engine.looking import Looker
from darkroom.engine.memory import MODES, Memory, Room, seated
from darkroom.engine.networks import Expert, LatentDiffusion
from darkroom.errors import ModelError
from darkroom.networks import CLIPText, T5Encoder
from darkroom.networks.roles import LOOKERS, Role
from darkroom.prompt import ClipText, T5Text, T5Tokenizer, TextConditioner, Tokenizer


def networks_of(
    source: Source,
    placement: Placement,
    refiner: Source | None = None,
    memory: Memory = MODES["full"],
    progress: Progress | None = None,
    members: Sequence[Source] = (),
) -> LatentDiffusion:
    """The networks of a model on disk, of others beside it and of its refiner, ready for an engine. Raises ModelError
    where one is missing.

    Where `memory` has some of them come and go, their files must stay open for as long as they are used.
    """
    if placement.device.type == "cpu":
        _tune_allocator(memory)
    room = Room()

    def seat(source: Source, roles: Sequence[Role]) -> dict[Role, Any]:
        return dict(seated(readers(source, placement.device, placement.dtype, roles), memory, room, progress))

    networks = seat(source, source.roles)
    experts = [_expert(source, networks, placement)]
    experts += [_expert(each, seat(each, each.expert_roles), placement) for each in members]
    if refiner is not None:
        experts.append(_expert(refiner, seat(refiner, refiner.expert_roles), placement))
    looker = Looker(*(networks[role] for role in LOOKERS)) if source.family.looks else None
    return LatentDiffusion(tuple(experts), networks[Role.VAE], placement, memory, looker)


def _expert(source: Source, networks: Mapping[Role, Any], placement: Placement) -> Expert:
    return Expert(conditioner_of(source, networks, placement.device), networks[source.denoiser.role])


def conditioner_of(source: Source, networks: Mapping[Role, Any], device: torch.device) -> TextConditioner:
    """What turns texts into what a model's network is told, with its networks by their roles."""
    clips = []
    for role, use in source.family.text.items():
        encoder = networks[role]
        assert isinstance(encoder, CLIPText)
        own = source.tokenizers.get(role)
        tokenizer = Tokenizer.load(own) if isinstance(own, Path) else own or Tokenizer.clip(use.pad)
        _check_words(source, role, tokenizer, encoder)
        clips.append(ClipText(tokenizer, encoder, use, role))
    joint = getattr(source.denoiser.config, "joint_attention_dim", None)
    t5, folder = networks.get(Role.TEXT_ENCODER_3), source.tokenizers.get(Role.TEXT_ENCODER_3)
    if isinstance(t5, T5Encoder) and isinstance(folder, Path):
        return TextConditioner(clips, joint, T5Text(T5Tokenizer.load(folder), t5), device)
    return TextConditioner(clips, joint, device=device)


def _check_words(source: Source, role: Role, tokenizer: Tokenizer, encoder: CLIPText) -> None:
    rows = encoder.config.vocab_size
    if beyond := [each.content for each in tokenizer.added if each.id >= rows]:
        raise ModelError(
            f"{source.path}: its {role.tokenizer} knows {', '.join(beyond[:3])} ({len(beyond)} added words), for which "
            f"its {role} has no vectors ({rows} in all): give the two that belong together"
        )


def _tune_allocator(mode: Memory) -> None:
    if mode.denoiser == "stream":
        return_freed_memory()
    elif not mode.comes_and_goes:
        keep_freed_memory()
