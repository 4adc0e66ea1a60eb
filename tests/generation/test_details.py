"""Details: what is found in a finished picture, drawn over by itself, and put back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tests.engine.conftest import FAMILIES, ToyNetworks, kill_at_every_step, settled

import darkroom
from darkroom.cli import main
from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation import Request
from darkroom.generation.details import Detail, Texts, a_thing, parse_detail
from darkroom.generation.edits import subject_of
from darkroom.generation.job import Job
from darkroom.generation.masks import Box, Found
from darkroom.generation.picture import made_by
from darkroom.generation.wording import Extras
from darkroom.generation.work import alone

SETTINGS = {"steps": 4, "seed": 3, "width": 48, "height": 40}
BOXES = (Box(20, 8, 12, 16), Box(2, 4, 10, 9))


def things(*boxes, label="cat", confidence=0.9):
    return [Found(label, confidence, box) for box in boxes]


@dataclass(frozen=True)
class Finds:
    """A seeker that knows where things are."""

    boxes: tuple[Box, ...] = BOXES
    name: str = "cats"
    path: None = None

    def seek(self, pixels, request):
        yield from ()
        return things(*self.boxes)


@pytest.fixture(scope="module")
def model(toy_folder):
    return darkroom.load(toy_folder, device="cpu", precision="float32")


@pytest.fixture
def finding(model, monkeypatch):
    """The toy model, for which details find the boxes."""
    monkeypatch.setattr(model, "_detectors", lambda detail: Finds())
    return model


def pixels(picture):
    return np.asarray(picture.image)


# What is asked for


def test_a_detail_is_read():
    assert parse_detail("face.onnx") == Detail("face.onnx")
    assert parse_detail("the boat") == Detail("the boat")
    found = parse_detail(
        r"C:\my models\face.onnx:only=face+old face:confidence=0.5:most=2:grow=-3:steps=9:size=256"
    )
    assert found == Detail(
        r"C:\my models\face.onnx", ("face", "old face"), 0.5, most=2, grow=-3, steps=9, size=256
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "says not what to find"),
        (":strength=0.3", "says not what to find"),
        ("face.onnx:strenght=0.3", "did you mean 'strength'"),
        ("face.onnx:strength=2", r"strength of the detail 'face.onnx' is 2.0: choose"),
        ("face.onnx:most=many", "most of the detail 'face.onnx' is 'many': give a whole number"),
        ("face.onnx:size=100", "not a multiple of 8"),
        ("face.onnx:0.3", "not understood: write an option as only=..., there are only, confidence"),
    ],
)
def test_a_detail_that_cannot_be_read(text, message):
    with pytest.raises(InvalidRequest, match=message):
        Request("a cat", details=[text]).checked()


def test_prompts_are_of_details():
    request = Request("cats", details=["a", "b"], detail_prompts=["one", "two"]).checked()
    assert Request.from_dict(request.to_dict()) == request
    assert request.to_dict()["detail"] == {"details": ["a", "b"], "prompts": ["one", "two"]}
    with pytest.raises(InvalidRequest, match=r"detail_prompts has 1 texts, details has 0: .*`details=`"):
        Request("cats", detail_prompts=["one"]).checked()
    with pytest.raises(InvalidRequest, match="detail_negatives has 2 texts, details has 1"):
        Request("cats", details=["a"], detail_negatives=["one", "two"]).checked()


def test_what_things_are_told():
    texts = Texts("two cats", "a [LABEL] [SEP] [SKIP] [SEP] [PROMPT], close[SEP]", "fog", "rain", False)
    said = [texts.of(at, "red cat") for at in range(5)]
    assert said == [("a red cat", "rain"), None, ("two cats, close", "rain"), *[("two cats", "rain")] * 2]
    assert Texts("two cats", "", "fog", "", False).of(3, "cat") == ("two cats", "fog")
    assert Texts("two cats", "", "fog", "", True).of(0, "orange cat") == ("an orange cat", "fog")
    assert Texts("", "", "", "", False).of(0, "the boat") == ("the boat", "")
    assert [a_thing(each) for each in ("cat", "a cat", "The boat", "old hat")] == [
        "a cat",
        "a cat",
        "The boat",
        "an old hat",
    ]


def test_what_is_chosen():
    found = [
        Found("cat", 0.9, Box(50, 0, 10, 10)),
        Found("red cat", 0.2, Box(0, 0, 30, 30)),
        Found("dog", 0.8, Box(20, 0, 20, 20)),
        Found("scat", 0.8, Box(5, 0, 20, 20)),
    ]

    def chosen(**options):
        return [each.label for each in Detail("x", **options).among(found, 10_000)]

    assert chosen() == ["scat", "dog", "cat"]
    assert chosen(confidence=0.1) == ["red cat", "scat", "dog", "cat"]
    assert chosen(confidence=0.1, only=("Cat",)) == ["red cat", "cat"]
    assert chosen(most=1, confidence=0.1) == ["red cat"]
    assert chosen(smallest=0.02) == ["scat", "dog"]
    assert chosen(largest=0.03) == ["cat"]


# What becomes of them


def test_a_thing_is_an_edit_of_what_is_around_it(finding):
    plain = finding.generate("cats", **SETTINGS)[0]
    made = finding.generate(
        "cats",
        details=["x:strength=0.5:padding=4:grow=2:blur=0:size=64"],
        detail_prompts=["a cat"],
        **SETTINGS,
    )[0]
    edited = plain
    for number, box in enumerate(sorted(BOXES)):
        edited = finding.edit(
            edited,
            "a cat",
            mask_box=box,
            mask_grow=2,
            only_masked=True,
            mask_padding=4,
            strength=0.5,
            steps=4,
            seed=3 + number,
            width=made_size(box)[0],
            height=made_size(box)[1],
        )[0]
    assert (pixels(made) == pixels(edited)).all()
    changed = (pixels(made) != pixels(plain)).any(axis=2)
    inside = np.zeros_like(changed)
    for box in BOXES:
        inside[
            max(box.top - 2, 0) : box.top + box.height + 2, max(box.left - 2, 0) : box.left + box.width + 2
        ] = 1
    assert changed.any()
    assert not (changed & ~inside).any()
    assert made.metadata["notes"] == ["x:strength=0.5:padding=4:grow=2:blur=0:size=64: found cat, cat"]


def made_size(box):
    """The size of 64 x 64 pixels around a box, with what is seen and grown of it."""
    left, top = max(box.left - 6, 0), max(box.top - 6, 0)
    right, bottom = min(box.left + box.width + 6, 48), min(box.top + box.height + 6, 40)
    scale = (64 * 64 / ((right - left) * (bottom - top))) ** 0.5
    return tuple(max(round(scale * side / 8), 1) * 8 for side in (right - left, bottom - top))


def test_steps_and_totals_are_of_all_things(finding):
    events = [*finding.stream("cats", details=["x:steps=4:strength=0.5"], **SETTINGS)]
    steps = [(each.done, each.total) for each in events[:-1]]
    assert [done for done, _ in steps] == [*range(1, 9)]
    assert [total for _, total in steps] == [4, 4, 4, 4, 6, 6, 8, 8]


def test_several_details_each_with_prompts_of_their_own(finding, monkeypatch):
    seekers = {"left": Finds(BOXES[1:]), "right": Finds(BOXES[:1])}
    monkeypatch.setattr(finding, "_detectors", lambda detail: seekers[detail])
    one = finding.generate("cats", details=["left", "right"], detail_prompts=["a cat", "a dog"], **SETTINGS)[
        0
    ]
    other = finding.generate("cats", details=["left", "right"], detail_prompts=["a cat"], **SETTINGS)[0]
    differ = (pixels(one) != pixels(other)).any(axis=2)
    assert differ.any()
    assert not differ[:, :18].any()
    nothing = finding.generate(
        "cats", details=["left", "right"], detail_prompts=["[SKIP]", "[SKIP]"], **SETTINGS
    )
    assert (pixels(nothing[0]) == pixels(finding.generate("cats", **SETTINGS)[0])).all()


def test_a_picture_that_is_given_is_detailed_alone(finding, tmp_path):
    photo = np.random.default_rng(1).integers(0, 256, (37, 51, 3), np.uint8)
    (made,) = finding.detail(photo, "x:blur=0:grow=0", seed=1, steps=4)
    assert made.image.size == (51, 37)
    changed = (pixels(made) != photo).any(axis=2)
    inside = np.zeros_like(changed)
    for box in BOXES:
        inside[box.slices] = True
    assert changed.any()
    assert not (changed & ~inside).any()
    assert made.metadata["request"]["edit"]["loops"] == 0
    with pytest.raises(InvalidRequest, match="loops is 0, for the details of a picture alone"):
        finding.edit(photo, "a cat", loops=0)
    # Larger than what is drawn at once, it keeps its size.
    large = np.zeros((700, 1800, 3), np.uint8)
    assert finding.detail(large, "x", steps=2)[0].image.size == (1800, 700)


def test_what_is_transparent_stays_so(finding, tmp_path, monkeypatch, capsys):
    """What lies under there, too, but where something is drawn."""
    photo = np.random.default_rng(1).integers(0, 256, (40, 48, 4), np.uint8)
    (made,) = finding.detail(photo, "x:blur=0:grow=0:strength=1", seed=1, steps=2)
    assert made.image.mode == "RGBA"
    assert (pixels(made)[..., 3] == photo[..., 3]).all()
    inside = np.zeros((40, 48), bool)
    for box in BOXES:
        inside[box.slices] = True
    changed = (pixels(made) != photo).any(axis=2)
    assert changed.any()
    assert not (changed & ~inside).any()
    Image.fromarray(photo).save(tmp_path / "clear.png")
    made = finding.detail(tmp_path / "clear.png", "x:strength=1", seed=1, steps=2)[0].save(
        tmp_path / "made.png"
    )
    monkeypatch.setattr("darkroom.model.load", lambda *given, **more: finding)
    assert main(["again", str(made)]) == 0
    assert "the same, pixel for pixel" in capsys.readouterr().out
    assert main(["upscale", str(made), "--by", "2", "-o", str(tmp_path / "larger.png")]) == 0
    assert main(["again", str(tmp_path / "larger.png")]) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 64}, "of 48x40: leave width and height out"),
        ({"extend_left": 8}, "leave `extend_left=` out"),
        ({"match_colors": True}, "leave `match_colors=` out"),
        ({"mask_box": (0, 0, 8, 8), "only_masked": True}, "leave `only_masked=` out"),
    ],
)
def test_what_does_not_go_with_details_alone(finding, settings, message):
    with pytest.raises(InvalidRequest, match=message):
        finding.detail(np.zeros((40, 48, 3), np.uint8), "x", **settings)


def test_a_picture_that_is_too_large_is_refused_before_the_work(finding):
    with pytest.raises(InvalidRequest, match="of 8208x16: its details are drawn up to 8,192"):
        finding.detail(np.zeros((16, 8208, 3), np.uint8), "x")
    with pytest.raises(InvalidRequest, match="loops is 0, for the details of a picture that there is"):
        finding.generate("a cat", loops=0, details=["x"])


def test_how_details_are_given_in_python(finding):
    photo, settings = np.zeros((40, 48, 3), np.uint8), {"seed": 1, "steps": 2}
    ways = [
        finding.detail(photo, "x", "y", **settings),
        finding.detail(photo, ["x", "y"], **settings),
        finding.detail(photo, details=["x", "y"], **settings),
    ]
    assert {tuple(made[0].metadata["request"]["detail"]["details"]) for made in ways} == {("x", "y")}


def test_strength_of_details_alone(finding):
    """The picture's own, where the detail has none: nothing else is drawn."""
    photo, settings = (
        np.random.default_rng(1).integers(0, 256, (40, 48, 3), np.uint8),
        {"seed": 1, "steps": 10},
    )

    def made(*details, **more):
        return pixels(finding.detail(photo, *details, **settings, **more)[0])

    assert (made("x", strength=0.8) == made("x:strength=0.8")).all()
    assert (made("x") == made("x:strength=0.4")).all()
    assert (made("x:strength=0.4", strength=0.8) == made("x")).all()
    assert (made("x", strength=0.8) != made("x")).any()


def test_what_things_are_told_goes_nowhere_else(finding):
    """Neither towards another prompt nor by the words of another encoder, if they are not the picture's own."""
    more = {"towards": "a tree", "towards_strength": 0.7, **SETTINGS}
    own = finding.generate("a cat", details=["x"], detail_prompts=["a dog"], **more)[0]
    other = finding.generate(
        "a cat", details=["x"], detail_prompts=["a dog"], **{**more, "towards": "a house"}
    )[0]
    plain = [finding.generate("a cat", **{**more, "towards": each})[0] for each in ("a tree", "a house")]
    assert (pixels(plain[0]) != pixels(plain[1])).any()
    thing = [pixels(each)[8:24, 20:32].astype(int) for each in (own, other)]
    assert (
        np.abs(thing[0] - thing[1]).mean()
        < np.abs(pixels(plain[0]).astype(int) - pixels(plain[1]).astype(int))[8:24, 20:32].mean() + 60
    )
    finding.generate("a cat AND a dog", details=["x"], detail_prompts=["a dog"], **SETTINGS)


def test_prompts_of_details_are_drawn_by_lot(finding):
    asked = {"details": ["x"], "detail_prompts": ["a {red|blue|green|black} [LABEL]"], "dynamic": "random"}
    made = finding.generate("a cat", count=4, **asked, **SETTINGS)
    said = {each.metadata["request"]["detail"]["prompts"][0] for each in made}
    assert len(said) > 1
    assert said <= {f"a {color} [LABEL]" for color in ("red", "blue", "green", "black")}
    assert made[0].metadata["template"]["detail_prompts"] == asked["detail_prompts"]


def test_what_a_mask_leaves_stays(finding):
    photo = np.random.default_rng(1).integers(0, 256, (40, 48, 3), np.uint8)
    mask = np.zeros((40, 48), np.uint8)
    mask[:, :14] = 255
    (made,) = finding.edit(photo, "a cat", mask=mask, details=["x:blur=3:grow=4"], seed=1, steps=2)
    changed = (pixels(made) != photo).any(axis=2)
    assert changed[:, :14].any()
    assert not changed[:, 14:].any()


def test_an_edit_does_not_inherit_details(finding):
    made = finding.generate("cats", details=["x"], **SETTINGS)[0]
    again = finding.edit(made, strength=0.5, seed=1)[0]
    assert "detail" not in again.metadata["request"]


def test_nothing_found_is_said(finding, monkeypatch):
    monkeypatch.setattr(finding, "_detectors", lambda detail: Finds(()))
    made = finding.generate("cats", details=["x"], **SETTINGS)[0]
    assert made.metadata["notes"] == ["x: found nothing"]
    assert (pixels(made) == pixels(finding.generate("cats", **SETTINGS)[0])).all()


# Lost and found again


def job_of(saved=None, image=None):
    asked = {
        "details": ["x:strength=0.8", "y:strength=0.5"],
        "sampler": "dpmpp_2m",
        "detail_prompts": ["", "a b"],
    }
    request = settled(**asked, **({"width": 64, "height": 64} if image is None else {}))
    subject = None
    if image is not None:
        request, subject = subject_of(request.replace(image=image, loops=0, fit="own", strength=1.0))
        request = request.settled(noise_multiplier=1.0, strength_as="share")
    seekers = {asked["details"][0]: Finds(), asked["details"][1]: Finds(BOXES[:1])}
    return Job(request, FAMILIES["flow"], saved, extras=Extras(subject=subject, seekers=seekers))


@pytest.mark.parametrize("given", [False, True])
def test_a_job_killed_at_any_step_goes_on_to_the_same_picture(given):
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8) if given else None
    whole = job_of(image=image)
    expected = alone(whole.develop(), ToyNetworks())
    gone_on = kill_at_every_step(ToyNetworks(), partial(job_of, image=image), expected, job_of)
    for job, _ in gone_on:
        assert job.total == whole.total
        assert job.notes == whole.notes
    lost = sum(saved is not None and saved.details is not None for _, saved in gone_on)
    assert lost > 6


# Who does not


@pytest.mark.parametrize(
    "name", ["face.pt", "models/face.safetensors", "face_yolov8n", "folder/face", "face.onnx"]
)
def test_detectors_that_are_not_here(model, name):
    with pytest.raises(ModelError):
        model.generate("a cat", details=[name])


def test_models_that_see_pictures_draw_no_details(folder):
    model = darkroom.load(folder("pix2pix"), device="cpu", precision="float32")
    image = Image.new("RGB", (64, 64))
    with pytest.raises(InvalidRequest, match="details of a picture have not: leave `details=` out"):
        model.edit(image, "a cat", details=["the cat"])


def test_a_thing_by_its_name(model):
    """Where the toy reads it is anywhere; what is drawn over is where it says, and is told its name."""
    plain = model.generate("a cat and a dog", **SETTINGS)[0]
    made = model.generate("a cat and a dog", details=["the dog:grow=0:blur=0:strength=1"], **SETTINGS)[0]
    mask = np.asarray(model.mask_of(plain, "the dog", "a cat and a dog")) > 0
    changed = (pixels(made) != pixels(plain)).any(axis=2)
    assert changed.any()
    assert not (changed & ~mask).any()
    with pytest.raises(InvalidRequest, match="a detail is '!': name a thing"):
        model.generate("a cat", details=["!"])


def test_recipes_know_the_file_of_a_detector(model, monkeypatch, tmp_path):
    path = tmp_path / "cats.onnx"
    path.write_bytes(b"cats")
    monkeypatch.setattr(model, "_detectors", lambda detail: replace(Finds(), path=path))
    monkeypatch.chdir(tmp_path)
    made = model.generate("cats", details=["cats.onnx:most=1"], **SETTINGS)[0]
    assert made.metadata["model"]["weights"]["detector cats.onnx"] == hashlib.sha256(b"cats").hexdigest()
    assert made.metadata["request"]["detail"]["details"] == [f"{path}:most=1"]
    assert f'Details: "{path}:most=1"' in made.parameters
    assert isinstance(made.latents, torch.Tensor)


# What is drawn alone


def test_what_is_drawn_smaller_than_it_is_is_made_larger_by_the_upscaler(model, network, tmp_path):
    photo = np.random.default_rng(1).integers(0, 256, (80, 96, 3), np.uint8)
    settings = {"mask_box": (8, 8, 64, 64), "mask_padding": 0, "only_masked": True, "width": 32, "height": 32}
    made = [
        model.edit(photo, "a cat", seed=1, steps=2, upscaler=by, **settings)[0]
        for by in (str(network), "lanczos")
    ]
    assert (pixels(made[0]) != pixels(made[1])).any()
    for each in made:
        assert (pixels(each)[:, 72:] == photo[:, 72:]).all()


def test_pictures_of_before_are_made_as_they_were(model, network, tmp_path):
    Image.new("RGB", (80, 80), "red").save(tmp_path / "red.png")
    made = model.edit(
        tmp_path / "red.png",
        "a cat",
        mask_box=(8, 8, 64, 64),
        only_masked=True,
        steps=2,
        upscaler=str(network),
    )[0]
    said = json.loads(json.dumps(made.metadata))
    for version, upscaler in ((7, str(network)), (6, "lanczos")):
        said["numerics"]["version"] = version
        replace(made, metadata=said).save(tmp_path / "made.png")
        assert made_by(tmp_path / "made.png").canvas.upscaler == upscaler
