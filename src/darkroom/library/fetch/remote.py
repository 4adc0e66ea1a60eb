"""What is to be fetched, and which of a service's words about it are believed."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from darkroom.errors import InvalidRequest, ModelError
from darkroom.files import shortened
from darkroom.library.secrets import kept, without_secrets

_SPARE = 64 << 20  # Bytes to leave free on a disk.


@dataclass(frozen=True)
class Remote:
    """A file to fetch. name: where it belongs, relative to its model; size, sha256, git: its bytes, SHA-256 and git
    blob id as the service states them, if it does; token: for the service's own host alone; help: what to do when
    access is refused."""

    name: str
    url: str = field(repr=False)
    size: int | None = None
    sha256: str = ""
    git: str = ""
    token: str = field(default="", repr=False)
    help: str = ""

    @property
    def key(self) -> str:
        """What an unfinished download is kept under."""
        return self.sha256 or hashlib.sha256(f"{kept(self.url)} {self.git}".encode()).hexdigest()


@dataclass(frozen=True)
class Listing:
    """A model as a service lists it: what of it to fetch. name, aliases: what to call it; origin: where it comes from,
    to the revision; size: bytes, roughly, where the files do not say theirs; hint: the kind that it is taken for where
    its header does not tell; about: what the service says of it, in the form of the files of Civitai's helpers."""

    name: str
    origin: str
    files: tuple[Remote, ...]
    aliases: tuple[str, ...] = ()
    size: int = 0
    hint: str | None = None
    about: Mapping[str, Any] | None = None


def check_url(url: str, insecure: bool) -> None:
    """Raise InvalidRequest unless an address is https, or http on this machine, or anything goes (`insecure`)."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidRequest(f"{without_secrets(url)!r} is no address: {error}") from None
    if re.search(r"\s", parts.netloc):
        raise InvalidRequest(f"{without_secrets(url)!r} is no address: its host has a space in it")
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise InvalidRequest(
            f"{without_secrets(url)!r} is no address of the web: give one that begins with https://"
        )
    if parts.scheme == "http" and not insecure and not _loopback(parts.hostname):
        raise InvalidRequest(
            f"{without_secrets(url)} is not encrypted, so that anybody on the way could change the file: use https, "
            "or `insecure=True`"
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def safe_name(text: str) -> str:
    """A file name out of what a server says: its last part, without whatever a file system could take amiss."""
    last = PurePosixPath(unquote(text).replace("\\", "/")).name
    kept = "".join(sign if sign.isprintable() and sign not in '<>:"|?*/' else "_" for sign in last)
    name = PurePosixPath(kept.strip(". ") or "model")
    return shortened(name.stem, 150) + name.suffix[:20]


def check_path(name: str) -> str:
    """A file's path within a repository, as it is. Raises ModelError where it leads out of its folder."""
    parts = name.split("/")
    if any(
        part in ("", ".", "..") or not part.isprintable() or set(part) & set('\\:*?"<>|') for part in parts
    ):
        raise ModelError(
            f"the service names the file {name[:80]!r}, which is no path: it is faulty or malicious"
        )
    return name


def check_room(folder: Path, size: int) -> None:
    """Raise ModelError where a disk has not enough room for some more bytes."""
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE:
        raise ModelError(
            f"the disk of {folder} is too full: {size / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free"
        )
