"""The API as a process: it listens until it is told to end, and ends when its workers have."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from darkroom.errors import DarkroomError, InvalidRequest
from darkroom.library.locate import names_only
from darkroom.serve.api.app import make_app
from darkroom.serve.api.service import Service
from darkroom.serve.settings import Serving

_BACKLOG = 512


def run(serving: Serving, listening: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT; `listening` is told the address. Raises InvalidRequest for an address that cannot
    be listened at, DarkroomError for what cannot be used."""
    serving = serving.checked()
    if not _is_loopback(serving.host):
        raise InvalidRequest(
            f"the host is {serving.host}: without keys the service is for this machine alone, listen at 127.0.0.1"
        )
    names_only([serving.model])
    service = Service(serving)
    here = _bound(serving.host, serving.port)
    host, port = here.getsockname()[:2]
    config = uvicorn.Config(
        make_app(service),
        log_config=None,
        access_log=False,
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,  # Longer than clients and proxies keep theirs: none is closed under a request.
        timeout_graceful_shutdown=5,
    )
    server = _Server(config, service)
    listening(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    try:
        server.run(sockets=[here])
    except SystemExit as error:
        raise DarkroomError("the service could not start: what it said above tells why") from error
    finally:
        here.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InvalidRequest(f"the host is {host!r}: give an address, such as 127.0.0.1") from None


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    here = socket.socket(family, socket.SOCK_STREAM)
    try:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        here.bind((host, port))
        here.listen(_BACKLOG)
    except OSError as error:
        here.close()
        raise InvalidRequest(
            f"cannot listen at {host}:{port} ({error.strerror}): give another port, or 0 for any that is free"
        ) from error
    return here


class _Server(uvicorn.Server):
    """Told to end, it goes on answering until its workers have ended: who waits for a picture gets it."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain: asyncio.Task[None] | None = None
        self._told = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._told += 1

    async def on_tick(self, counter: int) -> bool:
        if self._told and self._drain is None:
            logging.getLogger(__name__).warning("ending: jobs in hand are finished, or kept where they are")
            self._drain = asyncio.create_task(self._drained())
        if self._told > 1:
            self._told = 1
            self._service.hurry()
        return await super().on_tick(counter)

    async def _drained(self) -> None:
        try:
            await self._service.drain()
            await self._service.bus.close()  # Whoever follows events has heard the last ones.
        finally:
            self.should_exit = True
