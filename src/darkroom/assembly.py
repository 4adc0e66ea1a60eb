"""A model as it lies on disk with all that it is loaded with: other parts, a refiner, the others of an ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from darkroom.checkpoint.family import DEPTH
from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.source import Source, noted
from darkroom.errors import ModelError
from darkroom.generation.ensemble import Member, parse_member
from darkroom.generation.request import Request
from darkroom.generation.settle import settle
from darkroom.library.locate import OF_A_VAE, OF_PARTS, locate, name_of
from darkroom.loading import Loading, Options


@dataclass(frozen=True)
class Opened:
    """A model on disk, its files open: its name, its parts, its refiner, the others of an ensemble; and where its
    autoencoder and the parts beside it were found, if they are others than its own."""

    name: str
    source: Source
    refiner: Source | None = None
    members: Sequence[tuple[Source, Member]] = ()
    vae: Path | None = None
    others: Sequence[Path] = ()

    def settle(self, request: Request) -> Request:
        """A request settled for it (`darkroom.generation.settle`)."""
        return settle(request, self.source.family, self.name, self.refiner is not None)

    def usual(self) -> Request:
        """A request of a picture of the native size, begun with a grey one where the model needs that."""
        family, prompt = self.source.family, Request(prompt="")
        if not family.sees_pictures:
            return prompt
        side = family.native // family.enlarges
        grey = np.full((side, side, 3), 128, np.uint8)
        return prompt.replace(image=grey, depth=grey if family.needs == DEPTH else None)


@contextmanager
def open_model(model: str | Path | Loading, **options: Unpack[Options]) -> Iterator[Opened]:
    """What `load` would load, read as far as its headers. Raises ModelError for what is missing or does not fit."""
    loading = Loading.of(model, **options)
    path = locate(loading.model)
    vae = None if loading.vae is None else locate(loading.vae, *OF_A_VAE)
    others = [locate(each, *OF_PARTS) for each in loading.others]
    with ExitStack() as opened:
        source = open_source(
            path,
            prediction=loading.prediction,
            zero_snr=loading.zero_snr,
            variant=loading.variant,
            t5=loading.t5,
            others=others,
            vae=vae,
        )
        opened.push(source)
        source = noted(source)
        refiner = None
        if loading.refiner is not None:
            refiner = opened.enter_context(open_source(locate(loading.refiner), variant=loading.variant))
            check_refiner(refiner, source)
        members = []
        for member in map(parse_member, loading.ensemble):
            other = open_source(locate(member.name), variant=loading.variant, t5=loading.t5)
            opened.push(other)
            check_member(other, source)
            members.append((other, member))
        yield Opened(name_of(path), source, refiner, members, vae, others)


def check_member(other: Source, base: Source) -> None:
    """Raises ModelError where two models cannot make a picture together."""
    for what, ours, theirs in (
        ("channels of latents", base.denoiser.config.in_channels, other.denoiser.config.in_channels),
        ("noise schedule", base.family.schedule, other.family.schedule),
        ("use", base.family.needs, other.family.needs),
    ):
        if ours != theirs:
            raise ModelError(
                f"{other.path} ({other.family.name}) makes no picture with {base.path} ({base.family.name}): they "
                f"differ in {what}, give one of its family"
            )


def check_refiner(refiner: Source, base: Source) -> None:
    """Raises ModelError where one model cannot finish what another began."""
    ours, theirs = base.family, refiner.family
    if ours.sizes != "base":
        raise ModelError(
            f"{base.path} is {ours.name}: a refiner goes with Stable Diffusion XL's base, load it without"
        )
    if not theirs.sizes or theirs.needs:
        raise ModelError(
            f"{refiner.path} is {theirs.name}: it cannot refine what {ours.name} draws, give an XL refiner"
        )
    if refiner.denoiser.config.in_channels != ours.latent_channels:
        raise ModelError(
            f"{refiner.path} works on {refiner.denoiser.config.in_channels} channels, {base.path} makes "
            f"{ours.latent_channels}: give a refiner of the same latents"
        )
    if theirs.schedule != ours.schedule:
        raise ModelError(
            f"{refiner.path} was trained on another noise schedule than {base.path}: give one that fits it"
        )
