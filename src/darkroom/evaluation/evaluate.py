"""How well a model draws what it is told: prompts of the benchmark, its pictures, the oracle's verdicts."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from darkroom.errors import InvalidRequest, nearest
from darkroom.evaluation.benchmark import GENEVAL_TASKS, TASKS, Prompt, prompts
from darkroom.evaluation.exhibit import RIGHT, WRONG, Cell, exhibit, said
from darkroom.evaluation.scores import Score, between, columns, mean, percent
from darkroom.evaluation.truth import ceiling
from darkroom.files import write_json
from darkroom.generation import Picture, Request, open_picture
from darkroom.model import Model
from darkroom.oracle.judging import Expectation, Reading, Wanted, satisfies
from darkroom.oracle.oracle import Oracle
from darkroom.world.render import render
from darkroom.world.sampling import sample_scene

RESULTS = "results.json"


@dataclass(frozen=True)
class Questions:
    """What is asked: `count` prompts of each task, from the core of the world or all of it.

    `seed` chooses the prompts and the pictures' seeds; `settings` are those of a request (steps,
    guidance, width ...), the others the model chooses. Raises InvalidRequest for unknown tasks, and for
    tasks that the core does not have.
    """

    tasks: tuple[str, ...] = ()
    count: int = 50
    core: bool = False
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tasks:
            object.__setattr__(self, "tasks", GENEVAL_TASKS if self.core else TASKS)
        for task in self.tasks:
            if task not in TASKS:
                raise InvalidRequest(f"unknown task {task!r}: {nearest(task, TASKS)}")
            if self.core and task not in GENEVAL_TASKS:
                raise InvalidRequest(
                    f"the core of the world has one setting, so no task {task!r}: leave `core=True` out"
                )
        if self.count < 1:
            raise InvalidRequest(f"prompts is {self.count}: ask at least 1 for each task")

    def cases(self) -> list[Case]:
        """Everything that will be asked, in an order in which a part is already fair to all tasks."""
        columns = [prompts(task, self.count, self.seed, self.core) for task in self.tasks]
        rows = [prompt for row in zip(*columns, strict=True) for prompt in row]
        return [
            Case(prompt, f"{prompt.task}-{i // len(columns):03d}.png", self._seed(i))
            for i, prompt in enumerate(rows)
        ]

    def _seed(self, i: int) -> int:
        return 1_000_000 * self.seed + i


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt, the name of its picture's file, and the picture's seed."""

    prompt: Prompt
    file: str
    seed: int

    def request(self, settings: Mapping[str, Any]) -> Request:
        return Request.from_dict({**settings, "prompt": self.prompt.text, "seed": self.seed})


@dataclass(frozen=True)
class Verdict:
    """A case, what the oracle saw in its picture, and whether that is what was asked for."""

    case: Case
    reading: Reading
    right: bool

    def to_dict(self) -> dict[str, Any]:
        prompt = self.case.prompt
        return {
            "file": self.case.file,
            "task": prompt.task,
            "prompt": prompt.text,
            "seed": self.case.seed,
            "right": self.right,
            "expectation": asdict(prompt.expectation),
            "reading": asdict(self.reading),
        }


@dataclass(frozen=True)
class Results:
    """An evaluation, finished or (`complete` is false) stopped early. `ceilings`: the oracle's own score on
    drawn pictures that are right, for each task."""

    asked: Questions
    verdicts: Sequence[Verdict]
    ceilings: Mapping[str, Score]
    about: Mapping[str, Any]
    complete: bool

    def scores(self) -> dict[str, Score]:
        """For each task that was asked."""
        found = {
            task: [v.right for v in self.verdicts if v.case.prompt.task == task] for task in self.asked.tasks
        }
        return {task: Score.of(right) for task, right in found.items()}

    def mean(self) -> Score | None:
        """Over the tasks of GenEval; None where none of them was asked."""
        known = [score for task, score in self.scores().items() if task in GENEVAL_TASKS]
        return mean(known) if known else None

    def table(self) -> str:
        """For people: percentages."""
        head = ["task", "right, %", "95 % interval", "pictures", "oracle on drawn truth, %"]
        rows: list[Sequence[str]] = [head, []]
        scores, total = self.scores(), self.mean()
        for task in (t for t in scores if t in GENEVAL_TASKS):
            rows.append(self._row(task, scores[task], self.ceilings.get(task)))
        if total:
            known = [score for task, score in self.ceilings.items() if task in GENEVAL_TASKS]
            rows += [[], self._row("mean", total, mean(known)), []]
        for task in (t for t in scores if t not in GENEVAL_TASKS):
            rows.append(self._row(task, scores[task], self.ceilings.get(task)))
        return columns(rows)

    @staticmethod
    def _row(name: str, score: Score, top: Score | None) -> list[str]:
        return [name, percent(score), between(score), str(score.total), percent(top) if top else "-"]

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        total = self.mean()
        asked = {**asdict(self.asked), "settings": dict(self.asked.settings)}
        return {
            **self.about,
            "asked": asked,
            "complete": self.complete,
            "mean": total.to_dict() if total else None,
            "tasks": {
                task: {
                    **score.to_dict(),
                    "ceiling": self.ceilings[task].to_dict() if task in self.ceilings else None,
                }
                for task, score in self.scores().items()
            },
            "pictures": [verdict.to_dict() for verdict in self.verdicts],
        }


def evaluate(model: Model, oracle: Oracle, asked: Questions, folder: Path, quiet: bool = False) -> Results:
    """Ask, draw, judge. Leaves pictures, `results.json` and `grid.png` in the folder.

    Pictures that an earlier evaluation left there are used again where they are what would be made now.
    Ctrl-C ends it with the results so far.
    """
    cases = asked.cases()
    requests = [model.settle(case.request(asked.settings)) for case in cases]
    verdicts: list[Verdict] = []
    ceilings: dict[str, Score] = {}
    complete = False
    canvas = requests[0].canvas
    aspect = (canvas.width or 1) / (canvas.height or 1)
    try:
        with tqdm(total=len(cases), unit="picture", disable=quiet or None, dynamic_ncols=True) as bar:
            for case, request in zip(cases, requests, strict=True):
                image = _picture(model, request, folder / "pictures" / case.file)
                (reading,) = oracle([image])
                verdicts.append(Verdict(case, reading, satisfies(reading, case.prompt.expectation)))
                bar.update()
                bar.set_postfix(right=f"{sum(v.right for v in verdicts) / len(verdicts):.2f}", refresh=False)
        for task in asked.tasks:
            told = prompts(task, asked.count, asked.seed, asked.core)
            ceilings[task] = ceiling(oracle, told, asked.core, asked.seed, aspect)
        complete = True
    except KeyboardInterrupt:
        pass
    results = Results(asked, verdicts, ceilings, about(model, oracle, requests[0]), complete)
    write_json(folder / RESULTS, results.to_dict())
    if verdicts:
        grid(results, folder).save(folder / "grid.png")
    return results


def grid(results: Results, folder: Path, most: int = 10) -> Image.Image:
    """The first pictures of each task, framed in green where the oracle passed them and in red where not."""
    rows = []
    for task, score in results.scores().items():
        seen = [v for v in results.verdicts if v.case.prompt.task == task][:most]
        cells = [
            Cell(
                Image.open(folder / "pictures" / v.case.file),
                RIGHT if v.right else WRONG,
                v.case.prompt.text,
                said(v.reading),
            )
            for v in seen
        ]
        rows.append((f"{task}: {percent(score)} %", cells))
    return exhibit(rows)


def _picture(model: Model, request: Request, path: Path) -> Image.Image:
    """The picture of the request: the one at the path if it is that, otherwise made and written there."""
    try:
        image, metadata = open_picture(path)
        same = (
            metadata["request"] == request.to_dict()
            and metadata["model"]["weights"] == model.provenance.weights()
        )
        if same and metadata["numerics"] == model.provenance.numerics():
            return image
    except (InvalidRequest, KeyError):
        pass
    (picture,) = (event for event in model.stream(request) if isinstance(event, Picture))
    picture.save(path)
    return picture.image


def about(model: Model, oracle: Oracle, request: Request) -> dict[str, Any]:
    """What was measured with what: model, oracle, world and settings."""
    settings = {k: v for k, v in request.flat().items() if k not in ("prompt", "seed", "count")}
    return {
        "model": {"name": model.name, "weights": model.provenance.weights()},
        "oracle": oracle.hash,
        "world": fingerprint(),
        "numerics": model.provenance.numerics(),
        "settings": settings,
    }


def fingerprint(count: int = 24) -> str:
    """The SHA-256 of some scenes as they are drawn here: another world, or another Pillow, has another."""
    rng = random.Random("fingerprint")
    pixels = (render(sample_scene(rng, split="any"), 64).tobytes() for _ in range(count))
    return hashlib.sha256(b"".join(pixels)).hexdigest()


def read_results(folder: Path) -> dict[str, Any]:
    """The results that an evaluation left in a folder. Raises InvalidRequest where there are none."""
    try:
        found: dict[str, Any] = json.loads((folder / RESULTS).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"no results of an evaluation in {folder}: {error}") from error
    return found


def expectation_from(values: Mapping[str, Any]) -> Expectation:
    """The inverse of `dataclasses.asdict` for an expectation."""
    return Expectation(**{**values, "things": tuple(Wanted(**thing) for thing in values["things"])})
