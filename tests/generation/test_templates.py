"""Styles and what is drawn by lot: from files, into requests, out of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.adapters.test_requests import SETTINGS

import darkroom
from darkroom.cli import main
from darkroom.errors import InvalidRequest
from darkroom.generation import Request
from darkroom.generation.templates import completed, pictures, read_styles


@pytest.fixture
def shelf(empty_library: Path) -> Path:
    """A library's folder with styles and wildcards."""
    words = empty_library / "wildcards" / "sea"
    words.mkdir(parents=True)
    (words / "colour.txt").write_text("# colours\nred\n\n  blue  \n", "utf-8")
    (words / "mood.txt").write_text("calm\n", "utf-8")
    (empty_library / "styles.csv").write_text(
        "name,prompt,negative_prompt\n"
        'Ink,"ink drawing, fine lines",colour\n'
        '"Old, photo","an old photo of {prompt}, faded","modern, {prompt} today"\n',
        "utf-8-sig",
    )
    return empty_library


def made(prompt: str, **settings: Any) -> list[Request]:
    request = Request.from_dict({"prompt": prompt, "seed": 5, **settings}).checked()
    return list(pictures(completed(request)))


def test_styles(shelf: Path) -> None:
    (one,) = made("a boat", negative="rain", styles=["Ink"])
    assert (one.prompt, one.negative, one.text.styles) == (
        "a boat, ink drawing, fine lines",
        "rain, colour",
        (),
    )
    (one,) = made("a boat", styles=["Old, photo", "Ink"])
    assert one.prompt == "an old photo of a boat, faded, ink drawing, fine lines"
    assert one.negative == "modern,  today, colour"
    with pytest.raises(InvalidRequest, match="there is no style 'ink': did you mean 'Ink'"):
        made("a boat", styles=["ink"])


def test_styles_elsewhere(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.csv").write_text("name,prompt,negative_prompt\nInk,mine,\n", "utf-8")
    monkeypatch.setenv("DARKROOM_STYLES", str(tmp_path / "mine.csv"))
    assert made("a boat", styles=["Ink"])[0].prompt == "a boat, mine"
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(InvalidRequest, match="holds no styles"):
        read_styles(tmp_path / "mine.csv")


def test_nothing_is_drawn_unless_asked(shelf: Path) -> None:
    assert made("a {red|blue} __sea/colour__ boat")[0].prompt == "a {red|blue} __sea/colour__ boat"


def test_by_lot(shelf: Path) -> None:
    prompt = "a {red|green|blue} __sea/colour__ boat"
    several = made(prompt, negative="{a|b}", count=20, dynamic="random")
    assert len({each.prompt for each in several}) > 3
    assert {each.negative for each in several} == {"a", "b"}
    assert {each.text.dynamic for each in several} == {"off"}
    alone = made(prompt, negative="{a|b}", count=1, dynamic="random", seed=12)[0]
    assert alone == several[7]


def test_all_in_turn(shelf: Path) -> None:
    prompt = "{a|b} __sea/*__"
    texts = ["a red", "a blue", "a calm", "b red", "b blue", "b calm"]
    assert [each.prompt for each in made(prompt, dynamic="all")] == texts
    assert [each.prompt for each in made(prompt, dynamic="all", count=8)] == [*texts, *texts[:2]]
    assert [each.seed for each in made(prompt, dynamic="all")] == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("name", ["nobody", "../styles", "/etc/passwd", "sea/../../styles"])
def test_files_outside_are_none(shelf: Path, name: str) -> None:
    (shelf / "styles.txt").write_text("secret\n", "utf-8")
    with pytest.raises(InvalidRequest, match="there is no wildcard"):
        made(f"__{name}__", dynamic="random")


def test_a_picture_tells(shelf: Path, toy_folder: Path, tmp_path: Path) -> None:
    """The final prompt is what a picture is made again from, with no file and no lot; what was asked for is kept."""
    model = darkroom.load(toy_folder, device="cpu", precision="float32")
    picture = model.generate("a __sea/colour__ boat", **{**SETTINGS, "dynamic": "random", "styles": ["Ink"]})[
        0
    ]
    request = picture.metadata["request"]
    assert request["prompt"] in {f"a {colour} boat, ink drawing, fine lines" for colour in ("red", "blue")}
    assert picture.metadata["template"] == {
        "prompt": "a __sea/colour__ boat",
        "negative": "",
        "styles": ["Ink"],
        "dynamic": "random",
    }
    file = picture.save(tmp_path / "it.png")
    (shelf / "styles.csv").unlink()
    (shelf / "wildcards/sea/colour.txt").unlink()
    assert main(["again", str(file), "--model", str(toy_folder), "--precision", "float32"]) == 0
    assert "template" not in model.generate("a boat", **SETTINGS)[0].metadata


def test_styles_that_are_none(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_STYLES", str(tmp_path / "mine.csv"))
    with pytest.raises(InvalidRequest, match=r"cannot read the styles in .*mine\.csv"):
        made("a boat", styles=["Ink"])
    (tmp_path / "mine.csv").write_text("Ink,mine,\n", "utf-8")
    with pytest.raises(InvalidRequest, match=r"mine\.csv holds no styles: its first line is to be name"):
        made("a boat", styles=["Ink"])
    (tmp_path / "mine.csv").unlink()
    (tmp_path / "mine.csv").mkdir()
    with pytest.raises(InvalidRequest, match=r"cannot read the styles in .*mine\.csv"):
        made("a boat", styles=["Ink"])


def test_wildcards_of_nothing(shelf: Path) -> None:
    words = shelf / "wildcards"
    (words / "SHOUT.TXT").write_text("loud\n", "utf-8")
    assert made("a __SHOUT__ boat", dynamic="random")[0].prompt == "a loud boat"
    (words / "empty.txt").write_text("# nothing yet\n\n", "utf-8")
    for name, why in (
        ("empty", "there is no line in .*empty.txt"),
        ("sea", "is a folder of wildcards: write __sea/[*]__ for any of it, or __sea/colour__"),
        ("shout2", "did you mean 'SHOUT'|there is no wildcard"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            made(f"a __{name}__ boat", dynamic="random")
