"""`darkroom serve`: the service (docs/service.md); `darkroom worker`: an engine for one that runs elsewhere."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from darkroom.cli.arguments import add_settings, kind_of
from darkroom.cli.parser import Parser
from darkroom.cli.settings import SERVICE, SETTINGS_FILE, add_settings_file, shown, tables_of, user_file
from darkroom.errors import DarkroomError, InvalidRequest, nearest
from darkroom.serve.settings import SERVING, Serving

_EXAMPLES = """\
examples:
  darkroom serve                                  # http://127.0.0.1:7860, the pocket model
  darkroom serve --model sd15 --device cuda --data /var/lib/darkroom
  curl -s 'http://127.0.0.1:7860/v1/jobs?wait=60' -H 'Content-Type: application/json' \\
       -d '{"prompt": "a red boat on a calm sea"}'
"""
_OF_THE_API = {"host", "port", "workers"}
_NEEDED = ("alembic", "fastapi", "python_multipart", "sqlalchemy", "uvicorn")


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the service: an API for many users, with a queue",
        description="Run the service: an API, and beside it an engine that makes what is asked for. All that is "
        "accepted is kept, and made whatever ends in between. Settings may also stand in the environment "
        f"(DARKROOM_SERVE_PORT=8000) and in {SETTINGS_FILE}, table [{SERVICE}].",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings(serve.add_argument_group("the service"), SERVING.values())
    add_settings_file(serve)
    serve.set_defaults(run=run)
    worker = commands.add_parser(
        "worker",
        help="run an engine for a service that runs elsewhere",
        description="Run an engine that makes what a service with the same database and store is asked for.",
    )
    own = [each for name, each in SERVING.items() if name not in _OF_THE_API]
    add_settings(worker.add_argument_group("the worker"), own)
    add_settings_file(worker)
    worker.set_defaults(run=run_worker)


def run(args: argparse.Namespace) -> int:
    serving = gathered(args)
    _check_installed()
    from darkroom.serve.api.server import run

    _log()
    run(
        serving,
        lambda address: print(f"darkroom: at {address} (its API: {address}/openapi.json)", flush=True),
    )
    return 0


def run_worker(args: argparse.Namespace) -> int:
    serving = gathered(args).checked()
    _check_installed()
    from darkroom.library.locate import names_only
    from darkroom.serve.database import Database
    from darkroom.serve.migrations import upgrade
    from darkroom.serve.objects import objects_at
    from darkroom.serve.worker.worker import Worker

    _log()
    names_only([serving.model])
    assert serving.database is not None and serving.store is not None
    database = Database(serving.database)
    upgrade(database)
    worker = Worker(serving, database, objects_at(serving.store))
    worker.ends_with(signal.SIGTERM, signal.SIGINT)
    worker.run()
    database.close()
    return 0


def gathered(args: argparse.Namespace) -> Serving:
    """The settings: on the command line, over those in the environment, in the folder's file, in the user's."""
    files = [args.settings or Path(SETTINGS_FILE), user_file()]
    found: dict[str, Any] = {}
    for path in reversed(files):
        found |= _in_file(path, needed=path == args.settings)
    found |= _in_environment()
    found |= {name: value for name in SERVING if (value := getattr(args, name, None)) is not None}
    return Serving(**found)


def _in_file(path: Path, needed: bool) -> dict[str, Any]:
    table = tables_of(path, needed).get(SERVICE, {})
    if not isinstance(table, dict):
        raise InvalidRequest(
            f"{shown(path)}: {SERVICE} is {table!r}: write [{SERVICE}], and a setting a line below it"
        )
    for name, value in table.items():
        if name not in SERVING:
            raise InvalidRequest(
                f"{shown(path)}: unknown setting {name!r} of the service: {nearest(name, SERVING)}"
            )
        _check(name, value, shown(path))
    return table


def _in_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in SERVING.items():
        variable = f"DARKROOM_{SERVICE}_{name}".upper()
        if text := os.environ.get(variable, "").strip():
            try:
                found[name] = {"int": int, "float": float}.get(kind_of(each), str)(text)
            except ValueError:
                raise InvalidRequest(f"{variable} is {text!r}: give a number") from None
            _check(name, found[name], variable)
    return found


def _check(name: str, value: Any, where: str) -> None:
    try:
        SERVING[name].metadata["check"](name, value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}") from error


def _check_installed() -> None:
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise DarkroomError(
            f"the service needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'darkroom[serve]'"
        )


def _log() -> None:
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        level=logging.INFO,
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
