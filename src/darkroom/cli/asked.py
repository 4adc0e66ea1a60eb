"""What is asked for: options and requests, from a command line, a settings file and a file of prompts."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.errors import DarkroomError, InvalidRequest, ModelError
from darkroom.files import as_text, read_text
from darkroom.generation.request import PARTS, SETTINGS, Request, flattened, unknown_setting
from darkroom.loading import LOADING, Loading

SETTINGS_FILE = "darkroom.toml"

# What there is to say of the files of pictures, as it is where nobody says. All options may stand in darkroom.toml.
_FILES: dict[str, Any] = {"output": "out", "format": None, "name": None, "grid": False, "metadata": True}
_OPTIONS = {name: each.default for name, each in LOADING.items()} | _FILES

# What is not text among them.
_LISTS = {name for name, default in _OPTIONS.items() if isinstance(default, tuple)}
_SWITCHES = {name for name, default in _OPTIONS.items() if isinstance(default, bool)} | {"zero_snr"}
# What people write in a settings file that belongs elsewhere.
_ELSEWHERE = {
    "prompt": "a prompt stands on the command line, or in the file of --prompts",
    "prompts": "name the file on the command line: --prompts FILE",
    "with": "it is called others here: a list of names and files",
}


@dataclass(frozen=True)
class Asked:
    """A request, and where it stands: "" on the command line."""

    request: Request
    where: str = ""


def area(request: Request) -> int:
    """The pixels that a request asks for; 0 where it leaves that to the model."""
    return (request.canvas.width or 0) * (request.canvas.height or 0)


def gather(args: argparse.Namespace) -> tuple[Loading, dict[str, Any], dict[str, Any]]:
    """What to load, where pictures go, and the settings of requests: from the command line over the settings file over
    what is so anyhow."""
    known = (SETTINGS.keys() | _OPTIONS.keys()) - {"prompt"}
    merged = {**_FILES, **settings_file(args.settings, known), **given(args, known)}
    files = {name: merged.pop(name) for name in _FILES}
    loading = {name: merged.pop(name) for name in LOADING if name in merged}
    check_options(files | loading)
    return Loading(**loading).checked(), files, {name: _heard(value) for name, value in merged.items()}


def given(args: argparse.Namespace, known: Collection[str]) -> dict[str, Any]:
    """What of some options stands on the command line."""
    return {name: value for name, value in vars(args).items() if value is not None and name in known}


def loading_given(args: argparse.Namespace) -> Loading:
    """What to load, of a command line alone."""
    options = given(args, LOADING)
    check_options(options)
    return Loading(**options).checked()


def check_options(options: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for an option that is empty."""
    for name, value in options.items():
        if any(isinstance(each, str) and not each.strip() for each in (value if name in _LISTS else [value])):
            option = "with" if name == "others" else name
            raise InvalidRequest(f"--{option} is empty: say what it is to be, or leave it out")


def _heard(value: Any) -> Any:
    """Text from a command line that a terminal of another encoding gave: UTF-8, if it is."""
    if isinstance(value, str):
        with suppress(UnicodeError):
            return value.encode("utf-8", "surrogateescape").decode()
    return value


def settings_file(path: Path | None, known: set[str]) -> dict[str, Any]:
    """The [generate] table of a settings file; of the default one, if it is there. Raises InvalidRequest for what is
    not known there, or of another type than it is to be."""
    chosen = path or Path(SETTINGS_FILE)
    if path is None and not chosen.is_file():
        return {}
    try:
        tables = tomllib.loads(read_text(chosen))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"cannot read the settings file {chosen}: {_why(error)}") from error
    for name in tables:
        if name != "generate":
            hint = "put it below a line [generate]" if name in known else "its settings stand in [generate]"
            raise InvalidRequest(f"{chosen} has {name!r} beside the table [generate]: {hint}")
    table = tables.get("generate", {})
    if not isinstance(table, dict):
        raise InvalidRequest(
            f"{chosen}: generate is {table!r}: write [generate], and a setting a line below it"
        )
    asked = {name: value for name, value in table.items() if name in SETTINGS or name in PARTS}
    try:
        table = {**{name: value for name, value in table.items() if name not in asked}, **flattened(asked)}
    except InvalidRequest as error:
        raise InvalidRequest(f"{chosen}: {error}") from error
    for name, value in table.items():
        if name not in known:
            raise InvalidRequest(f"unknown setting {name!r} in {chosen}: {_hint(name, known)}")
        if wrong := _mistyped(name, value):
            raise InvalidRequest(f"{chosen}: {name} is {value!r}: {wrong}")
    return {name: list(value) if name in _LISTS else value for name, value in table.items()}


def _mistyped(name: str, value: object) -> str:
    """What is wrong with the type of an option in a settings file; a request's own fields say so themselves."""
    if name not in _OPTIONS:
        return ""
    if name in _SWITCHES:
        return "" if isinstance(value, bool) else f"write true or false, without quotes: {name} = true"
    if name in _LISTS:
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        return "" if texts else f'write a list of texts: {name} = ["..."]'
    return "" if isinstance(value, str) else f'write it as text: {name} = "{_example(name, value)}"'


def _example(name: str, value: object) -> str:
    if name == "memory" and not isinstance(value, bool | list | dict):
        return f"{value}GB"
    return {"precision": "float16", "format": "png", "device": "cpu"}.get(name, f"{value}")


def _hint(name: str, known: Iterable[str]) -> str:
    return _ELSEWHERE.get(name) or unknown_setting(name, known)


def requested(args: argparse.Namespace, settings: dict[str, Any]) -> list[Asked]:
    """The requests of a command line: its prompt, and those of its prompts file. Raises InvalidRequest that names every
    line with a mistake."""
    if args.prompt is None and args.prompts is None:
        raise InvalidRequest("no prompt: say what the picture should show, or give --prompts FILE")
    found = []
    if args.prompt is not None:
        found.append(Asked(Request.from_dict({**settings, "prompt": _heard(args.prompt)}).checked()))
    if args.prompts is None:
        return found

    rows, read = _rows_of(args.prompts)

    def asked(where: str, row: Any) -> Asked:
        return Asked(Request.from_dict({**settings, **flattened(read(row))}).checked(), where)

    return found + each(asked, rows)


def each(run: Callable[..., Any], rows: Iterable[tuple[str, Any]]) -> list[Any]:
    """What a function gives for each row, told where it stands and what it is. Raises the mistakes of all rows
    together, each with where it stands."""
    found, mistakes = [], []
    for where, row in rows:
        try:
            found.append(run(where, row))
        except (InvalidRequest, ModelError) as error:
            mistakes.append((where, error))
    if mistakes:
        words = [f"{where}: {error}" if where else str(error) for where, error in mistakes]
        kind: type[DarkroomError] = (
            InvalidRequest if any(isinstance(error, InvalidRequest) for _, error in mistakes) else ModelError
        )
        raise kind("\n".join(words)) from mistakes[0][1]
    return found


_JSON = (".json", ".jsonl", ".ndjson")


def _rows_of(path: Path) -> tuple[list[tuple[str, Any]], Callable[[Any], dict[str, Any]]]:
    """What stands in a file of prompts, each with where, and what makes settings of it: of JSON, whatever the file is
    called. Raises InvalidRequest where there is nothing."""
    called, text = _read(path)
    if isinstance(whole := _json(text), list | dict):
        items = whole if isinstance(whole, list) else [whole]
        rows = [(f"{called}, item {number}", item) for number, item in enumerate(items, 1)]
        read: Callable[[Any], dict[str, Any]] = _settings
    else:
        lines = [(f"{called}, line {number}", line) for number, line in enumerate(text.split("\n"), 1)]
        rows = [(where, line) for where, line in lines if line.strip() and not line.startswith("#")]
        in_json = path.suffix.lower() in _JSON or all(isinstance(_json(line), dict) for _, line in rows)
        read = _line if in_json else lambda line: {"prompt": line.strip()}
    if not rows:
        raise InvalidRequest(
            f"{called} holds no prompt: write one a line (lines that begin with # are left out)"
        )
    return rows, read


_STDIN = Path("-")


def _read(path: Path) -> tuple[str, str]:
    """What a file of prompts is called, or what is piped into the program, and its text."""
    called = "standard input" if path == _STDIN else str(path)
    if path == _STDIN and sys.stdin is None:
        raise InvalidRequest("nothing comes in to be read as prompts: pipe it in, or name a file")
    try:
        raw = sys.stdin.buffer.read() if path == _STDIN else path.read_bytes()
        return called, as_text(raw).removesuffix("\x1a")  # DOS ends files with Ctrl-Z.
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read the prompts file {called}: {_why(error)}") from error


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8; save it as UTF-8"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _json(text: str) -> Any:
    """A whole text as JSON; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _line(line: str) -> dict[str, Any]:
    """The settings that a line of JSON stands for."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"not JSON: {_why(error)}") from error
    return _settings(value)


def _settings(value: Any) -> dict[str, Any]:
    """The settings that a value of JSON stands for: an object of them, or a prompt alone."""
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict):
        written = json.dumps(value, ensure_ascii=False)[:40]
        raise InvalidRequest(f'{written!r} is no JSON object: write {{"prompt": ...}}')
    return value
