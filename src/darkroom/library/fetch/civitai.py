"""What to fetch of Civitai, by its public API (v1)."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from darkroom.errors import InvalidRequest, ModelError, nearest
from darkroom.library.fetch.download import NotFound, Web
from darkroom.library.fetch.origin import CHOICES, Civitai, civitai_endpoint
from darkroom.library.fetch.remote import Listing, Remote, safe_name

_HELP = "give a token from your Civitai account (CIVITAI_TOKEN, `token=`)"

# What Civitai calls things whose header may not tell.
_HINTS = {"textualinversion": "embedding", "upscaler": "upscaler", "controlnet": "controlnet"}


def listing(
    origin: Civitai,
    web: Web,
    *,
    file: str | None = None,
    variant: str | None = None,
    token: str | None = None,
    only: Collection[str] | None = None,
) -> Listing:
    """What to fetch of a model's version: one file, in safetensors where there is a choice.

    file: the one of that name; variant: of that precision ("fp16"); only: as a lock lists it. Raises ModelError where
    there is no such model, InvalidRequest for a file that it does not have.
    """
    token = token or os.environ.get("CIVITAI_TOKEN") or ""
    model, version = _version(origin, web, token)
    files = version.get("files")
    if not isinstance(files, list) or not files:
        raise ModelError(f"Civitai lists no files for {origin}: it is withdrawn, or early access")
    file = next(iter(only), None) if only else file
    known: list[Mapping[str, Any]] = [each for each in files if isinstance(each, dict)]
    if origin.choice and file is None:
        known = _as_addressed(known, origin)
    chosen = _choose(known, file, variant, str(origin))
    name = str(model.get("name") or version.get("name") or safe_name(str(chosen.get("name", ""))))
    number = int(version["id"])
    hashes = chosen.get("hashes") if isinstance(chosen.get("hashes"), dict) else {}
    remote = Remote(
        safe_name(str(chosen.get("name") or f"{number}.safetensors")),
        _address(str(chosen.get("downloadUrl") or ""), number),
        # The API rounds sizes, which makes them good for a look at the disk and nothing else.
        sha256=str((hashes or {}).get("SHA256") or "").lower(),
        token=token,
        help=_HELP,
    )
    rough = int(float(chosen.get("sizeKB") or 0) * 1024)
    whole = Civitai(int(version.get("modelId") or origin.model or 0) or None, number, origin.choice)
    hint = _HINTS.get(str(model.get("type") or "").lower())
    about = {
        key: version[key] for key in ("id", "modelId", "name", "baseModel", "trainedWords") if key in version
    }
    about["model"] = {"name": name, "type": model.get("type")}
    return Listing(name, str(whole), (remote,), size=rough, hint=hint, about=about)


def _version(origin: Civitai, web: Web, token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The records of a model and of its version."""
    api = f"{civitai_endpoint()}/api/v1"
    if origin.version is not None:
        version = web.json(f"{api}/model-versions/{origin.version}", token, _HELP)
        theirs = version.get("modelId")
        if origin.model is not None and theirs is not None and int(theirs) != origin.model:
            raise InvalidRequest(
                f"version {origin.version} is of Civitai's model {theirs}, not {origin.model}"
            )
        model = version.get("model")
        return (model if isinstance(model, dict) else {}), _complete({"id": origin.version, **version})
    try:
        model = web.json(f"{api}/models/{origin.model}", token, _HELP)
    except NotFound:
        # People give a version's number for a model's.
        return _version(replace(origin, model=None, version=origin.model), web, token)
    versions = model.get("modelVersions")
    if not isinstance(versions, list) or not versions or not isinstance(versions[0], dict):
        raise ModelError(f"Civitai lists no versions of {origin}: it is withdrawn")
    return model, _complete({"modelId": origin.model, **versions[0]})


def _complete(version: Mapping[str, Any]) -> Mapping[str, Any]:
    if not str(version.get("id", "")).isdigit():
        raise ModelError(
            "Civitai's answer has no version number: its API has changed, or CIVITAI_ENDPOINT is wrong"
        )
    return version


def _as_addressed(files: Sequence[Mapping[str, Any]], origin: Civitai) -> list[Mapping[str, Any]]:
    """The files that an address chooses. Raises InvalidRequest where there are none."""
    found = [each for each in files if all(_is(each, name, value) for name, value in origin.choice)]
    if not found:
        known = ", ".join(f"{each.get('name')} ({_facts(each)})" for each in files)
        raise InvalidRequest(f"{origin} is none of the files of that version: there are {known}")
    return found


def _is(file: Mapping[str, Any], name: str, value: str) -> bool:
    """Whether a file is what an address says: by the record, or by its own address."""
    facts = {**_facts_of(file), **dict(parse_qsl(urlsplit(str(file.get("downloadUrl") or "")).query))}
    return str(facts.get(name, "")).lower() == value.lower()


def _facts_of(file: Mapping[str, Any]) -> dict[str, Any]:
    metadata = file.get("metadata")
    return {**(metadata if isinstance(metadata, dict) else {}), "type": file.get("type")}


def _facts(file: Mapping[str, Any]) -> str:
    facts = _facts_of(file)
    return ", ".join(str(facts[name]) for name in CHOICES if facts.get(name))


def _choose(
    files: Sequence[Mapping[str, Any]], name: str | None, variant: str | None, origin: str
) -> Mapping[str, Any]:
    """The file asked for, else the main one, safetensors before pickles."""
    if name is not None:
        for each in files:
            if name in (each.get("name"), safe_name(str(each.get("name")))):
                return each
        known = [str(each.get("name")) for each in files]
        raise InvalidRequest(f"{origin} has no file {name!r}: {nearest(name, known)}")

    def rank(each: Mapping[str, Any]) -> tuple[bool, ...]:
        facts = each.get("metadata") if isinstance(each.get("metadata"), dict) else {}
        return (
            each.get("type") not in ("Model", "Pruned Model", None),
            variant is not None and str((facts or {}).get("fp")).lower() != variant,
            not str(each.get("name", "")).lower().endswith(".safetensors"),
            not each.get("primary"),
        )

    return min(files, key=rank)


def _address(url: str, version: int) -> str:
    """Where a file is downloaded: at the endpoint, whatever host the record names."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    path = parts.path if parts.path.startswith("/api/download/") else f"/api/download/models/{version}"
    return f"{civitai_endpoint()}{path}{query}"
