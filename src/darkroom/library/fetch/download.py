"""Fetching files over HTTPS: patiently, resuming what was begun, and believing nothing that can be checked.

Of all modules, only this one and `darkroom.library.fetch.hub` reach for the network.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from darkroom.errors import ModelError
from darkroom.files import write_json
from darkroom.library.fetch.remote import Remote, check_room, check_url
from darkroom.library.secrets import without_secrets
from darkroom.version import __version__
from darkroom.weights.hashes import digest

Progress = Callable[[str, int, int | None], object]
"""Told (file, bytes done, bytes in all or None) as a file arrives."""

_TRIES = 5  # In a row without a byte of progress.
_TIMEOUT = 30.0  # Seconds without a sign of the server.
_LONGEST_WAIT = 120.0  # Seconds that a server may ask us to wait.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_CHUNK = 1 << 20
_LONGEST_JSON = 64 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Fetched:
    """A file that has arrived whole: where it lies for now, its SHA-256, and what the server calls it, if anything."""

    path: Path
    sha256: str
    called: str = ""


class NotFound(ModelError):
    """There is nothing at an address."""


class _Dropped(Exception):
    """A failure that may pass. wait: seconds that the server asked for, if it did."""

    def __init__(self, words: str, wait: float | None = None) -> None:
        super().__init__(words)
        self.wait = wait


class Web:
    """What is fetched in one go. insecure: whether http is good enough for hosts other than this machine."""

    def __init__(self, insecure: bool = False) -> None:
        self.insecure = insecure

    def json(self, url: str, token: str = "", help: str = "") -> dict[str, Any]:
        """The JSON object at an address. Raises ModelError where there is none."""

        def attempt() -> bytes:
            with self._open(url, {"Accept": "application/json"}, token, help)[0] as response:
                return _read(response, _LONGEST_JSON)

        try:
            value = json.loads(_persist(attempt))
        except ValueError as error:
            raise ModelError(
                f"{without_secrets(url)} answers with something other than JSON: {error}"
            ) from error
        if not isinstance(value, dict):
            raise ModelError(f"{without_secrets(url)} answers with something other than a JSON object")
        return value

    def download(self, remote: Remote, folder: Path, progress: Progress | None = None) -> Fetched:
        """Fetch a file into a folder of unfinished downloads; what is there of it already is not fetched again.

        When interrupted, what has arrived stays for the next time. Raises ModelError where it cannot be had, is not
        what the service says it is, or does not fit on the disk.
        """
        from filelock import FileLock, Timeout

        check_url(remote.url, self.insecure)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{remote.key}.part"
        try:
            with FileLock(part.with_suffix(".lock"), timeout=0):
                return self._checked(remote, part, progress)
        except Timeout:
            raise ModelError(
                f"another process is fetching {remote.name}: try again when it is done"
            ) from None

    def _checked(self, remote: Remote, part: Path, progress: Progress | None) -> Fetched:
        for resumed in (_size(part) > 0, False):
            stated = _persist(lambda: self._receive(remote, part, progress), lambda: _size(part))
            found = digest(part)
            wrong = _difference(remote, part, found, str(stated.get("sha256", "")))
            if not wrong:
                part.with_suffix(".json").unlink(missing_ok=True)
                return Fetched(part, found, str(stated.get("name", "")))
            _discard(part)
            if not resumed:
                raise ModelError(f"{remote.name} is not what the service says it is: {wrong}. It was deleted")
        raise AssertionError("unreachable")

    def _receive(self, remote: Remote, part: Path, progress: Progress | None) -> dict[str, Any]:
        """Bring a file to its full length, and return what the server stated of it."""
        have, stated = _size(part), _stated(part)
        sure = stated.get("validator") or remote.sha256 or remote.git
        if have and (not sure or (remote.size is not None and have > remote.size)):
            _discard(part)
            have, stated = 0, {}
        if remote.size is not None and have == remote.size and (have or part.exists()):
            return stated
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and stated.get("validator"):
            headers["If-Range"] = str(stated["validator"])
        try:
            response, linked = self._open(remote.url, headers, remote.token, remote.help)
        except urllib.error.HTTPError as error:
            # There is nothing after the last byte: it is whole, or another file by now.
            if _total(error.headers.get("Content-Range", "")) == have:
                return stated
            _discard(part)
            raise _Dropped(f"{without_secrets(remote.url)} has changed") from error
        with response:
            if have and (response.status != 206 or _start(response.headers.get("Content-Range", "")) != have):
                if response.status == 206:
                    _discard(part)
                    raise _Dropped(
                        f"{without_secrets(remote.url)} answers with another part than was asked for"
                    )
                have = 0
            stated = _statements(response, linked)
            total = _expected(response, have, remote)
            if total is not None:
                check_room(part.parent, total - have)
            write_json(part.with_suffix(".json"), stated, ModelError)
            _save(response, part, have, total, remote.name, progress)
        return stated

    def _open(
        self, url: str, headers: Mapping[str, str], token: str, help: str
    ) -> tuple[http.client.HTTPResponse, str]:
        """The answer to a request, and the SHA-256 that the service stated on the way, if any."""
        check_url(url, self.insecure)
        redirects = _Redirects(self.insecure)
        request = urllib.request.Request(
            url,
            headers={
                **headers,
                "User-Agent": f"darkroom/{__version__}",
                "Accept-Encoding": "identity",
            },
        )
        if token:
            # Unredirected: whether the next host gets it, `_Redirects` decides.
            known = token if token.startswith("Basic ") else f"Bearer {token}"
            request.add_unredirected_header("Authorization", known)
        try:
            response = urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code == 416 and "Range" in headers:
                raise
            with error:
                raise _refusal(error, url, help) from error
        except urllib.error.URLError as error:
            raise _unreachable(error.reason, url) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Dropped(f"{_host(url)} broke off ({error or type(error).__name__})") from error
        stated = response.headers.get("X-Linked-ETag", redirects.linked).strip('"')
        return response, stated if re.fullmatch(r"[0-9a-f]{64}", stated) else ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, to safe addresses, and keeps a token from every host but the one that it is for."""

    def __init__(self, insecure: bool) -> None:
        self.insecure = insecure
        self.linked = ""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        check_url(newurl, self.insecure)
        self.linked = headers.get("X-Linked-ETag", self.linked)
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if new is not None and token and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            new.add_unredirected_header("Authorization", token)
        return new


def _persist(attempt: Callable[[], _T], grown: Callable[[], int] = lambda: 0) -> _T:
    """What `attempt` returns, tried again after failures that may pass, as long as there is progress."""
    tries, before = 0, grown()
    while True:
        try:
            return attempt()
        except _Dropped as error:
            now = grown()
            tries, before = (1 if now > before else tries + 1), now
            if tries >= _TRIES:
                raise ModelError(
                    f"{error}: gave up after {tries} tries; run it again to go on from there"
                ) from error
            if error.wait is not None and error.wait > _LONGEST_WAIT:
                raise ModelError(f"{error} and asks to wait {error.wait:.0f} s: try again then") from error
            time.sleep(2.0 ** (tries - 1) if error.wait is None else error.wait)


def _refusal(error: urllib.error.HTTPError, url: str, help: str) -> Exception:
    host, shown = _host(url), without_secrets(url)
    if error.code in _PASSING:
        return _Dropped(
            f"{host} answers {error.code} {error.reason}", _wait(error.headers.get("Retry-After", ""))
        )
    if error.code == 401:
        return ModelError(f"{host} wants to know who asks for {shown}: {help or 'give `token=`'}")
    if error.code == 403:
        return ModelError(f"{host} refuses access to {shown}: {help or 'the token given has no right to it'}")
    if error.code in (404, 410):
        return NotFound(f"{host} has nothing at {shown}: check the name and the revision")
    return ModelError(f"{host} answers {error.code} {error.reason} to {shown}")


def _unreachable(reason: object, url: str) -> Exception:
    host = _host(url)
    if isinstance(reason, socket.gaierror):
        return ModelError(f"{host} cannot be found: is this machine offline? ({reason.strerror})")
    if isinstance(reason, ConnectionRefusedError):
        return ModelError(f"{host} does not answer: connection refused")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return ModelError(f"{host} cannot prove who it is: {reason.verify_message}")
    return _Dropped(f"{host} cannot be reached ({reason})")


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _wait(text: str) -> float | None:
    """The seconds of a Retry-After header: a number, or a date."""
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _read(response: http.client.HTTPResponse, most: int) -> bytes:
    try:
        found = response.read(most + 1)
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(f"the connection broke off ({error or type(error).__name__})") from error
    if len(found) > most:
        raise ModelError(f"{without_secrets(response.url)} answers with more than {most} bytes")
    return found


def _statements(response: http.client.HTTPResponse, linked: str) -> dict[str, Any]:
    """What a server states of a file: what to recognise it by, its SHA-256, its name."""
    etag = response.headers.get("ETag", "")
    # A weak one promises the same meaning, not the same bytes.
    validator = response.headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
    return {"validator": validator, "sha256": linked, "name": response.headers.get_filename() or ""}


def _stated(part: Path) -> dict[str, Any]:
    try:
        value = json.loads(part.with_suffix(".json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _expected(response: http.client.HTTPResponse, have: int, remote: Remote) -> int | None:
    """The length of the whole file. Raises ModelError where that is not what it should be, or it is no file."""
    if response.headers.get_content_type() == "text/html":
        what_to_do = remote.help or "check the address"
        raise ModelError(
            f"{_host(remote.url)} answers with a web page instead of {remote.name}: {what_to_do}"
        )
    total = _total(response.headers.get("Content-Range", ""))
    if total is None and (length := response.headers.get("Content-Length", "")).isdigit():
        total = have + int(length)
    if remote.size is not None and total not in (None, remote.size):
        raise ModelError(
            f"{remote.name} has {total} bytes, but the service says {remote.size}: try again later"
        )
    return remote.size if total is None else total


def _save(
    response: http.client.HTTPResponse,
    part: Path,
    have: int,
    total: int | None,
    name: str,
    progress: Progress | None,
) -> None:
    try:
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            file.truncate()
            while piece := _piece(response):
                file.write(piece)
                have += len(piece)
                if total is not None and have > total:
                    raise ModelError(f"{name} goes on after its {total} bytes: the server is faulty")
                if progress is not None:
                    progress(name, have, total)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(f"the disk of {part.parent} is full: make room and run it again") from error
        raise ModelError(f"{part} cannot be written: {error.strerror}") from error
    if total is not None and have < total:
        raise _Dropped(f"{_host(response.url)} broke off after {have} of {total} bytes")


def _piece(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(f"{_host(response.url)} broke off ({error or type(error).__name__})") from error


def _difference(remote: Remote, part: Path, found: str, stated: str) -> str:
    """In what a file differs from what was promised; "" where it does not, or nothing was."""
    wanted = remote.sha256 or stated
    if wanted and found != wanted:
        return f"its SHA-256 is {found}, not {wanted}"
    if remote.git and not wanted:
        # As git names a file's contents.
        whole = hashlib.sha1(b"blob %d\0" % _size(part), usedforsecurity=False)
        whole.update(part.read_bytes())
        if whole.hexdigest() != remote.git:
            return f"its git id is {whole.hexdigest()}, not {remote.git}"
    return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)


def _start(content_range: str) -> int | None:
    found = re.match(r"bytes (\d+)-", content_range)
    return int(found[1]) if found else None


def _total(content_range: str) -> int | None:
    found = re.search(r"/(\d+)$", content_range)
    return int(found[1]) if found else None
