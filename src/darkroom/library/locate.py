"""Where models are: the embedded ones, those of $DARKROOM_MODELS, those of the library, and any path."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from darkroom.checkpoint.foreign import BESIDE_SETTINGS, a_kind
from darkroom.errors import ModelError
from darkroom.files import expanded, portable
from darkroom.language.options import named
from darkroom.language.tags import KINDS, TAG
from darkroom.library.fetch.origin import parse
from darkroom.library.installed import all_installed, installed
from darkroom.library.lock import locked
from darkroom.library.records import Entry, Library, Version, suggestion, version_of
from darkroom.library.secrets import without_secrets
from darkroom.weights.names import INDEX, SUFFIXES, has_tokenizer, has_weights

log = logging.getLogger(__name__)


def available() -> dict[str, Path]:
    """The models that can be loaded by name."""
    recorded = {entry.name: entry.version for entry in Library.read().of_kind("model")}
    return {name: each.path for name, each in recorded.items() if each.state() != "missing"} | installed()


def embedded() -> list[Entry]:
    """The models that are there without having been recorded, as entries of the library."""
    return [_embedded(name, path) for name, path in all_installed().items()]


def _embedded(name: str, path: Path) -> Entry:
    from darkroom.library.kinds import identify

    found = identify(path)
    facts = {"family": found.family, "how": "embedded", "when": ""}
    return Entry(name, found.kind, [version_of(path, found.root, found.files, **facts)])


OF_A_VAE = ("vae", "model")
"""The kinds of what an autoencoder may be taken from, those that are asked first first."""
OF_PARTS = ("text-encoder", "model", "vae")
"""The same of what is given beside a model."""

# What there is a setting for, by kind: where to give what was given elsewhere.
_SETTINGS = {
    "model": "model",
    "vae": "vae",
    "text-encoder": "others",
    "detector": "details",
    **BESIDE_SETTINGS,
}


_paths: Collection[str] | None = None
"""The only paths that are looked at; None where all are."""


def names_only(paths: Collection[str] = ()) -> None:
    """From now on this process looks at no path that is a text, but at these: a service's first word, whose requests
    come from anybody. All else is found by its name."""
    global _paths
    _paths = {*paths}


def paths_are_read() -> bool:
    """Whether a text may be a path here."""
    return _paths is None


def locate(model: str | Path, kind: str = "model", *others: str) -> Path:
    """The file or the folder of what is given by a path, a name, an alias or the first digits of a SHA-256; of some
    kind, or of one of `others` where nothing of that kind is called so. No paths but some where `names_only` was said.

    Where a models.lock lists the name, the version that it lists is chosen, and refused if its files have other hashes.
    Raises ModelError that says what to do.
    """
    name, kinds = str(model), (kind, *others)
    if not name.strip():
        raise ModelError(f"the name of the {kind} is empty: give a name, a file or a folder")
    for each in kinds:
        if there := installed(each).get(name):
            wanted = locked(name, each)
            return there if wanted is None else wanted.choose([_embedded(name, there).version]).path
    path = expanded(model)
    # What is a path already is not what somebody wrote.
    looked_at = _paths is None or isinstance(model, Path) or name in _paths
    is_file, is_folder = looked_at and os.path.isfile(path), looked_at and os.path.isdir(path)
    if is_file or (is_folder and (kind != "model" or _is_unit(path))):
        return path
    library = Library.read()
    for each in kinds:
        if found := library.match(name, each):
            return _chosen(name, each, *found)
    if is_folder:
        raise ModelError(
            f"{path} {_no_unit(path)}: give a model folder in the Hugging Face layout, or a file"
        )
    for each in kinds:
        if wanted := locked(name, each):
            wanted.choose([])
    if looked_at and (path.is_absolute() or path.suffix in SUFFIXES):
        raise ModelError(f"there is no file or folder {without_secrets(str(path))}")
    if found := library.match(name):
        entry = found[0]
        instead = f": give it as `{_SETTINGS[entry.kind]}=`" if entry.kind in _SETTINGS else ""
        raise ModelError(
            f"there is no {kind} {name!r}, what the library calls so is {a_kind(entry.kind)}{instead}"
        )
    if looked_at and _is_elsewhere(name):
        address = without_secrets(name)
        raise ModelError(
            f"there is no {kind} {address!r} here: fetch it first (darkroom models pull {address}), or give a name "
            "that `darkroom models` lists, or the path of a file or folder"
        )
    known = [each for one in kinds for entry in library.of_kind(one) for each in (entry.name, *entry.aliases)]
    known += [name for each in kinds for name in installed(each)]
    advice = suggestion(name, known, ", or the path of a file or folder" if looked_at else "")
    raise ModelError(f"there is no {kind} {without_secrets(name)!r}: {advice}")


def _is_elsewhere(name: str) -> bool:
    """Whether a name is the id or the address of a model elsewhere, and no path into a folder that is here."""
    return "://" in name or (not expanded(name).parent.is_dir() and parse(name) is not None)


def _is_unit(path: Path) -> bool:
    """Whether a folder is a model's, or a component's with its weights, or a tokenizer's."""
    return (path / INDEX).is_file() or has_weights(path) or has_tokenizer(path)


def _no_unit(path: Path) -> str:
    """What a folder is that is neither a model's nor a component's."""
    files = sorted(file.name for file in path.iterdir())
    if weights := [name for name in files if name.lower().endswith(SUFFIXES)]:
        return (
            f"holds {len(weights)} files of weights ({', '.join(weights[:3])}{', ...' * (len(weights) > 3)})"
        )
    return f"has no {INDEX}" if files else "is an empty folder"


def _chosen(name: str, kind: str, entry: Entry, version: Version) -> Path:
    """A version of what the library knows by a name, as a models.lock wants it."""
    if wanted := locked(name, kind) or locked(entry.name, kind):
        version = wanted.choose([version, *(each for each in entry.versions if each is not version)])
    if not version.path.exists():
        raise ModelError(
            f"{version.path}, known as {entry.name!r}, is gone: `darkroom models scan` finds it again"
        )
    return version.path


def given_path(model: str | Path) -> str | None:
    """The path by which something was given, as it is found again from any folder; None where it was given by name."""
    if str(model) in all_installed():
        return None
    path = expanded(model)
    return portable(path) if path.exists() else None


def anchored(text: str) -> str:
    """What stands for a file beside a model, "NAME:options" or "WORD=FILE", its path from here as one from anywhere."""
    if _paths is not None:  # Names stay names, and nothing is looked for.
        return text
    kind, colon, _ = text.partition(":")
    head = f"{kind}:" if colon and kind.strip() in KINDS else ""
    name, words = named(text.removeprefix(head))
    before, equals, file = name.rpartition("=")
    path = Path(file.strip())
    if not file.strip() or path.is_absolute() or not path.exists():
        return text
    return head + ":".join([f"{before}{equals}{portable(path)}", *words])


def anchored_tags(prompt: str) -> str:
    """A prompt whose tags name files as `anchored` does."""
    return TAG.sub(lambda tag: f"<{anchored(f'{tag[1]}:{tag[2]}')}>", prompt)


def recalled(
    name: str, path: str | None, hashes: Collection[str], kind: str = "model", *others: str
) -> str | Path:
    """What a picture was made with: by the SHA-256 of its files as the library knows them, else where it lay, else by
    its name, else by the hashes of what the library has not hashed yet. `hashes`: those of all that is to be in it."""
    library, kinds = Library.read() if hashes else Library(), (kind, *others)
    versions = [each for one in kinds for entry in library.of_kind(one) for each in entry.versions]
    for version in versions:
        if _holds(version, hashes) and version.path.exists():
            return version.path
    if path is not None and expanded(path).exists():
        return expanded(path)
    if not hashes or name in available() or any(library.match(name, each) for each in kinds):
        return name
    # It may lie elsewhere and be called otherwise now, recorded by a scan that read no file whole.
    for version in versions:
        if version.state() == "missing" or all(file.sha256 for file in version.files.values()):
            continue
        log.warning("%s is not where it was: reading %s, which may be it", name, version.path)
        with suppress(OSError):  # What cannot be read is not it.
            if _holds(version.hashed(), hashes):
                return version.path
    return name


def _holds(version: Version, hashes: Collection[str]) -> bool:
    return set(hashes) <= {file.sha256 for file in version.files.values()}


def name_of(path: Path) -> str:
    """What a model at a path is called: its name in the library, else that of its file or folder."""
    own = path.stem if path.is_file() else path.name
    try:
        entries = Library.read().entries
    except ModelError:
        return own  # A damaged library is in nobody's way who does without it.
    return next((entry.name for entry in entries for each in entry.versions if each.path == path), own)
