"""What to fetch of a repository of the Hugging Face hub: asked of it through `huggingface_hub`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Any

from darkroom.errors import InvalidRequest, ModelError, nearest
from darkroom.library.fetch.origin import Hub, hub_endpoint
from darkroom.library.fetch.remote import Listing, Remote, check_path, check_url
from darkroom.networks.roles import Role
from darkroom.weights.names import INDEX, SUFFIXES, TEXTS, weights_name


def listing(
    origin: Hub,
    *,
    variant: str | None = None,
    token: str | None = None,
    insecure: bool = False,
    only: Collection[str] | None = None,
) -> Listing:
    """What to fetch of a repository or of a folder in it: its model in one of the layouts that it may have, a
    component, or one file.

    variant: "fp16" and the like, where there is one; only: these files, by their paths from there, and no others.
    Raises ModelError where the repository cannot be reached or holds no model, InvalidRequest where it has to be said
    which file is meant.
    """
    check_url(hub_endpoint(), insecure)
    token = token or _known_token()
    info = _ask(origin, token)
    found = {str(each.rfilename): each for each in info.siblings or ()}
    within = f"{origin.file.rstrip('/')}/"
    folder = within if any(name.startswith(within) for name in found) else ""
    if folder:
        found = {name.removeprefix(folder): each for name, each in found.items() if name.startswith(folder)}
    if only is not None:
        names: Sequence[str] = sorted(only)
    elif origin.file and not folder:
        names = [_file(origin, found)]
    else:
        names = needed(found, variant) or [_only_file(origin, found)]
    if missing := [name for name in names if name not in found]:
        raise ModelError(f"{origin} has no {missing[0]} any more: choose another revision")
    commit = str(info.sha or origin.revision or "main")
    alone = len(names) == 1
    remotes = [_remote(origin.repository, commit, check_path(name), found[name], token) for name in names]
    repository = "-".join([origin.repository.rpartition("/")[2], *folder.split("/")]).rstrip("-")
    file = str(found[names[0]].rfilename) if alone else folder.rstrip("/")
    plain = not alone or weights_name([PurePosixPath(file).name]) is not None
    return Listing(
        repository if plain or not origin.file else PurePosixPath(file).stem,
        str(Hub(origin.repository, commit, file)),
        tuple(remotes),
        () if origin.file or only is not None else (origin.repository,),
    )


def needed(files: Collection[str], variant: str | None = None) -> list[str]:
    """The files of a repository that Darkroom uses where it holds a model folder or a component's folder, else none.

    Of each network one set of weights: of the variant if there is one, safetensors before pickles; no single file
    beside them, and nothing of what Darkroom does not run (safety checkers, ONNX and Flax weights).
    """
    folders: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        folders.setdefault(folder, set()).add(name)
    top = folders.get("", set())
    if INDEX not in top:
        weights = _weights(top, variant) if "config.json" in top else []
        return sorted({*weights, "config.json"}) if weights else []
    chosen = [name for name in (INDEX, "darkroom.json") if name in top]
    for folder, names in folders.items():
        texts = [name for name in names if name.endswith(TEXTS) and ".index." not in name]
        if folder.startswith("tokenizer") or folder == "scheduler":
            chosen += [f"{folder}/{name}" for name in texts]
        elif folder in list(Role):
            chosen += [f"{folder}/{name}" for name in {*texts, *_weights(names, variant)}]
    return sorted(chosen)


def _weights(names: Collection[str], variant: str | None) -> list[str]:
    """A component's weights: a file, or an index and its shards."""
    name = weights_name(names, variant)
    if name is None or not name.endswith(".json"):
        return [name] if name else []
    # diffusion_pytorch_model.safetensors.index.fp16.json lists diffusion_pytorch_model.fp16-00001-of-00002.safetensors.
    stem, suffix, dot = re.sub(r"(.+?)(\.\w+)?(\.\w+)\.index(\.\w+)?\.json", r"\1|\3|\2\4", name).split("|")
    shard = re.compile(
        rf"{re.escape(stem)}({re.escape(dot)})?-\d+-of-\d+({re.escape(dot)})?{re.escape(suffix)}"
    )
    marked = [each for each in names if shard.fullmatch(each)]
    return [name, *(each for each in marked if not dot or dot in each)]


def _file(origin: Hub, files: Collection[str]) -> str:
    """The one file asked for: by its path, or its name where that says enough."""
    named = [each for each in files if origin.file in (each, each.rpartition("/")[2])]
    if origin.file in named:
        return origin.file
    if len(named) == 1:
        return named[0]
    weights = [each for each in files if each.endswith(SUFFIXES)]
    raise InvalidRequest(f"{origin.repository} has no file {origin.file!r}: {nearest(origin.file, weights)}")


def _only_file(origin: Hub, files: Collection[str]) -> str:
    """The one file of weights of a repository without a model folder; of twins, the one in safetensors."""
    weights = {file for file in files if file.endswith(SUFFIXES) and "/" not in file}
    safe = {PurePosixPath(file).stem for file in weights if file.endswith(".safetensors")}
    weights = {
        file for file in weights if file.endswith(".safetensors") or PurePosixPath(file).stem not in safe
    }
    if len(weights) == 1:
        return weights.pop()
    if not weights:
        raise ModelError(f"{origin.repository} holds no model and no weights in its top folder: give `file=`")
    raise InvalidRequest(
        f"{origin.repository} holds several files, choose one with `file=`: {', '.join(sorted(weights))}"
    )


def _remote(repository: str, commit: str, name: str, sibling: Any, token: str | None) -> Remote:
    from huggingface_hub import hf_hub_url

    large = getattr(sibling, "lfs", None)
    return Remote(
        name,
        hf_hub_url(repository, str(sibling.rfilename), revision=commit, endpoint=hub_endpoint()),
        getattr(sibling, "size", None),
        str(large.sha256) if large else "",
        "" if large else str(getattr(sibling, "blob_id", None) or ""),
        token or "",
        _help(repository),
    )


def _help(repository: str) -> str:
    return f"accept its terms at {hub_endpoint()}/{repository}, and give a token that may read it (HF_TOKEN, `token=`)"


def _known_token() -> str | None:
    get_token = _module().get_token
    return get_token() or None


def _module() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ModelError(
            "pulling from the hub needs huggingface_hub: run pip install 'darkroom[hub]'"
        ) from None
    return huggingface_hub


def _ask(origin: Hub, token: str | None) -> Any:
    """The hub's record of a repository at a revision."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = _module().HfApi(endpoint=hub_endpoint(), token=token or False)
    where = f"{origin.repository}@{origin.revision}" if origin.revision else origin.repository
    try:
        return api.model_info(
            origin.repository, revision=origin.revision or "main", files_metadata=True, timeout=30
        )
    except OfflineModeIsEnabled:
        raise ModelError(f"{where} is not fetched: HF_HUB_OFFLINE is set") from None
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        if code in (401, 403):
            raise ModelError(
                f"the hub refuses access to {where}, or there is none of that name: {_help(origin.repository)}"
            ) from error
        if code == 404:
            raise ModelError(f"the hub has no model {where}: check its name and revision") from error
        raise ModelError(f"the hub answers {code} for {where}: try again later") from error
    except Exception as error:
        # What the library's transport raises differs from version to version.
        words = " ".join(str(error).split())
        raise ModelError(
            f"{hub_endpoint()} cannot be reached for {where}: {words or type(error).__name__}"
        ) from error
