"""What a model is loaded with: the files that it is made of, and where and how it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from darkroom.errors import InvalidRequest, nearest
from darkroom.generation.checks import a_truth, checked, setting

if TYPE_CHECKING:
    import torch


MEMORY = ("full", "medium", "low", "lowest")
"""How models use memory, by name (`darkroom.engine.memory`)."""


def _a_name(name: str, given: object) -> str:
    """Checks a name or a path."""
    if not isinstance(given, str | Path):
        raise InvalidRequest(f"{name} is {given!r}: give a name, a folder or a file")
    return str(given)


def _some_names(name: str, given: object) -> tuple[str, ...]:
    """Checks a list of names or paths; one name alone is none."""
    if not isinstance(given, list | tuple) or not all(isinstance(each, str | Path) for each in given):
        raise InvalidRequest(f"{name} is {given!r}: give a list of names or paths")
    return tuple(map(str, given))


def _a_word(name: str, given: object) -> str:
    """Checks a text, or torch's own device or type; which there are is known where they are used."""
    if not isinstance(given, str) and type(given).__module__ != "torch":
        raise InvalidRequest(f"{name} is {given!r}: give it as text")
    return str(given).removeprefix("torch.")


@dataclass(frozen=True)
class Loading:
    """What a model is loaded with, for `load`, for the command line, and in a picture's file.

    None means: as the model or the machine has it. Once `checked` it is plain data: texts, truths and tuples of texts.
    """

    model: str | Path = setting(
        "pocket", _a_name, "a name (see 'darkroom models'), a folder or a file (default: pocket)", sign="NAME"
    )
    vae: str | Path | None = setting(
        None, _a_name, "use this autoencoder (a name, a file, a folder) instead of the model's", sign="PATH"
    )
    others: tuple[str | Path, ...] = setting(
        (),
        _some_names,
        "a name or a file with parts that the model's lacks, such as text encoders",
        each="with",
        sign="FILE",
    )
    prediction: str | None = setting(
        None,
        _a_word,
        "what the model predicts, if its file does not say: epsilon, v_prediction",
        sign="WHAT",
    )
    zero_snr: bool | None = setting(
        None, a_truth, "whether the model's noise schedule ends in pure noise, if its file does not say"
    )
    refiner: str | Path | None = setting(
        None, _a_name, "a second model of Stable Diffusion XL, which makes the last steps", sign="PATH"
    )
    ensemble: tuple[str, ...] = setting(
        (),
        _some_names,
        "another model that makes steps with this one: MODEL:0.3 averages, MODEL:1:start=0.5 goes on from half the "
        "way, MODEL:1:every=2 takes turns",
        each="ensemble",
        sign="MODEL[:...]",
    )
    fuse: tuple[str, ...] = setting(
        (),
        _some_names,
        "write a LoRA into the weights while loading: pictures take no longer than without it",
        each="fuse",
    )
    variant: str | None = setting(
        None, _a_word, "which of a folder's files to read: fp16, bf16, ...", sign="WHICH"
    )
    t5: bool = setting(
        True,
        a_truth,
        "whether Stable Diffusion 3 reads prompts with its largest text encoder, too (default: it does)",
    )
    device: str | torch.device | None = setting(
        None, _a_word, "cpu, cuda, cuda:1, mps or whatever torch offers (default: the best)", sign="NAME"
    )
    precision: str | torch.dtype | None = setting(
        None, _a_word, "float32, bfloat16 or float16 (default: what suits the device)", sign="NAME"
    )
    memory: str = setting(
        "full",
        _a_word,
        "full, medium, low or lowest, the less the slower; or what there is of it, such as 8GB (default: full; see "
        "'darkroom plan')",
        sign="HOW",
    )

    def checked(self) -> Loading:
        """Its values as plain data; InvalidRequest for what cannot be a name, a list or a truth."""
        return Loading(**checked(self))

    @classmethod
    def of(cls, model: str | Path | Loading, **options: Unpack[Options]) -> Loading:
        """A model and what it is loaded with besides, checked; the options go before those of a `Loading`."""
        if unknown := [name for name in options if name not in LOADING]:
            raise InvalidRequest(f"unknown option {unknown[0]!r} of loading: {nearest(unknown[0], LOADING)}")
        base = model if isinstance(model, Loading) else cls(model)
        return dataclasses.replace(base, **options).checked()  # type: ignore[arg-type] # Lists become tuples.


class Options(TypedDict, total=False):
    """The options of `Loading` beside the model, as keywords."""

    vae: str | Path | None
    others: Sequence[str | Path]
    prediction: str | None
    zero_snr: bool | None
    refiner: str | Path | None
    ensemble: Sequence[str]
    fuse: Sequence[str]
    variant: str | None
    t5: bool
    device: str | torch.device | None
    precision: str | torch.dtype | None
    memory: str


LOADING: dict[str, dataclasses.Field[Any]] = {each.name: each for each in dataclasses.fields(Loading)}
"""What there is to say of loading, by name."""
