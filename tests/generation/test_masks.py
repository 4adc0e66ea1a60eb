"""Inpainting: masks, what is drawn of a picture and what is left as it was."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tests.families import write_sd1, write_sd2, write_sdxl
from tests.generation.test_edits import apart_from_diffusers
from tests.tables import pairs

import darkroom
from darkroom.checkpoint.families import SD1
from darkroom.cli import main
from darkroom.diffusion import SAMPLERS
from darkroom.engine import Engine
from darkroom.errors import InvalidRequest
from darkroom.generation.edits import filled, subject_of
from darkroom.generation.job import Job
from darkroom.generation.masks import Box, around_mask, by_latents, put_in, share_of
from darkroom.generation.saved import Saved
from darkroom.generation.settle import settle
from darkroom.generation.wording import Extras
from darkroom.photos import photo_of
from darkroom.pixels import filled_in

SETTINGS = {"steps": 4, "sampler": "euler", "guidance": 3.0, "seed": 2}
PHOTO = np.random.default_rng(1).integers(0, 256, (40, 56, 3), np.uint8)
SMALL = replace(SD1, native=32)


def a_mask(*box, size=(56, 40), shape="rectangle", level=255):
    mask = Image.new("L", size)
    left, top, width, height = box
    getattr(ImageDraw.Draw(mask), shape)((left, top, left + width - 1, top + height - 1), fill=level)
    return mask


BOXED = a_mask(16, 8, 24, 16)
INSIDE = np.asarray(BOXED) > 0


def pixels(picture):
    return np.asarray(picture.image)


@pytest.fixture(scope="module")
def model(toy_folder):
    return darkroom.load(toy_folder, device="cpu", precision="float32")


# What is painted


def share(mask=None, box=None, invert=False, grow=0, blur=0.0, photo=PHOTO):
    given = None if mask is None else mask if isinstance(mask, str) else photo_of(mask)
    return share_of(photo_of(photo), given, box, invert, grow, blur)


def test_white_is_painted_grey_in_part_and_clear_not():
    assert (share(BOXED) == INSIDE).all()
    assert (share(BOXED, invert=True) == ~INSIDE).all()
    assert share(a_mask(16, 8, 24, 16, level=102)).max() == pytest.approx(0.4)
    clear = Image.new("RGBA", (56, 40), (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), (16, 8, 40, 24))
    assert (share(clear) == INSIDE).all()
    seen = np.dstack([PHOTO, np.where(INSIDE, 0, 255).astype(np.uint8)])
    assert (share("alpha", photo=seen) == INSIDE).all()
    assert (share(box=Box(16, 8, 24, 16)) == INSIDE).all()
    both = share(BOXED, box=Box(50, 30, 100, 100))
    assert both[30:, 50:].all()
    assert both.sum() == INSIDE.sum() + 60


@pytest.mark.parametrize("by", [1, 2, 3, 4, 7, 12])
def test_masks_grow_and_shrink(by):
    grown = share(a_mask(20, 16, 6, 4), grow=by)
    assert (grown == np.asarray(a_mask(20 - by, 16 - by, 6 + 2 * by, 4 + 2 * by)) / 255).all()
    large = a_mask(10, 5, 30, 28)
    assert (
        share(large, grow=-by) == np.asarray(a_mask(10 + by, 5 + by, 30 - 2 * by, 28 - 2 * by)) / 255
    ).all()


def test_blur_softens_as_a_gaussian_does():
    soft = share(a_mask(20, 0, 36, 40), blur=3.0)
    row = soft[20]
    assert (np.diff(row) >= 0).all()
    assert row[19] + row[20] == pytest.approx(1, abs=1e-5)  # As much within as without.
    assert row[20 - 9] == 0
    assert 0 < row[20 - 8] < 0.01
    assert soft.std(axis=0).max() < 1e-6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mask": Image.new("L", (56, 40))}, "the mask covers nothing"),
        ({"mask": Image.new("L", (56, 40), 255), "mask_invert": True}, "the mask covers nothing"),
        ({"mask": BOXED, "mask_grow": -20}, "the mask covers nothing"),
        ({"mask": a_mask(9, 9, 1, 1), "mask_blur": 40}, "the mask covers nothing"),
        ({"mask": "alpha"}, "nothing of the picture is transparent"),
        ({"mask": a_mask(0, 0, 9, 9, size=(57, 40))}, "the mask is of 57x40, the picture of 56x40"),
        ({"mask": "nowhere.png"}, "mask is nowhere.png, where there is no file"),
        ({"mask": 3}, "mask is a int"),
        ({"mask_box": "56,0,9,9"}, "mask_box is 56,0,9,9, but the picture is of 56x40"),
        ({"mask_box": "1,2,3"}, "mask_box is '1,2,3': give left, top, width and height"),
        ({"mask_box": (1, 2, 0, 4)}, "it has no pixel"),
        ({"mask_box": (1, 2, -1, 4)}, "mask_box is "),
        ({"mask": BOXED, "fill": "gray ish"}, "fill is 'gray ish': choose one of original"),
        ({"mask": BOXED, "mask_blur": float("inf")}, "mask_blur is Infinity"),
        ({"mask": BOXED, "only_masked": True, "fit": "crop"}, "fit is crop, but what is around the mask"),
        ({"mask_image": BOXED}, "it is called mask here"),
    ],
)
def test_mistakes(given, said):
    with pytest.raises(InvalidRequest, match=said.replace("(", r"\(")):
        settle(darkroom.Request("a", image=PHOTO, **given).checked(), SMALL, "it")


def test_a_mask_needs_a_picture():
    with pytest.raises(InvalidRequest, match="there is a mask, but no picture"):
        settle(darkroom.Request("a", mask_box="1,2,3,4"), SMALL, "it")


@pytest.mark.parametrize(
    "box", ["16,8,24,16", "16x8x24x16", " 16 8 24 16 ", (16, 8, 24, 16), [16, 8, 24, 16]]
)
def test_boxes_in_every_form(box):
    request = darkroom.Request.from_dict({"prompt": "a", "image": PHOTO, "mask_box": box}).checked()
    assert request.inpaint.box == "16,8,24,16"
    assert darkroom.Request.from_dict(request.to_dict()).checked().inpaint == request.inpaint


def test_a_mask_of_another_size_on_request():
    asked = darkroom.Request("a", image=PHOTO, mask=BOXED.resize((112, 80)), mask_resize=True)
    _, subject = subject_of(asked)
    assert np.abs(subject.share - INSIDE).mean() < 0.02


# What is drawn, and put in


def test_what_is_around_a_mask():
    boxed = share(BOXED)
    assert around_mask(boxed, 0) == (16, 8, 24, 16)
    assert around_mask(boxed, 4) == (12, 4, 32, 24)
    assert around_mask(boxed, 100) == (0, 0, 56, 40)
    assert around_mask(boxed, 0, 1.0) == (16, 4, 24, 24)
    assert around_mask(share(a_mask(50, 0, 6, 30)), 0, 1.0) == (26, 0, 30, 30)
    assert around_mask(boxed, 0, 3.0) == (4, 8, 48, 16)
    assert around_mask(boxed, 0, 100.0) == (0, 8, 56, 16)


def test_latents_have_their_share_of_a_mask():
    found = by_latents(share(a_mask(12, 8, 20, 16)), 8)
    assert found.shape == (5, 7)
    assert found[1].tolist() == [0, 0.5, 1, 1, 0, 0, 0]
    assert by_latents(share(a_mask(14, 8, 20, 8)), 8)[1].tolist() == [0, 0.25, 1, 1, 0.25, 0, 0]


def test_what_is_missing_goes_on_from_what_is_there():
    rows, columns = np.mgrid[0:45, 0:61].astype(np.float32)
    slope = np.stack([rows, columns, rows + columns], -1)
    known = np.ones((45, 61), np.float32)
    known[10:30, 20:40] = 0
    found = filled_in(np.where(known[..., None] > 0, slope, 99), known)
    assert (found[known > 0] == slope[known > 0]).all()
    assert np.abs(found - slope).max() < 4
    assert filled_in(np.ones((1, 9, 3), np.float32), np.ones((1, 9), np.float32)).shape == (1, 9, 3)


def test_a_shift_of_colours_leaves_no_seam():
    smooth = np.repeat(np.linspace(40, 200, 64)[None, :, None], 48, 0).repeat(3, 2).round().astype(np.uint8)
    mask = share(a_mask(20, 12, 24, 20, size=(64, 48)), photo=smooth)
    found = put_in((smooth + 9).astype(np.uint8), smooth, mask)
    assert np.abs(found.astype(int) - smooth).max() <= 1
    other = smooth.copy()
    other[12:32, 20:44] = (255, 0, 0)
    assert np.abs(put_in(other, smooth, mask).astype(int) - other).max() <= 3, (
        "what was drawn is not taken away"
    )


def test_what_ends_at_a_border_passes_over_into_what_is_drawn():
    """An autoencoder has blurred what was there, so that what is drawn beside does not meet it."""
    lines = np.where(np.arange(48) % 8 < 4, 60, 180).astype(np.uint8)
    photo = np.repeat(lines[:, None], 64, 1)[..., None].repeat(3, 2)
    mask = np.zeros((48, 64), np.float32)
    mask[:, 32:] = 1
    found = put_in(np.full_like(photo, 120), photo, mask).astype(int)
    assert (found[:, :32] == photo[:, :32]).all(), "what is not painted stays as it is"
    assert np.abs(found[:, 32] - found[:, 31]).max() <= 1, "no step"
    away = np.abs(found[:, 32:] - 120).max(axis=(0, 2))
    assert (np.diff(away[:7]) < 0).all(), away
    assert (away[6:] == 0).all(), away


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mask_blur": 2.0},
        {"strength": 0.6},
        {"strength": 0.6, "strength_as": "comfy"},
        {"fill": "neighbors", "strength": 0.8},
        {"fill": "noise", "strength": 0.8},
        {"fill": "nothing", "strength": 0.8},
        {"fill": "SkyBlue", "strength": 0.8},
        {"only_masked": True},
        {"only_masked": True, "width": 64, "height": 64, "mask_padding": 0},
        {"loops": 2, "match_colors": True},
        {"mask_grow": 3},
    ],
    ids=str,
)
def test_outside_everything_is_as_it_was_to_the_byte(model, settings):
    for size in ((40, 56), (37, 51)):
        photo, mask = PHOTO[: size[0], : size[1]], BOXED.crop((0, 0, size[1], size[0]))
        request = darkroom.Request("a", image=photo, mask=mask, **{**SETTINGS, **settings})
        (found,) = model.generate(request)
        assert found.image.size == (size[1], size[0])
        inside = subject_of(request)[1].share > 0
        assert (pixels(found)[~inside] == photo[~inside]).all()
        assert (pixels(found)[inside] != photo[inside]).mean() > 0.8
        again = darkroom.Request.from_dict(found.metadata["request"])
        assert (pixels(model.generate(again, image=photo, mask=mask)[0]) == pixels(found)).all()


def test_at_another_size_the_rest_is_the_picture_at_that_size(model):
    (found,) = model.generate("a", image=PHOTO, mask=BOXED, width=112, height=80, fit="stretch", **SETTINGS)
    larger = np.asarray(Image.fromarray(PHOTO).resize((112, 80), Image.Resampling.LANCZOS))
    outside = ~np.asarray(a_mask(30, 14, 52, 36, size=(112, 80))).astype(bool)
    assert (pixels(found)[outside] == larger[outside]).all()
    assert (pixels(found)[20:40, 40:70] != larger[20:40, 40:70]).mean() > 0.8


def test_what_a_mask_is_filled_with_is_drawn_over(model):
    asked = {"image": PHOTO, "mask": BOXED, "strength": 0.25, **SETTINGS}
    found = {
        fill: pixels(model.generate("a", fill=fill, **asked)[0]) for fill in ("red", "#00f", "neighbors")
    }
    assert len({each.tobytes() for each in found.values()}) == 3
    request = model.settle(darkroom.Request("a", fill="red", **asked))
    assert request.inpaint.fill == "#ff0000"
    clear = np.dstack([PHOTO, np.where(INSIDE, 0, 255).astype(np.uint8)])
    assert model.settle(darkroom.Request("a", image=clear, mask="alpha")).inpaint.fill == "neighbors"


def test_grey_is_drawn_at_less_strength(model):
    def drawn(level):
        mask = a_mask(16, 8, 24, 16, level=level)
        return model.generate("a", image=PHOTO, mask=mask, **{**SETTINGS, "steps": 8})[0].latents

    plain, much, little = drawn(255), drawn(90), drawn(40)
    known = model.encode(PHOTO)
    gaps = [float((each - known).abs()[..., 1:3, 2:5].mean()) for each in (plain, much, little)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1.5 * gaps[2]


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_leaves_the_rest(model, sampler):
    asked = {**SETTINGS, "sampler": sampler, "strength": 0.9}
    (found,) = model.generate("a", image=PHOTO, mask=BOXED, **asked)
    gap = (found.latents - model.encode(PHOTO)).abs().mean(dim=(0, 1))
    outside = torch.from_numpy(by_latents(share(BOXED), 8)) == 0
    assert gap[outside].max() < 0.02 * gap[~outside].mean()
    assert (pixels(found)[~INSIDE] == PHOTO[~INSIDE]).all()


def test_a_lost_job_goes_on(model):
    asked = darkroom.Request("a", image=PHOTO, mask=BOXED, fill="neighbors", strength=0.8, **SETTINGS)
    request, subject = subject_of(model.settle(asked))
    extras = Extras(subject=subject)
    engine = Engine(model.engine.networks)
    task = engine.submit(Job(request, model.family, extras=extras))
    while task.job.done < 2:
        engine.tick()
    saved = Saved.from_bytes(task.job.snapshot().to_bytes())
    engine.run()
    again = engine.submit(Job(request, model.family, saved, extras=extras))
    engine.run()
    assert (again.result() == task.result()).all()


def test_on_the_command_line(toy_folder, tmp_path, capsys):
    Image.fromarray(PHOTO).save(tmp_path / "boat.png")
    BOXED.save(tmp_path / "mask.png")
    made = tmp_path / "made"
    asked = ["edit", str(tmp_path / "boat.png"), "a boat", "--model", str(toy_folder), "--device", "cpu"]
    asked += ["--precision", "float32", "--steps", "3", "--seed", "4", "--quiet"]
    assert main([*asked, "--mask", str(tmp_path / "mask.png"), "-o", str(made / "a.png")]) == 0
    assert main([*asked, "--mask-box", "16,8,24,16", "--only-masked", "-o", str(made / "b.png")]) == 0
    for name in "ab":
        with Image.open(made / f"{name}.png") as picture:
            found, said = np.asarray(picture), picture.info["parameters"]
        assert (found[~INSIDE] == PHOTO[~INSIDE]).all()
        assert (found[INSIDE] != PHOTO[INSIDE]).any()
        assert "Mask blur: 0" in said
    assert "Inpaint area: Only masked, Masked area padding: 32" in said
    (tmp_path / "mask.png").rename(made / "other.png")
    assert main(["again", str(made / "a.png")]) == 0
    assert f"its mask is {made / 'other.png'} now" in capsys.readouterr().err
    moved = (made / "other.png").rename(tmp_path / "gone.png")
    assert main(["again", str(made / "a.png")]) == 2
    assert "give it as --mask" in capsys.readouterr().err
    assert main(["again", str(made / "a.png"), "--mask", str(moved)]) == 0
    assert main(["again", str(made / "b.png")]) == 0
    assert main(["a boat", "--mask-box", "1,2,3,4"]) == 2
    assert "--mask-box is of a picture to begin with: give --image" in capsys.readouterr().err
    assert (
        main(["plan", "a", *asked[3:7], "--image", str(tmp_path / "boat.png"), "--mask-box", "8,8,8,8"]) == 0
    )


def test_files_hold_masks_in_any_clothing(model, tmp_path):
    expected = None
    for name, each in (("l.png", BOXED), ("one.png", BOXED.convert("1")), ("p.gif", BOXED.convert("P"))):
        each.save(tmp_path / name)
        content = io.BytesIO((tmp_path / name).read_bytes()).getvalue()
        (found,) = model.generate("a", image=PHOTO, mask=content, **SETTINGS)
        expected = pixels(found) if expected is None else expected
        assert (pixels(found) == expected).all()


# Beyond the edges


@pytest.mark.parametrize("size", [(40, 56), (37, 51)])
@pytest.mark.parametrize(
    "settings",
    [
        {"extend_right": 24},
        {"extend_left": 9, "extend_bottom": 17},
        {"extend_top": 8, "extend_left": 8, "extend_right": 8, "extend_bottom": 8, "strength": 1},
        {"extend_right": 100, "fill": "mirror"},
        {"extend_right": 16, "fill": "neighbors"},
        {"extend_right": 16, "fill": "noise", "mask": True},
        {"extend_top": 16, "only_masked": True, "mask_padding": 8},
    ],
    ids=str,
)
def test_pictures_go_on_beyond_their_edges(model, size, settings):
    photo = PHOTO[: size[0], : size[1]]
    more = {"mask": BOXED.crop((0, 0, size[1], size[0]))} if "mask" in settings else {}
    (found,) = model.generate("a", image=photo, **{**SETTINGS, **settings, **more})
    left, top, right, bottom = (
        settings.get(f"extend_{side}", 0) for side in ("left", "top", "right", "bottom")
    )
    assert found.image.size == (size[1] + left + right, size[0] + top + bottom)
    inner = pixels(found)[top : top + size[0], left : left + size[1]]
    kept = ~np.asarray(more["mask"]).astype(bool) if more else np.ones(size, bool)
    assert (inner[kept] == photo[kept]).all()
    whole = np.pad(photo, ((top, bottom), (left, right), (0, 0)), "edge")
    outside = np.ones(whole.shape[:2], bool)
    outside[top : top + size[0], left : left + size[1]] = False
    assert (pixels(found)[outside] != whole[outside]).mean() > 0.8


def test_what_is_beyond_the_edges_to_begin_with():
    def begins(**settings):
        asked = settle(darkroom.Request("a", image=PHOTO, extend_right=8, **settings), SMALL, "it")
        return filled(asked, subject_of(asked)[1])[:, 56:]

    assert (begins() == PHOTO[:, -1:]).all()
    assert (begins(fill="mirror") == PHOTO[:, :-9:-1]).all()
    assert (begins(fill="#010203") == (1, 2, 3)).all()
    request = settle(darkroom.Request("a", image=PHOTO, extend_right=8), SMALL, "it")
    assert (request.edit.strength, request.inpaint.only_masked) == (0.75, False)


def test_large_pictures_go_on_at_their_own_size(model):
    large = np.tile(PHOTO, (30, 22, 1))
    request = model.settle(darkroom.Request("a", image=large, extend_bottom=40, **SETTINGS))
    assert request.inpaint.only_masked
    assert request.canvas.width * request.canvas.height <= 1.1 * 2**20
    (found,) = model.generate(request, steps=1)
    assert found.image.size == (large.shape[1], large.shape[0] + 40)
    assert (pixels(found)[: len(large)] == large).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"extend_right": -1}, "extend_right is -1"),
        ({"extend_right": 5000}, "extend_right is 5,?000"),
        ({"extend_right": 8, "image": None}, "there is an edge to go on from, but no picture"),
        ({"fill": "mirror", "mask": BOXED}, "fill is mirror, which is for what is beyond the edges"),
    ],
)
def test_mistakes_in_going_on(given, said):
    with pytest.raises(InvalidRequest, match=said):
        settle(darkroom.Request("a", **{"image": PHOTO, **given}).checked(), SMALL, "it")


def quickly(model, out):
    """The options by which a command makes pictures of a model into a folder."""
    where = ["--device", "cpu", "--precision", "float32"]
    return ["--model", str(model), *where, "--quiet", "-o", str(out)]


def test_going_on_from_the_command_line(model, toy_folder, tmp_path, capsys):
    (boat,) = model.generate("a boat", width=48, height=32, **SETTINGS)
    path = str(boat.save(tmp_path / "boat.png"))
    made = tmp_path / "made"
    asked = quickly(toy_folder, made)
    assert main(["outpaint", path, "--left", "16", "--seed", "3", *asked]) == 0
    with Image.open(made / "boat-3.png") as found:
        assert (np.asarray(found)[:, 16:] == pixels(boat)).all()
    assert main(["again", str(made / "boat-3.png")]) == 0
    assert "the same, pixel for pixel" in capsys.readouterr().out
    assert main(["edit", path, "--extend-left", "16", "--seed", "3", *asked]) == 0
    with Image.open(made / "boat-3.png") as one, Image.open(made / "boat-3-2.png") as other:
        assert (np.asarray(one) == np.asarray(other)).all()
    (same,) = model.outpaint(boat, left=16, seed=3)
    with Image.open(made / "boat-3.png") as found:
        assert (np.asarray(found) == pixels(same)).all()
    assert main(["outpaint", path, *asked]) == 2
    assert "no side to go on at: give --left, --top, --right or --bottom" in capsys.readouterr().err
    with pytest.raises(InvalidRequest, match="no side to go on at"):
        model.outpaint(boat)


def test_outpainting_in_rounds(model, toy_folder, tmp_path, capsys):
    """Each goes on with what the last one made, which stays as it is."""
    (boat,) = model.generate("a boat", width=48, height=32, **SETTINGS)
    made = model.outpaint(boat, left=8, bottom=4, rounds=3, seed=5)
    assert [picture.seed for picture in made] == [5, 6, 7]
    before = pixels(boat)
    for picture in made:
        height, width = before.shape[:2]
        found = pixels(picture)
        assert found.shape == (height + 4, width + 8, 3)
        assert (found[:height, 8:] == before).all()
        before = found
    path, out = boat.save(tmp_path / "boat.png"), tmp_path / "made"
    asked = quickly(toy_folder, out)
    sides = ["--left", "8", "--bottom", "4", "--seed", "5"]
    assert main(["outpaint", str(path), *sides, "--rounds", "3", *asked]) == 0
    files = [out / f"boat{name}.png" for name in ("-5", "-5-6", "-5-6-7")]
    for file, picture in zip(files, made, strict=True):
        with Image.open(file) as found:
            assert (np.asarray(found) == pixels(picture)).all()
    assert main(["again", str(files[2])]) == 0
    capsys.readouterr()
    assert main(["outpaint", str(path), "--left", "8", "--rounds", "2", *asked]) == 0
    first, second = capsys.readouterr().out.split()
    assert int(second.rpartition("-")[2][:-4]) == int(first.rpartition("-")[2][:-4]) + 1
    for wrong in (
        ["--rounds", "2", "--mask-box", "0,0,4,4"],
        ["--rounds", "2", "--count", "2"],
        ["--rounds", "0"],
    ):
        assert main(["outpaint", str(path), *sides, *wrong, *asked]) == 2
    said = capsys.readouterr().err
    assert "rounds is 2, which does not go with mask_box" in said
    assert "rounds is 2, which does not go with count" in said
    with pytest.raises(InvalidRequest, match="rounds is 101"):
        model.outpaint(boat, left=8, rounds=101)


# Against diffusers: the latent after five steps, in float32


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """Stable Diffusion's inpainting models, whose networks have nine channels."""
    root = tmp_path_factory.mktemp("nine")
    return {
        "nine": write_sd1(root / "sd1", 70, in_channels=9),
        "nine-2": write_sd2(root / "sd2", 71, in_channels=9),
        "nine-xl": write_sdxl(root / "sdxl", 72, in_channels=9),
    }


PEERS = {
    "nine": ("StableDiffusionInpaintPipeline", "ddim", "leading"),
    "nine-2": ("StableDiffusionInpaintPipeline", "ddim", "leading"),
    "nine-xl": ("StableDiffusionXLInpaintPipeline", "euler", "ddim_uniform"),
    "sd1": ("StableDiffusionInpaintPipeline", "ddim", "leading"),
    "sdxl": ("StableDiffusionXLInpaintPipeline", "euler", "ddim_uniform"),
    "sd3": ("StableDiffusion3InpaintPipeline", "euler", "normal"),
}


@pytest.mark.peer
@pytest.mark.parametrize(("name", "begun"), pairs(list(PEERS), [((64, 48), 0.8), ((48, 80), 0.5)]))
def test_against_diffusers(folder, nine, name, begun, monkeypatch):
    size, strength = begun
    path, (width, height), mask = nine.get(name) or folder(name), size, a_mask(16, 16, 24, 16, size=size)
    asked = {"mask": mask, "width": width, "height": height}
    assert apart_from_diffusers(path, *PEERS[name], size, strength, monkeypatch, **asked) <= 1e-4


def test_inpainting_models_paint_all_where_there_is_no_mask(nine):
    model = darkroom.load(nine["nine"], device="cpu", precision="float32")
    asked = {**SETTINGS, "steps": 3, "width": 56, "height": 40}
    (plain,) = model.generate("a boat", **asked)
    whole = {"image": PHOTO, "mask": Image.new("L", (56, 40), 255), **SETTINGS, "steps": 3}
    (masked,) = model.generate("a boat", **whole)
    assert (pixels(plain) == pixels(masked)).all()
    (boxed,) = model.generate("a boat", **{**whole, "mask": BOXED})
    assert (pixels(boxed)[~INSIDE] == PHOTO[~INSIDE]).all()
    assert main(["plan", "a", "--model", str(nine["nine"]), "--size", "64"]) == 0


# Masks that are not


def test_what_is_said_of_a_mask_that_there_is_not(model, toy_folder, tmp_path, capsys):
    plain = model.generate("a", image=PHOTO, strength=0.5, **SETTINGS)[0]
    for said in (
        {"only_masked": True},
        {"fill": "red"},
        {"fill": "neighbors", "mask_blur": 4, "mask_grow": 2},
    ):
        (found,) = model.generate("a", image=PHOTO, strength=0.5, **SETTINGS, **said)
        assert (pixels(found) == pixels(plain)).all()
        (note,) = found.metadata["notes"]
        assert all(name in note for name in said)
        assert "there is no mask" in note
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    asked = ["edit", str(tmp_path / "photo.png"), "a", *quickly(toy_folder, tmp_path)]
    assert main([*asked, "--only-masked"]) == 2
    assert "--only-masked is of a mask: give --mask or --mask-box" in capsys.readouterr().err
    assert main([*asked, "--only-masked", "--mask-box", "8,8,16,16"]) == 0


def test_a_mask_of_0_and_1_of_255(model):
    levels = (np.asarray(BOXED) > 0).astype(np.uint8)
    with pytest.raises(InvalidRequest, match="0 and 1 where white is 255"):
        model.generate("a", image=PHOTO, mask=levels, **SETTINGS)
    as_truths = model.generate("a", image=PHOTO, mask=levels.astype(bool), **SETTINGS)
    assert (pixels(as_truths[0]) == pixels(model.generate("a", image=PHOTO, mask=BOXED, **SETTINGS)[0])).all()


def test_lines_and_spots_are_drawn_wholly(model, nine):
    """What covers no latent pixel wholly is drawn like what does, where nothing beside it is covered wholly."""
    drawing = ImageDraw.Draw(mask := Image.new("L", (56, 40)))
    drawing.line((2, 3, 30, 3), fill=255, width=3)
    drawing.rectangle((42, 26, 45, 29), fill=255)
    covered = by_latents(share(mask), 8)
    assert set(np.unique(covered)) <= {0.0, 1.0}
    assert (covered[0, :4] == 1).all()
    assert covered[3, 5] == 1
    assert covered[1:3].max() == 0
    box = by_latents(share(a_mask(13, 5, 24, 20)), 8)
    assert 0 < box[0, 1] < 1
    assert (box == share(a_mask(13, 5, 24, 20)).reshape(5, 8, 7, 8).mean(axis=(1, 3))).all()
    soft = share(a_mask(16, 8, 24, 24), blur=6)
    assert (by_latents(soft, 8) == soft.reshape(5, 8, 7, 8).mean(axis=(1, 3))).all()
    asked = {"image": PHOTO, "mask": mask, "strength": 0.3, **SETTINGS}
    red, blue = (pixels(model.generate("a", fill=fill, **asked)[0]) for fill in ("red", "blue"))
    inside = np.asarray(mask) > 0
    assert (red[inside] != blue[inside]).any(axis=1).mean() > 0.9
    assert (red[~inside] == PHOTO[~inside]).all()
    # An inpainting model is told of them.
    seen = darkroom.load(nine["nine"], device="cpu", precision="float32")
    job = Job(*_one(seen, image=PHOTO, mask=mask, **SETTINGS))
    work = [each for each in _works(job, seen) if type(each).__name__ == "Denoise"]
    assert work[0].rows[0].x[0, 4].sum() == covered.sum()


def _one(model, **asked):
    single, subject = subject_of(model.settle(darkroom.Request("a", **asked)))
    return single, model.family, None, None, Extras(subject=subject)


def _works(job, model):
    """All that a job asks for, done."""
    steps, found = job.develop(), []
    try:
        work = next(steps)
        while True:
            found.append(work)
            work = steps.send(work.run(model.engine.networks))
    except StopIteration:
        return found


def test_large_pictures_keep_their_size(model):
    """What is around a mask is drawn alone where the whole is too large to be drawn at its size."""
    photo = np.zeros((1100, 1300, 3), np.uint8)
    request = model.settle(darkroom.Request("a", image=photo, mask_box=(600, 500, 40, 30)))
    assert request.inpaint.only_masked
    assert request.inpaint.padding == 32
    (found,) = model.generate(request.replace(steps=1, seed=1))
    assert found.image.size == (1300, 1100)
    assert (pixels(found)[:400] == 0).all()
    open_again = {"only_masked": None, "width": None, "height": None, "fit": None}
    for said in ({"fit": "crop"}, {"width": 512}, {"only_masked": False}):
        assert not model.settle(request.replace(**open_again | said)).inpaint.only_masked


@pytest.mark.parametrize("size", [{"width": 512}, {"height": 64}])
def test_a_side_that_follows_is_bounded(model, size):
    photo = np.zeros((2000, 8, 3) if "width" in size else (8, 2000, 3), np.uint8)
    with pytest.raises(InvalidRequest, match=r"would be of .* a side has 8,192 pixels at most"):
        model.generate("a", image=photo, **size)
