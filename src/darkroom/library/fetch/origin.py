"""Where a model comes from, as people write it: ids and addresses of the Hugging Face hub, of Civitai, and others.

`str` of what `parse` returns is the form that the library records and that `parse` reads again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

from darkroom.errors import InvalidRequest
from darkroom.library.secrets import kept, without_secrets

_HUB = ("huggingface.co", "hf.co")
_CIVITAI = ("civitai.com", "civitai.green", "civitai.red")
_WORD = r"[A-Za-z0-9][\w.-]*"
_REVISION = r"refs/(?:pr/\d+|convert/[^/]+)|[^/@]+"


@dataclass(frozen=True)
class Hub:
    """A repository of the Hugging Face hub, a folder or a file of it. revision: a branch, tag or commit; "" is the main
    one."""

    repository: str
    revision: str = ""
    file: str = ""

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"hf://{self.repository}{revision}" + (f"/{self.file}" if self.file else "")


@dataclass(frozen=True)
class Civitai:
    """A version of a model on Civitai; model None where only the version is known, version None for the newest.
    choice: which of its files, by what Civitai's addresses say of it (`CHOICES`)."""

    model: int | None
    version: int | None = None
    choice: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        choice = f"?{urlencode(self.choice, quote_via=quote)}" if self.choice else ""
        return f"civitai:{self.model or ''}{version}{choice}"


CHOICES = ("type", "format", "size", "fp")
"""By what an address at Civitai chooses one of a version's files."""


@dataclass(frozen=True)
class Address:
    """A file anywhere, by its URL, which may hold secrets: the form that is kept has none."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        return kept(self.url)


Origin = Hub | Civitai | Address


def hub_endpoint() -> str:
    """The Hugging Face hub, or the mirror in $HF_ENDPOINT."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def civitai_endpoint() -> str:
    """Civitai, or the mirror in $CIVITAI_ENDPOINT."""
    return (os.environ.get("CIVITAI_ENDPOINT") or "https://civitai.com").rstrip("/")


def parse(text: str) -> Origin | None:
    """What an id or address means; None where it is neither. Raises InvalidRequest for an address that leads nowhere.

    Hub: ORG/NAME[@REVISION], hf://ORG/NAME[@REVISION][/FILE], or a page's address. Civitai: civitai:MODEL[@VERSION],
    civitai:@VERSION, its AIR (urn:air:...:civitai:MODEL@VERSION), or the address of a page or download.
    """
    text = text.strip()
    if found := re.fullmatch(r"(?:urn:air:[^:]+:[^:]+:)?civitai:(\d*)(?:@(\d+))?(?:\.\w+)?(?:\?(.*))?", text):
        if found[1] or found[2]:
            return Civitai(_number(found[1]), _number(found[2]), _choice(found[3] or ""))
        raise InvalidRequest(f"{text!r} has no number: give civitai:MODEL or civitai:MODEL@VERSION")
    if text.startswith("hf://"):
        found = re.fullmatch(rf"({_WORD}/{_WORD})(?:@({_REVISION}))?(?:/(.+))?", text.removeprefix("hf://"))
        if found is None:
            raise InvalidRequest(f"{text!r} is no address of the hub: give hf://ORG/NAME[@REVISION][/FILE]")
        return Hub(found[1], unquote(found[2] or ""), found[3] or "")
    if re.match(rf"(?i)(www\.)?({'|'.join(map(re.escape, (*_HUB, *_CIVITAI)))})/", text):
        text = f"https://{text}"  # As browsers copy it.
    if re.match(r"(?i)https?://", text):
        return _from_url(text)
    if found := re.fullmatch(rf"({_WORD}/{_WORD})(?:@(\S+))?", text):
        return Hub(found[1], found[2] or "")
    return None


def _from_url(text: str) -> Origin:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InvalidRequest(f"{without_secrets(text)!r} is no address: {error}") from None
    path, host = unquote(parts.path).strip("/"), parts.netloc.rpartition("@")[2].lower()
    host = host.removeprefix("www.").removesuffix(":443")
    if host in (*_CIVITAI, urlsplit(civitai_endpoint()).netloc):
        if found := re.match(r"(?:api/v1/)?models/(\d+)", path):
            wanted = parse_qs(parts.query).get("modelVersionId", [""])[0]
            if (version := _number(wanted)) is None and wanted:
                raise InvalidRequest(f"modelVersionId is {wanted!r}: it must be a number")
            return Civitai(int(found[1]), version, _choice(parts.query))
        if found := re.match(r"api/(?:v1/)?(?:download/models|model-versions)/(\d+)", path):
            return Civitai(None, int(found[1]), _choice(parts.query))
    if host in (*_HUB, urlsplit(hub_endpoint()).netloc) and not path.startswith(("datasets/", "spaces/")):
        inside = rf"(?:/(?:tree|resolve|blob|raw)/({_REVISION})(?:/(.+))?)?"
        if found := re.fullmatch(rf"({_WORD}/{_WORD}){inside}", path):
            return Hub(found[1], found[2] or "", found[3] or "")
    if host in (*_HUB, *_CIVITAI):
        example = "https://huggingface.co/ORG/NAME" if host in _HUB else "https://civitai.com/models/NUMBER"
        raise InvalidRequest(f"{without_secrets(text)} is no model's page: give {example}")
    return Address(text)


def _choice(query: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in parse_qsl(query) if name in CHOICES)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
