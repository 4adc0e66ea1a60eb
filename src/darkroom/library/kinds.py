"""What kind of thing a file or a folder of weights is, and which files it is made of, told from headers alone.

Networks tell models, autoencoders and encoders; names of tensors tell what changes a model or goes beside one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from darkroom.checkpoint.beside import held_at
from darkroom.checkpoint.components import COMPONENTS
from darkroom.checkpoint.foreign import BESIDE, kind_beside, refuse_foreign
from darkroom.checkpoint.infer import networks_in
from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.source import Source
from darkroom.errors import ModelError
from darkroom.weights.modules import open_module
from darkroom.weights.names import INDEX, TEXTS
from darkroom.weights.opening import weights_at

DETECTOR = "detector"
KINDS = tuple(dict.fromkeys([*(component.kind for component in COMPONENTS), *BESIDE, DETECTOR]))
"""Every kind of thing that the library can hold."""


@dataclass(frozen=True)
class Identity:
    """What something is: its kind, its family where it is a model, and its files, the names relative to `root`."""

    kind: str
    family: str
    root: Path
    files: tuple[str, ...]


def identify(path: Path, hint: str | None = None) -> Identity:
    """What a file, a model folder or a component's folder is. Reads headers only, in milliseconds.

    hint: the kind that it is taken for where nothing in it tells. Raises ModelError where it cannot be read, is
    damaged, or is nothing that Darkroom knows.
    """
    if (path / INDEX).is_file():
        with open_source(path) as source:
            return Identity("model", source.family.name, path, tuple(_folder_files(source)))
    if is_detector(path):
        return Identity(DETECTOR, "", path.parent, (path.name,))
    with weights_at(path) as weights:
        kind = _kind(weights.shapes) or hint
        if kind not in BESIDE:
            refuse_foreign(path, weights.entries)
        paths = [file.path for file in weights.files]
        if kind is None:
            raise ModelError(f"{path} holds no weights that Darkroom knows: it is another kind of file")
    if path.is_dir():
        with ExitStack() as opened:
            held_at(path, None, opened)  # Its configuration is to be one.
        paths += [file for file in path.iterdir() if file.suffix in TEXTS]
        return Identity(kind, "", path, tuple(sorted({file.name for file in paths})))
    family = ""
    if kind == "model":
        with open_source(path) as source:
            family = source.family.name
    return Identity(kind, family, path.parent, (path.name,))


def is_detector(path: Path) -> bool:
    """Whether a file finds things in pictures: an ONNX file, which nothing else is here, or a network of Ultralytics'
    that was pickled whole."""
    if path.suffix.lower() == ".onnx":
        return path.is_file()
    if path.suffix.lower() not in (".pt", ".pth"):
        return False
    try:
        weights, module = open_module(path)
    except ModelError:
        return False
    weights.close()
    return module.kind.startswith("ultralytics.")


def _kind(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    kinds = {found.component.kind for found in networks_in(shapes)}
    return kind_beside(shapes) or next((kind for kind in KINDS if kind in kinds), None)


def _folder_files(source: Source) -> Iterable[str]:
    """The files of a model folder that Darkroom uses: weights of its networks, and all that is text beside them."""
    used = {file for files in source.files().values() for file in files}
    folders = {source.path / "scheduler", *(source.path / role for role in source.parts)}
    folders |= {source.path / role.tokenizer for role in source.parts if role.reads_text}
    texts = {
        file for folder in folders if folder.is_dir() for file in folder.iterdir() if file.suffix in TEXTS
    }
    texts |= {file for name in (INDEX, "darkroom.json") if (file := source.path / name).is_file()}
    return sorted(file.relative_to(source.path).as_posix() for file in used | texts)
