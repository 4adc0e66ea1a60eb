"""Finding models where other programs keep them, to be used in place.

Everything is found by one walk: what a file is, its header tells, so that a folder's layout matters only where it
gives names (Hugging Face caches, InvokeAI), says where else to look (ComfyUI) or what to leave out.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from darkroom.errors import ModelError
from darkroom.files import expanded, home
from darkroom.library.kinds import identify
from darkroom.library.records import Recorded, Version, changing, version_of
from darkroom.networks.roles import Role
from darkroom.weights.names import INDEX, SUFFIXES, has_weights

# Names that say nothing of what is inside: the folder's name is taken instead.
_PLAIN = re.compile(
    r"(diffusion_pytorch_|pytorch_)?(model|lora_weights)(\.\w+)?(-\d+-of-\d+)?|adapter_model|unet|vae|text_encoder(_\d)?"
)
_SHARD = re.compile(r"-\d+-of-\d+$")
# What the folders of A1111 and ComfyUI are for, where a file's header may not tell.
_HINTS: Mapping[str, str] = {
    **dict.fromkeys(
        ("esrgan", "realesrgan", "swinir", "dat", "scunet", "ldsr", "upscale_models"), "upscaler"
    ),
    **dict.fromkeys(("adetailer", "ultralytics", "detectors"), "detector"),
    "embeddings": "embedding",
    "clip_vision": "image-encoder",
}
Report = Callable[[str], object]
_NEVER = {"__pycache__", "node_modules", "venv", "blobs", "site-packages"}
_LONGEST_TEXT = 1 << 20


@dataclass(frozen=True)
class Candidate:
    """Something that may be a model. names: what to call it, the best first; origin: as in `Version`."""

    path: Path
    names: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    origin: str = ""
    hint: str | None = None


def usual_places() -> list[Path]:
    """The folders of this user's in which models are likely, as far as there are any."""
    own, environ = home(), os.environ
    cache = Path(environ.get("XDG_CACHE_HOME") or own / ".cache")
    hub = environ.get("HF_HUB_CACHE") or Path(environ.get("HF_HOME") or cache / "huggingface") / "hub"
    programs = [
        "stable-diffusion-webui",
        "stable-diffusion-webui-forge",
        "ComfyUI",
        "Documents/ComfyUI",
        "invokeai",
    ]
    places = [Path(hub), *(own / name for name in programs)]
    if invoke := environ.get("INVOKEAI_ROOT"):
        places.append(Path(invoke))
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def scan(
    folders: Iterable[Path],
    report: Report,
    hashes: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> list[Recorded]:
    """Record in the library, in place, what is found in some folders (see `candidates`).

    `report` is told, in a line each, of files that are damaged or nothing that Darkroom knows: they are left out.
    hashes: compute the SHA-256 of all that has none; `progress` is told the bytes done of how many.
    """
    found: list[tuple[Candidate, str, Version]] = []
    for folder in folders:
        for candidate in candidates(folder, report):
            try:
                identity = identify(candidate.path, candidate.hint)
                facts = {"family": identity.family, "how": "scanned", "origin": candidate.origin}
                version = version_of(candidate.path, identity.root, identity.files, **facts)
                found.append((candidate, identity.kind, version))
            except (ModelError, OSError) as error:
                report(str(error))
            except Exception as error:  # Whatever one file does, it hides no other.
                report(f"{candidate.path} cannot be read: {error!r}")
    if hashes:
        found = list(_hashed(found, report, progress))
    with changing() as library:
        return [
            library.notice(kind, candidate.names, version, candidate.aliases)
            for candidate, kind, version in found
        ]


def _hashed(
    found: list[tuple[Candidate, str, Version]],
    report: Report,
    progress: Callable[[int, int], object] | None,
) -> Iterator[tuple[Candidate, str, Version]]:
    """The same with hashes, without what turns out not to be readable."""
    total, done = sum(version.size for _, _, version in found), 0

    def told(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    for candidate, kind, version in found:
        try:
            yield candidate, kind, version.hashed(told)
        except OSError as error:
            report(str(error))


def candidates(folder: Path, report: Report) -> Iterator[Candidate]:
    """What may be models in a folder of A1111, ComfyUI, InvokeAI, a Hugging Face cache, or any other.

    `report` is told what of the folder's own records cannot be read. Raises ModelError where it is no folder.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is no folder: give one with models in it")
    yield from _walk(folder.absolute(), set(), None, report)


def program(folder: Path) -> str:
    """Whose folder it looks like, in words."""
    if any(folder.glob("models--*")) or any(folder.glob("hub/models--*")):
        return "Hugging Face cache"
    if _invoke_records(folder):
        return "InvokeAI"
    if (folder / "models" / "Stable-diffusion").is_dir():
        return "A1111"
    return "ComfyUI" if (folder / "models" / "checkpoints").is_dir() else "folder"


def _walk(folder: Path, seen: set[str], hint: str | None, report: Report) -> Iterator[Candidate]:
    # Links are followed, for people keep models on other disks; nothing is visited twice.
    if not _first(folder, seen):
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        report(f"{folder} may not be read by this user")
        return
    if repository := re.fullmatch(r"models--(.+?)--(.+)", folder.name):
        yield from _repository(folder, "/".join(repository.groups()), report)
        return
    hint = _HINTS.get(folder.name.lower(), hint)
    entries = sorted(folder.iterdir())
    unit = _is_unit(folder)
    if unit and (lacking := _without_weights(folder)):
        # As the hub's cache is for those who fetched a single file of a repository.
        report(f"{folder} is no whole model, for there are no weights of {', '.join(lacking)}")
        unit = False
    if unit:
        yield Candidate(folder, _names(folder), hint=hint)
    recorded: list[Candidate] = []
    elsewhere: list[tuple[Path, str | None]] = []
    try:
        recorded += _invoke(folder)
        elsewhere += _elsewhere(folder, report)
    except ModelError as error:
        report(str(error))
    yield from (found for found in recorded if _first(found.path, seen))
    for path in entries:
        known = (*SUFFIXES, ".onnx") if hint == "detector" else SUFFIXES
        if path.suffix.lower() not in known or path.is_dir():
            continue
        if unit and (_PLAIN.fullmatch(path.stem) or _SHARD.search(path.stem)):
            continue
        if not path.exists():
            report(f"{path} is a link to nothing")
        elif path.is_file() and _first(path, seen):
            yield Candidate(path, _names(path), hint=hint)
    if unit:
        return  # Its folders are its parts.
    for path in _subfolders(folder, [path for path in entries if path.is_dir()]):
        yield from _walk(path, seen, hint, report)
    for path, use in elsewhere:
        yield from _walk(path, seen, use, report)


def _first(path: Path, seen: set[str]) -> bool:
    """Whether a file or folder was not met before."""
    place = os.path.realpath(path)
    if place in seen:
        return False
    seen.add(place)
    return True


def _is_unit(folder: Path) -> bool:
    """Whether a folder is one model, or one component with its configuration, or in shards."""
    if (folder / INDEX).is_file() or any(folder.glob("*.index*.json")):
        return True
    return (folder / "config.json").is_file() and any(
        _PLAIN.fullmatch(file.stem) for suffix in SUFFIXES for file in folder.glob(f"*{suffix}")
    )


def _without_weights(folder: Path) -> list[str]:
    """The networks that a model's folder lists and has no weights of; none where it is not one, or its list cannot be
    read."""
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        listed = [role for role in Role if isinstance(index.get(role), list) and index[role][:1] != [None]]
    except (OSError, ValueError, AttributeError):
        return []
    return [role for role in listed if not has_weights(folder / role)]


def _subfolders(folder: Path, subfolders: list[Path]) -> Iterator[Path]:
    """Where to look on: of a program's folder only where it keeps models."""
    names = {path.name for path in subfolders}
    whole_program = "models" in names and names & {"embeddings", "custom_nodes", "extensions", "databases"}
    for path in subfolders:
        if path.name.startswith(".") or path.name in _NEVER:
            continue
        if not whole_program or path.name in ("models", "embeddings"):
            yield path
        elif path.name == "extensions":
            yield from sorted(path.glob("*/models"))


def _names(path: Path) -> tuple[str, ...]:
    """What to call a file or folder: its own name unless it is a plain one, then with its folder's before it."""
    own = path.name if path.is_dir() else path.stem
    parent = path.parent.name
    if _PLAIN.fullmatch(own) and parent:
        return tidy(parent), tidy(f"{parent}-{own}")
    return tuple(dict.fromkeys((tidy(own), tidy(f"{parent}-{own}"))))


def tidy(name: str) -> str:
    """A name as the library takes it, of what a file or a service says; "model" where nothing of it is left."""
    kept = "".join(sign if sign.isprintable() and sign not in "/\\" else "-" for sign in name)
    return " ".join(kept.split()).strip(" -.") or "model"


# Hugging Face caches: models--ORG--NAME/snapshots/COMMIT/..., and the commit of each branch in refs/


def _repository(folder: Path, repository: str, report: Report) -> Iterator[Candidate]:
    """The snapshots of a repository, that of its main branch last, so that it becomes the current version."""
    try:
        main = (folder / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        main = ""
    own = tidy(repository.rpartition("/")[2])
    snapshots = [path for path in (folder / "snapshots").glob("*") if path.is_dir()]
    for snapshot in sorted(snapshots, key=lambda path: (path.name == main, path.stat().st_mtime)):
        origin = f"hf://{repository}@{snapshot.name}"
        for found in _walk(snapshot, set(), None, report):
            if found.path == snapshot:
                yield Candidate(snapshot, (own, tidy(repository)), (repository,), origin)
                continue
            name = found.path.stem
            plain = _PLAIN.fullmatch(name) is not None
            names = (own, tidy(f"{own}-{name}")) if plain else found.names[:1]
            file = found.path.relative_to(snapshot).as_posix()
            yield replace(found, names=names, origin=f"{origin}/{file}")


# ComfyUI: extra_model_paths.yaml names folders elsewhere, by what they hold


def _elsewhere(folder: Path, report: Report) -> Iterator[tuple[Path, str | None]]:
    for section in _yaml(folder / "extra_model_paths.yaml").values():
        if not isinstance(section, dict):
            continue
        base = folder / expanded(os.path.expandvars(str(section.get("base_path") or "")))
        if not os.path.isdir(base):  # Unlike Path's, it bears a name that is too long.
            report(f"{folder / 'extra_model_paths.yaml'} names the base_path {base}, which is not there")
            continue
        for use, paths in section.items():
            if use in ("base_path", "is_default", "custom_nodes"):
                continue
            for path in str(paths or "").splitlines():
                if path.strip() and os.path.isdir(found := base / expanded(path.strip())):
                    yield found, _HINTS.get(str(use))


def _yaml(path: Path) -> dict[str, Any]:
    """A YAML file's settings; none where there is no such file. Raises ModelError where it is damaged."""
    import yaml

    try:
        if path.stat().st_size > _LONGEST_TEXT:
            return {}
        value = yaml.safe_load(path.read_text("utf-8"))
    except OSError:
        return {}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return value if isinstance(value, dict) else {}


# InvokeAI: databases/invokeai.db gives each model's name, and its path relative to the models folder


def _invoke_records(folder: Path) -> Path | None:
    database = folder / "databases" / "invokeai.db"
    return database if database.is_file() else None


def _invoke(folder: Path) -> Iterator[Candidate]:
    database = _invoke_records(folder)
    if database is None:
        return
    models = folder / str(_yaml(folder / "invokeai.yaml").get("models_dir") or "models")
    for record in _records(database):
        path = models / str(record.get("path") or "")
        if record.get("path") and os.path.exists(path) and (path.is_file() or _is_unit(path)):
            name = tidy(str(record.get("name") or path.stem))
            origin = str(record.get("source") or "")
            hub = re.fullmatch(r"[\w.-]+/[\w.-]+", origin)
            yield Candidate(path, (name, *_names(path)), (origin,) if hub else ())


def _config(text: object) -> dict[str, Any]:
    """A record as JSON; nothing where it is none."""
    try:
        found = json.loads(str(text or "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _records(database: Path) -> list[dict[str, Any]]:
    """The model records, read without touching the database. Raises ModelError where it is damaged."""
    # A database that nobody has open needs no lock, nor the files that a lock would make.
    mode = "mode=ro" if database.with_name(f"{database.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?{mode}", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            tables = {
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            table = next((name for name in ("models", "model_config") if name in tables), None)
            rows = (
                [] if table is None else [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            )
            # Every release has the record as JSON, most have its fields as columns, too.
            return [_config(row.pop("config", None)) | row for row in rows]
        finally:
            connection.close()
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise ModelError(f"{database} cannot be read: {error}") from error
