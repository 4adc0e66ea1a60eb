"""Pictures in tiles, and pictures whose edges meet."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.families import peer, relative_error
from tests.tables import wide

import darkroom
from darkroom.checkpoint.families import SD1, SD3, SDXL
from darkroom.cli import main
from darkroom.errors import InvalidRequest
from darkroom.generation.colors import matched
from darkroom.generation.frames import Rim, stretched, without_edges
from darkroom.generation.parts import Tiling
from darkroom.generation.settle import settle
from darkroom.generation.tiles import tiles_of
from darkroom.generation.work import Row
from darkroom.networks import Conditioning

SETTINGS = {"steps": 3, "seed": 3, "guidance": 3.0, "second_pass": "off", "compose": "own"}


@pytest.fixture(scope="module")
def model(toy_folder):
    return darkroom.load(toy_folder, device="cpu", precision="float32")


def pixels(picture):
    return np.asarray(picture.image).astype(int)


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "axes", "tops", "lefts"),
    [
        ((128, 64), 64, 32, "", (0,), (0, 4, 8)),
        ((64, 152), 64, 0, "", (0, 5, 11), (0,)),
        ((128, 64), 64, 32, "x", (0,), (0, 4, 8, 12)),
        ((128, 128), 64, 0, "xy", (0, 8), (0, 8)),
        ((96, 64), 72, 8, "y", (0,), (0, 3)),
    ],
)
def test_where_tiles_are(size, tile, overlap, axes, tops, lefts):
    found = tiles_of(Tiling(seamless=axes or None, tile=tile, overlap=overlap), *size, SD1)
    assert (found.tops, found.lefts) == (tops, lefts)
    assert tiles_of(Tiling(tile=max(size), overlap=0), *size, SD1) is None


@pytest.mark.parametrize("blend", ["gaussian", "average"])
@pytest.mark.parametrize("axes", ["", "x", "y", "xy"])
@pytest.mark.parametrize(
    ("size", "tile", "overlap"), [((200, 72), 64, 24), ((64, 136), 64, 0), ((72, 80), 64, 56)]
)
def test_what_is_cut_is_joined_again(blend, axes, size, tile, overlap):
    tiles = tiles_of(Tiling(axes or None, tile, overlap, blend), *size, SD1)
    x = torch.randn(1, 4, size[1] // 8, size[0] // 8)
    parts = tiles.cut(Row(x, 1.0, Conditioning(torch.zeros(1, 1, 1)), seamless=axes))
    assert {tuple(part.x.shape[2:]) for part in parts} == {tiles.tile}
    # A tile's own edges meet where there is but one.
    split = {axis for axis, side in zip("xy", size, strict=True) if side > tile}
    assert {*parts[0].seamless} == {*axes} - split
    torch.testing.assert_close(tiles.joined([part.x for part in parts]), x)


DIFFUSERS = pytest.mark.parametrize(
    ("size", "circular"), [((96, 64), False), ((128, 96), False), ((96, 64), True), wide((160, 64), True)]
)


@pytest.mark.peer
@DIFFUSERS
def test_against_diffusers(folder, size, circular, monkeypatch):
    """MultiDiffusion, as its pipeline there makes panoramas."""
    import diffusers

    pipeline = diffusers.StableDiffusionPanoramaPipeline
    views = pipeline.get_views
    monkeypatch.setattr(
        pipeline,
        "get_views",
        lambda self, high, wide, circular_padding: views(self, high, wide, 8, 4, circular_padding),
    )
    theirs = pipeline(**peer(folder("sd1")).components, requires_safety_checker=False)
    theirs.scheduler = diffusers.DDIMScheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        "a red boat on a calm sea",
        width=size[0],
        height=size[1],
        negative_prompt="night",
        guidance_scale=4.0,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(9),
        output_type="latent",
        circular_padding=circular,
    ).images
    (found,) = darkroom.load(folder("sd1"), device="cpu", precision="float32").generate(
        "a red boat on a calm sea",
        negative="night",
        width=size[0],
        height=size[1],
        **{**SETTINGS, "steps": 5, "seed": 9, "guidance": 4.0},
        sampler="ddim",
        schedule="leading",
        tile=64,
        tile_overlap=32,
        tile_blend="average",
        seamless="x" if circular else None,
        full_noise=True,
    )
    assert relative_error(found.latents, expected) < 1e-3


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
@pytest.mark.parametrize("more", [{}, {"tile": 64, "tile_overlap": 32, "width": 192}], ids=["whole", "tiles"])
def test_what_is_seamless_may_be_rolled(model, axes, more):
    """Noise that is rolled makes the picture, rolled: it has no edges, be it in tiles or not."""
    settings = {"width": 96, "height": 64, **SETTINGS, **more, "seamless": axes}
    latents = torch.randn(1, 4, 8, settings["width"] // 8, generator=torch.Generator().manual_seed(1))
    # By what the network shrinks by, and by whole tiles.
    by = 4 * ("y" in axes), 4 * ("x" in axes)
    (first,) = model.generate("a boat", latents=latents.numpy(), **settings)
    (second,) = model.generate("a boat", latents=torch.roll(latents, by, (2, 3)).numpy(), **settings)
    assert relative_error(second.latents, torch.roll(torch.as_tensor(first.latents), by, (2, 3))) < 1e-4
    rolled = np.roll(pixels(first), [8 * each for each in by], (0, 1))
    assert np.abs(pixels(second) - rolled).max() <= 1
    (plain,) = model.generate("a boat", latents=latents.numpy(), **{**settings, "seamless": None})
    assert not np.array_equal(pixels(plain), pixels(first))


@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_seamless_in_little_memory(toy_folder, model, monkeypatch, memory):
    if memory == "low":
        monkeypatch.setattr("darkroom.networks.vae.TILE", 4)
    settings = {"width": 96, "height": 64, **SETTINGS, "seamless": "xy"}
    (whole,) = model.generate("a boat", **settings)
    other = darkroom.load(toy_folder, device="cpu", precision="float32", memory=memory)
    (found,) = other.generate("a boat", **settings)
    other.close()
    assert np.abs(pixels(found) - pixels(whole)).max() <= 1


@pytest.mark.parametrize("upscaler", ["lanczos", "latent", "NETWORK"])
def test_a_seamless_picture_stays_so_when_it_is_made_larger(model, network, upscaler):
    """In both passes, whatever is between them: the first is rolled, and so is what comes of it."""
    upscaler = str(network) if upscaler == "NETWORK" else upscaler
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    settings = {"steps": 4, "guidance": 1.0, "seed": 1, "width": 128, "height": 128, "seamless": "x"}
    settings |= {"first_width": 64, "first_height": 64, "second_strength": 0.05, "upscaler": upscaler}
    found = []
    for by in (0, 4):
        rolled = torch.roll(latents, by, 3).numpy()
        (picture,) = model.generate("a boat", latents=rolled, **settings)
        found.append(pixels(picture))
    # The noise of the second pass is not rolled: what is left is far less than an edge would be.
    apart = np.abs(found[1] - np.roll(found[0], 64, 1)).mean(axis=(0, 2))
    assert apart[[0, 1, -2, -1]].mean() < 2 * np.median(apart)


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
@pytest.mark.parametrize(
    ("inner", "outer"), [((24, 40), (48, 80)), ((24, 40), (36, 64)), ((64, 64), (72, 520))]
)
def test_what_is_laid_around(axes, inner, outer):
    picture = np.random.default_rng(1).integers(0, 256, (*inner, 3), np.uint8)
    rim = Rim.around(inner, outer, axes)
    assert rim.laid(picture).shape[:2] == tuple(
        side + 2 * each for side, each in zip(inner, rim.before, strict=True)
    )
    larger = without_edges(stretched, axes)
    expected = larger(picture, outer[1], outer[0])
    assert expected.shape == (*outer, 3)
    by = inner[0] // 2 * ("y" in axes), inner[1] // 2 * ("x" in axes)
    moved = larger(np.roll(picture, by, (0, 1)), outer[1], outer[0])
    back = np.roll(
        moved, [-each * size // side for each, size, side in zip(by, outer, inner, strict=True)], (0, 1)
    )
    assert np.abs(back.astype(int) - expected).max() <= 1
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None]
    assert np.array_equal(rim.laid(tensor)[0].permute(1, 2, 0).numpy(), rim.laid(picture))
    assert Rim.around(inner, outer, "").laid(picture) is picture


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"tile_overlap": 32}, ["tile_overlap is 32", "`tile=`"]),
        ({"tile": 64, "tile_overlap": 64}, ["less than the tile's 64"]),
        ({"tile": 60}, ["tile is 60", "64"]),
        ({"tile": 100}, ["not a multiple of 8"]),
        ({"tile": 64, "tile_blend": "max"}, ["tile_blend is 'max'", "gaussian, average"]),
        ({"seamless": "z"}, ["seamless is 'z'", "x, y, xy"]),
        ({"seamless": "x", "compose": "native"}, ["compose is native", "leave compose out"]),
    ],
)
def test_what_is_refused(asked, words):
    with pytest.raises(InvalidRequest) as found:
        settle(darkroom.Request("a boat", **asked), SD1, "toy")
    assert all(word in str(found.value) for word in words)


def test_colors_are_matched_over_the_whole_and_not_by_tile(model):
    photo = np.random.default_rng(3).integers(0, 256, (40, 56, 3), np.uint8)
    asked = {"strength": 0.6, **SETTINGS, "width": 168, "height": 120, "tile": 64, "seed": 2}
    drawn, even = (
        np.asarray(model.edit(photo, "a boat", match_colors=each, **asked)[0].image) for each in (False, True)
    )
    source = np.asarray(Image.fromarray(photo).resize((168, 120), Image.Resampling.LANCZOS))
    assert np.abs(matched(drawn, source).astype(int) - even).max() <= 1
    assert (drawn != even).any()


def test_what_a_family_draws():
    request = darkroom.Request("a boat", width=2048, height=1024)
    assert settle(request.replace(tile=1024), SDXL, "toy").tiling.overlap == 512
    assert settle(request.replace(seamless="x"), replace(SD1, native=64), "toy").canvas.compose == "own"
    flow = replace(SD3, patch=2, most_patches=64)
    assert settle(request.replace(tile=1024), flow, "toy").canvas.width == 2048
    for asked, words in (
        ({}, "draws up to 1024"),
        ({"tile": 1032}, "multiples of 16"),
        ({"tile": 1040}, "up to 1024"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            settle(request.replace(**asked), flow, "toy")
    with pytest.raises(InvalidRequest, match="choose a model with a U-Net"):
        settle(request.replace(tile=1024, seamless="x"), flow, "toy")


def test_tiles_that_nothing_is_cut_into_are_told(model):
    (picture,) = model.generate("a boat", **SETTINGS, width=64, height=48, tile=64)
    assert picture.metadata["notes"] == [
        "tile: not used for a picture that is drawn no larger than 64 pixels a side"
    ]
    with pytest.raises(InvalidRequest, match="leave `tile=` out"):
        model.generate("a boat", attention=True, **SETTINGS, width=128, height=64, tile=64)


def test_on_the_command_line(tmp_path, toy_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = [
        "generate",
        "a boat",
        "--model",
        str(toy_folder),
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--steps",
        "2",
    ]
    asked += ["--seed", "1", "--width", "128", "--height", "64", "--compose", "own", "--second-pass", "off"]
    asked += ["--tile", "64", "--seamless", "x", "-o", "tiled.png"]
    assert main(asked) == 0
    assert main(["again", "tiled.png", "-o", "again.png"]) == 0
    first, second = (np.asarray(Image.open(name)) for name in ("tiled.png", "again.png"))
    assert np.array_equal(first, second)
    capsys.readouterr()
    plan = ["plan", *asked[1:-2], "--json"]
    assert main(plan) == 0
    working = json.loads(capsys.readouterr().out)
    assert "denoise 64x64" in json.dumps(working)
    assert "denoise 128x64" not in json.dumps(working)
