"""A refiner in everything that is drawn: it makes the steps of little noise, and changes nothing else."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tests.engine.conftest import FAMILIES, ToyNetworks, kill_at_every_step
from tests.families import peer, relative_error, write_sdxl
from tests.generation.test_details import Finds
from tests.tables import wide

import darkroom
from darkroom.checkpoint.family import MASKS, PICTURE
from darkroom.cli import main
from darkroom.engine import Engine
from darkroom.generation.edits import subject_of
from darkroom.generation.job import Job
from darkroom.generation.settle import settle
from darkroom.generation.templates import pictures
from darkroom.generation.wording import Extras
from darkroom.generation.work import alone

SWITCH = 0.6
LATE = 400
"""The time after which the refiner draws."""
PHOTO = np.random.default_rng(1).integers(0, 256, (40, 56, 3), np.uint8)
BOX = (16, 8, 24, 16)
BASE = FAMILIES["epsilon"]

WAYS = {
    "drawn": {},
    "edited": {"image": PHOTO, "strength": 0.7},
    "edited a little": {"image": PHOTO, "strength": 0.3},
    "in loops": {"image": PHOTO, "strength": 0.7, "loops": 2, "match_colors": True},
    "a masked part": {"image": PHOTO, "mask_box": BOX, "fill": "neighbors"},
    "only what is masked": {"image": PHOTO, "mask_box": BOX, "only_masked": True, "strength": 0.8},
    "beyond its edges": {"image": PHOTO, "extend_left": 16, "extend_bottom": 8},
    "in two passes": {
        "width": 64,
        "height": 64,
        "compose": "own",
        "second_pass": "on",
        "second_strength": 0.7,
    },
    "of latents": {"width": 64, "height": 64, "compose": "own", "second_pass": "on", "upscaler": "latent"},
    "by another sampler": {
        "width": 64,
        "height": 48,
        "compose": "own",
        "second_pass": "on",
        "second_sampler": "euler",
        "second_steps": 4,
    },
    "continued": {"width": 64, "height": 32, "compose": "native"},
    "in tiles": {"width": 160, "height": 64, "tile": 64, "second_pass": "off", "compose": "own"},
    "without edges": {"width": 64, "height": 32, "seamless": "x", "compose": "own"},
    "in detail": {"width": 48, "height": 40, "second_pass": "off", "details": ["x:strength=0.8"]},
    "others like it": {"variation_seed": 9, "variation_strength": 0.2},
}


class Alike(ToyNetworks):
    """Toy networks to which a refiner is as good as the model, and that remember who was asked when and saw what."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[tuple[int, float]] = []
        self.channels: dict[int, set[int]] = {}
        self.together: dict[int, set[int]] = {}

    def encode(self, prompts, expert=0):
        return super().encode(prompts)

    def denoise(self, rows):
        for row in rows:
            self.turns.append((row.expert, row.time))
            self.channels.setdefault(row.expert, set()).add(row.x.shape[1])
        self.together.setdefault(rows[0].expert, set()).add(len(rows))
        return super().denoise([replace(row, x=row.x[:, :4], expert=0) for row in rows])


def job_of(refined, saved=None, family=BASE, **asked):
    usual = {"seed": 3, "steps": 6, "sampler": "dpmpp_2m", "guidance": 3.0}
    switch = {"refiner_switch": SWITCH} if refined else {}
    request = settle(darkroom.Request("a toy", **usual, **asked, **switch), family, "toy", refined)
    single, subject = subject_of(next(pictures(request)))
    seekers = dict.fromkeys(single.detail.details, Finds())
    return Job(single, family, saved, BASE if refined else None, Extras(subject=subject, seekers=seekers))


@pytest.mark.parametrize("way", WAYS)
def test_it_makes_the_last_steps_and_no_others(way):
    networks = Alike()
    found = alone(job_of(True, **WAYS[way]).develop(), networks)
    np.testing.assert_array_equal(found, alone(job_of(False, **WAYS[way]).develop(), Alike()))
    assert all((expert == 1) == (time < LATE) for expert, time in networks.turns)
    assert {expert for expert, _ in networks.turns} == ({1} if way == "edited a little" else {0, 1})


@pytest.mark.parametrize("way", ["in loops", "a masked part", "in detail", "of latents"])
def test_a_lost_job_goes_on(way):
    begin = partial(job_of, True, **WAYS[way])
    expected = alone(begin().develop(), ToyNetworks())
    kill_at_every_step(ToyNetworks(), begin, expected, partial(job_of, False))


def test_what_it_comes_to_is_foreseen():
    def foreseen(refined):
        networks = Alike()
        engine = Engine(networks)
        task = engine.submit(job_of(refined, **WAYS["edited"]))
        while task.job.done < 2:
            engine.tick()
        return alone(task.job.outlook(3), networks), {expert for expert, _ in networks.turns[-6:]}

    (found, asked), (expected, _) = foreseen(True), foreseen(False)
    assert torch.equal(found, expected)
    assert 1 in asked


def test_it_sees_no_mask_and_what_that_leaves_is_put_back():
    nine, networks = replace(BASE, needs=MASKS), Alike()
    asked = WAYS["a masked part"]
    found = alone(job_of(True, family=nine, **asked).develop(), networks)
    assert networks.channels == {0: {9}, 1: {4}}
    np.testing.assert_array_equal(found, alone(job_of(False, **asked).develop(), Alike()))
    left, top, width, height = BOX
    outside = np.ones(PHOTO.shape[:2], bool)
    outside[top : top + height, left : left + width] = False
    assert (found[outside] == PHOTO[outside]).all()


def test_it_is_not_guided_by_a_picture_that_it_does_not_see():
    instructed, networks = replace(BASE, needs=PICTURE), Alike()
    alone(job_of(True, family=instructed, image=PHOTO, image_guidance=1.5).develop(), networks)
    assert networks.channels == {0: {8}, 1: {4}}
    assert networks.together == {0: {3}, 1: {2}}


# With networks


@pytest.mark.peer
@pytest.mark.parametrize(
    ("size", "strength", "switch"), [((64, 48), 0.7, 0.6), ((48, 80), 0.5, 0.8), ((64, 64), 1.0, 0.4)]
)
def test_image_to_image_against_diffusers(folder, size, strength, switch, monkeypatch):
    from diffusers import StableDiffusionXLImg2ImgPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    image = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8)
    told = {"prompt": "a red boat", "negative_prompt": "night", "guidance_scale": 4.0}
    told |= {"num_inference_steps": 10, "output_type": "latent"}
    base = StableDiffusionXLImg2ImgPipeline(**peer(folder("sdxl")).components)
    begun = base(
        image=Image.fromarray(image),
        strength=strength,
        denoising_end=switch,
        generator=torch.Generator().manual_seed(9),
        **told,
    ).images
    expected = peer(folder("refiner"))(image=begun, denoising_start=switch, **told).images
    asked = {
        "image": image,
        "strength": strength,
        "strength_as": "diffusers",
        "negative": "night",
        "steps": 10,
    }
    asked |= {"guidance": 4.0, "seed": 9, "sampler": "euler", "schedule": "ddim_uniform"}
    model = darkroom.load(folder("sdxl"), refiner=folder("refiner"), device="cpu", precision="float32")
    (found,) = model.generate("a red boat", refiner_switch=switch, **asked)
    assert relative_error(found.latents, expected) <= 2e-5


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    return write_sdxl(tmp_path_factory.mktemp("nine") / "inpainting", 72, in_channels=9)


@pytest.mark.parametrize("base", ["sdxl", wide("inpainting")])
def test_on_the_command_line(folder, inpainting, base, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    path = inpainting if base == "inpainting" else folder(base)
    loaded = ["--model", str(path), "--refiner", str(folder("refiner")), "--device", "cpu"]
    quick = ["--steps", "4", "--seed", "5", "-o", str(tmp_path / "made.png")]
    asked = [str(tmp_path / "photo.png"), "a boat", "--mask-box", "16,8,24,16", *loaded, *quick]
    assert main(["edit", *asked, "--refiner-switch", "0.5"]) == 0
    made = np.asarray(Image.open(tmp_path / "made.png"))
    assert (made[:8] == PHOTO[:8]).all()
    assert (made != PHOTO).any()
    assert main(["again", str(tmp_path / "made.png")]) == 0
    assert main(["plan", "a boat", "--image", *asked[:1], *loaded, "--steps", "4"]) == 0
    assert main(["plan", "a boat", "--image", *asked[:1], "--mask-box", "16,8,24,16", *loaded]) == 0
