"""Prompts that are completed before they are read: saved styles, and what is drawn by lot."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from darkroom.errors import InvalidRequest, nearest
from darkroom.files import expanded, read_text
from darkroom.generation.request import MAX_COUNT, Request
from darkroom.language.dynamic import combinations, count_combinations, drawn
from darkroom.library.records import home

PROMPTS = (
    *("prompt", "negative", "prompt_2", "negative_2", "prompt_3", "negative_3", "towards"),
    *("second_prompt", "second_negative"),
)
OF_DETAILS = ("detail_prompts", "detail_negatives")
STYLES, WILDCARDS = "styles.csv", "wildcards"
_TXT = ".[tT][xX][tT]"
_MOST_LINES, _MOST_NAMED = 100_000, 30


@dataclasses.dataclass(frozen=True)
class Style:
    """Text to put around or behind a prompt and a negative prompt: where it has {prompt}, that is what the prompt
    replaces."""

    name: str
    prompt: str = ""
    negative: str = ""

    def applied(self, prompt: str, negative: str) -> tuple[str, str]:
        return _joined(prompt, self.prompt), _joined(negative, self.negative)


def _joined(text: str, style: str) -> str:
    """As A1111 does (`modules/styles.py`, merge_prompts)."""
    if "{prompt}" in style:
        return style.replace("{prompt}", text)
    return ", ".join(filter(None, (text.strip(), style.strip())))


def styles_files() -> list[Path]:
    """Where styles are, the ones that go first last: in the library's folder, and in $DARKROOM_STYLES."""
    return [home() / STYLES, *_paths("DARKROOM_STYLES")]


def wildcard_folders() -> list[Path]:
    """Where files for __name__ are: in $DARKROOM_WILDCARDS, and in the library's folder."""
    return [*_paths("DARKROOM_WILDCARDS"), home() / WILDCARDS]


def _paths(variable: str) -> list[Path]:
    return [expanded(each) for each in os.environ.get(variable, "").split(os.pathsep) if each]


def styles() -> dict[str, Style]:
    """The saved styles by name, from A1111's kind of file: name, prompt and negative_prompt, with commas between.
    Raises InvalidRequest where one cannot be read."""
    found: dict[str, Style] = {}
    for path in styles_files():
        if os.path.lexists(path) or path != home() / STYLES:
            found |= {style.name: style for style in read_styles(path)}
    return found


def read_styles(path: Path) -> list[Style]:
    """The styles in a file."""
    try:
        table = csv.DictReader(io.StringIO(read_text(path)))
        columns, rows = table.fieldnames or (), list(table)
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidRequest(f"cannot read the styles in {path}: {error}") from error
    if columns and not {"name", "prompt"} <= set(columns):
        raise InvalidRequest(f"{path} holds no styles: its first line is to be name,prompt,negative_prompt")
    return [
        Style(row["name"], row.get("prompt") or "", row.get("negative_prompt") or "")
        for row in rows
        if row["name"]
    ]


def lines(name: str) -> Sequence[str]:
    """The lines that __name__ stands for: those of NAME.txt, in a folder of wildcards, or of every file that a name
    with * fits. Raises InvalidRequest where there are none."""
    found: list[str] = []
    empty: list[Path] = []
    if not (name.startswith("/") or ".." in Path(name).parts):
        for folder in wildcard_folders():
            root = folder.resolve()
            try:
                files = sorted(folder.glob(f"{name}{_TXT}") if folder.is_dir() else ())
            except ValueError as error:
                raise InvalidRequest(f"__{name}__ names no wildcard: {error}") from None
            inside = [file for file in files if file.resolve().is_relative_to(root) and file.is_file()]
            for file in inside:
                stat = file.stat()
                found += _read_lines(file, stat.st_mtime_ns, stat.st_size)
            if found:
                return found
            empty += inside
    if empty:
        raise InvalidRequest(
            f"__{name}__ stands for nothing: there is no line in {empty[-1]}, write one for each"
        )
    known = {
        file.relative_to(folder).with_suffix("").as_posix()
        for folder in wildcard_folders()
        if folder.is_dir()
        for file in itertools.islice(folder.rglob(f"*{_TXT}"), 1000)
    }
    if within := sorted(each for each in known if each.startswith(f"{name}/")):
        raise InvalidRequest(
            f"__{name}__ is a folder of wildcards: write __{name}/*__ for any of it, or __{within[0]}__"
        )
    hint = (
        nearest(name, sorted(known)[:_MOST_NAMED])
        if known
        else f"put {name}.txt into {wildcard_folders()[-1]}, a line for each"
    )
    raise InvalidRequest(f"there is no wildcard __{name}__: {hint}")


@lru_cache(maxsize=64)
def _read_lines(file: Path, changed: int, size: int) -> tuple[str, ...]:
    try:
        text = read_text(file)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read the wildcard file {file}: {error}") from error
    kept = (line.strip() for line in text.split("\n"))
    return tuple(itertools.islice((line for line in kept if line and not line.startswith("#")), _MOST_LINES))


def completed(request: Request) -> Request:
    """A request with its styles in its prompts, and with as many pictures as there are combinations where all of them
    are asked for and no other count is. Raises InvalidRequest for a style or a wildcard that there is not."""
    if request.text.styles:
        known = styles()
        prompt, negative, towards = request.prompt, request.negative, request.text.towards
        second = request.second.prompt, request.second.negative
        for name in request.text.styles:
            if name not in known:
                hint = nearest(name, known) if known else f"there are none, put them into {styles_files()[0]}"
                raise InvalidRequest(f"there is no style {name!r}: {hint}")
            prompt, negative = known[name].applied(prompt, negative)
            towards = None if towards is None else known[name].applied(towards, "")[0]
            applied = known[name].applied(second[0] or "", second[1] or "")
            second = second[0] and applied[0], second[1] and applied[1]
        request = request.replace(
            prompt=prompt,
            negative=negative,
            towards=towards,
            second_prompt=second[0],
            second_negative=second[1],
            styles=(),
        )
        request = _checked(request, "its styles")
    if request.text.dynamic == "all" and request.count == 1:
        count = count_combinations(request.prompt, lines, MAX_COUNT)
        request = request.replace(count=max(count, 1))
    return request


def _checked(request: Request, with_: str) -> Request:
    """A request whose prompts are others than the user wrote, checked once more."""
    try:
        return request.checked()
    except InvalidRequest as error:
        raise InvalidRequest(f"with {with_}, {error}") from error


def pictures(request: Request) -> Iterator[Request]:
    """A completed request for each of its pictures: prompts drawn by lot with that picture's seed, or in turn."""
    turns: Iterator[str] | None = None
    if request.text.dynamic == "all":
        turns = itertools.cycle(itertools.islice(combinations(request.prompt, lines), request.count))
    for number in range(request.count):
        single = request.single(number)
        if request.text.dynamic != "off":
            drawn_now = single.replace(dynamic="off", **_drawn(single, turns))
            single = _checked(drawn_now, "what its wildcards and choices stand for")
        yield single


def _drawn(single: Request, turns: Iterator[str] | None) -> dict[str, Any]:
    """Every prompt of a picture without anything that is left to lot."""
    settings = single.flat()
    found: dict[str, Any] = {}
    for name in PROMPTS:
        text = settings[name]
        if name == "prompt" and turns is not None:
            found[name] = next(turns, "")
        elif text is not None:
            found[name] = drawn(text, random.Random(f"{single.seed} {name}"), lines)
    for name in OF_DETAILS:
        found[name] = tuple(
            drawn(text, random.Random(f"{single.seed} {name} {number}"), lines)
            for number, text in enumerate(settings[name])
        )
    return found


def template_of(asked: Request, made: Request) -> dict[str, Any]:
    """What of a picture's prompts was asked for in other words than they were made from."""
    names = (*PROMPTS, *OF_DETAILS, "styles", "dynamic")
    asked_for, made_from = asked.flat(), made.flat()
    others = {name: asked_for[name] for name in names if asked_for[name] != made_from[name]}
    return {name: list(each) if isinstance(each, tuple) else each for name, each in others.items()}
