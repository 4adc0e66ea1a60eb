"""Settings that are always to be so: in the environment, in a folder's darkroom.toml, in the user's own."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.cli.arguments import FIELDS, a_path, is_list, kind_of, option_name
from darkroom.errors import InvalidRequest, closest
from darkroom.files import home, portable, read_text
from darkroom.generation.elsewhere import unknown_setting
from darkroom.generation.request import PARTS, SETTINGS, flattened

SETTINGS_FILE = "darkroom.toml"
_TABLE = "generate"
SERVICE = "serve"
"""The table, and what follows the prefix of variables, of the service's settings (`darkroom.cli.serve`)."""

KNOWN = FIELDS.keys() - {"prompt"}
"""What may be set, by the names that it has in Python."""

_PREFIX = "DARKROOM_"
# What else is read of the environment, by whom: library, templates.
_VARIABLES = {f"{_PREFIX}{name}" for name in ("HOME", "LOCK", "MODELS", "STYLES", "WILDCARDS")}
_TRUTHS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
# What people write in a settings file that belongs elsewhere.
_ELSEWHERE = {
    "prompt": "a prompt stands on the command line, or in the file of --prompts",
    "prompts": "name the file on the command line: --prompts FILE",
    "with": "it is called others here: a list of names and files",
    **dict.fromkeys(("json", "quiet", "settings"), "it is for the command line alone"),
}


@dataclass(frozen=True)
class Said:
    """What a setting is to be, and where that is said."""

    value: Any
    where: str


def add_settings_file(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--settings", type=a_path, metavar="FILE", help=f"settings file (default: ./{SETTINGS_FILE})"
    )


def user_file() -> Path:
    """The user's own settings: $XDG_CONFIG_HOME/darkroom/darkroom.toml (~/.config)."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base if os.path.isabs(base) else home() / ".config") / "darkroom" / SETTINGS_FILE


def said(path: Path | None = None) -> dict[str, list[Said]]:
    """All that is said of each setting, what counts first: in the environment, in the file at `path` or in the folder's
    own, in the user's. Raises InvalidRequest with all that is not known or cannot be, each with its place."""
    found, mistakes = heard(path)
    if mistakes:
        raise InvalidRequest("\n".join(mistakes))
    return found


def heard(path: Path | None = None) -> tuple[dict[str, list[Said]], list[str]]:
    """What `said` gives, and what is wrong beside."""
    found: dict[str, list[Said]] = {}
    mistakes = []
    for each in (_in_environment(), *_in_files(path)):
        try:
            for name, value, where in each:
                try:
                    _check(name, value)
                    found.setdefault(name, []).append(Said(value, where))
                except InvalidRequest as error:
                    mistakes.append(f"{where}: {error}")
        except InvalidRequest as error:
            mistakes.append(str(error))
    return found, mistakes


def variable(name: str) -> str:
    """The variable of the environment that a setting may stand in: its option's name, DARKROOM_ before it."""
    return f"{_PREFIX}{option_name(name).upper()}"


def strangers() -> dict[str, str]:
    """Variables of the environment that begin as ours and are none of them, each with what may be meant, or ""."""
    ours = {variable(name): name for name in KNOWN}
    plain = [name.removeprefix(_PREFIX).lower() for name in (*ours, *_VARIABLES)]
    found = {}
    for name in sorted(os.environ):
        service = name.startswith(f"{_PREFIX}{SERVICE.upper()}_")
        if not name.startswith(_PREFIX) or name in ours or name in _VARIABLES or service:
            continue
        if (positive := ours.get(name.replace("_NO_", "_", 1))) and kind_of(FIELDS[positive]) == "bool":
            found[name] = f"{variable(positive)}=no"
        else:
            close = closest(name.removeprefix(_PREFIX), plain, 0.7)
            found[name] = f"{_PREFIX}{close.upper()}" if close else ""
    return found


_Place = Iterator[tuple[str, Any, str]]
"""Settings with their values, not yet checked, and where each stands."""


def _in_environment() -> _Place:
    for name in sorted(KNOWN):
        if text := os.environ.get(variable(name), "").strip():
            yield name, _read(name, text), variable(name)


def _read(name: str, text: str) -> Any:
    """A text from the environment as it would stand in a settings file; as it is where it cannot be that."""
    if is_list(name):
        with suppress(ValueError):
            if text.startswith("[") and (table := tomllib.loads(f"it = {text}")).keys() == {"it"}:
                return tuple(table["it"])
        # A name may begin with a bracket, but not with two signs of a list.
        return text if text.startswith(('["', "['")) else (text,)
    kind = kind_of(FIELDS[name])
    if kind == "bool":
        return _TRUTHS.get(text.lower(), text)
    with suppress(ValueError):
        return {"int": int, "float": float}.get(kind, str)(text)
    return text


def _in_files(path: Path | None) -> Iterator[_Place]:
    folder = path or Path(SETTINGS_FILE)
    yield _in_file(folder, needed=path is not None)
    if folder.absolute() != user_file():
        yield _in_file(user_file())


def _in_file(path: Path, needed: bool = False) -> _Place:
    """The [generate] table of a settings file, which may not be there unless it is `needed`."""
    where = shown(path)
    for name, value in _settings(tables_of(path, needed), where).items():
        yield name, value, where


def tables_of(path: Path, needed: bool) -> dict[str, Any]:
    """What stands in a settings file; nothing where there is none and it is not `needed`. Raises InvalidRequest where
    it cannot be read."""
    try:
        return tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not needed:
            return {}
        raise InvalidRequest(f"cannot read the settings file {shown(path)}: {why_unread(error)}") from error


def shown(path: Path) -> str:
    """A settings file as people are told of it."""
    return portable(path) if path.is_absolute() else str(path)


def _settings(tables: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a settings file says, out of the parts of requests that may be tables within it."""
    for name, value in tables.items():
        if name in (_TABLE, SERVICE):
            continue
        if not isinstance(value, dict):
            hint = f"put it below a line [{_TABLE}]" if name in KNOWN else f"settings stand in [{_TABLE}]"
            raise InvalidRequest(f"{where} has {name!r} beside the table [{_TABLE}]: {hint}")
        hint = f"write [{_TABLE}.{name}]" if name in PARTS else f"settings stand in [{_TABLE}]"
        if closest(name, [_TABLE]):
            hint = f"did you mean [{_TABLE}]?"
        raise InvalidRequest(f"{where} has an unknown table [{name}]: {hint}")
    table = tables.get(_TABLE, {})
    if not isinstance(table, dict):
        raise InvalidRequest(
            f"{where}: {_TABLE} is {table!r}: write [{_TABLE}], and a setting a line below it"
        )
    asked = {name: value for name, value in table.items() if name in SETTINGS or name in PARTS}
    rest = {name: value for name, value in table.items() if name not in asked}
    try:
        asked = flattened(asked)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}") from error
    return {**{name: tuple(v) if isinstance(v, list) else v for name, v in rest.items()}, **asked}


def _check(name: str, value: Any) -> None:
    """Raises InvalidRequest for a setting that there is not, and for a value that it cannot have."""
    if name not in KNOWN:
        raise InvalidRequest(f"unknown setting {name!r}: {_hint(name, value)}")
    if name not in SETTINGS:  # A request's own say so themselves.
        kind, wrong = kind_of(FIELDS[name]), ""
        if kind == "bool" and not isinstance(value, bool):
            wrong = "say true or false (in a file without quotes)"
        elif is_list(name) and not _are_texts(value):
            wrong = f'give a list of texts: {name} = ["..."]'
        elif kind != "bool" and not is_list(name) and not isinstance(value, str):
            wrong = f'write it as text: {name} = "{_example(name, value)}"'
        if wrong:
            raise InvalidRequest(f"{name} is {value!r}: {wrong}")
        if is_empty(name, value):
            raise InvalidRequest(f"{name} is empty: say what it is to be, or leave it out")
    FIELDS[name].metadata["check"](name, value)


def _hint(name: str, value: object) -> str:
    if hint := _ELSEWHERE.get(name):
        return hint
    plain = name.replace("-", "_").removeprefix("no_")
    if plain != name and plain in KNOWN:
        return f"write {plain} = {'false' if name.startswith('no') else '...'}"
    return unknown_setting(name, PARTS if isinstance(value, dict) else KNOWN)


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) for each in value)


def is_empty(name: str, value: Any) -> bool:
    """Whether an option that is a name or a place, or something in a list of them, is nothing."""
    texts = value if is_list(name) else [value]
    return name not in SETTINGS and any(isinstance(each, str) and not each.strip() for each in texts)


def _example(name: str, value: object) -> str:
    if isinstance(value, bool | tuple | dict):
        return "..."
    if name == "memory":
        return f"{value}GB"
    return {"precision": "float16", "format": "png", "device": "cpu"}.get(name, f"{value}")


def why_unread(error: Exception) -> str:
    """What keeps a text that people wrote from being read."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8; save it as UTF-8"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
