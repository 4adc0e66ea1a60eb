"""Pictures made of pictures: sizes, strengths, where the picture comes from."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.families import peer, relative_error

import darkroom
from darkroom.checkpoint.families import SD1, SD3
from darkroom.cli import main
from darkroom.engine import Engine
from darkroom.errors import InvalidRequest
from darkroom.generation.colors import matched
from darkroom.generation.edits import Subject, brought, finished
from darkroom.generation.frames import padded, stretched
from darkroom.generation.job import Job
from darkroom.generation.passes import passes
from darkroom.generation.saved import Saved
from darkroom.generation.settle import settle
from darkroom.generation.sizing import begun
from darkroom.generation.wording import Extras
from darkroom.photos import photo_of

SETTINGS = {"steps": 4, "sampler": "euler", "guidance": 3.0}
PHOTO = np.random.default_rng(1).integers(0, 256, (37, 51, 3), np.uint8)
SMALL = replace(SD1, native=32)


def pixels(picture):
    return np.asarray(picture.image)


@pytest.fixture(scope="module")
def model(toy_folder):
    return darkroom.load(toy_folder, device="cpu", precision="float32")


@pytest.fixture
def photo_file(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "boat.png")
    return tmp_path / "boat.png"


@pytest.mark.parametrize(
    ("size", "asked", "becomes"),
    [
        ((512, 384), {}, (512, 384, "own")),
        ((513, 379), {}, (520, 384, "own")),
        ((5, 3), {}, (8, 8, "own")),
        ((4000, 3000), {}, (1184, 888, "crop")),
        ((20_000, 16), {}, (8192, 8, "crop")),
        ((400, 300), {"width": 512}, (512, 384, "crop")),
        ((400, 300), {"height": 144}, (192, 144, "crop")),
        ((400, 300), {"width": 64, "height": 128, "fit": "stretch"}, (64, 128, "stretch")),
        ((400, 300), {"fit": "stretch"}, (400, 304, "stretch")),
        ((4000, 3000), {"fit": "own"}, (4000, 3000, "own")),
    ],
)
def test_which_size_it_has(size, asked, becomes):
    image = photo_of(np.zeros((size[1], size[0], 3), np.uint8))
    request = darkroom.Request("a", image=image.pixels, **asked).checked()
    found = {**begun(request, Subject(image), SD1), **asked}
    assert (found["width"], found["height"], found["fit"]) == becomes


def test_large_models_keep_to_their_limits():
    image = photo_of(np.zeros((512, 2000, 3), np.uint8))
    found = begun(darkroom.Request("a", image=image.pixels), Subject(image), replace(SD3, most_patches=96))
    assert max(found["width"], found["height"]) <= 96 * 16
    assert found["fit"] == "crop"


def test_its_own_size_on_another_canvas():
    with pytest.raises(InvalidRequest, match=r"fit is own, but the picture is of 51x37"):
        settle(darkroom.Request("a", image=PHOTO, fit="own", width=64), SMALL, "it")
    assert settle(darkroom.Request("a", image=PHOTO, fit="own", width=56), SMALL, "it").canvas.height == 40


@pytest.mark.parametrize("fit", ["own", "crop", "stretch", "pad"])
def test_how_it_is_brought_there(fit):
    size = {} if fit == "own" else {"width": 64, "height": 32}
    request = settle(darkroom.Request("a", image=PHOTO, fit=fit, **size), SMALL, "it")
    photo = Subject(photo_of(PHOTO))
    found = brought(request, photo)
    assert found.shape == (request.canvas.height, request.canvas.width, 3)
    if fit == "own":
        assert (found[:37, :51] == PHOTO).all()
        assert (found[37:, :51] == PHOTO[:33:-1]).all()
        assert (finished(found, request, photo) == PHOTO).all()
    else:
        assert finished(found, request, photo).shape == (32, 64, 3)


@pytest.mark.parametrize("size", [(96, 40), (40, 96), (51, 37), (8, 8), (400, 8)])
def test_padding_shows_all_of_it(size):
    found = padded(PHOTO, *size)
    assert found.shape == (size[1], size[0], 3)
    scale = min(size[0] / 51, size[1] / 37)
    wide, high = max(round(51 * scale), 1), max(round(37 * scale), 1)
    left, top = (size[0] - wide) // 2, (size[1] - high) // 2
    assert (found[top : top + high, left : left + wide] == stretched(PHOTO, wide, high)).all()
    assert (found[:, :left] == found[:, left : left + 1]).all()
    assert (found[top + high :] == found[top + high - 1]).all()


def points_of(strength, way="share", steps=10, family=SMALL, **more):
    asked = darkroom.Request(
        "a", image=PHOTO, strength=strength, strength_as=way, steps=steps, sampler="euler", **more
    )
    return passes(settle(asked, family, "it"), family, Subject(photo_of(PHOTO)))


@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize("strength", [0, 0.01, 0.29, 0.5, 0.7, 0.999])
def test_how_many_steps_a_strength_takes(strength, steps):
    def taken(way):
        (found,) = points_of(strength, way, steps)
        whole = points_of(1, "diffusers", steps)[0].points
        assert [*found.points] == [*whole[steps - found.steps :]]
        assert found.skipped == steps - found.steps
        return found.steps, found.calls

    # As diffusers (`get_timesteps`) and A1111 (`setup_img2img_steps`) count.
    assert taken("share") == (max(int(steps * strength), 1 if strength else 0),) * 2
    assert taken("a1111") == (min(int(strength * steps), steps - 1) + 1,) * 2
    if int(steps * strength):
        assert taken("diffusers") == (int(steps * strength),) * 2
    else:
        with pytest.raises(InvalidRequest):
            taken("diffusers")


def test_comfys_strength_takes_all_steps_of_a_longer_way():
    (found,) = points_of(0.4, "comfy", 8)
    whole = points_of(1, "diffusers", 20)[0].points
    assert [*found.points] == [*whole[12:]]
    assert points_of(0, "comfy")[0].steps == 0


def test_all_of_it_natively_is_a_picture_from_noise():
    assert not hasattr(points_of(1)[0].canvas, "brought")
    for way in ("diffusers", "a1111", "comfy"):
        assert hasattr(points_of(1, way)[0].canvas, "brought")


def test_no_strength_is_the_picture_through_the_autoencoder(model):
    (picture,) = model.generate("a", image=PHOTO, strength=0, **SETTINGS)
    whole = np.pad(PHOTO, ((0, 3), (0, 5), (0, 0)), "symmetric")
    (expected,) = model.decode(model.encode(whole))
    assert picture.image.size == (51, 37)
    assert (pixels(picture) == np.asarray(expected)[:37, :51]).all()


@pytest.mark.parametrize("sampler", ["dpm_adaptive", "dpm_fast", "restart", "dpmpp_2m_sde", "heun", "unipc"])
def test_no_strength_asks_nothing_of_any_sampler(model, sampler):
    steps = []
    settings = {**SETTINGS, "sampler": sampler}
    (picture,) = model.generate("a", image=PHOTO, strength=0, callback=steps.append, **settings)
    assert picture.image.size == (51, 37)
    assert not steps


def test_all_strength_is_a_picture_of_that_size(model):
    (picture,) = model.generate("a", seed=3, image=PHOTO, strength=1, **SETTINGS)
    (other,) = model.generate("a", seed=3, width=56, height=40, **SETTINGS)
    assert (pixels(picture) == pixels(other)[:37, :51]).all()


@pytest.mark.parametrize("form", ["path", "text", "bytes", "array", "pillow", "torch", "picture"])
def test_pictures_come_in_every_form(model, photo_file, form):
    asked = {"strength": 0.5, "seed": 2, **SETTINGS}
    (expected,) = model.generate("a", image=photo_file, **asked)
    image = {
        "path": photo_file,
        "text": str(photo_file),
        "bytes": photo_file.read_bytes(),
        "array": PHOTO,
        "pillow": Image.fromarray(PHOTO),
        "torch": torch.from_numpy(PHOTO).permute(2, 0, 1) / 255,
        "picture": replace(expected, image=Image.fromarray(PHOTO)),
    }[form]
    (found,) = model.generate("a", image=image, **asked)
    assert (pixels(found) == pixels(expected)).all()
    said = found.metadata["request"]["edit"]["image"]
    digest = hashlib.sha256(photo_file.read_bytes()).hexdigest()
    if form in ("path", "text", "bytes"):
        assert said["sha256"] == digest
    assert ("path" in said) == (form in ("path", "text"))


def test_it_is_made_again_from_json(model, photo_file):
    (first,) = model.generate("a", image=photo_file, strength=0.5, **SETTINGS)
    request = darkroom.Request.from_dict(json.loads(json.dumps(first.metadata["request"])))
    assert (pixels(model.generate(request)[0]) == pixels(first)).all()
    assert request.settled() == darkroom.Request.from_dict(request.to_dict()).settled()
    written = darkroom.Request.from_dict({"prompt": "a", "image": str(photo_file), "strength": 0.5})
    assert model.settle(written).edit == first_edit(model, photo_file)


def first_edit(model, path):
    return model.settle(darkroom.Request("a", image=path, strength=0.5)).edit


def test_a_file_that_moved_or_is_another_is_asked_for(model, photo_file, tmp_path):
    (first,) = model.generate("a", image=photo_file, strength=0.5, **SETTINGS)
    request = darkroom.Request.from_dict(first.metadata["request"])
    digest = hashlib.sha256(photo_file.read_bytes()).hexdigest()
    moved = photo_file.rename(tmp_path / "moved.png")
    with pytest.raises(InvalidRequest, match=f"where there is no file, its SHA-256 is {digest}: give it"):
        model.generate(request)
    assert (pixels(model.generate(request, image=moved)[0]) == pixels(first)).all()
    Image.fromarray(PHOTO[::-1]).save(photo_file)
    with pytest.raises(InvalidRequest, match=f"another file now: give the one whose SHA-256 is {digest}"):
        model.generate(request)
    with pytest.raises(InvalidRequest, match="is the picture with the SHA-256"):
        model.generate(darkroom.Request("a", image={"sha256": digest}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": "nowhere.png"}, "nowhere.png, where there is no file: give it"),
        ({"image": ""}, "image is empty"),
        ({"image": 3}, "image is a int"),
        ({"image": {"file": "x"}}, "image is {'file': 'x'}"),
        ({"image": b"hello"}, "no picture that is read"),
        ({"image": PHOTO, "strength": 1.5}, "strength is 1.5"),
        ({"image": PHOTO, "strength": -0.1}, "strength is -0.1"),
        ({"image": PHOTO, "strength": float("nan")}, "strength is NaN"),
        ({"image": PHOTO, "fit": "fill"}, "fit is 'fill'"),
        ({"image": PHOTO, "loops": 0}, "loops is 0"),
        ({"image": PHOTO, "strength": 0, "strength_as": "diffusers"}, "strength is 0"),
        ({"init_image": PHOTO}, "it is called image here"),
        ({"denoising_strength": 0.5}, "it is called strength here"),
    ],
)
def test_mistakes(model, given, said):
    with pytest.raises(InvalidRequest, match=said.replace("{", r"\{").replace("}", r"\}")):
        model.generate("a", **{**SETTINGS, **given})


def test_an_animated_picture(model):
    content = io.BytesIO()
    frames = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (20, 220)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    asked = {"image": content.getvalue(), "strength": 0.3, "seed": 1, **SETTINGS}
    with pytest.raises(InvalidRequest, match="has 2 frames"):
        model.generate("a", **asked)
    first, second = (model.generate("a", frame=number, **asked)[0] for number in (1, 2))
    plain = model.generate("a", **{**asked, "image": frames[1]})[0]
    assert (pixels(second) == pixels(plain)).all()
    assert (pixels(first) != pixels(second)).any()


def test_what_is_transparent_is_white_and_told(model):
    clear = np.dstack([PHOTO, np.zeros((37, 51), np.uint8)])
    asked = {"strength": 0.3, "seed": 1, **SETTINGS}
    (found,) = model.generate("a", image=clear, **asked)
    (white,) = model.generate("a", image=np.full_like(PHOTO, 255), **asked)
    assert (pixels(found) == pixels(white)).all()
    assert any("transparent" in note for note in found.metadata["notes"])


def test_noise_is_multiplied(model):
    request = darkroom.Request("a", image=PHOTO, strength=0.5, seed=1, noise_multiplier=0, **SETTINGS)
    quiet, louder = (model.generate(request, noise_multiplier=much)[0].latents for much in (0.0, 1.0))
    assert (quiet - louder).abs().max() > 0.1
    assert "Noise multiplier: 0" in model.generate(request)[0].parameters


def test_seeds_of_loops_begin_again_after_the_last(model):
    made = model.edit(PHOTO[:32, :48], "a boat", seed=2**64 - 1, loops=2, strength=0.5, **SETTINGS)[0]
    first = model.edit(PHOTO[:32, :48], "a boat", seed=2**64 - 1, strength=0.5, **SETTINGS)[0]
    again = model.edit(first, "a boat", like=False, seed=0, strength=0.5, **SETTINGS)[0]
    assert (pixels(made) == pixels(again)).all()


def test_loops_draw_over_what_the_last_one_made(model):
    asked = {**SETTINGS, "image": PHOTO[:32, :48]}
    (looped,) = model.generate("a", strength=0.8, last_strength=0.4, loops=3, seed=5, **asked)
    once = asked["image"]
    for seed, strength in ((5, 0.8), (6, 0.6), (7, 0.4)):
        (drawn,) = model.generate("a", strength=strength, seed=seed, **{**asked, "image": once})
        once = drawn.image
    assert (pixels(looped) == np.asarray(once)).all()
    (whole,) = model.generate("a", strength=1, loops=2, seed=5, **asked)
    (noise,) = model.generate("a", seed=6, width=48, height=32, **SETTINGS)
    assert (pixels(whole) == pixels(noise)).all(), "all of it is drawn anew, also the last time"
    with pytest.raises(InvalidRequest, match=r"last_strength is 0.4, of the last loop"):
        model.generate("a", last_strength=0.4, **asked)


def test_colors_are_the_picture_s_and_light_is_the_drawing_s(model):
    """As A1111 does it, with scikit-image, OpenCV and blendmodes: within a level on average, by hand."""
    warm = np.random.default_rng(2).integers((120, 60, 0), (255, 160, 60), (40, 56, 3)).astype(np.uint8)
    asked = {**SETTINGS, "image": warm, "strength": 0.7, "seed": 3}
    (plain,), (matching,) = (model.generate("a", match_colors=each, **asked) for each in (False, True))
    assert (pixels(matching) == matched(pixels(plain), warm)).all()

    def light(pixels):
        return (pixels @ np.array([0.3, 0.59, 0.11]))[..., None]

    def tint(pixels):
        return (pixels - light(pixels)).mean((0, 1))

    gap, left = (np.abs(tint(pixels(each)) - tint(warm)).max() for each in (plain, matching))
    assert gap > 5 * left, (gap, left)
    assert np.abs(light(pixels(plain)) - light(pixels(matching))).mean() < 1
    # Each loop, so that no drift adds up.
    (looped,) = model.generate("a", match_colors=True, loops=2, **asked)
    (second,) = model.generate("a", match_colors=True, **{**asked, "image": matching, "seed": 4})
    assert np.abs(pixels(looped).mean((0, 1)) - pixels(second).mean((0, 1))).max() < 12


def test_colors_of_a_picture_matched_with_itself_stay():
    assert np.abs(matched(PHOTO, PHOTO).astype(int) - PHOTO).mean() < 1.5
    grey = np.full((8, 8, 3), 128, np.uint8)
    assert np.isfinite(matched(grey, PHOTO)).all()
    assert matched(np.zeros_like(grey), PHOTO).max() == 0
    assert matched(np.full_like(grey, 255), PHOTO).min() == 255


@pytest.mark.parametrize("more", [{}, {"loops": 3}])
def test_a_lost_job_goes_on(model, more):
    request = model.settle(darkroom.Request("a", image=PHOTO, strength=0.8, seed=1, **more, **SETTINGS))
    extras = Extras(subject=Subject(photo_of(PHOTO)))

    def job(saved=None):
        return Job(request, model.family, saved, extras=extras)

    engine = Engine(model.engine.networks)
    task = engine.submit(job())
    while task.job.done < (5 if more else 2):
        engine.tick()
    saved = Saved.from_bytes(task.job.snapshot().to_bytes())
    engine.run()
    again = engine.submit(job(saved))
    engine.run()
    assert (again.result() == task.result()).all()


def test_on_the_command_line(toy_folder, photo_file, tmp_path, capsys):
    asked = ["--model", str(toy_folder), "--device", "cpu", "--precision", "float32", "--steps", "3"]
    asked += ["--image", str(photo_file), "--strength", "0.5", "--seed", "4", "--quiet"]
    assert main(["a boat", *asked, "-o", str(tmp_path / "out.png")]) == 0
    with Image.open(tmp_path / "out.png") as made:
        assert made.size == (51, 37)
        assert "Denoising strength: 0.5" in made.info["parameters"]
    assert main(["again", str(tmp_path / "out.png")]) == 0
    assert "the same, pixel for pixel" in capsys.readouterr().out
    assert main(["plan", "a", "--model", str(toy_folder), "--image", str(photo_file)]) == 0
    assert "prepare 56x40" in capsys.readouterr().out
    assert main(["a boat", "--strength", "0.5"]) == 2
    assert "--strength is of a picture to begin with: give --image" in capsys.readouterr().err
    beside = photo_file.rename(tmp_path / "moved.png")
    assert main(["again", str(tmp_path / "out.png")]) == 0
    assert f"its image is {beside} now" in capsys.readouterr().err
    (tmp_path / "elsewhere").mkdir()
    moved = beside.rename(tmp_path / "elsewhere" / "moved.png")
    assert main(["again", str(tmp_path / "out.png")]) == 2
    assert "--image" in capsys.readouterr().err
    assert main(["again", str(tmp_path / "out.png"), "--image", str(moved)]) == 0


def test_arrays_and_tensors_of_several(model):
    two = np.stack([PHOTO, PHOTO[::-1]])
    asked = {"prompt": "a boat", "seed": 3, "strength": 0.5, **SETTINGS}
    expected = [pixels(model.edit(each, **asked)[0]) for each in two]
    of_torch = torch.from_numpy(two).permute(0, 3, 1, 2) / 255
    for given in (two, of_torch, [*two]):
        found = [pixels(each) for each in model.edit(given, **asked)]
        assert np.array_equal(found, expected)


def test_larger_where_the_model_is(model, photo_file, network):
    (found,) = model.upscale(photo_file, 2)
    assert found.image.size == (102, 74)
    assert found.metadata["after"][0]["upscaler"] == "lanczos"
    by_file = darkroom.load_upscaler("nearest").upscale(photo_file, width=100)
    (named,) = model.upscale(photo_file, width=100, upscaler="nearest")
    assert (pixels(named) == pixels(by_file)).all()
    learned = darkroom.load_upscaler(network, device="cpu", precision="float32").upscale(PHOTO)
    for found in model.upscale([PHOTO, PHOTO], upscaler=network):
        assert (pixels(found) == pixels(learned)).all()
    with pytest.raises(InvalidRequest, match="by is 20"):
        model.upscale(PHOTO, 20)


# Against diffusers: the latent after five steps, in float32


PEERS = {
    "sd1": ("StableDiffusionImg2ImgPipeline", "ddim", "leading"),
    "sdxl": ("StableDiffusionXLImg2ImgPipeline", "euler", "ddim_uniform"),
    "sd3": ("StableDiffusion3Img2ImgPipeline", "euler", "normal"),
}


def apart_from_diffusers(path, kind, sampler, schedule, size, strength, monkeypatch, mask=None, **more):
    """The relative error of our latents to those of diffusers' pipeline of that kind, which is also given `more`."""
    import diffusers
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    # What the autoencoder sees is drawn from there; here it is what it sees most likely.
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    width, height = size
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    theirs = getattr(diffusers, kind)(**peer(path).components)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        "a red boat on a calm sea",
        image=Image.fromarray(image),
        strength=strength,
        negative_prompt="night",
        guidance_scale=4.0,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(9),
        output_type="latent",
        **({} if mask is None else {"mask_image": mask}),
        **more,
    ).images
    (found,) = darkroom.load(path, device="cpu", precision="float32").generate(
        "a red boat on a calm sea",
        negative="night",
        image=image,
        mask=mask,
        strength=strength,
        strength_as="diffusers",
        guidance=4.0,
        steps=5,
        seed=9,
        sampler=sampler,
        schedule=schedule,
    )
    return relative_error(found.latents, expected)


@pytest.mark.peer
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(("size", "strength"), [((64, 48), 0.6), ((48, 80), 0.35), ((64, 64), 1.0)])
def test_against_diffusers(folder, name, size, strength, monkeypatch):
    width, height = size
    more = {"width": width, "height": height} if name == "sd3" else {}
    assert apart_from_diffusers(folder(name), *PEERS[name], size, strength, monkeypatch, **more) < 2e-5
