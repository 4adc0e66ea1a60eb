"""A person's labels beside the oracle's: do they see the same in generated pictures?

`labels.jsonl` has an object a line: "picture" is the file's name in `pictures/`, "prompt" what was asked
for. A person fills in what they see, without knowing what the oracle saw, and leaves null what they
cannot say:

    {"picture": "two-003.png", "prompt": "a cat and a boat", "right": true, "things": ["red cat", "blue
    boat"],
     "place": "sea", "time": "day", "weather": "clear", "style": "neon"}

"right": whether the picture is what the prompt asks for. "things": every one, so two red boats are named
twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.errors import InvalidRequest
from darkroom.evaluation.evaluate import expectation_from, read_results
from darkroom.evaluation.exhibit import PLAIN, Cell, exhibit
from darkroom.evaluation.scores import Score, between, columns, percent
from darkroom.files import write_bytes
from darkroom.oracle.judging import SETTING, Reading, satisfies
from darkroom.oracle.oracle import Oracle
from darkroom.world.scene import COLOURS, KINDS, PLACES, STYLES, TIMES, WEATHERS

LABELS = "labels.jsonl"
_KNOWN = {"place": PLACES, "time": TIMES, "weather": WEATHERS, "style": STYLES}
_THINGS = {f"{colour} {kind}" for colour in COLOURS for kind in KINDS}
QUESTIONS = ("right", "kinds", "counts", "colours", *SETTING)


def label(folder: Path, oracle: Oracle, count: int = 100) -> str:
    """Prepare labelling for the evaluation in the folder, or, where labels are filled in, say where they
    and the oracle agree. Raises InvalidRequest for labels that cannot be read."""
    if not (folder / LABELS).exists():
        sheets = prepare(folder, count)
        return f"look at {', '.join(str(s) for s in sheets)}, fill in {folder / LABELS}, then run this again"
    found, disagreements = compare(folder, oracle)
    rows: list[Sequence[str]] = [["question", "agreement, %", "95 % interval", "answers"], []]
    rows += [[name, percent(score), between(score), str(score.total)] for name, score in found.items()]
    return "\n".join([columns(rows), *(["", "disagreements:"] if disagreements else []), *disagreements])


def prepare(folder: Path, count: int = 100) -> list[Path]:
    """Write an empty label for each of the first `count` pictures of the evaluation, and sheets of them
    that do not say what the oracle thinks. Returns the sheets."""
    chosen = read_results(folder)["pictures"][:count]
    empty = {"right": None, "things": None, **dict.fromkeys(SETTING)}
    lines = [json.dumps({"picture": row["file"], "prompt": row["prompt"], **empty}) for row in chosen]
    write_bytes(folder / LABELS, ("\n".join(lines) + "\n").encode())
    sheets = []
    for number, start in enumerate(range(0, len(chosen), 25), 1):
        page = [
            Cell(Image.open(folder / "pictures" / row["file"]), PLAIN, f"{row['file']}: {row['prompt']}")
            for row in chosen[start : start + 25]
        ]
        path = folder / f"labels-{number}.png"
        exhibit([("", page[k : k + 5]) for k in range(0, len(page), 5)]).save(path)
        sheets.append(path)
    return sheets


def compare(folder: Path, oracle: Oracle) -> tuple[dict[str, Score], list[str]]:
    """For each question, how often the oracle and the person agree where the person answered, and every
    disagreement as a line. "kinds": the same kinds; "counts": as many things; "colours": the same things
    in the same colours."""
    labels = read_labels(folder / LABELS)
    known = {row["file"]: row for row in read_results(folder)["pictures"]}
    readings = oracle([Image.open(folder / "pictures" / row["picture"]) for row in labels])
    verdicts: dict[str, list[bool]] = {name: [] for name in QUESTIONS}
    lines = []
    for row, reading in zip(labels, readings, strict=True):
        passed = satisfies(reading, expectation_from(known[row["picture"]]["expectation"]))
        for name, person, judge in _answers(row, reading, passed):
            verdicts[name].append(person == judge)
            if person != judge:
                lines.append(f"  {row['picture']} ({row['prompt']}): {name}: person {person}, oracle {judge}")
    return {name: Score.of(seen) for name, seen in verdicts.items()}, lines


def _answers(row: Mapping[str, Any], reading: Reading, passed: bool) -> Iterator[tuple[str, Any, Any]]:
    """(question, the person's answer, the oracle's) for what the person answered."""
    if row.get("right") is not None:
        yield "right", row["right"], passed
    if row.get("things") is not None:
        seen = [f"{thing.colour} {thing.kind}" for thing in reading.things]
        yield "kinds", _kinds(row["things"]), _kinds(seen)
        yield "counts", len(row["things"]), len(seen)
        yield "colours", sorted(row["things"]), sorted(seen)
    for name in SETTING:
        if row.get(name) is not None:
            yield name, row[name], getattr(reading, name).name


def _kinds(things: Sequence[str]) -> list[str]:
    return sorted({thing.split()[1] for thing in things})


def read_labels(path: Path) -> list[dict[str, Any]]:
    """The labels of a file, those that answer something. Raises InvalidRequest naming the line that is
    wrong."""
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            problem = _problem(row)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            problem = str(error)
        if problem:
            raise InvalidRequest(f"{path}, line {number}: {problem}")
        if any(row.get(name) is not None for name in ("right", "things", *SETTING)):
            rows.append(row)
    if not rows:
        raise InvalidRequest(f"nothing is filled in in {path}: answer some of its questions first")
    return rows


def _problem(row: Mapping[str, Any]) -> str | None:
    unknown = [name for name in row.get("things") or () if name not in _THINGS]
    if unknown:
        return f"unknown thing {unknown[0]!r}: write colour and kind, as in 'red boat'"
    for name, names in _KNOWN.items():
        if row.get(name) not in (None, *names):
            return f"unknown {name} {row[name]!r}: choose from {', '.join(names)}"
    if row.get("right") not in (None, True, False):
        return f"right is {row['right']!r}: write true or false"
    return None if isinstance(row["picture"], str) else "no picture is named"
