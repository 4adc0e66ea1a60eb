from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

import darkroom
from darkroom.cli import main
from darkroom.errors import InvalidRequest
from darkroom.evaluation.benchmark import GENEVAL_TASKS, TASKS, prompts
from darkroom.evaluation.evaluate import Questions, evaluate, expectation_from, fingerprint, read_results
from darkroom.evaluation.exhibit import RIGHT, WRONG
from darkroom.evaluation.labels import LABELS, compare, label, prepare, read_labels
from darkroom.evaluation.scores import Score, columns, mean
from darkroom.evaluation.truth import ceiling, refusals, report, scene_for
from darkroom.generation import open_picture
from darkroom.model import Model
from darkroom.oracle.judging import Reading, satisfies, truth
from darkroom.oracle.oracle import Oracle, OracleConfig, OracleNetwork
from darkroom.world import is_core, render

ASKED = Questions(("single", "counting", "style"), count=2, settings={"steps": 1, "guidance": 1.0})


@pytest.fixture(scope="module")
def model(toy_folder: Path) -> Model:
    return darkroom.load(toy_folder, device="cpu", precision="float32")


class Seer(Oracle):
    """Knows every rendered picture, and is blind to all others."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            OracleNetwork(OracleConfig(size=64, widths=(4, 4, 4, 4), depths=(0, 0, 0))), "0" * 64
        )
        self.known: dict[bytes, Reading] = {}

    def __call__(self, pictures: Any, batch: int = 32) -> list[Reading]:
        blank = replace(super().__call__([Image.new("RGB", (64, 64))])[0], things=())
        return [self.known.get(np.asarray(picture).tobytes(), blank) for picture in pictures]


@pytest.fixture
def seer(monkeypatch: pytest.MonkeyPatch) -> Seer:
    judge = Seer()

    def seen(scene: Any, size: int) -> Any:
        pixels = render(scene, size)
        judge.known[pixels.tobytes()] = truth(scene)
        return pixels

    monkeypatch.setattr("darkroom.evaluation.truth.render", seen)
    return judge


# Scores


@pytest.mark.parametrize(("right", "total"), [(0, 10), (9, 10), (50, 50), (120, 300)])
def test_wilson_intervals(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert Score(right, total).interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_scores_of_nothing() -> None:
    assert math.isnan(Score.of([]).share)
    assert Score.of([]).interval == (0.0, 1.0)
    assert Score.of([]).to_dict()["share"] is None
    assert mean([Score(1, 2), Score(2, 2)]) == Score(3, 4)


def test_columns_are_aligned() -> None:
    assert columns([["a", "bcd"], [], ["efg", "1"]]) == "a    bcd\n--------\nefg    1"


# What is asked


def test_a_plan_asks_every_task_in_turn() -> None:
    cases = Questions(count=3).cases()
    assert [case.prompt.task for case in cases] == list(TASKS) * 3
    assert len({case.file for case in cases}) == len({case.seed for case in cases}) == 27
    assert [case.prompt.task for case in Questions(core=True, count=1).cases()] == list(GENEVAL_TASKS)
    assert not {case.seed for case in cases} & {case.seed for case in Questions(count=3, seed=1).cases()}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tasks": ("colors",)}, "colours"),
        ({"tasks": ("style",), "core": True}, "`core=True`"),
        ({"count": 0}, "at least 1"),
    ],
)
def test_plans_that_cannot_be_followed(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Questions(**wrong)


# Judging the judge


@pytest.mark.parametrize("task", TASKS)
def test_drawn_truth_satisfies_its_prompt(task: str) -> None:
    rng = random.Random(0)
    for prompt in prompts(task, 12):
        assert satisfies(truth(scene_for(prompt, rng)), prompt.expectation)
        if task in GENEVAL_TASKS:
            assert is_core(scene_for(prompt, rng, core=True))


def test_a_perfect_judge_has_no_faults(seer: Seer) -> None:
    found = report(seer, count=24, per_task=4)
    assert all(s.right == s.total for scores in found.attributes.values() for s in scores.values())
    assert all(s == Score(4, 4) for s in found.passed.values())
    assert all(s.right == s.total > 0 for s in found.refused.values())
    assert "attribution" in found.table()
    json.dumps(found.to_dict())


def test_a_blind_judge_passes_nothing_and_refuses_all(seer: Seer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = prompts("attribution", 6)
    monkeypatch.setattr("darkroom.evaluation.truth.render", render)
    assert ceiling(seer, asked) == Score(0, 6)
    assert refusals(seer, asked) == Score(6, 6)


# A model's evaluation


def test_an_evaluation_leaves_table_results_pictures_and_grid(
    model: Model, seer: Seer, tmp_path: Path
) -> None:
    results = evaluate(model, seer, ASKED, tmp_path, quiet=True)
    assert results.complete
    assert results.scores() == {
        "single": Score(0, 2),
        "counting": Score(0, 2),
        "style": Score.of(v.right for v in results.verdicts[2::3]),
    }
    assert results.mean() == Score(0, 4)
    assert all(top == Score(2, 2) for top in results.ceilings.values())
    table = results.table()
    assert [line.split()[0] for line in table.splitlines() if line[0].isalpha()] == [
        "task",
        "single",
        "counting",
        "mean",
        "style",
    ]
    found = read_results(tmp_path)
    assert found == json.loads(json.dumps(results.to_dict()))
    assert found["model"]["weights"] == model.provenance.weights()
    assert found["world"] == fingerprint()
    assert found["oracle"] == seer.hash
    assert found["settings"]["steps"] == 1
    for row, case in zip(found["pictures"], ASKED.cases(), strict=True):
        assert expectation_from(row["expectation"]) == case.prompt.expectation
        assert open_picture(tmp_path / "pictures" / row["file"])[0].size == (32, 32)
    colours = set(Image.open(tmp_path / "grid.png").convert("RGB").get_flattened_data())
    assert WRONG in colours
    assert (RIGHT in colours) == any(v.right for v in results.verdicts)


class Counting:
    """Counts what a model is asked to draw, and may be interrupted."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch, most: int = 99) -> None:
        self.drawn = 0
        stream = model.stream

        def counted(request: Any) -> Iterator[Any]:
            if self.drawn == most:
                raise KeyboardInterrupt
            self.drawn += 1
            return stream(request)

        monkeypatch.setattr(model, "stream", counted)


def test_an_interrupted_evaluation_shows_what_there_is_and_goes_on(
    model: Model, seer: Seer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Counting(model, patch, most=4)
        partial = evaluate(model, seer, ASKED, tmp_path, quiet=True)
    assert not partial.complete
    assert sum(score.total for score in partial.scores().values()) == 4
    assert not read_results(tmp_path)["complete"]
    assert "single" in partial.table()
    counting = Counting(model, monkeypatch)
    whole = evaluate(model, seer, ASKED, tmp_path, quiet=True)
    assert whole.complete
    assert counting.drawn == 2
    again = evaluate(
        model, seer, replace(ASKED, settings={"steps": 2, "guidance": 1.0}), tmp_path, quiet=True
    )
    assert again.complete
    assert counting.drawn == 8  # Other settings make other pictures.


def test_interrupted_before_the_first_picture(
    model: Model, seer: Seer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Counting(model, monkeypatch, most=0)
    results = evaluate(model, seer, ASKED, tmp_path, quiet=True)
    assert not results.complete
    assert "-" in results.table()
    assert not (tmp_path / "grid.png").exists()


# A person's labels


@pytest.fixture
def evaluated(model: Model, seer: Seer, tmp_path: Path) -> Path:
    evaluate(model, seer, ASKED, tmp_path, quiet=True)
    return tmp_path


def fill(folder: Path, **answers: Any) -> None:
    rows = [json.loads(line) for line in (folder / LABELS).read_text().splitlines()]
    (folder / LABELS).write_text("\n".join(json.dumps({**row, **answers}) for row in rows))


def test_labels_are_prepared_without_the_oracles_answers(evaluated: Path, seer: Seer) -> None:
    text = label(evaluated, seer)
    assert "labels-1.png" in text
    rows = [json.loads(line) for line in (evaluated / LABELS).read_text().splitlines()]
    assert len(rows) == 6
    assert {key for row in rows for key in row} == {
        "picture",
        "prompt",
        "right",
        "things",
        "place",
        "time",
        "weather",
        "style",
    }
    assert all(
        value is None for row in rows for key, value in row.items() if key not in ("picture", "prompt")
    )
    with pytest.raises(InvalidRequest, match="nothing is filled in"):
        label(evaluated, seer)


def test_agreement_is_counted_where_a_person_answered(evaluated: Path, seer: Seer) -> None:
    prepare(evaluated, 5)
    fill(evaluated, right=False, things=[])
    found, lines = compare(evaluated, seer)
    verdicts = [row["right"] for row in read_results(evaluated)["pictures"][:5]]
    assert found["right"] == Score(5 - sum(verdicts), 5)
    assert found["kinds"] == found["counts"] == found["colours"] == Score(5, 5)
    assert found["place"].total == 0
    assert len(lines) == sum(verdicts)
    fill(evaluated, things=["red cat"])
    found, lines = compare(evaluated, seer)
    assert found["kinds"] == found["counts"] == Score(0, 5)
    assert "oracle []" in "".join(lines)
    assert "disagreements" in label(evaluated, seer)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"things": ["cat"]}, "unknown thing 'cat'"),
        ({"place": "moon"}, "unknown place 'moon'"),
        ({"right": "yes"}, "right is 'yes'"),
    ],
)
def test_labels_that_cannot_be_read(evaluated: Path, answers: dict[str, Any], words: str) -> None:
    prepare(evaluated, 2)
    fill(evaluated, **answers)
    with pytest.raises(InvalidRequest, match=f"line 1: {words}"):
        read_labels(evaluated / LABELS)


def test_pictures_of_a_size(toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(size: str) -> int:
        words = ["--size", size, "--tasks", "single", "--prompts", "1", "--steps", "1", "--output", tmp_path]
        return main(["evaluate", str(toy_folder), *map(str, words), "--device", "cpu"])

    for size, found in (("48x32", (48, 32)), (" 32 ", (32, 32))):
        assert ask(size) == 0
        assert open_picture(tmp_path / "pictures/single-000.png")[0].size == found
    assert ask("48x30") == 2
    assert "not a multiple of 8" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        ask("wide")
    assert "WIDTHxHEIGHT" in capsys.readouterr().err
