"""Fetching models into the library, and removing what was fetched.

Below $DARKROOM_HOME/models, `blobs` holds each file once, called by its SHA-256; KIND/NAME/DIGEST/ holds a model as
other programs know it, whose files are hard links to blobs. So nothing has to be counted: a blob with no other link is
unused.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from darkroom.errors import DarkroomError, InvalidRequest, ModelError
from darkroom.files import as_json
from darkroom.library.about import INFO
from darkroom.library.fetch import civitai, hub
from darkroom.library.fetch.download import Fetched, Progress, Web
from darkroom.library.fetch.origin import Address, Civitai, Hub, Origin, parse
from darkroom.library.fetch.remote import Listing, Remote, check_room, safe_name
from darkroom.library.installed import installed
from darkroom.library.kinds import identify
from darkroom.library.lock import Locked
from darkroom.library.records import (
    Entry,
    File,
    Library,
    Recorded,
    Version,
    changing,
    digest_of,
    home,
    line,
)
from darkroom.library.scan import tidy
from darkroom.library.secrets import is_marked, token_in, userinfo, without_secrets
from darkroom.weights.names import SUFFIXES


def pull(
    what: str,
    *,
    name: str | None = None,
    kind: str | None = None,
    file: str | None = None,
    variant: str | None = None,
    token: str | None = None,
    insecure: bool = False,
    progress: Progress | None = None,
) -> Recorded:
    """Fetch a model and record it: by an id or address (see `origin.parse`), or the newest of an entry's origin.

    name: what to call it; kind: what it is taken for where its header does not tell; file, variant: which of several.
    Raises ModelError where it cannot be had, or is not what it should be, InvalidRequest where the request is mistaken.
    """
    origin = parse(what)
    if not isinstance(origin, Address):
        token = token or token_in(what)
    if origin is None:
        origin, usual = _origin_of(what)
        variant = variant or usual
    web = Web(insecure)
    if isinstance(origin, Hub):
        origin = replace(origin, file=file or origin.file)
        listing = hub.listing(origin, variant=variant, token=token, insecure=insecure)
    elif isinstance(origin, Civitai):
        listing = civitai.listing(origin, web, file=file, variant=variant, token=token)
    else:
        listing = _of_address(origin, token)
    return _fetch(replace(listing, hint=kind or listing.hint), web, name, progress)


def pull_locked(
    wanted: Locked, *, token: str | None = None, insecure: bool = False, progress: Progress | None = None
) -> Recorded | None:
    """Fetch exactly what a lock lists under a name, where the library does not have it yet (None).

    A version that is there stays the current one. Raises ModelError where it cannot be fetched, or has other hashes.
    """
    found = Library.read().match(wanted.name, wanted.kind)
    for version in found[0].versions if found else ():
        if version.digest == wanted.digest and not version.state():
            return None
    origin = parse(wanted.origin) if wanted.origin else None
    if origin is None:
        raise ModelError(
            f"{wanted.name} cannot be fetched: it was locked from a file of somebody's own. Get the {wanted.kind} with "
            f"SHA-256 {wanted.digest}, and `darkroom models add` it under that name"
        )
    web = Web(insecure)
    if isinstance(origin, Hub):
        listing = hub.listing(origin, token=token, insecure=insecure, only=_hub_paths(origin, wanted))
    elif isinstance(origin, Civitai):
        listing = civitai.listing(origin, web, token=token, only=wanted.files)
    else:
        listing = _of_address(origin, token)
    files = tuple(_as_locked(remote, wanted) for remote in listing.files)
    listing = replace(listing, files=files, hint=wanted.kind, aliases=())
    recorded = _fetch(listing, web, wanted.name, progress, stay=True)
    with changing() as library:
        # The same thing may be here by another name.
        if library.match(wanted.name, wanted.kind) is None:
            library.alias(library.find(recorded.entry.name, wanted.kind), wanted.name)
    return recorded


def _hub_paths(origin: Hub, wanted: Locked) -> Collection[str]:
    """The files that a lock lists, as a listing has them: a single one by its whole path, as its origin has it."""
    return [origin.file] if origin.file and len(wanted.files) == 1 else wanted.files


def _as_locked(remote: Remote, wanted: Locked) -> Remote:
    """A file to fetch, with the hash that the lock gives it."""
    alone = next(iter(wanted.files.values())) if len(wanted.files) == 1 else None
    file = alone or wanted.files[remote.name]
    if remote.sha256 and remote.sha256 != file.sha256:
        raise ModelError(
            f"{wanted.name} is locked with the SHA-256 {file.sha256[:10]} for {remote.name}, but {wanted.origin} "
            f"has {remote.sha256[:10]} now"
        )
    return replace(remote, sha256=file.sha256, size=file.size)


def _origin_of(name: str) -> tuple[Origin, str | None]:
    """Where an entry of the library came from, without the revision, and the variant that was fetched, if any."""
    found = Library.read().match(name)
    if found is None:
        raise InvalidRequest(
            f"{without_secrets(name)!r} is no id, no address and no name in the library: give ORG/NAME, "
            "civitai:NUMBER or https://..."
        )
    version = found[1]
    origin = parse(line(version.origin)) if version.origin else None
    if origin is None:
        raise InvalidRequest(f"{name!r} was not pulled, so that nobody knows where a newer version would be")
    variants = (re.search(r"\.(fp16|bf16|non_ema)\b", file) for file in version.files)
    return origin, next((variant[1] for variant in variants if variant), None)


def _of_address(address: Address, token: str | None) -> Listing:
    if is_marked(address.url):
        raise ModelError(
            f"{address} cannot be fetched again: of its address something was not kept that looked like a secret. Pull "
            "it by its own address"
        )
    url, own = userinfo(address.url)
    name = safe_name(urlsplit(url).path)
    basic = f"Basic {base64.b64encode(own.encode()).decode()}" if own else ""
    remote = Remote(name, url, token=token or basic)
    return Listing(Path(name).stem if name.endswith(SUFFIXES) else "", str(address), (remote,))


# From unfinished downloads to blobs and a model's own folder


def _store() -> Path:
    return home() / "models"


def _fetch(
    listing: Listing, web: Web, name: str | None, progress: Progress | None, stay: bool = False
) -> Recorded:
    name = tidy(called) if (called := name or listing.name) else ""
    if known := _complete(listing):
        return known
    if name in installed(listing.hint or "model"):
        raise InvalidRequest(f"{name!r} is the name of what comes with Darkroom: give `name=`")
    unfinished, blobs = _store() / "partial", _store() / "blobs"
    for folder in (unfinished, blobs):
        folder.mkdir(parents=True, exist_ok=True)
    missing = [remote for remote in listing.files if not (remote.sha256 and (blobs / remote.sha256).exists())]
    have = sum(
        part.stat().st_size for remote in missing if (part := unfinished / f"{remote.key}.part").exists()
    )
    check_room(unfinished, max(0, (sum(remote.size or 0 for remote in missing) or listing.size) - have))
    fetched = {}
    for remote in listing.files:
        found = web.download(remote, unfinished, progress) if remote in missing else None
        blob = blobs / (found.sha256 if found else remote.sha256)
        if found and blob.exists():
            # Only now is it known that these bytes are here.
            _drop(found)
            found = replace(found, path=blob)
        fetched[remote.name] = found or Fetched(blob, remote.sha256)
    return _place(listing, name, fetched, stay)


def _complete(listing: Listing) -> Recorded | None:
    """What is recorded of the same revision, or of the same single file wherever it is from, if it is all there."""
    wanted = {remote.name: remote.sha256 for remote in listing.files}
    alone = next(iter(wanted.values())) if len(wanted) == 1 else ""
    for entry in Library.read().entries:
        for number, version in enumerate(entry.versions):
            hashes = {name: file.sha256 for name, file in version.files.items()}
            # Of a single file, only its own name is left of its path in the repository.
            pulled = version.origin == listing.origin and version.how == "pulled"
            pulled &= len(wanted) == 1 == len(hashes) or wanted.keys() == hashes.keys()
            pulled &= {*wanted.values()} - {""} <= {*hashes.values()}
            if (pulled or (alone and alone == version.digest)) and not version.state():
                return Recorded(entry, number, "known")
    return None


def _place(listing: Listing, name: str, fetched: dict[str, Fetched], stay: bool) -> Recorded:
    """Lay out a model's files, find out what it is, and record it; on failure, nothing is left of it."""
    staging = Path(tempfile.mkdtemp(dir=_store() / "partial"))
    try:
        if len(fetched) == 1:
            # A single file has no folders above it, and may be called by its server.
            ((relative, only),) = fetched.items()
            own = _file_name(relative, only)
            fetched, name, folder = {own: only}, name or tidy(Path(own).stem), staging
            if listing.about is not None:
                (staging / f"{Path(own).stem}{INFO}").write_text(as_json(listing.about), "utf-8")
        else:
            own = safe_name(name)
            folder = staging / own
        for relative, each in fetched.items():
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            _link(each.path, folder / relative)
        try:
            identity = identify(staging / own, listing.hint)
        except DarkroomError as error:
            for each in fetched.values():
                _drop(each)
            raise ModelError(
                f"{listing.origin}: {str(error).replace(f'{staging}/', '')} (deleted)"
            ) from error
        files = {relative: File(each.path.stat().st_size, each.sha256) for relative, each in fetched.items()}
        place = _store() / identity.kind / safe_name(name) / digest_of(files)[:10]
        version = Version(place / own, files, identity.family, "pulled", listing.origin)
        with changing() as library:
            before = {id(entry): entry.current for entry in library.entries}
            recorded = library.record(identity.kind, name, version, _free(library, listing, identity.kind))
            if stay:
                recorded.entry.current = before.get(id(recorded.entry), recorded.entry.current)
            if recorded.version.path != version.path:
                # The same bytes are in the library already.
                for each in fetched.values():
                    _drop(each)
                return recorded
            for each in fetched.values():
                _keep(each)
            # Whatever is there by that digest is the same, or incomplete.
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging, place)
            place.chmod(0o755)
        return recorded
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _free(library: Library, listing: Listing, kind: str) -> list[str]:
    return [alias for alias in listing.aliases if not library.taken(kind, alias)]


def _file_name(relative: str, fetched: Fetched) -> str:
    name = safe_name(relative)
    if not name.lower().endswith(SUFFIXES) and fetched.called:
        name = safe_name(fetched.called)
    return name if name.lower().endswith(SUFFIXES) else f"{name}.safetensors"


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the disk has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _keep(fetched: Fetched) -> None:
    """Make a finished download a blob."""
    blob = _store() / "blobs" / fetched.sha256
    if not blob.exists():
        os.replace(fetched.path, blob)
    _drop(fetched)


def _drop(fetched: Fetched) -> None:
    """Delete what is left of a download among the unfinished ones."""
    if fetched.path.parent.name == "partial":
        fetched.path.unlink(missing_ok=True)
        fetched.path.with_suffix(".lock").unlink(missing_ok=True)


# Removing


def remove(entry: Entry, versions: Collection[int], library: Library, keep_files: bool = False) -> int:
    """Forget some versions of an entry, and the entry with its last one; the bytes that were freed.

    Files are deleted only where `pull` fetched them and no other version uses them. To be called while the library is
    being changed.
    """
    gone = [version for number, version in enumerate(entry.versions) if number in versions]
    current = entry.version
    entry.versions = [version for version in entry.versions if version not in gone]
    entry.current = entry.versions.index(current) if current in entry.versions else len(entry.versions) - 1
    if not entry.versions:
        library.entries.remove(entry)
    return 0 if keep_files else sum(_delete(version, library) for version in gone)


def _delete(version: Version, library: Library) -> int:
    place = version.path.parent
    if version.how != "pulled" or not place.is_relative_to(_store()) or library.holders(place):
        return 0
    shutil.rmtree(place, ignore_errors=True)
    for folder in (place.parent, place.parent.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    freed = 0
    for file in version.files.values():
        blob = _store() / "blobs" / file.sha256
        if blob.exists() and blob.stat().st_nlink == 1:
            blob.unlink()
            freed += file.size
    return freed
