"""Secrets in addresses: tokens and signatures that are used, and neither kept nor shown."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

_ADDRESS = re.compile(r"https?://[^\s'\"<>]+")
# Of queries: what services call tokens, and the parts of signed links (Amazon, Google, Azure, CloudFront and others).
_SECRET = re.compile(
    r"""(?ix) .*token.* | .*secret.* | .*passw.* | .*signature.* | .*credential.* | .*session.* | .*api[-_]?key.*
    | auth.* | bearer | jwt | key | pwd | sig | hmac | code | policy | expires? | key-pair-id
    | awsaccesskeyid | googleaccessid | x-(amz|goog|ms|oss|cos|obs|bz)-.* | s[vepirt]|spr|sk(oid|tid|[tesv])"""
)
_TOKENS = ("token", "access_token", "api_key", "apikey", "key")
_OPAQUE = 24  # A value as long as this, of letters and figures without a word, is nobody's choice of a file.


def without_secrets(text: str) -> str:
    """A text with every address in it as it may be kept and shown: without a user's name and password, and without what
    of its query is a token or a signature, or looks like one."""
    return _ADDRESS.sub(lambda found: _clean(found[0]), text)


def token_in(text: str) -> str:
    """The token that an address brings, in its query or as its password; "" where there is none."""
    if not (found := _ADDRESS.match(text.strip())):
        return ""
    parts = urlsplit(found[0])
    query = {name.lower(): value for name, value in parse_qsl(parts.query)}
    given = next((query[name] for name in _TOKENS if query.get(name)), "")
    return given or unquote(parts.password or "")


def userinfo(url: str) -> tuple[str, str]:
    """An address without the user's name and password, and these with a colon between; "" where there are none."""
    parts = urlsplit(url)
    own, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), unquote(own) if at else ""


def _clean(url: str) -> str:
    try:
        parts = urlsplit(userinfo(url)[0])
    except ValueError:
        return url.partition("?")[0]
    asked = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in asked if not (_SECRET.fullmatch(name) or _looks_secret(value))]
    if len(kept) == len(asked) and not parts.fragment:
        return urlunsplit(parts)
    return urlunsplit(parts._replace(query=urlencode(kept, quote_via=quote), fragment=""))


def _looks_secret(value: str) -> bool:
    opaque = len(value) >= _OPAQUE and re.fullmatch(r"[\w+/=~-]+", value) is not None
    return opaque and re.search(r"\d", value) is not None and re.search(r"[A-Za-z]", value) is not None
