"""A model as it lies on disk with all that it is loaded with: other parts, a refiner, the others of an ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.source import Source, noted
from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation.ensemble import Member, parse_member
from darkroom.library.locate import OF_A_VAE, OF_PARTS, locate, name_of


@contextmanager
def open_model(
    model: str | Path,
    *,
    vae: str | Path | None = None,
    others: Sequence[str | Path] = (),
    prediction: str | None = None,
    zero_snr: bool | None = None,
    variant: str | None = None,
    t5: bool = True,
    refiner: str | Path | None = None,
    ensemble: Sequence[str] = (),
) -> Iterator[tuple[str, Source, Source | None, list[tuple[Source, Member]]]]:
    """A model's name, what it is on disk, its refiner, and the others of an ensemble, their files open; the arguments
    are those of `load`."""
    check_name("model", model)
    for what, one in {"vae": vae, "refiner": refiner}.items():
        if one is not None:
            check_name(what, one)
    for what, several in {"others": others, "ensemble": ensemble}.items():
        check_names(what, several)
    for what, truth in {"t5": t5, "zero_snr": zero_snr or False}.items():
        if truth not in (True, False):
            raise InvalidRequest(f"{what} is {truth!r}: give True or False")
    path = locate(model)
    with ExitStack() as opened:
        source = open_source(
            path,
            prediction=prediction,
            zero_snr=zero_snr,
            variant=variant,
            t5=t5,
            others=[locate(each, *OF_PARTS) for each in others],
            vae=None if vae is None else locate(vae, *OF_A_VAE),
        )
        opened.push(source)
        source = noted(source)
        refining = None
        if refiner is not None:
            refining = opened.enter_context(open_source(locate(refiner), variant=variant))
            check_refiner(refining, source)
        members = []
        for member in map(parse_member, ensemble):
            other = opened.enter_context(open_source(locate(member.name), variant=variant, t5=t5))
            check_member(other, source)
            members.append((other, member))
        yield name_of(path), source, refining, members


def check_name(what: str, given: object) -> None:
    """Raises InvalidRequest for what is no name and no path."""
    if not isinstance(given, str | Path):
        raise InvalidRequest(f"{what} is {given!r}: give a name, a folder or a file")


def check_names(what: str, given: object) -> None:
    """Raises InvalidRequest for what is no list of names or paths; one name alone is none."""
    if not isinstance(given, list | tuple) or not all(isinstance(each, str | Path) for each in given):
        raise InvalidRequest(f"{what} is {given!r}: give a list of names or paths")


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
    if refiner.denoiser.config.in_channels != base.denoiser.config.in_channels:
        raise ModelError(
            f"{refiner.path} works on {refiner.denoiser.config.in_channels} channels, {base.path} makes "
            f"{base.denoiser.config.in_channels}: give a refiner of the same latents"
        )
    if theirs.schedule != ours.schedule:
        raise ModelError(
            f"{refiner.path} was trained on another noise schedule than {base.path}: give one that fits it"
        )
