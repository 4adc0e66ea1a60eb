"""The embedded model: that it is there, whole, small, and draws what it is told."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from PIL import Image

import darkroom
from darkroom.cli import main
from darkroom.library.locate import locate
from darkroom.train.pocket.data import WorldConfig, scenes_by_style
from darkroom.world import render, sample_scene, silhouette


@pytest.fixture(scope="module")
def pocket():
    return darkroom.load("pocket", device="cpu")


def mean_colour(pictures):
    return np.mean([np.asarray(picture.image, float).mean((0, 1)) for picture in pictures], axis=0)


def test_it_is_small_and_in_the_published_layout():
    folder = locate("pocket")
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 60 * 2**20
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        assert (folder / part).is_dir()


def test_its_upscaler_draws_what_lanczos_smears(pocket):
    """Held-out scenes, four times as large, against the same drawn at that size."""
    gained = []
    for scenes in scenes_by_style(WorldConfig(), 1).values():
        truth, small = render(scenes[0], 512).astype(float), render(scenes[0])
        made = [
            np.asarray(darkroom.load_upscaler(name, device="cpu").upscale(small, 4).image, float)
            for name in ("lanczos", "pocket-x4")
        ]
        plain, drawn = (10 * np.log10(255**2 / ((each - truth) ** 2).mean()) for each in made)
        gained.append(drawn - plain)
    assert min(gained) > 0
    assert np.mean(gained) > 1


def test_it_listens(pocket):
    red, blue = (
        mean_colour(pocket.generate(f"a big {colour} circle", seed=1, count=2, steps=6))
        for colour in ("red", "blue")
    )
    assert red[0] - red[2] > blue[0] - blue[2] + 20
    day, night = (
        mean_colour(pocket.generate(f"a mountain landscape {time}", seed=1, count=2, steps=6)).mean()
        for time in ("by day", "at night")
    )
    assert day > night + 30


def test_the_more_strength_the_more_is_drawn_anew(pocket):
    asked = {"seed": 3, "steps": 10}
    (boat,) = pocket.generate("a red boat on a calm sea", **asked)
    prompt, before = "a blue boat on a calm sea at night", np.asarray(boat.image, float)
    apart = [
        np.abs(
            np.asarray(pocket.generate(prompt, image=boat, strength=much, **asked)[0].image) - before
        ).mean()
        for much in (0, 0.3, 0.6, 0.9)
    ]
    assert apart == sorted(apart)
    assert apart[0] < 5
    assert apart[-1] > 30


def test_things_are_painted_away_and_into_place(pocket):
    """Where the boat is, which is what changes; and no more of a seam than a line through the picture has."""
    (boat,) = pocket.generate("a red boat on a calm sea", seed=3, steps=10)
    before, box = np.asarray(boat.image, float), (slice(52, 124), slice(8, 76))
    inside = np.zeros((128, 128), bool)
    inside[box] = True
    asked = {"mask_box": "8,52,68,72", "like": False, "seed": 1, "steps": 10}
    red = {}
    for prompt in ("a calm sea", "a red house by a calm sea"):
        after = np.asarray(pocket.edit(boat, prompt, **asked)[0].image, float)
        assert (after[~inside] == before[~inside]).all()
        red[prompt] = (after[box][..., 0] - after[box][..., 2] > 60).mean()
        if prompt == "a calm sea":  # A house may end where it has to.
            steps = np.abs(np.diff(after, axis=1))[52:124]
            assert steps[:, [7, 75]].mean() < 2.5 * steps[:, [6, 8, 74, 76]].mean()
    was = (before[box][..., 0] - before[box][..., 2] > 60).mean()
    assert red["a calm sea"] < 0.02 < 0.1 < min(was, red["a red house by a calm sea"])


def test_things_are_found_by_their_names(pocket):
    """See `benchmarks/named.py` for how well on average."""
    draw, found = random.Random(7), []
    while len(found) < 4:
        scene = sample_scene(draw)
        if len(scene.groups) != 1:
            continue
        truth = silhouette(scene, scene.groups[0])
        mask = np.asarray(pocket.mask_of(render(scene), f"the {scene.groups[0].kind}")) > 0
        found.append((mask & truth).sum() / (mask | truth).sum())
    assert np.mean(found) > 0.75


def test_other_sizes_and_larger_ones(pocket):
    side = pocket.family.native
    for width, height in ((side, side // 2), (2 * side, 2 * side), (side + 8, side - 40)):
        (picture,) = pocket.generate("a red boat on a calm sea", seed=3, steps=3, width=width, height=height)
        assert picture.image.size == (width, height)
        assert np.asarray(picture.image).std() > 10


def test_larger_pictures_are_its_native_ones_enlarged(pocket):
    asked = {"prompt": "two cats in a meadow", "seed": 1, "steps": 6}
    (small,) = pocket.generate(**asked)
    (large,) = pocket.generate(**asked, width=384, height=384)
    assert large.metadata["request"]["canvas"]["compose"] == "native"
    assert large.metadata["numerics"]["version"] == 9
    upscaler = darkroom.load_upscaler("pocket-x4", device="cpu")
    assert large.metadata["request"]["canvas"]["upscaler"] == "pocket-x4"
    assert (np.asarray(large.image) == np.asarray(upscaler.upscale(small, 3).image)).all()
    (plain,) = pocket.generate(**asked, width=384, height=384, upscaler="lanczos")
    assert (np.asarray(plain.image) == np.asarray(small.image.resize((384, 384), Image.LANCZOS))).all()
    (refined,) = pocket.generate(**asked, width=256, height=256, second_pass="on")
    (plain,) = pocket.generate(**asked, width=256, height=256)
    assert (np.asarray(refined.image) != np.asarray(plain.image)).any()


@pytest.mark.parametrize(("width", "height"), [(192, 128), (128, 256)])
def test_other_proportions_show_what_the_square_shows(pocket, width, height):
    asked = {"prompt": "two cats in a meadow", "seed": 1, "steps": 8}
    (square,) = pocket.generate(**asked)
    (other,) = pocket.generate(**asked, width=width, height=height)
    assert other.image.size == (width, height)
    left, top = (width - 128) // 2, (height - 128) // 2
    middle = np.asarray(other.image, float)[top + 8 : top + 120, left + 8 : left + 120]
    alike = np.corrcoef(middle.ravel(), np.asarray(square.image, float)[8:120, 8:120].ravel())[0, 1]
    assert alike > 0.85
    outside = np.asarray(other.image, float)[:, :left] if left else np.asarray(other.image, float)[:top]
    assert outside.std() > 3


def test_pictures_of_the_time_before_are_made_again(pocket, tmp_path, capsys):
    """They were drawn in their own proportions, and their files say nothing of it."""
    (picture,) = pocket.generate("a boat", seed=3, steps=2, width=192, height=96, compose="own")
    told = darkroom.Request.from_dict(picture.metadata["request"]).flat()
    del told["compose"]
    picture.metadata["request"] = told
    picture.metadata["numerics"]["version"] = 2
    picture.save(tmp_path / "old.png")
    assert main(["again", str(tmp_path / "old.png"), "--device", "cpu"]) == 0
    assert "pixel for pixel" in capsys.readouterr().out


def test_previews_look_like_the_picture(pocket):
    previews = []
    (picture,) = pocket.generate(
        "a majestic mountain landscape at sunset",
        seed=2,
        callback=lambda step: previews.append(step.preview()),
    )
    last = np.asarray(previews[-1], float)
    assert np.abs(last - np.asarray(picture.image, float)).mean() < 25


@pytest.mark.peer
def test_diffusers_draws_the_same_picture():
    """Within 12 levels of 255 on average: diffusers starts its flow at t = 0.999 and cuts times to integers,
    which moves an outline here and there."""
    import torch
    from diffusers import StableDiffusionPipeline

    from darkroom.diffusion import SeededNoise

    folder = locate("pocket")
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, local_files_only=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    model = darkroom.load("pocket", device="cpu", precision="float32")
    side = model.family.native
    prompt = "three red balloons above a blue sea at night"
    theirs = pipeline(
        prompt,
        latents=SeededNoise(1, (1, 4, side // 8, side // 8))(0),
        width=side,
        height=side,
        num_inference_steps=20,
        guidance_scale=4.0,
        output_type="np",
    ).images[0]
    (ours,) = model.generate(prompt, seed=1, steps=20, guidance=4.0, sampler="dpmpp_2m", schedule="simple")
    assert np.abs(np.asarray(ours.image, float) - theirs * 255).mean() < 12.0
