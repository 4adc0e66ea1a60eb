"""Secrets in addresses: tokens and signatures that are used, and neither kept nor shown."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

_ADDRESS = re.compile(r"[a-z][a-z\d+.-]*://[^\s\"]+|[^\s?'\"]+\?[^\s\"]*=[^\s\"]*", re.IGNORECASE)
"""An address, or what is one but for its beginning, as browsers copy it. In JSON a quotation mark ends it."""
# Of queries: what services call tokens, and the parts of signed links (Amazon, Google, Azure, CloudFront and others).
_SECRET = re.compile(
    r"""(?ix) .*token.* | .*secret.* | .*pass(w.*|phrase|code)? | .*signature.* | .*credential.* | .*session.*
    | .*access[-_]?key.* | .*api[-_]?key.* | .*key | .*key[-_]?id | auth.* | bearer | jwt | pwd? | sign? | upsig | hmac?
    | hm | md5 | otp | sid | ticket | code | policy | expires? | ak | sk | googleaccessid | q-.*
    | x-(amz|goog|ms|oss|cos|obs|bz)-.* | s[vepirt]|spr|sk(oid|tid|[tesv])"""
)
_CHOICE = re.compile(r"(?i)(file|model|version)?_?(id|name)|file|model|version|path")
"""What chooses a file in a query, however long it is."""
_TOKENS = ("token", "access_token", "api_key", "apikey", "key")
_OPAQUE = 24  # A value as long as this, of letters and figures without a word, is nobody's choice of a file.
_HUB_TOKEN = re.compile(r"hf_\w+$")
_MARK = re.compile(r"darkroom-[0-9a-f]{12}")


def without_secrets(text: str) -> str:
    """A text with every address in it as it may be kept and shown: without a user's name and password, and without what
    of its query is a token or a signature, or looks like one."""
    return _ADDRESS.sub(lambda found: _cleaned(found[0]), text)


def kept(url: str) -> str:
    """An address as it may be kept. One that something was taken out of for its looks is marked, for that may have
    chosen the file: see `is_marked`."""
    clean = without_secrets(url)
    lost = [
        value
        for name, value in _asked(urlsplit(url).query)
        if not _is_secret(name) and _looks_secret(name, value)
    ]
    if not lost or is_marked(url):
        return clean
    return f"{clean}#darkroom-{hashlib.sha256(' '.join(lost).encode()).hexdigest()[:12]}"


def is_marked(url: str) -> bool:
    """Whether something was taken out of an address that may have chosen its file."""
    return _MARK.fullmatch(urlsplit(url).fragment) is not None


def token_in(text: str) -> str:
    """The token that an address brings, in its query or as its password; "" where there is none."""
    if not (found := _ADDRESS.match(text.strip())):
        return ""
    try:
        parts = urlsplit(found[0])
    except ValueError:
        return ""
    query = {name.lower(): value for name, value in parse_qsl(parts.query)}
    given = next((query[name] for name in _TOKENS if query.get(name)), "")
    # The hub's own tokens are given as a user's name, too.
    return (
        given
        or unquote(parts.password or "")
        or (parts.username or "" if _HUB_TOKEN.match(parts.username or "") else "")
    )


def userinfo(url: str) -> tuple[str, str]:
    """An address without the user's name and password, and these with a colon between; "" where there are none."""
    parts = urlsplit(url)
    own, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), unquote(own) if at else ""


def _cleaned(found: str) -> str:
    """An address without secrets, and whatever closed it in its text."""
    address = found.rstrip("'\"<>)]},.;")
    return _clean(address) + found[len(address) :]


def _clean(url: str) -> str:
    # What has a colon and no number behind it is no host, but a name and a password that holds a slash.
    url = re.sub(r"^(\w[\w+.-]*://)[^/?@]*:(?!\d*(?:/|$))[^?]*@", r"\1", url)
    try:
        parts = urlsplit(userinfo(url)[0])
    except ValueError:
        return url.partition("?")[0]
    asked = _asked(parts.query)
    left = [(name, value) for name, value in asked if not (_is_secret(name) or _looks_secret(name, value))]
    fragment = parts.fragment if _MARK.fullmatch(parts.fragment) else ""
    if len(left) == len(asked) and fragment == parts.fragment:
        return urlunsplit(parts)
    return urlunsplit(parts._replace(query=urlencode(left, quote_via=quote), fragment=fragment))


def _asked(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query.replace(";", "&"), keep_blank_values=True)


def _is_secret(name: str) -> bool:
    return _SECRET.fullmatch(name) is not None


def _looks_secret(name: str, value: str) -> bool:
    if _CHOICE.fullmatch(name):
        return False
    opaque = len(value) >= _OPAQUE and re.fullmatch(r"[\w+/=~-]+", value) is not None
    return opaque and re.search(r"\d", value) is not None and re.search(r"[A-Za-z]", value) is not None
