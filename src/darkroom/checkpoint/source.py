"""A model as it lies on disk, whatever its layout: which networks, where their tensors are, how they are to be used.

`darkroom.checkpoint.opening` makes one of a file or folder, `darkroom.checkpoint.load` fills networks from it,
`darkroom.checkpoint.export` writes it in another layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.checkpoint.components import HUGGING_FACE, Component
from darkroom.checkpoint.family import Family
from darkroom.checkpoint.infer import Found, networks_in, within
from darkroom.checkpoint.rules import Rule
from darkroom.errors import ModelError
from darkroom.networks.roles import DENOISERS, LOOKERS, Role
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.weights.mapped import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """One network of a model: what it is, its dimensions (`described` is the file that gives them, if any), and the
    file that holds its tensors, whose names begin with `prefix` and are of a layout. `change` makes others of them,
    given the network's name of each, as they are read."""

    role: Role
    component: Component
    config: Any
    weights: WeightsFile
    prefix: str = ""
    layout: str = HUGGING_FACE
    described: Path | None = None
    change: Callable[[str, Tensor], Tensor] | None = None

    def build(self) -> nn.Module:
        """The network on the meta device, where it costs nothing."""
        with self._sensible():
            return self.component.build(self.config)

    def parameters(self) -> int:
        """How many the network has by its dimensions, whatever the file holds."""
        with self._sensible():
            return self.component.parameters(self.config)

    @contextmanager
    def _sensible(self) -> Iterator[None]:
        """A ModelError where the dimensions fit no network, which shows wherever something first stumbles over it."""
        try:
            yield
        except Exception as error:
            where = self.described or self.weights.path
            raise ModelError(f"{where} describes no {self.role} that can be built: {error}") from error

    def _own(self) -> dict[str, str]:
        """What lies under the prefix, each tensor once: today's name of it, and the one it has in the file behind the
        prefix."""
        own = within(self.weights.entries, self.prefix)
        return {self.component.today(name) if self.layout == HUGGING_FACE else name: name for name in own}

    def stored(self) -> list[str]:
        """The names in the file of all that lies under the prefix and has a place in a network."""
        return [name for own in self._own().values() if not _is_any(name := self.prefix + own, _AMONG)]

    def names(self) -> list[str]:
        """The names in the file of all that the network is made of. Raises ModelError naming what is missing.

        Imports torch only where what is stored does not come to what a network of these dimensions has, not even
        without the rest of what it may have been taken from.
        """
        stored, computed = self.stored(), {self.prefix + name for name in self.component.computed}
        for names in (stored, [name for name in stored if not _is_any(name, _AROUND)]):
            held = sum(math.prod(self.weights.entries[name].shape) for name in names if name not in computed)
            if held == self.parameters():
                return names
        return [self.prefix + rule.theirs for rule in self.rules(self.build())]

    def files(self) -> list[Path]:
        """The files of its weights: one, or the shards."""
        return [file.path for file in self.weights.files]

    def rules(self, network: nn.Module) -> list[Rule]:
        """How each of the network's tensors comes from one of the file's. Raises ModelError naming what is missing."""
        own, computed = self._own(), self.component.computed
        rules = self.component.rules(network, self.layout)
        missing = [rule.theirs for rule in rules if rule.theirs not in own and rule.ours[0] not in computed]
        if missing:
            raise ModelError(
                f"{self.weights.path} lacks {', '.join(self.prefix + name for name in sorted(missing)[:3])} "
                f"({len(missing)} in all): it is incomplete, or its {self.role} is another model's"
            )
        return [replace(rule, theirs=own[rule.theirs]) for rule in rules if rule.theirs in own]

    def read(self, rule: Rule) -> dict[str, Tensor]:
        """The tensors of ours that a rule gives, as the file has them."""
        found = rule.read(self.weights.get(self.prefix + rule.theirs))
        return (
            found if self.change is None else {name: self.change(name, each) for name, each in found.items()}
        )


@dataclass(frozen=True)
class Source:
    """A model on disk. tokenizers: each encoder's own, or its folder, where there is one;
    notes: what was assumed, in words; scheduler, extra: what scheduler_config.json and darkroom.json hold, if any;
    damaged: what is wrong with networks of its own that could not be read and that others may replace."""

    path: Path
    parts: dict[Role, Part]
    family: Family
    tokenizers: Mapping[Role, Path | Tokenizer] = field(default_factory=dict)
    notes: Sequence[str] = ()
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    damaged: Mapping[Role, ModelError] = field(default_factory=dict)

    def close(self) -> None:
        """Let go of the files; networks that were loaded from them stay."""
        for part in self.parts.values():
            part.weights.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def denoiser(self) -> Part:
        """The U-Net or the MMDiT."""
        if (found := denoiser_of(self.parts)) is None:
            raise ModelError(f"{self.path} holds no U-Net and no MMDiT: it is {', '.join(self.parts)} alone")
        return found

    @property
    def expert_roles(self) -> list[Role]:
        """The networks that make latents: all that is needed of a refiner."""
        t5 = [role for role in (Role.TEXT_ENCODER_3,) if role in self.parts and role in self.tokenizers]
        return [self.denoiser.role, *self.family.text, *t5]

    @property
    def roles(self) -> list[Role]:
        """The networks that make pictures."""
        return [*self.expert_roles, Role.VAE, *(LOOKERS if self.family.looks else ())]

    def build(self) -> dict[Role, nn.Module]:
        """Its networks by their roles, on the meta device (see `Part.build`)."""
        return {role: part.build() for role, part in self.parts.items()}

    def files(self) -> dict[Role, list[Path]]:
        """The weights files of each part: one, or the shards."""
        return {role: part.files() for role, part in self.parts.items()}


def denoiser_of(parts: Mapping[Role, Part]) -> Part | None:
    """The U-Net or the MMDiT among some parts, if there is one."""
    return next((parts[role] for role in DENOISERS if role in parts), None)


# What lies among a network's tensors and is none of them, by what it is.
_AMONG = {
    "position numbers": r".*\b(position_ids|attn_mask)$",
    "the scale of CLIP's training": r".*\blogit_scale$",
}
# The rest of what a network was taken from.
_AROUND = {
    "the projection of a text encoder whose end state is not used": r".*\btext_projection(\.weight)?$",
    "the image side of CLIP": r".*\b(visual|vision_model|visual_projection)\.",
    "the other half of T5": r"(.*\.)?(decoder\.(block|final_layer_norm|embed_tokens)|lm_head|encoder\.embed_tokens)\.",
    "the other half of llama.cpp's T5": r"dec\.",
}
# Tensors of single files that no network needs, if none has claimed them.
_LEFT_ALONE = {
    **_AMONG,
    **_AROUND,
    "averages of training": r"model_ema\.",
    "the noise schedule": r"(alphas|betas|log_one_minus|sqrt_|posterior_|logvar|lvlb_weights|denoiser\.|scale_factor)",
    "marks": r"(v_pred|ztsnr|edm_mean|edm_std|edm_vpred\.sigma_)",
    "the unused last layer of OpenCLIP": r".*\.transformer\.resblocks\.\d+\.",
    "training state": r"(optimizer|lr_scheduler|loss\b|.*\.loss\.|global_step)",
    "the image side of unCLIP": r"(noise_augmentor|embedder)\.",
    "the depth estimator": r"depth_model\.",
    "the upscaler's noise schedule": r"low_scale_model\.",
}


def leftovers(source: Source) -> tuple[list[str], list[str]]:
    """The tensors of the model's own file or folder that none of its networks is made of: those that are left alone
    by everybody, and those that there is no reason for.

    The tensors of a network whose place another file's has taken are neither. Raises ModelError naming what a network
    lacks.
    """
    usual: list[str] = []
    strange: list[str] = []
    for weights in {part.weights.path: part.weights for part in source.parts.values()}.values():
        if not weights.path.is_relative_to(source.path):
            continue
        own = [part for part in source.parts.values() if part.weights is weights]
        left = weights.entries.keys() - {name for part in own for name in part.names()}
        usual += [name for name in left if _is_any(name, _LEFT_ALONE)]
        unclaimed = [name for name in left if not _is_any(name, _LEFT_ALONE)]
        if unclaimed:
            taken = {part.prefix for part in own}
            replaced = [each.prefix for each in networks_in(weights.shapes) if each.prefix not in taken]
            strange += [name for name in unclaimed if not name.startswith(tuple(replaced))]
    return sorted(usual), sorted(strange)


def noted(source: Source) -> Source:
    """The model with a note of the tensors in its files that nobody knows a use for, where there are any."""
    _, strange = leftovers(source)
    if not strange:
        return source
    first = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
    words = f"{len(strange)} tensors that no network of {source.family.name} has are left out: {first}"
    return replace(source, notes=[*source.notes, words])


def _is_any(name: str, sorts: Mapping[str, str]) -> bool:
    return any(re.match(pattern, name) for pattern in sorts.values())


def part_of(role: Role, found: Found, weights: WeightsFile, said: Mapping[str, Any] | None = None) -> Part:
    """A network that was found, with the dimensions that its file states, else those of its shapes."""
    stated = (said or {}).get(role)
    try:
        config = found.config if stated is None else found.component.read(stated)
    except (ModelError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{weights.path}: the dimensions of its {role} make no sense: {error}") from error
    described = None if stated is None else weights.path
    return Part(role, found.component, config, weights, found.prefix, found.layout, described)
