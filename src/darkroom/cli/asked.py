"""What is asked for: options and requests, from a command line, a settings file and a file of prompts."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from darkroom.cli.arguments import SAVING, Saving
from darkroom.cli.settings import KNOWN, is_empty, said, strangers, why_unread
from darkroom.cli.words import aside
from darkroom.errors import DarkroomError, InvalidRequest, ModelError
from darkroom.files import as_text, expanded
from darkroom.generation.checks import called
from darkroom.generation.latents import read_latents
from darkroom.generation.request import Request, flattened
from darkroom.generation.starting import Edit, Extend, Inpaint
from darkroom.loading import LOADING, Loading


@dataclass(frozen=True)
class Asked:
    """A request, and where it stands: "" on the command line."""

    request: Request
    where: str = ""


def area(request: Request) -> int:
    """The pixels that a request asks for; 0 where it leaves that to the model."""
    return (request.canvas.width or 0) * (request.canvas.height or 0)


Gathered: TypeAlias = tuple[Loading, Saving, dict[str, Any]]
"""What to load, where pictures go, and the settings of requests."""


def gather(args: argparse.Namespace) -> Gathered:
    """What is asked for: on the command line, over what is said elsewhere (`darkroom.cli.settings`), over what is so
    anyhow."""
    return layered(args).over({})


@dataclass(frozen=True)
class Layers:
    """What the command line says, and what is said elsewhere."""

    own: Mapping[str, Any]
    elsewhere: Mapping[str, Any]

    def over(self, recipe: Mapping[str, Any]) -> Gathered:
        """All of it, and between the two what a picture's recipe says."""
        merged = {**self.elsewhere, **recipe, **self.own}
        saving = {name: merged.pop(name) for name in SAVING if name in merged}
        loading = {name: merged.pop(name) for name in LOADING if name in merged}
        check_options(saving | loading)
        return (
            Loading(**loading).checked(),
            Saving(**saving),
            {name: heard(value) for name, value in merged.items()},
        )


def layered(args: argparse.Namespace) -> Layers:
    """What is asked for in its layers; variables of the environment that may be mistaken ones are told."""
    for name, close in strangers().items():
        if close:
            aside("darkroom", f"{name} is read by nothing: did you mean {close}?")
    own = {**_sized(args), **given(args, KNOWN)}
    elsewhere = {name: found[0] for name, found in said(args.settings).items() if name not in own}
    # For errors that are found later: see `words.placed`.
    args.said = {each.value: each.where for each in elsewhere.values() if isinstance(each.value, str)}
    return Layers(_read(own), _read({name: each.value for name, each in elsewhere.items()}))


def _read(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with latents, which are a file here; in JSON, which comes from anywhere, they are the array itself."""
    if "latents" not in settings:
        return settings
    return {**settings, "latents": read_latents(expanded(str(heard(settings["latents"]))))}


def _sized(args: argparse.Namespace) -> dict[str, int]:
    """Width and height where --size says them; commands that make no pictures have none."""
    if (size := getattr(args, "size", None)) is None:
        return {}
    if also := given(args, ("width", "height")):
        raise InvalidRequest(f"--size says width and height, and so does --{next(iter(also))}: leave one out")
    return dict(zip(("width", "height"), size, strict=True))


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
        if is_empty(name, value):
            raise InvalidRequest(f"`{name}=` is empty: say what it is to be, or leave it out")


def heard(value: Any) -> Any:
    """Text from a command line that a terminal of another encoding gave: UTF-8, if it is."""
    if isinstance(value, str):
        with suppress(UnicodeError):
            return value.encode("utf-8", "surrogateescape").decode()
    return value


def prompt_of(args: argparse.Namespace) -> str | None:
    """The prompt of a command line, wherever it stands. Raises InvalidRequest where there are two."""
    if args.prompt is not None and args.prompt_too is not None:
        raise InvalidRequest(f"there are two prompts, {args.prompt!r} and {args.prompt_too!r}: leave one out")
    prompt: str | None = args.prompt if args.prompt_too is None else args.prompt_too
    return prompt


def one_request(args: argparse.Namespace, settings: dict[str, Any], usual: str | None = None) -> Request:
    """The request of a command line that has one prompt, or the `usual` one. Raises InvalidRequest for none."""
    prompt = prompt_of(args)
    if (prompt := usual if prompt is None else prompt) is None:
        raise InvalidRequest("no prompt: say what the picture should show")
    of_one = {called(each) for part in (Edit, Inpaint, Extend) for each in dataclasses.fields(part)} - {
        "image"
    }
    if settings.get("image") is None and (alone := given(args, of_one)):
        raise InvalidRequest(
            f"`{next(iter(alone))}=` is of a picture to begin with: give `image=`, or leave it out"
        )
    request = Request.from_dict({**settings, "prompt": heard(prompt)}).checked()
    of_masks = {called(each) for each in dataclasses.fields(Inpaint)}
    if not request.in_part and (alone := given(args, of_masks)):
        raise InvalidRequest(
            f"`{next(iter(alone))}=` is of a mask: give `mask=` or `mask_box=`, or leave it out"
        )
    return request


def requested(args: argparse.Namespace, settings: dict[str, Any], usual: str | None = None) -> list[Asked]:
    """The requests of a command line: its prompt, and those of its prompts file, which may be what is piped in; where
    there is none of these, the `usual` prompt. Raises InvalidRequest that names every line with a mistake."""
    prompt, prompts = prompt_of(args), args.prompts
    if prompt == str(STDIN):
        if prompts is not None:
            raise InvalidRequest(
                f"the prompt is {prompt}, standard input, and --prompts is {prompts}: leave one out"
            )
        prompt, prompts = None, STDIN
    if prompt is None and prompts is None and usual is not None:
        return [Asked(one_request(args, settings, usual))]
    if prompt is None and prompts is None:
        if not _is_piped():
            raise InvalidRequest("no prompt: say what the picture should show, or give --prompts FILE")
        prompts = STDIN
    found = [] if prompt is None else [Asked(one_request(args, settings))]
    if prompts is None:
        return found

    rows, read = _rows_of(prompts)

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
    called, text = _read_whole(path)
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


STDIN = Path("-")


def _is_piped() -> bool:
    """Whether something is piped into the program, or a file is."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read_whole(path: Path) -> tuple[str, str]:
    """What a file of prompts is called, or what is piped into the program, and its text."""
    called = "standard input" if path == STDIN else str(path)
    if path == STDIN and sys.stdin is None:
        raise InvalidRequest("nothing comes in to be read as prompts: pipe it in, or name a file")
    try:
        raw = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
        return called, as_text(raw).removesuffix("\x1a")  # DOS ends files with Ctrl-Z.
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read the prompts file {called}: {why_unread(error)}") from error


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
        raise InvalidRequest(f"not JSON: {why_unread(error)}") from error
    return _settings(value)


def _settings(value: Any) -> dict[str, Any]:
    """The settings that a value of JSON stands for: an object of them, or a prompt alone."""
    if isinstance(value, str):
        return {"prompt": value}
    if isinstance(value, dict) and (run := [name for name in value if name in LOADING or name in SAVING]):
        raise InvalidRequest(f"{run[0]} is for all pictures of a run: give `{run[0]}=` on the command line")
    if not isinstance(value, dict):
        written = json.dumps(value, ensure_ascii=False)[:40]
        raise InvalidRequest(f'{written!r} is no JSON object: write {{"prompt": ...}}')
    return value
