"""What a picture's file says of how it was made: enough to make it again, and to say why it comes out otherwise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from darkroom.assembly import Opened
from darkroom.engine.devices import Placement
from darkroom.engine.memory import MODES
from darkroom.errors import InvalidRequest
from darkroom.generation.infotext import infotext
from darkroom.generation.request import Request
from darkroom.generation.templates import template_of
from darkroom.generation.wording import Extras
from darkroom.language.tags import parse_tag
from darkroom.library.locate import OF_A_VAE, anchored, given_path, name_of, recalled
from darkroom.loading import Loading
from darkroom.networks.roles import Role
from darkroom.networks.vae import Parts
from darkroom.version import __version__
from darkroom.weights.hashes import sha256_of

# Raised whenever the same request would give other pixels than before.
NUMERICS = 9


class Provenance:
    """What pictures of a loaded model come from: its files, what it was loaded with, the machine.

    `rows` are those of a network call, `parts` are those that pictures are decoded in.
    """

    def __init__(
        self, opened: Opened, loading: Loading, placement: Placement, rows: int, parts: Parts
    ) -> None:
        self.name = opened.name
        self.refiner = None if opened.refiner is None else name_of(opened.refiner.path)
        self.placement, self.rows, self.parts = placement, rows, parts
        self._files = _files_of(opened)
        self._denoiser = opened.source.denoiser.role
        self._loaded = _loaded(opened, loading)
        self._fused: list[tuple[str, str, str]] = []

    def fuse(self, adapter: str, digest: str) -> None:
        """An adapter is in the weights now: what stands for it, and its SHA-256."""
        self._fused.append((anchored(adapter), f"fused {parse_tag(adapter).name}", digest))

    def unfuse(self) -> None:
        """No adapters are in the weights any more."""
        self._fused.clear()

    def weights(self) -> dict[str, str]:
        """The SHA-256 of each component's file (of several: see `sha256_of`), a refiner's, those of fused adapters."""
        files = {role: sha256_of(files) for role, files in self._files.items()}
        return files | {name: digest for _, name, digest in self._fused}

    def identity(self) -> str:
        """A SHA-256 of all that decides pixels beside a request: what is begun by one can be gone on with by another of
        the same."""
        said = json.dumps([self.weights(), self.numerics()], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def numerics(self) -> dict[str, Any]:
        """What besides request and weights decides the pixels."""
        facts: dict[str, Any] = {
            "version": NUMERICS,
            "device": self.placement.device.type,
            "precision": self.placement.precision,
            "rows": self.rows,
            "torch": torch.__version__,
        }
        if self.parts != "whole":
            facts["decoded_in"] = self.parts
        if self.placement.device.type == "cpu":
            facts |= {
                "threads": torch.get_num_threads(),
                "instructions": torch.backends.cpu.get_cpu_capability(),
            }
        else:
            facts["device_name"] = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        return facts

    def of(
        self,
        request: Request,
        asked: Request,
        extras: Extras,
        notes: Sequence[str] = (),
        rows: int | None = None,
    ) -> tuple[dict[str, Any], str]:
        """The metadata of the picture of a settled request, and the same in A1111's words. `asked`: as it was given;
        `extras`: what it names beside the model; `rows`: those of its network calls, where they were others."""
        hashes = self.weights() | _hashes_of(extras)
        numerics = self.numerics() | ({} if rows is None else {"rows": rows})
        return self._described(request, asked, hashes, numerics, [*extras.notes, *notes])

    def foretold(self, request: Request, asked: Request, extras: Extras) -> tuple[dict[str, Any], str]:
        """The same beforehand, of the same length, with no file read for its hash."""
        names = [*self._files, *(name for _, name, _ in self._fused), *_hashes_of(extras)]
        return self._described(request, asked, dict.fromkeys(names, "0" * 64), self.numerics(), extras.notes)

    def _described(
        self,
        request: Request,
        asked: Request,
        hashes: Mapping[str, str],
        numerics: Mapping[str, Any],
        notes: Sequence[str],
    ) -> tuple[dict[str, Any], str]:
        fused = {"fuse": [text for text, _, _ in self._fused]} if self._fused else {}
        model = {"name": self.name, "refiner": self.refiner, **self._loaded, **fused, "weights": dict(hashes)}
        metadata: dict[str, Any] = {
            "darkroom": __version__,
            "request": request.to_dict(),
            "model": model,
            "numerics": dict(numerics),
            "notes": [*notes],
        }
        if template := template_of(asked, request):
            metadata["template"] = template
        # As A1111 names it: with the beginning of its hash.
        refiner = self.refiner and f"{self.refiner} [{hashes['refiner unet'][:10]}]"
        return metadata, infotext(request, self.name, hashes[self._denoiser], __version__, refiner)


def _files_of(opened: Opened) -> dict[str, Sequence[Path]]:
    """The files of each network of a model, of its refiner and of the others of an ensemble."""
    found: dict[str, Sequence[Path]] = {str(role): files for role, files in opened.source.files().items()}
    if (refiner := opened.refiner) is not None:
        found |= {f"refiner {role}": refiner.parts[role].files() for role in refiner.expert_roles}
    for each, member in opened.members:
        found |= {f"{member.name} {role}": each.parts[role].files() for role in each.expert_roles}
    return found


def _hashes_of(extras: Extras) -> dict[str, str]:
    """The SHA-256 of each file that a request named beside the model."""
    adapters = {f"adapter {tag.name}": adapter.sha256 for tag, adapter in extras.adapters.items()}
    if (upscaler := extras.upscaler) is not None and upscaler.path is not None:
        adapters[f"upscaler {upscaler.name}"] = sha256_of([upscaler.path])
    for seeker in extras.seekers.values():
        if seeker.path is not None:
            adapters[f"detector {seeker.path.name}"] = sha256_of([seeker.path])
    return adapters | {f"embedding {name}": each.sha256 for name, each in extras.embeddings}


def _loaded(opened: Opened, loading: Loading) -> dict[str, Any]:
    """What a model was loaded with besides its name and its refiner's, as far as that decides pixels."""
    paths = {
        "model": given_path(loading.model),
        "vae": loading.vae and given_path(loading.vae),
        "refiner": loading.refiner and given_path(loading.refiner),
        "others": [given_path(each) for each in loading.others],
    }
    said = {
        "paths": {part: path for part, path in paths.items() if path and path != [None]} or None,
        "vae": None if opened.vae is None else name_of(opened.vae),
        "others": [name_of(each) for each in opened.others] or None,
        "prediction": loading.prediction,
        "zero_snr": loading.zero_snr,
        "variant": loading.variant,
        "t5": None if loading.t5 else False,
        "ensemble": [anchored(each) for each in loading.ensemble] or None,
    }
    return {setting: value for setting, value in said.items() if value is not None}


_SAID = ("prediction", "zero_snr", "variant", "t5", "ensemble", "fuse")
"""What a file says of loading as it was said."""

_KINDS: dict[str, type] = {
    "name": str,
    "paths": dict,
    "weights": dict,
    **dict.fromkeys(("vae", "refiner", "prediction", "variant"), str),
    **dict.fromkeys(("others", "ensemble", "fuse"), list),
}
"""What a file's words on its model are to be."""


def loading_of(metadata: Mapping[str, Any], path: Path, **instead: str | Path) -> Loading:
    """What a picture's model was loaded with, by its file's metadata: each file as it is found now. `path` is the
    picture's, for errors; `instead` are parts that take the place of those that it names. Raises InvalidRequest where
    the metadata is damaged or does not say."""
    numerics = metadata.get("numerics") or {}
    if not isinstance(numerics, dict):
        raise InvalidRequest(f"{path}: its metadata is damaged (numerics is {numerics!r})")
    found = {
        **{name: numerics[name] for name in ("device", "precision") if name in numerics},
        "memory": _memory(numerics),
        **made_of(metadata, path),
        **instead,
    }
    if "model" not in found:
        raise InvalidRequest(f"{path} does not say which model made it: give `model=`")
    return Loading(**found).checked()


def _memory(numerics: Mapping[str, Any]) -> str:
    """The fastest memory mode in which pictures are decoded as that one was."""
    # Up to version 5 it was said whether in tiles.
    parts = "tiles" if numerics.get("tiled") else numerics.get("decoded_in", "whole")
    return next((name for name, mode in MODES.items() if mode.parts == parts), "full")


def made_of(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The same but for the machine that it ran on, as options by their names."""
    model = metadata.get("model")
    model = model if isinstance(model, dict) else {}
    if wrong := [name for name, kind in _KINDS.items() if not _is(kind, model.get(name), name)]:
        raise InvalidRequest(f"{path}: its metadata is damaged (model, {wrong[0]}): give `model=`")
    return {**{name: model[name] for name in _SAID if name in model}, **_parts(model)}


def _is(kind: type, value: Any, name: str) -> bool:
    """Whether a word of a picture's file is of its kind: a text, a list of texts or texts by name; of paths, lists."""
    if not value:
        return True
    if not isinstance(value, kind):
        return False
    within: Mapping[type, Callable[[Any], list[Any]]] = {
        str: lambda one: [one],
        list: list,
        dict: lambda by: [*by.values()],
    }
    inside = within[kind](value)
    if name == "paths":
        several = [one if isinstance(one, list) else [one] for one in inside]
        inside = [each for one in several for each in one if each is not None]
    return all(isinstance(each, str) for each in inside)


def _parts(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model that made a picture, its autoencoder, its refiner and the files beside it, as they are found now."""
    paths, weights = model.get("paths") or {}, model.get("weights") or {}
    own = {role: each for role, each in weights.items() if role in {*Role}}
    found: dict[str, Any] = {}
    if isinstance(name := model.get("name"), str):
        # What came from elsewhere is in none of the model's files.
        apart = {"vae"} if model.get("vae") else set()
        apart |= {role for role in own if role.startswith("text")} if model.get("others") else set()
        found["model"] = recalled(
            name, paths.get("model"), {each for role, each in own.items() if role not in apart}
        )
    if vae := model.get("vae"):
        found["vae"] = recalled(vae, paths.get("vae"), {own["vae"]} if "vae" in own else (), *OF_A_VAE)
    if refiner := model.get("refiner"):
        hashes = {weights["refiner unet"]} if "refiner unet" in weights else ()
        found["refiner"] = recalled(refiner, paths.get("refiner"), hashes)
    if others := model.get("others"):
        places = paths.get("others") or [None] * len(others)
        found["others"] = [recalled(each, place, ()) for each, place in zip(others, places, strict=False)]
    return found


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What besides the request decides a picture and is not as it was, of two pictures' metadata."""
    found = []
    for part in ("weights", "numerics"):
        old, new = (_part(metadata, part) for metadata in (then, now))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                found.append(f"{part} {name}: was {_short(old.get(name))}, is {_short(new.get(name))}")
    return found


def _part(metadata: Mapping[str, Any], part: str) -> dict[str, Any]:
    value = metadata.get("model", {}).get("weights") if part == "weights" else metadata.get(part)
    return value if isinstance(value, dict) else {}


def _short(value: object) -> str:
    text = str(value)
    return text[:10] if len(text) == 64 else text
