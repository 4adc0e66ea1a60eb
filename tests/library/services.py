"""A web server on this machine that speaks enough of the Hugging Face hub and of Civitai, and misbehaves on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Service:
    """What is served, how, and what was asked. files: by path; json: by path; statuses: answered first, one a request;
    drop: bytes of a body after which the connection breaks, one a request; token: wanted of everybody."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    json: dict[str, Any] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    drop: list[int] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    token: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def bodies(self) -> list[tuple[str, str]]:
        """The files asked for, each with the range asked for."""
        return [
            (path, headers.get("range", ""))
            for path, headers in self.asked
            if path in self.files or path in self.redirects
        ]

    def add_repository(
        self, name: str, files: dict[str, bytes], commit: str = COMMIT, cdn: Service | None = None
    ) -> None:
        """A model on the hub: weights in large-file storage (at `cdn`), the rest in git."""
        siblings = []
        for path, data in files.items():
            row: dict[str, Any] = {"rfilename": path, "size": len(data)}
            digest = hashlib.sha256(data).hexdigest()
            place = f"/{name}/resolve/{commit}/{path}"
            if path.endswith((".safetensors", ".bin", ".ckpt")):
                row |= {"blobId": "1" * 40, "lfs": {"sha256": digest, "size": len(data), "pointerSize": 130}}
                self.headers[place] = {"X-Linked-ETag": f'"{digest}"', "X-Repo-Commit": commit}
            else:
                row["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            siblings.append(row)
            if cdn is not None and "lfs" in row:
                cdn.files[f"/cdn/{digest}"] = data
                self.redirects[place] = f"{cdn.url}/cdn/{digest}"
            else:
                self.files[place] = data
        record = {
            "id": name,
            "sha": commit,
            "siblings": siblings,
            "private": False,
            "tags": [],
            "downloads": 0,
        }
        for revision in ("main", commit):
            self.json[f"/api/models/{name}/revision/{revision}"] = record

    def add_civitai(self, model: int, version: int, name: str, files: dict[str, bytes], **facts: Any) -> None:
        """A version of a model on Civitai, the newest so far."""
        rows = [
            {
                "id": version * 10 + number,
                "name": file,
                "type": "Model",
                "sizeKB": len(data) / 1024,
                "primary": number == 0,
                "metadata": {"format": "SafeTensor" if file.endswith("safetensors") else "PickleTensor"},
                "hashes": {"SHA256": hashlib.sha256(data).hexdigest().upper()},
                "downloadUrl": f"https://civitai.com/api/download/models/{version}?file={number}",
            }
            for number, (file, data) in enumerate(files.items())
        ]
        for number, data in enumerate(files.values()):
            self.files[f"/api/download/models/{version}?file={number}"] = data
        record = {"id": version, "modelId": model, "name": f"v{version}", "files": rows, **facts}
        self.json[f"/api/v1/model-versions/{version}"] = {
            **record,
            "model": {"name": name, "type": "Checkpoint"},
        }
        known = self.json.get(f"/api/v1/models/{model}", {"modelVersions": []})
        versions = [{k: v for k, v in record.items() if k != "modelId"}, *known["modelVersions"]]
        self.json[f"/api/v1/models/{model}"] = {
            "id": model,
            "name": name,
            "type": "Checkpoint",
            "modelVersions": versions,
        }


@contextmanager
def serving() -> Iterator[Service]:
    """A service at an address of its own."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            # Who has heard enough hangs up.
            with suppress(ConnectionError):
                self.reply(body)

        def reply(self, body: bool) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            service.asked.append((unquote(self.path), headers))
            path, bare = unquote(self.path), urlsplit(self.path).path
            if service.statuses:
                status, extra = service.statuses.pop(0)
                return self.send(status, extra, b"{}")
            if service.token and headers.get("authorization") != f"Bearer {service.token}":
                return self.send(401, {}, b"{}")
            extra = service.headers.get(path, {})
            if path in service.redirects:
                return self.send(302, {**extra, "Location": service.redirects[path]}, b"")
            if path in service.files:
                return self.send_file(service.files[path], headers, extra, body)
            if unquote(bare) in service.json:
                data = json.dumps(service.json[unquote(bare)]).encode()
                return self.send(200, {"Content-Type": "application/json"}, data)
            return self.send(404, {"X-Error-Code": "RepoNotFound"} if "/api/models" in bare else {}, b"{}")

        def send(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def send_file(self, data: bytes, headers: dict[str, str], extra: dict[str, str], body: bool) -> None:
            etag = f'"{hashlib.md5(data).hexdigest()}"'
            asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", "")) if service.ranges else None
            if asked and headers.get("if-range", etag) != etag:
                asked = None
            start = int(asked[1]) if asked else 0
            if asked and start >= len(data):
                self.send(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
                return
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            if service.etags:
                self.send_header("ETag", etag)
            for name, value in {"Content-Type": "application/octet-stream", **extra}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if body and service.drop:
                self.wfile.write(data[start : start + service.drop.pop(0)])
                self.close_connection = True
            elif body:
                self.wfile.write(data[start:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
