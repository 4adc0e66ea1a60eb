"""Where models are: the embedded ones, those of $DARKROOM_MODELS, those of the library, and any path."""

from __future__ import annotations

from pathlib import Path

from darkroom.errors import ModelError
from darkroom.library.lock import locked
from darkroom.library.records import Entry, Library, installed, suggestion, version_of
from darkroom.weights.names import INDEX, SUFFIXES


def available() -> dict[str, Path]:
    """The models that can be loaded by name."""
    recorded = {entry.name: entry.version for entry in Library.read().of_kind("model")}
    return {name: each.path for name, each in recorded.items() if each.state() != "missing"} | installed()


def embedded() -> list[Entry]:
    """The models that are there without having been recorded, as entries of the library."""
    return [_embedded(name, folder) for name, folder in installed().items()]


def _embedded(name: str, folder: Path) -> Entry:
    from darkroom.library.kinds import identify

    found = identify(folder)
    facts = {"family": found.family, "how": "embedded", "when": ""}
    return Entry(name, found.kind, [version_of(folder, found.root, found.files, **facts)])


def locate(model: str | Path, kind: str = "model") -> Path:
    """The file or the folder of what is given by a path, a name, an alias or the first digits of a SHA-256.

    Where a models.lock lists the name, the version that it lists is chosen, and refused if its files have other hashes.
    Raises ModelError that says what to do.
    """
    name = str(model)
    if kind == "model" and (folder := installed().get(name)):
        wanted = locked(name, kind)
        return folder if wanted is None else wanted.choose([_embedded(name, folder).version]).path
    path = Path(model).expanduser()
    if path.is_file() or (path / INDEX).is_file() or (kind != "model" and path.is_dir()):
        return path
    library = Library.read()
    if found := library.match(name, kind):
        entry, version = found
        if wanted := locked(name, kind) or locked(entry.name, kind):
            version = wanted.choose([version, *(each for each in entry.versions if each is not version)])
        if not version.path.exists():
            raise ModelError(
                f"{version.path}, known as {entry.name!r}, is gone: `darkroom models scan` finds it again"
            )
        return version.path
    if path.is_dir():
        raise ModelError(f"{path} has no {INDEX}: give a model folder in the Hugging Face layout, or a file")
    if wanted := locked(name, kind):
        wanted.choose([])
    if path.is_absolute() or path.suffix in SUFFIXES:
        raise ModelError(f"there is no file or folder {path}")
    known = [each for entry in library.of_kind(kind) for each in (entry.name, *entry.aliases)]
    known += installed() if kind == "model" else []
    advice = suggestion(name, known, ", or the path of a file or folder")
    raise ModelError(f"there is no {kind} {name!r}: {advice}")


def name_of(path: Path) -> str:
    """What a model at a path is called: its name in the library, else that of its file or folder."""
    own = path.stem if path.is_file() else path.name
    try:
        entries = Library.read().entries
    except ModelError:
        return own  # A damaged library is in nobody's way who does without it.
    return next((entry.name for entry in entries for each in entry.versions if each.path == path), own)
