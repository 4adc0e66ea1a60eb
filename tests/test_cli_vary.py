"""`darkroom generate --variants`, `vary` and `interrogate`, as a user meets them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from darkroom.generation import open_picture
from darkroom.generation.work import Denoise
from darkroom.world import Group, Scene, render

ASKED = ("a red boat", "--model", "toy", "--device", "cpu", "--steps", "3", "--seed", "7")
CHOSEN = ("generate", *ASKED, "--judge", "oracle", "--variants", "4")


@pytest.fixture
def photo(tmp_path):
    """A picture that says nothing of how it was made."""
    scene = Scene((Group("boat", "red"),), None, "sea", "night", "clear", "watercolour", 4)
    Image.fromarray(render(scene, 128)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def pixels(path):
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_the_best_is_kept_with_a_sheet_and_the_ranking(run, tmp_path):
    status, out, err = run(*CHOSEN, "--keep", "2")
    assert status == 0
    *kept, sheet, table = out.split()
    assert len(kept) == 2
    assert (sheet, table) == ("out/7-variants.png", "out/7-variants.json")
    assert sorted(os.listdir("out")) == sorted(Path(each).name for each in (*kept, sheet, table))
    ranking = json.loads(Path(table).read_text())
    assert ranking["kept"] == kept
    assert [each["rank"] for each in ranking["variants"]] == [1, 2, 3, 4]
    assert "ranked by oracle:" in err
    for path, said in zip(kept, ranking["variants"], strict=False):
        metadata = open_picture(path)[1]
        assert metadata["request"]["seed"] == said["seed"]
        assert metadata["chosen"]["rank"] == said["rank"]
        assert run("again", path, "--output", f"again-{said['rank']}.png")[0] == 0
        assert pixels(path) == pixels(f"again-{said['rank']}.png")


def test_json_tells_files_and_where_the_ranking_is(run):
    status, out, err = run(*CHOSEN, "--json", "--quiet")
    picture, sheet = map(json.loads, out.splitlines())
    assert status == 0
    assert err == ""
    assert picture["metadata"]["chosen"]["of"] == 4
    assert sheet == {"path": "out/7-variants.png", "grid": True, "ranking": "out/7-variants.json"}


def test_each_prompt_has_variants_of_its_own(run, tmp_path):
    Path("prompts.txt").write_text("a red boat\na green tree\n")
    status, out, _ = run(
        *(
            "generate",
            "--prompts",
            "prompts.txt",
            *ASKED[1:],
            "--judge",
            "oracle",
            "--variants",
            "3",
            "--quiet",
        )
    )
    assert status == 0
    names = [Path(each).name for each in out.split()]
    assert len(names) == 6
    assert names[1:3] == ["7-variants.png", "7-variants.json"]
    assert names[4:] == ["7-variants-2.png", "7-variants-2.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*CHOSEN, "--count", "2"), "count is 2: of variants there are as many as --variants says"),
        ((*CHOSEN, "--keep", "5"), "keep is 5, of 4 variants"),
        ((*CHOSEN, "--finish", "2", "--keep", "3"), "keep is 3, of 2 that are finished: raise --finish"),
        (("generate", *ASKED, "--keep", "2"), "--keep is of variants: say how many with --variants"),
        (("generate", "a dragon", *CHOSEN[2:]), "knows nothing of what is asked in 'a dragon'"),
        (("vary", "none.png"), "no file none.png: name a picture, or a folder of them"),
        (("vary", "empty"), "there is no picture in the folder empty"),
        (("interrogate", "none.png"), "no file none.png"),
        (("interrogate", "words.png"), "words.png is no picture"),
        (("interrogate", "words.png", "--judge", "oracel"), "did you mean 'oracle'"),
    ],
)
def test_mistakes_are_told_in_a_line(run, arguments, words):
    Path("words.png").write_text("no picture")
    Path("empty").mkdir()
    status, out, err = run(*arguments)
    assert status in (1, 2)
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_a_model_without_a_judge_says_what_to_give(run):
    status, _, err = run("generate", *ASKED, "--variants", "3")
    assert status == 1
    assert "toy has no judge of its own" in err
    assert "--judge" in err


def test_a_count_that_stands_elsewhere_is_not_of_variants(run, monkeypatch):
    monkeypatch.setenv("DARKROOM_COUNT", "3")
    status, out, _ = run(*CHOSEN, "--quiet")
    assert status == 0
    assert len(out.split()) == 3


def test_pictures_like_one_of_ours(run):
    run("generate", *ASKED, "--sampler", "euler", "--output", "one.png")
    status, out, err = run(
        *("vary", "one.png", "--device", "cpu", "--judge", "oracle"),
        *("--variants", "3", "--finish", "3", "--keep", "3", "--variation-seed", "50"),
    )
    assert status == 0
    *kept, sheet, _ = out.split()
    assert len(kept) == 3
    assert sheet == "out/7-variants.png"
    requests = [open_picture(each)[1]["request"] for each in kept]
    assert {each["prompt"] for each in requests} == {"a red boat"}
    assert {each["sampling"]["sampler"] for each in requests} == {"euler"}
    assert sorted(each["noise"]["variation_seed"] for each in requests) == [50, 51, 52]
    assert {each["noise"]["variation_strength"] for each in requests} == {0.15}
    assert "seed 7 + 50" in err
    assert run("again", kept[0], "--output", "again.png")[0] == 0
    assert pixels(kept[0]) == pixels("again.png")


def test_a_prompt_and_settings_take_the_place_of_the_recipes(run, monkeypatch):
    run("generate", *ASKED, "--output", "one.png")
    monkeypatch.setenv("DARKROOM_STEPS", "9")
    asked = (
        "vary",
        "one.png",
        "a green tree",
        "--device",
        "cpu",
        "--judge",
        "oracle",
        "--variants",
        "2",
        "--quiet",
    )
    status, out, _ = run(*asked, "--variation-strength", "0.4", "--guidance", "2")
    assert status == 0
    request = open_picture(out.split()[0])[1]["request"]
    assert request["prompt"] == "a green tree"
    assert request["sampling"]["steps"] == 3  # The recipe's: it goes before the environment.
    assert request["guidance"]["scale"] == 2
    assert request["noise"]["variation_strength"] == 0.4


def test_pictures_like_anybodys_are_drawn_over(run, photo):
    status, out, err = run(
        *("vary", photo, *ASKED[1:], "--judge", "oracle", "--variants", "2", "--size", "32")
    )
    assert status == 0
    request = open_picture(out.split()[0])[1]["request"]
    assert request["prompt"] == "a red boat at sea at night, watercolour"
    assert request["edit"]["strength"] == 0.5
    assert "photo.png is drawn over, by what it shows: a red boat at sea at night, watercolour" in err
    assert Path(out.split()[0]).name.startswith("photo-")


def test_another_recipe_or_a_strength_draws_over_the_picture(run):
    run("generate", *ASKED, "--output", "one.png")
    run("generate", "a green tree", *ASKED[1:], "--sampler", "euler", "--output", "other.png")
    asked = ("vary", "one.png", "--device", "cpu", "--judge", "oracle", "--variants", "2", "--quiet")
    for more, prompt in (
        (("--like", "other.png"), "a green tree"),
        (("--strength", "0.3"), "a red boat"),
        (("--no-like", "--model", "toy", "--prompt", "a cat", "--steps", "3"), "a cat"),
        (("--mask-box", "0,0,16,16"), "a red boat"),
    ):
        status, out, err = run(*asked, *more)
        assert status == 0, err
        request = open_picture(out.split()[0])[1]["request"]
        assert request["prompt"] == prompt
        assert request["edit"]["image"]["path"].endswith("one.png")
        assert request["edit"]["strength"] == (0.3 if "--strength" in more else 0.5)
        assert (
            "variation_strength" not in request.get("noise", {}) or not request["noise"]["variation_strength"]
        )


def test_an_edit_is_varied_from_what_it_began_with_while_that_is_there(run, photo):
    run("edit", photo, *ASKED, "--strength", "0.6", "--output", "edited.png")
    asked = ("vary", "edited.png", "--device", "cpu", "--judge", "oracle", "--variants", "2")
    _, out, _ = run(*asked)
    request = open_picture(out.split()[0])[1]["request"]
    assert request["edit"]["image"]["path"].endswith("photo.png")
    assert request["edit"]["strength"] == 0.6
    assert request["noise"]["variation_strength"] == 0.15
    photo.rename("elsewhere.png")
    status, out, err = run(*asked)
    assert status == 0, err
    request = open_picture(out.split()[0])[1]["request"]
    assert request["edit"]["image"]["path"].endswith("edited.png")
    assert "edited.png is drawn over" in err


def test_pictures_by_others_are_varied_as_they_were_made(run, toy_folder):
    said = "a red boat\nSteps: 3, Sampler: Euler, CFG scale: 4.0, Seed: 9, Size: 32x32, Model: toy"
    for name, more in (("plain.png", ""), ("img2img.png", ", Denoising strength: 0.7")):
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", said + more)
        Image.new("RGB", (32, 32), "blue").save(name, pnginfo=info)
        asked = ("vary", name, "--model", "toy", "--device", "cpu", "--judge", "oracle", "--variants", "2")
        status, out, err = run(*asked)
        assert status == 0, err
        assert "--image" not in err
        request = open_picture(out.split()[0])[1]["request"]
        assert request["prompt"] == "a red boat"
        if more:
            assert request["edit"]["image"]["path"].endswith(name)
        else:
            assert request["seed"] == 9
            assert request["noise"]["variation_strength"] == 0.15


def test_a_recipe_that_cannot_be_used_is_told(run):
    run("generate", *ASKED, "--output", "one.png")
    with Image.open("one.png") as image:
        metadata = json.loads(image.text["darkroom"])
        image.load()
        for change, words in (
            ({"version": 99}, "update Darkroom"),
            ({"steeps": 3}, "unknown setting 'steeps'"),
        ):
            info = PngImagePlugin.PngInfo()
            info.add_itxt("darkroom", json.dumps(metadata | {"request": metadata["request"] | change}))
            image.save("odd.png", pnginfo=info)
            status, out, err = run("vary", "odd.png", "--judge", "oracle")
            assert (status, out) == (2, "")
            assert words in err


def test_a_frame_is_interrogated_and_drawn_over(run, photo):
    with Image.open(photo) as first:
        black = Image.new("RGB", first.size)
        black.save("two.gif", save_all=True, append_images=[first.convert("RGB")])
    _, out, _ = run(
        "interrogate", "two.gif", "--judge", "oracle", "--model", "toy", "--frame", "2", "--quiet"
    )
    assert "boat" in out
    asked = ("vary", "two.gif", *ASKED[1:], "--judge", "oracle", "--variants", "2", "--size", "32")
    assert "say which one is meant" in run(*asked)[2]
    status, out, err = run(*asked, "--frame", "2")
    assert status == 0, err
    assert "boat" in open_picture(out.split()[0])[1]["request"]["prompt"]


def test_a_row_of_its_own_count_is_refused(run):
    Path("rows.jsonl").write_text('{"prompt": "a red boat", "count": 4}\n')
    status, _, err = run("generate", "--prompts", "rows.jsonl", *CHOSEN[2:])
    assert status == 2
    assert "count is 4: of variants there are as many as --variants says" in err


def test_look_after_is_told_as_an_option(run):
    status, _, err = run("generate", *ASKED, "--look-after", "0.5")
    assert status == 2
    assert "--look-after is of variants: say how many with --variants" in err


def test_interrogation(run, photo):
    status, out, _ = run("interrogate", photo, "--judge", "oracle", "--model", "toy", "--device", "cpu")
    first, *parts = out.splitlines()
    assert status == 0
    assert first == "a red boat at sea at night, watercolour"
    assert [line.split()[0] for line in parts] == ["*"] * 4
    status, out, _ = run("interrogate", photo, "--judge", "oracle", "--model", "toy", "--json")
    said = json.loads(out)
    assert said["judge"] == "oracle"
    assert said["prompt"] == first
    assert [each["about"] for each in said["phrases"]] == ["things", "place", "time", "style"]
    assert all(0 <= each["score"] <= 1 for each in said["phrases"])
    assert run("interrogate", photo, "--judge", "oracle", "--model", "toy", "--quiet")[1] == f"{first}\n"


@pytest.mark.parametrize(("at", "kept", "finished"), [(2, 0, 0), (5, 1, 1), (8, 1, 2)])
def test_an_interrupt_keeps_what_is_finished(run, monkeypatch, at, kept, finished):
    call, made = Denoise.call, []

    def interrupted(self, networks, rows):
        made.append(rows)
        if len(made) == at:
            signal.raise_signal(signal.SIGINT)
        return call(self, networks, rows)

    monkeypatch.setattr(Denoise, "call", interrupted)
    before = signal.getsignal(signal.SIGINT)
    status, out, err = run(*CHOSEN, "--finish", "4", "--quiet")
    assert status == 130
    assert f"interrupted, of 4 variants {finished} are finished" in err
    assert len([each for each in out.split() if each.endswith("boat.png")]) == kept
    assert len(made) == at
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_ends_it_at_once(run, monkeypatch):
    def interrupted(self, networks, rows):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Denoise, "call", interrupted)
    status, out, err = run(*CHOSEN, "--quiet")
    assert (status, out) == (130, "")
    assert err.strip() == "darkroom: interrupted"


def test_each_picture_of_a_folder(run, photo, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("one", "two"):
        shutil.copy(photo, folder / f"{name}.png")
    status, out, _ = run("interrogate", folder, "--judge", "oracle", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [Path(each["picture"]).name for each in lines] == ["one.png", "two.png"]
    assert lines[0]["prompt"] == lines[1]["prompt"]
    status, out, _ = run("interrogate", folder, "--judge", "oracle", "--quiet")
    assert out.splitlines()[1] == f"{folder / 'two.png'}: {lines[1]['prompt']}"
    status, out, err = run("vary", folder, *ASKED, "--variants", "2", "--judge", "oracle", "--quiet")
    assert status == 0, err
    assert len(out.split()) == 6
