"""Settings that are always to be so: in the environment, in a folder's darkroom.toml, in the user's own."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.cli.arguments import kind_of
from darkroom.errors import InvalidRequest, closest
from darkroom.files import home, portable, read_text
from darkroom.generation.picture import canonical_format
from darkroom.generation.request import PARTS, SETTINGS, flattened, unknown_setting
from darkroom.loading import LOADING

SETTINGS_FILE = "darkroom.toml"
_TABLE = "generate"

# What there is to say of the files of pictures, as it is where nobody says.
FILES: Mapping[str, Any] = {"output": "out", "format": None, "name": None, "grid": False, "metadata": True}
_OPTIONS = {**{name: each.default for name, each in LOADING.items()}, **FILES}
KNOWN = (SETTINGS.keys() | _OPTIONS.keys()) - {"prompt"}
"""What may be set: all that is an option of `darkroom generate`, by the name that it has in Python."""

_FIELDS = {**SETTINGS, **LOADING}
LISTS = {name for name in KNOWN if name in _FIELDS and isinstance(_FIELDS[name].default, tuple)}
_SWITCHES = {name for name in KNOWN if isinstance(_OPTIONS.get(name), bool)} | {"zero_snr"}
# What people write in a settings file that belongs elsewhere.
_ELSEWHERE = {
    "prompt": "a prompt stands on the command line, or in the file of --prompts",
    "prompts": "name the file on the command line: --prompts FILE",
    "with": "it is called others here: a list of names and files",
}


@dataclass(frozen=True)
class Said:
    """What a setting is to be, and where that is said."""

    value: Any
    where: str


def user_file() -> Path:
    """The user's own settings: $XDG_CONFIG_HOME/darkroom/darkroom.toml (~/.config)."""
    base = os.environ.get("XDG_CONFIG_HOME") or home() / ".config"
    return Path(base) / "darkroom" / SETTINGS_FILE


def said(path: Path | None = None) -> dict[str, list[Said]]:
    """All that is said of each setting, what counts first: in the environment, in the file at `path` or in the folder's
    own, in the user's. Raises InvalidRequest, which names the place, for what is not known or cannot be."""
    found: dict[str, list[Said]] = {}
    for name, each in (*_in_environment(), *_in_file(path, SETTINGS_FILE), *_in_file(None, user_file())):
        found.setdefault(name, []).append(each)
    return found


def variable(name: str) -> str:
    """The variable of the environment that a setting may stand in: its option's name, DARKROOM_ before it."""
    each = _FIELDS.get(name)
    option = each.metadata["each"] if each is not None and each.metadata["each"] else name
    return f"DARKROOM_{option.upper()}"


def _in_environment() -> Iterator[tuple[str, Said]]:
    for name in sorted(KNOWN):
        where = variable(name)
        if text := os.environ.get(where, "").strip():
            value = _read(name, text)
            if wrong := _wrong(name, value):
                raise InvalidRequest(f"{where}: {wrong}")
            yield name, Said(value, where)


def _read(name: str, text: str) -> Any:
    """A text from the environment as it would stand in a settings file; as it is where it cannot be that."""
    if name in LISTS:
        with suppress(ValueError, TypeError):  # It is no TOML, or no list.
            return tuple(tomllib.loads(f"it = {text}")["it"] if text.startswith("[") else [text])
        return (text,)
    if name in _SWITCHES:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
            text.lower(), text
        )
    kind = kind_of(_FIELDS[name]) if name in _FIELDS else "str"
    with suppress(ValueError):
        return {"int": int, "float": float}.get(kind, str)(text)
    return text


def _in_file(path: Path | None, usual: str | Path) -> Iterator[tuple[str, Said]]:
    """The [generate] table of a settings file; of the `usual` one, if it is there."""
    chosen = Path(usual) if path is None else path
    if path is None and not chosen.is_file():
        return
    where = str(chosen) if path is not None or not chosen.is_absolute() else portable(chosen)
    try:
        tables = tomllib.loads(read_text(chosen))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"cannot read the settings file {where}: {why_unread(error)}") from error
    for name, value in _settings(tables, where).items():
        if name not in KNOWN:
            raise InvalidRequest(f"unknown setting {name!r} in {where}: {_hint(name, value)}")
        if wrong := _wrong(name, value):
            raise InvalidRequest(f"{where}: {wrong}")
        yield name, Said(value, where)


def _settings(tables: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a settings file says, out of the parts of requests that may be tables within it."""
    for name, value in tables.items():
        if name == _TABLE:
            continue
        if isinstance(value, dict) and name not in PARTS:
            close = closest(name, [_TABLE])
            hint = f"did you mean [{close}]?" if close else f"settings stand in [{_TABLE}]"
            raise InvalidRequest(f"{where} has an unknown table [{name}]: {hint}")
        hint = f"put it below a line [{_TABLE}]" if name in KNOWN else f"settings stand in [{_TABLE}]"
        if name in PARTS and isinstance(value, dict):
            hint = f"write [{_TABLE}.{name}]"
        raise InvalidRequest(f"{where} has {name!r} beside the table [{_TABLE}]: {hint}")
    table = tables.get(_TABLE, {})
    if not isinstance(table, dict):
        raise InvalidRequest(
            f"{where}: {_TABLE} is {table!r}: write [{_TABLE}], and a setting a line below it"
        )
    asked = {name: value for name, value in table.items() if name in SETTINGS or name in PARTS}
    rest = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in table.items()
        if name not in asked
    }
    try:
        return {**rest, **flattened(asked)}
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}") from error


def _wrong(name: str, value: Any) -> str:
    """What is wrong with the value of a setting; "" if nothing is."""
    words = ""
    if name in _SWITCHES:
        words = (
            ""
            if isinstance(value, bool)
            else f"write true or false (in a file without quotes: {name} = true)"
        )
    elif name in _OPTIONS and name in LISTS:
        texts = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
        words = "" if texts else f'write a list of texts: {name} = ["..."]'
    elif name in _OPTIONS and not isinstance(value, str):
        words = f'write it as text: {name} = "{_example(name, value)}"'
    if words:
        return f"{name} is {value!r}: {words}"
    if is_empty(name, value):
        return f"{name} is empty: say what it is to be, or leave it out"
    try:
        if name == "format":
            canonical_format(value)
        elif name in _FIELDS:
            _FIELDS[name].metadata["check"](name, value)
    except InvalidRequest as error:
        return str(error)
    return ""


def is_empty(name: str, value: Any) -> bool:
    """Whether an option says nothing, or something in its list does."""
    texts = value if name in LISTS else [value]
    return name in _OPTIONS and any(isinstance(each, str) and not each.strip() for each in texts)


def _example(name: str, value: object) -> str:
    if name == "memory" and not isinstance(value, bool | list | dict):
        return f"{value}GB"
    return {"precision": "float16", "format": "png", "device": "cpu"}.get(name, f"{value}")


def _hint(name: str, value: object) -> str:
    known: Iterable[str] = PARTS if isinstance(value, dict) else KNOWN
    return _ELSEWHERE.get(name) or unknown_setting(name, known)


def why_unread(error: Exception) -> str:
    """What keeps a text that people wrote from being read."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8; save it as UTF-8"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
