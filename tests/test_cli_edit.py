"""`darkroom edit`, `--like` and `Model.edit`: pictures made of pictures, from the recipes in them."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image

import darkroom
from darkroom.errors import InvalidRequest
from darkroom.generation.picture import made_by, metadata_of

QUICK = ("--device", "cpu", "--precision", "float32", "--quiet")
OWN = {"negative": "night", "steps": 3, "sampler": "heun", "guidance": 2.5}
PHOTO = np.random.default_rng(1).integers(0, 256, (37, 51, 3), np.uint8)


@pytest.fixture(scope="module")
def model(toy_folder):
    return darkroom.load(toy_folder, device="cpu", precision="float32")


@pytest.fixture
def boat(model, tmp_path):
    """A picture of the toy model's, in a file."""
    (picture,) = model.generate("a boat", seed=7, width=48, height=32, **OWN)
    return picture.save(tmp_path / "boat.png")


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def asked_of(path):
    return metadata_of(path)["request"]


def test_a_picture_of_ours_starts_from_its_own_recipe(run, boat):
    before = boat.read_bytes()
    status, out, err = run("edit", boat, "--strength", "0.5", *QUICK)
    assert status == 0, err
    made = out.strip()
    asked = asked_of(made)
    assert asked["prompt"] == "a boat"
    assert asked["negative"] == "night"
    assert asked["sampling"]["sampler"] == "heun"
    assert asked["guidance"]["scale"] == 2.5
    assert asked["seed"] != 7
    assert asked["edit"]["image"]["path"] == str(boat)
    assert made == f"out/boat-{asked['seed']}.png"
    assert boat.read_bytes() == before
    status, out, _ = run("again", made)
    assert (status, "the same, pixel for pixel" in out) == (0, True)


def test_the_command_line_goes_before_the_recipe_and_that_before_settings(run, boat, monkeypatch):
    monkeypatch.setenv("DARKROOM_STEPS", "2")
    monkeypatch.setenv("DARKROOM_STRENGTH", "0.9")
    monkeypatch.setenv("DARKROOM_MODEL", "nowhere")
    status, out, err = run("edit", boat, "a ship", "--sampler", "euler", "--seed", "3", *QUICK)
    assert status == 0, err
    asked = asked_of(out.strip())
    assert (asked["prompt"], asked["seed"], asked["sampling"]["sampler"]) == ("a ship", 3, "euler")
    assert (asked["sampling"]["steps"], asked["edit"]["strength"]) == (3, 0.9)
    status, out, err = run("edit", boat, "a ship", "--no-like", "--model", "toy", *QUICK)
    assert status == 0, err
    asked = asked_of(out.strip())
    assert "negative" not in asked
    assert asked["sampling"]["steps"] == 2


def test_a_photograph_has_no_recipe(run, photo, boat):
    status, _, err = run("edit", photo, "--model", "toy", *QUICK)
    assert (status, "no prompt: say what the picture is to become" in err) == (2, True)
    status, out, err = run("edit", photo, "--like", boat, "--model", "toy", "--strength", "0.4", *QUICK)
    assert status == 0, err
    asked = asked_of(out.strip())
    assert (asked["prompt"], asked["sampling"]["steps"]) == ("a boat", 3)
    with Image.open(out.strip()) as made:
        assert made.size == (51, 37)
    status, _, err = run("edit", photo, "--like", photo, "--model", "toy", *QUICK)
    assert (status, "holds no Darkroom metadata, nor A1111's" in err) == (2, True)


def test_a_folder_is_a_batch(run, photo, boat, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(boat, folder / "a.png")
    shutil.copy(photo, folder / "b.JPG")
    (folder / "notes.txt").write_text("no picture")
    (folder / "._b.JPG").write_bytes(b"what a Mac leaves")
    again = ("edit", folder, "--model", "toy", "--seed", "5", "--steps", "1", *QUICK, "-o", folder)
    status, _, err = run(*again)
    assert (status, "no prompt" in err, "b.JPG" in err) == (2, True, True)
    status, out, err = run(*again, "-p", "a ship")
    assert status == 0, err
    assert out.split() == [str(folder / "a-5.png"), str(folder / "b-5.png")]
    assert asked_of(folder / "a-5.png")["negative"] == "night"
    assert "negative" not in asked_of(folder / "b-5.png")
    (folder / "c.png").write_bytes(b"no picture")
    (folder / "d.png").write_bytes(b"")
    status, out, err = run(*again, "-p", "a ship")
    assert (status, out) == (2, "")
    assert "c.png" in err
    assert "d.png" in err
    (tmp_path / "empty").mkdir()
    status, _, err = run("edit", tmp_path / "empty", "a ship")
    assert (status, "there is no picture in the folder" in err) == (2, True)
    status, _, err = run("edit", tmp_path / "gone.png", "a ship")
    assert (status, "no file" in err) == (2, True)


def test_pictures_of_several_models_are_told_apart(run, boat, model, toy_folder, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(boat, folder / "a.png")
    other = darkroom.load(toy_folder, device="cpu", precision="float32", vae=toy_folder / "vae")
    other.generate("a boat", steps=1)[0].save(folder / "b.png")
    status, _, err = run("edit", folder, *QUICK)
    assert (status, "or otherwise loaded: say --model" in err) == (2, True)
    status, out, err = run("edit", folder, "--model", "toy", "--steps", "1", *QUICK)
    assert (status, len(out.split())) == (0, 2), err


def test_generate_like_a_picture_changes_only_what_is_given(run, boat):
    status, out, err = run("generate", "--like", boat, *QUICK)
    assert status == 0, err
    assert (np.asarray(Image.open(out.strip())) == np.asarray(Image.open(boat))).all()
    status, out, err = run("generate", "a ship", "--like", boat, "--steps", "2", *QUICK)
    assert status == 0, err
    asked, was = asked_of(out.strip()), asked_of(boat)
    assert (asked["prompt"], asked["sampling"]["steps"]) == ("a ship", 2)
    assert {**asked, "prompt": "a boat", "sampling": {**asked["sampling"], "steps": 3}} == was


def test_generate_like_a_picture_by_a1111(run, model, tmp_path):
    (picture,) = model.generate("a boat", seed=7, width=48, height=32, **OWN)
    text = picture.parameters.replace("Version: Darkroom", "Version: v1.10.1, Was: Darkroom")
    elsewhere = darkroom.Picture(picture.image, 7, {}, text)
    content = io.BytesIO(elsewhere.encoded())
    with Image.open(content) as image:
        info = {"parameters": image.info["parameters"]}
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    said.add_text("parameters", info["parameters"])
    picture.image.save(tmp_path / "theirs.png", pnginfo=said)
    status, out, err = run("generate", "--like", tmp_path / "theirs.png", "--model", "toy", *QUICK)
    assert status == 0, err
    asked = asked_of(out.strip())
    assert (asked["prompt"], asked["negative"], asked["seed"]) == ("a boat", "night", 7)
    assert (asked["sampling"]["sampler"], asked["guidance"]["scale"]) == ("heun", 2.5)


def test_a1111_s_edits_are_made_again_of_the_picture_they_began_with(run, model, photo, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    (drawn,) = model.generate(
        "a boat",
        image=photo,
        width=48,
        height=32,
        fit="stretch",
        strength=0.5,
        strength_as="a1111",
        seed=3,
        **OWN,
    )
    said = PngInfo()
    said.add_text("parameters", drawn.parameters.replace("Darkroom", "v1.10.1 of"))
    drawn.image.save(tmp_path / "theirs.png", pnginfo=said)
    again = ("again", tmp_path / "theirs.png", "--model", "toy", "--device", "cpu", "--precision", "float32")
    status, out, err = run(*again, "-o", tmp_path / "plain.png")
    assert (status, "give it as --image" in err) == (0, True), err
    status, out, err = run(*again, "--image", photo, "-o", tmp_path / "drawn.png")
    assert (status, "Denoising strength" in err) == (0, False), err
    edit = asked_of(tmp_path / "drawn.png")["edit"]
    assert (edit["strength"], edit["strength_as"], edit["fit"]) == (0.5, "a1111", "stretch")
    assert "the same, pixel for pixel" in out


def test_in_python(model, boat, photo, tmp_path):
    settings = {"strength": 0.4, "seed": 2, "steps": 3}
    (own,) = model.edit(boat, **settings)
    assert (own.metadata["request"]["prompt"], own.metadata["request"]["negative"]) == ("a boat", "night")
    for given in (boat.read_bytes(), Image.open(boat)):
        (same,) = model.edit(given, **settings)
        assert (np.asarray(same.image) == np.asarray(own.image)).all()
    (further,) = model.edit(own, "a ship", like=False, **settings)
    assert "negative" not in further.metadata["request"]
    like = made_by(boat)
    for each in (like, boat):
        (drawn,) = model.edit(PHOTO, like=each, **settings)
        assert drawn.metadata["request"]["negative"] == "night"
        assert drawn.image.size == (51, 37)
    assert [each.image.size for each in model.edit([boat, photo], "a ship", **settings)] == [
        (48, 32),
        (51, 37),
    ]
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(boat, folder)
    assert len(model.edit(folder, count=2, **settings)) == 2
    for given, said in (({"like": PHOTO.copy()}, "like is a picture"), ({}, "no prompt")):
        with pytest.raises(InvalidRequest, match=said):
            model.edit(PHOTO, **given)


def test_details(run, boat, photo, monkeypatch):
    """Of a picture of ours by its recipe, of a photograph without a word; made again the same."""
    status, out, err = run("detail", boat, "the boat:strength=1", "--seed", "1", *QUICK)
    assert status == 0, err
    asked = asked_of(out.strip())
    assert (asked["prompt"], asked["sampling"]["sampler"]) == ("a boat", "heun")
    assert asked["detail"] == {"details": ["the boat:strength=1"]}
    assert asked["edit"]["loops"] == 0
    status, again, _ = run("again", out.strip())
    assert (status, "the same, pixel for pixel" in again) == (0, True)
    status, out, err = run(
        "detail",
        photo,
        "the boat",
        "the sea",
        "--detail-prompt",
        "a boat",
        "-o",
        "done.png",
        "--steps",
        "2",
        *QUICK,
    )
    assert status == 0, err
    asked = asked_of("done.png")
    assert (asked["prompt"], asked["detail"]["prompts"]) == ("", ["a boat"])
    monkeypatch.setenv("DARKROOM_LOOPS", "2")  # Details are of the picture as it is.
    monkeypatch.setenv("DARKROOM_WIDTH", "64")
    monkeypatch.setenv("DARKROOM_EXTEND_LEFT", "8")
    assert run("detail", photo, "the boat", "-o", "more.png", "--steps", "2", *QUICK)[0] == 0
    assert asked_of("more.png")["edit"]["loops"] == 0


def test_details_of_what_is_made(run, toy_folder):
    status, out, err = run(
        *(
            "generate",
            "a boat",
            "--model",
            toy_folder,
            "--detail",
            "the boat:strength=1",
            "--detail-prompt",
            "a cat",
        ),
        *("--seed", "1", "--steps", "2", *QUICK),
    )
    assert status == 0, err
    assert asked_of(out.strip())["detail"] == {"details": ["the boat:strength=1"], "prompts": ["a cat"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("face_yolov8n.pt",), "there is no"),
        (("the boat:strength=7",), "strength of the detail 'the boat' is 7"),
        (
            ("the boat", "--detail-prompt", "a", "--detail-prompt", "b"),
            "detail_prompts has 2 texts, details has 1",
        ),
    ],
)
def test_details_that_cannot_be(run, boat, given, said):
    status, _, err = run("detail", boat, *given, *QUICK)
    assert status in (1, 2)
    assert said in err
    assert err.count("\n") == 1
