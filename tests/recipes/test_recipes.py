"""Pictures of A1111, ComfyUI and InvokeAI: what their files say, as requests, and what of it is said to be lost."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin
from safetensors.torch import save_file
from tests.diffusion.conftest import driven

import darkroom
from darkroom.checkpoint.families import FAMILIES, SD1
from darkroom.cli import main
from darkroom.diffusion import Point, Run, points_for, sampler
from darkroom.diffusion.noise import SeededNoise, Seeding
from darkroom.errors import InvalidRequest, ModelError
from darkroom.networks.configs import CompactConfig
from darkroom.networks.upscaler import Compact
from darkroom.recipes import Recipe, read_recipe

BY_ID = {family.id: family for family in FAMILIES}


@pytest.fixture
def png(tmp_path: Path) -> Callable[..., Path]:
    """Writes a grey picture with some texts: `-` in their keys is `__`, what is no text becomes JSON."""

    def write(size: tuple[int, int] = (32, 32), **texts: Any) -> Path:
        info = PngImagePlugin.PngInfo()
        for key, text in texts.items():
            info.add_text(key.replace("__", "-"), text if isinstance(text, str) else json.dumps(text))
        path = tmp_path / "elsewhere.png"
        Image.new("RGB", size, (120, 120, 120)).save(path, pnginfo=info)
        return path

    return write


@pytest.fixture
def toy(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that is called toy."""
    monkeypatch.setenv("DARKROOM_MODELS", str(toy_folder.parent))
    return toy_folder


def a1111(png: Callable[..., Path], line: str, prompt: str = "a red boat", **more: Any) -> Recipe:
    return read_recipe(png(parameters=f"{prompt}\n{line}", **more))


# A1111

COMMON = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768"


def test_a1111_common(png: Callable[..., Path]) -> None:
    text = (
        "a red (boat:1.2),\nby the sea<lora:a:1>\nNegative prompt: fog,\nrain\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 42, Size: 512x768, "
        "Model hash: 6ce0161689, Model: dream, VAE hash: 735e4c3a44, VAE: vae-ft.safetensors, Variation seed: 9, "
        "Variation seed strength: 0.25, Seed resize from: 512x512, Clip skip: 2, ENSD: 31337, RNG: CPU, "
        'Lora hashes: "a: 0123456789ab", NGMS: 2.5, Emphasis: No norm, Version: v1.10.1'
    )
    recipe = read_recipe(png(size=(512, 768), parameters=text))
    assert recipe.program == "AUTOMATIC1111 v1.10.1"
    assert not recipe.lost
    assert recipe.settings == {
        "prompt": "a red (boat:1.2),\nby the sea<lora:a:1>",
        "negative": "fog,\nrain",
        "dialect": "a1111",
        "steps": 20,
        "guidance": 6.5,
        "seed": 42,
        "clip_skip": 2,
        "ensd": 31337,
        "variation_seed": 9,
        "variation_strength": 0.25,
        "seed_resize_width": 512,
        "seed_resize_height": 512,
        "sampler": "dpmpp_2m",
        "schedule": "karras",
        "noise_source": "cpu",
        "second_pass": "off",
        "width": 512,
        "height": 768,
        "guides": ("off_steps:below=2.5",),
        "emphasis": "no_norm",
    }
    assert (str(recipe.model), str(recipe.vae)) == (
        "dream [6ce0161689]",
        "vae-ft.safetensors [735e4c3a44]",
    )
    request = recipe.request(BY_ID["sd1"])
    assert request.text.clip_skip == 2
    # There it means nothing for other models.
    assert recipe.request(BY_ID["sdxl"]).text.clip_skip == 1


@pytest.mark.parametrize(
    ("said", "sampler", "schedule"),
    [
        ("Sampler: Euler a", "euler_ancestral", "normal"),
        ("Sampler: DPM++ 2M", "dpmpp_2m", "normal"),
        ("Sampler: DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpmpp_2m", "karras"),
        ("Sampler: DPM++ 2M SDE, Schedule type: SGM Uniform", "dpmpp_2m_sde", "sgm_uniform"),
        ("Sampler: DDIM, Schedule type: Karras", "ddim", "leading"),
        ("Sampler: Euler a, Eta: 0.5, Sigma noise: 1.01", "euler_ancestral:eta=0.5,s_noise=1.01", "normal"),
        ("Sampler: DDIM, Eta DDIM: 0.5", "ddim:eta=0.5", "leading"),
        ("Sampler: Euler, Schedule type: Karras, Schedule rho: 5, Schedule max sigma: 0", "euler", "karras:rho=5"),
        ("Sampler: euler_a karras, Version: stable-diffusion.cpp", "euler_ancestral", "karras"),
    ],
)  # fmt: skip
def test_a1111_samplers(png: Callable[..., Path], said: str, sampler: str, schedule: str) -> None:
    recipe = a1111(png, f"Steps: 20, {said}, Seed: 1")
    assert (recipe.settings["sampler"], recipe.settings["schedule"]) == (sampler, schedule)
    assert not recipe.lost


@pytest.mark.parametrize(
    ("line", "first", "size"),
    [
        ("Size: 512x768, Hires upscale: 1.5, Hires upscaler: Lanczos", (512, 768), (768, 1152)),
        ("Size: 512x768, Hires resize: 1024x1536, Hires upscaler: Lanczos", (512, 768), (1024, 1536)),
        ("Size: 512x768, Hires resize: 1024x0, Hires upscaler: Lanczos", (512, 768), (1024, 1536)),
        ("Size: 1024x1536, First pass size: 512x768, Hires upscaler: Lanczos", (512, 768), (1024, 1536)),
    ],
)
def test_hires_fix(
    png: Callable[..., Path], line: str, first: tuple[int, int], size: tuple[int, int]
) -> None:
    recipe = a1111(png, f"Steps: 20, Sampler: Euler, Seed: 1, {line}, Denoising strength: 0.4", size=size)
    canvas = recipe.request().canvas
    assert (canvas.first_width, canvas.first_height) == first
    assert (canvas.width, canvas.height) == size
    assert (canvas.second_strength, canvas.second_steps, canvas.second_pass) == (0.4, 20, "auto")
    assert not recipe.lost


def test_what_there_is_not_is_said(png: Callable[..., Path]) -> None:
    recipe = a1111(
        png,
        f"{COMMON}, Tiled Diffusion: \"{{'Method': 'x', 'Tile tile width': 96}}\", Face restoration: CodeFormer, "
        f"ControlNet 0: \"Module: canny, Model: x\", "
        "ADetailer model: face.pt, ADetailer confidence: 0.3, Denoising strength: 0.75, Mask blur: 4, "
        "Hypernet: old, Hypernet strength: 0.5, Sampler: none, Batch size: 4, User: me",
    )  # fmt: skip
    said = "\n".join(recipe.lost)
    for word in (
        "Tiled Diffusion",
        "Face restoration",
        "ControlNet 0",
        "Denoising strength",
        "Mask blur",
    ):
        assert word in said
    assert "Batch" not in said
    assert "User" not in said
    recipe.request()
    assert "ADetailer model: face.pt (it is not here" in recipe.lost[-2]
    assert "hypernetwork old (it is not here" in recipe.lost[-1]


@pytest.mark.parametrize("text", ["", "\n", "{}", '{"sui_image_params": {}}', "Steps: x, Seed: y, Size: z"])
def test_damaged_parameters(png: Callable[..., Path], text: str) -> None:
    try:
        recipe = read_recipe(png(parameters=text))
    except InvalidRequest:
        return
    assert recipe.lost


def test_a_prompt_alone(png: Callable[..., Path]) -> None:
    """What is no line of settings is of the prompt."""
    recipe = read_recipe(png(parameters="a boat\nNegative prompt: fog: thick, dark: no"))
    assert (recipe.settings["prompt"], recipe.settings["negative"]) == ("a boat", "fog: thick, dark: no")
    assert recipe.settings["width"] == 32


def test_texts_of_other_files(tmp_path: Path) -> None:
    """JPEG's UserComment in either byte order, WebP, a GIF's comment, PNG's text behind the pixels."""
    text = f"ein Böötchen\n{COMMON}"
    path = tmp_path / "a.jpg"
    for encoding in ("utf-16-be", "utf-16-le"):
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode(encoding)
        Image.new("RGB", (32, 32)).save(path, exif=exif)
        assert read_recipe(path).settings["prompt"] == "ein Böötchen"
    for encoding in ("utf-16-be", "utf-16"):
        own = b"UNICODE\0" + f"一个女孩\n{COMMON}".encode(encoding)
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = own
        Image.new("RGB", (32, 32)).save(path, exif=exif)
        assert read_recipe(path).settings["prompt"] == "一个女孩"
    Image.new("RGB", (32, 32)).save(tmp_path / "b.jpg", comment=b"Created with GIMP")
    with pytest.raises(InvalidRequest, match="no Darkroom metadata"):
        read_recipe(tmp_path / "b.jpg")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.webp", exif=exif)
    assert read_recipe(tmp_path / "a.webp").settings["seed"] == 1
    Image.new("P", (32, 32)).save(tmp_path / "a.gif", comment=text.encode())
    assert read_recipe(tmp_path / "a.gif").settings["steps"] == 20
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(InvalidRequest):
        read_recipe(tmp_path / "no.png")


def test_a_picture_of_another_size_was_changed(png: Callable[..., Path]) -> None:
    recipe = read_recipe(
        png(size=(64, 48), parameters=f"a boat\n{COMMON}", postprocessing="Postprocess upscale by: 4")
    )
    said = "\n".join(recipe.lost)
    assert "a picture of 64x48 (what its file says is of 512x768)" in said
    assert "postprocessing" in said


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        # Before 2023 the first pass was of 512 x 512 pixels where no size was said.
        ("Size: 768x1152, Denoising strength: 0.7, First pass size: 0x0", {"first_width": 448, "first_height": 640}),
        ("Sampler: Restart, Size: 512x512, Version: v1.6.0", {"sampler": "restart", "schedule": "karras"}),
        ("Sampler: dpmpp_2m_karras, Size: 512x512, Version: ComfyUI",
         {"sampler": "dpmpp_2m", "schedule": "karras", "noise_source": "comfy", "full_noise": True}),
        ("Sampler: IPNDM_V, Schedule type: Karras, Size: 512x512", {"schedule": "karras"}),
        ("Sampler: Euler, Schedule type: Simple, Schedule max sigma: 10, Size: 512x512", {"schedule": "simple"}),
        ("Sampler: Euler, Schedule type: beta57, Size: 512x512", {"schedule": "beta:alpha=0.5,beta=0.7"}),
        ("Sampler: Euler a, Eta: 0.0, RNG: cuda, Size: 512x512, Version: stable-diffusion.cpp",
         {"sampler": "euler_ancestral", "noise_source": "nv"}),
        ("Size: 512x512, Skip Early CFG: 0.25", {"guides": ("interval:start=0.3",)}),
        ("Size: 512x512, App: SD.Next, Variation seed: 3, Variation strength: 0.2, CFG rescale: 0.7",
         {"variation_strength": 0.2, "guidance_rescale": 0.7}),
    ],
)  # fmt: skip
def test_what_other_writers_mean(png: Callable[..., Path], line: str, settings: dict[str, Any]) -> None:
    found = a1111(png, f"Steps: 20, Seed: 1, {line}").settings
    assert {name: found.get(name) for name in settings} == settings


def test_models_that_are_told_how_to_change_a_picture(png: Callable[..., Path]) -> None:
    line = "Steps: 20, Seed: 1, Size: 512x512, Image CFG scale: 1.7"
    assert a1111(png, line).request(SD1.with_channels(8)).seen.image_guidance == 1.7
    recipe = a1111(png, line)
    assert recipe.request(SD1).seen.image_guidance is None
    assert any(each.startswith("guidance by the picture: 1.7") for each in recipe.lost)


def test_where_a_refiner_takes_over(png: Callable[..., Path]) -> None:
    """A share of the noise, in Forge of the steps."""
    line = "Steps: 20, Sampler: Euler, Seed: 1, Refiner: r [0123456789], Refiner switch at: 0.8, Schedule type: Karras"
    assert a1111(png, f"{line}, Version: v1.10.1").settings["refiner_switch"] == 0.8
    by_steps = a1111(png, f"{line}, Version: f2.0.1").settings["refiner_switch"]
    points = points_for(BY_ID["sdxl"].schedule, 20, "euler", "karras")
    cut = 1000 * (1 - by_steps)
    assert points[16].time > cut > points[17].time


def test_hashes_beside_names(png: Callable[..., Path]) -> None:
    hashes = json.dumps({"model": "0123456789", "lora:detail": "abcdefabcdef", "lora:none": "0011223344"})
    resources = json.dumps(
        [{"type": "embed", "air": "urn:air:sd1:embed:1"}, {"type": "lora", "modelVersionId": 7}]
    )
    line = f'{COMMON}, TI: "easynegative, hands", Module 1: my_vae, Hashes: {hashes}, Civitai resources: {resources}'
    recipe = a1111(png, line, "a boat <lora:detail:1>")
    assert (str(recipe.model), str(recipe.vae)) == ("[0123456789]", "my_vae")
    assert recipe.hashes["detail"] == "abcdefabcdef"
    assert [each.name for each in recipe.embeddings] == ["easynegative", "hands"]
    said = "\n".join(recipe.lost)
    assert all(word in said for word in ("LoRA none", "urn:air:sd1:embed:1", "Civitai's lora: 7"))


# ComfyUI


def graph(**changes: Any) -> dict[str, Any]:
    nodes = {
        "3": ("KSampler", {"seed": 2**64 - 1, "steps": 10, "cfg": 5.0, "sampler_name": "euler_ancestral",
              "scheduler": "karras", "denoise": 1.0, "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0],
              "latent_image": ["5", 0]}),
        "4": ("CheckpointLoaderSimple", {"ckpt_name": "SD\\toy.safetensors"}),
        "5": ("EmptyLatentImage", {"width": 32, "height": 32, "batch_size": 1}),
        "6": ("CLIPTextEncode", {"text": "a red (boat:1.2)", "clip": ["10", 1]}),
        "7": ("CLIPTextEncode", {"text": "fog", "clip": ["10", 1]}),
        "8": ("VAEDecode", {"samples": ["3", 0], "vae": ["4", 2]}),
        "9": ("SaveImage", {"filename_prefix": "x", "images": ["8", 0]}),
        "10": ("LoraLoader", {"lora_name": "a/detail.safetensors", "strength_model": 0.8, "strength_clip": 0.5,
               "model": ["4", 0], "clip": ["4", 1]}),
    }  # fmt: skip
    nodes |= changes
    return {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes.items()}


def test_comfy_common(png: Callable[..., Path]) -> None:
    recipe = read_recipe(png(prompt=graph()))
    assert not recipe.lost
    request = recipe.request(BY_ID["sd1"])
    assert (request.prompt, request.negative, request.seed) == ("a red (boat:1.2)", "fog", 2**64 - 1)
    assert (request.sampling.sampler, request.sampling.schedule) == ("euler_ancestral", "karras")
    assert (request.sampling.steps, request.guidance.scale) == (10, 5.0)
    assert (request.noise.source, request.noise.full, request.text.dialect) == ("comfy", True, "comfy")
    assert request.canvas.second_pass == "off"
    (named, tag), *none = recipe.adapters
    assert not none
    assert "detail" in named.names
    assert (tag.strength, tag.text_strength) == (0.8, 0.5)
    assert "detail" in "\n".join(recipe.lost), "it is not here"
    assert recipe.model is not None
    assert "toy" in recipe.model.names
    # Where no node says it SDXL is told of 768 pixels; others are told nothing.
    assert recipe.request(BY_ID["sdxl"]).xl.target_width == 768
    assert request.xl.target_width is None


@pytest.mark.parametrize(
    ("kind", "said", "becomes", "lost"),
    [
        ("SeamlessTile", {"tiling": "x_only"}, ("x", None, None), ""),
        ("SeamlessTile", {"tiling": "both"}, ("xy", None, None), ""),
        ("SeamlessTile", {"tiling": "disable"}, (None, None, None), ""),
        ("SeamlessTile", {"tiling": ["4", 0]}, (None, None, None), "SeamlessTile"),
        ("TiledDiffusion", {"method": "MultiDiffusion"}, (None, 768, 64), ""),
        (
            "TiledDiffusion",
            {"method": "SpotDiffusion"},
            (None, None, None),
            "SpotDiffusion, tiles of 768x768",
        ),
        ("TiledDiffusion", {"method": "MultiDiffusion", "tile_width": 700}, (None, None, None), "700x768"),
    ],
    ids=str,
)
def test_comfy_tiles(
    png: Callable[..., Path], kind: str, said: dict[str, Any], becomes: tuple[object, ...], lost: str
) -> None:
    if kind == "TiledDiffusion":
        said = {"tile_width": 768, "tile_height": 768, "tile_overlap": 64, "tile_batch_size": 4, **said}
    changed = graph(**{"12": (kind, {**said, "model": ["10", 0]})})
    changed["3"]["inputs"]["model"] = ["12", 0]
    recipe = read_recipe(png(prompt=changed))
    tiling = recipe.request().tiling
    assert (tiling.seamless, tiling.tile, tiling.overlap) == becomes
    found = [line for line in recipe.lost if kind in line]
    assert any(lost in line for line in found) if lost else not found


def test_comfy_counts_layers_from_the_last(png: Callable[..., Path]) -> None:
    changed = graph(
        **{
            "6": ("CLIPTextEncode", {"text": "a boat", "clip": ["11", 0]}),
            "11": ("CLIPSetLastLayer", {"stop_at_clip_layer": -2, "clip": ["10", 1]}),
        }
    )
    recipe = read_recipe(png(prompt=changed))
    assert recipe.request(BY_ID["sd1"]).text.clip_skip == 2
    assert recipe.request(BY_ID["sdxl"]).text.clip_skip == 1
    assert len(recipe.adapters) == 1


def test_comfy_empty_negative_of_sdxl_is_text(png: Callable[..., Path]) -> None:
    changed = graph(**{"7": ("CLIPTextEncode", {"text": "", "clip": ["4", 1]})})
    assert read_recipe(png(prompt=changed)).request(BY_ID["sdxl"]).negative == " "
    changed["7"] = {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["6", 0]}}
    assert read_recipe(png(prompt=changed)).request(BY_ID["sdxl"]).negative == ""


def test_comfy_refiner(png: Callable[..., Path]) -> None:
    base = {"noise_seed": 5, "steps": 25, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal",
            "positive": ["6", 0], "negative": ["7", 0]}  # fmt: skip
    changed = graph(
        **{
            "3": ("KSamplerAdvanced", {**base, "add_noise": "enable", "start_at_step": 0, "end_at_step": 20,
                  "return_with_leftover_noise": "enable", "model": ["4", 0], "latent_image": ["5", 0]}),
            "11": ("KSamplerAdvanced", {**base, "add_noise": "disable", "start_at_step": 20, "end_at_step": 10000,
                   "return_with_leftover_noise": "disable", "model": ["12", 0], "latent_image": ["3", 0]}),
            "12": ("CheckpointLoaderSimple", {"ckpt_name": "refiner.safetensors"}),
            "8": ("VAEDecode", {"samples": ["11", 0], "vae": ["4", 2]}),
        }
    )  # fmt: skip
    recipe = read_recipe(png(prompt=changed))
    assert recipe.refiner is not None
    assert "refiner" in recipe.refiner.names
    # Between the steps 19 and 20 of 25, by the noise there is then.
    assert 0.8 < recipe.settings["refiner_switch"] < 0.84
    assert (recipe.settings["steps"], recipe.settings["seed"]) == (25, 5)


def test_comfy_second_pass(png: Callable[..., Path]) -> None:
    second = {**graph()["3"]["inputs"], "denoise": 0.5, "latent_image": ["11", 0]}
    changed = graph(
        **{
            "11": ("LatentUpscaleBy", {"samples": ["3", 0], "upscale_method": "bilinear", "scale_by": 2.0}),
            "12": ("KSampler", second),
            "8": ("VAEDecode", {"samples": ["12", 0], "vae": ["4", 2]}),
        }
    )
    canvas = read_recipe(png(size=(64, 64), prompt=changed)).request().canvas
    assert (canvas.first_width, canvas.width, canvas.second_strength) == (32, 64, 0.5)


def test_comfy_custom_sampler(png: Callable[..., Path]) -> None:
    changed = graph(
        **{
            "3": ("SamplerCustomAdvanced", {"noise": ["20", 0], "guider": ["21", 0], "sampler": ["22", 0],
                  "sigmas": ["23", 0], "latent_image": ["5", 0]}),
            "20": ("RandomNoise", {"noise_seed": ["24", 0]}),
            "21": ("CFGGuider", {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "cfg": 4.0}),
            "22": ("SamplerEulerAncestral", {"eta": 0.5, "s_noise": 1.0}),
            "23": ("KarrasScheduler", {"steps": 9, "sigma_max": 14.614642, "sigma_min": 0.0291675, "rho": 5.0}),
            "24": ("PrimitiveInt", {"value": 77}),
        }
    )  # fmt: skip
    recipe = read_recipe(png(prompt=changed))
    assert not recipe.lost
    settings = recipe.settings
    assert settings["sampler"] == "euler_ancestral:eta=0.5"
    assert settings["schedule"] == "karras:rho=5"
    assert (settings["steps"], settings["seed"], settings["guidance"]) == (9, 77, 4.0)


def test_comfy_of_a_picture(png: Callable[..., Path]) -> None:
    sampler = {**graph()["3"]["inputs"], "denoise": 0.4, "latent_image": ["41", 0]}
    changed = graph(
        **{
            "3": ("KSampler", sampler),
            "40": ("LoadImage", {"image": "x.png"}),
            "41": ("VAEEncode", {"pixels": ["40", 0], "vae": ["4", 2]}),
        }
    )
    recipe = read_recipe(png(prompt=changed))
    assert "x.png, denoise: 0.4 (made from another picture" in "\n".join(recipe.lost)
    assert recipe.request().edit.image is None
    recipe.draw_on("y.png")
    assert not any("denoise" in line for line in recipe.lost)
    edit = recipe.request().edit
    assert (edit.image and edit.image.path, edit.strength, edit.strength_as) == ("y.png", 0.4, "comfy")
    with pytest.raises(InvalidRequest, match="says of none that it began with"):
        read_recipe(png(prompt=graph())).draw_on("y.png")


def test_comfy_nodes_that_there_is_nothing_for(png: Callable[..., Path]) -> None:
    changed = graph(
        **{
            "3": ("KSampler", {**graph()["3"]["inputs"], "model": ["30", 0], "positive": ["31", 0]}),
            "30": ("TomePatchModel", {"ratio": 0.3, "model": ["10", 0]}),
            "31": ("ControlNetApplyAdvanced", {"strength": 1.0, "positive": ["6", 0], "negative": ["7", 0],
                   "control_net": ["32", 0], "image": ["33", 0]}),
            "32": ("ControlNetLoader", {"control_net_name": "canny"}),
            "33": ("LoadImage", {"image": "x.png"}),
            "34": ("ImageUpscaleWithModel", {"image": ["8", 0], "upscale_model": ["35", 0]}),
            "35": ("UpscaleModelLoader", {"model_name": "4x.pth"}),
            "9": ("SaveImage", {"images": ["34", 0]}),
        }
    )  # fmt: skip
    recipe = read_recipe(png(prompt=changed))
    said = "\n".join(recipe.lost)
    assert all(
        kind in said for kind in ("TomePatchModel", "ControlNetApplyAdvanced", "ImageUpscaleWithModel")
    )
    assert recipe.settings["prompt"] == "a red (boat:1.2)"


def test_comfy_workflow_alone(png: Callable[..., Path]) -> None:
    """What was drawn on the screen says the same."""

    def node(id: int, kind: str, links: dict[str, int], *values: Any) -> dict[str, Any]:
        inputs = [{"name": name, "link": link} for name, link in links.items()]
        return {"id": id, "type": kind, "mode": 0, "inputs": inputs, "widgets_values": [*values]}

    workflow = {
        "nodes": [
            node(3, "KSampler", {"model": 1, "positive": 2, "negative": 3, "latent_image": 4},
                 7, "randomize", 10, 5.0, "euler", "normal", 1.0),
            node(4, "CheckpointLoaderSimple", {}, "toy.safetensors"),
            node(5, "EmptyLatentImage", {}, 32, 64, 1),
            node(6, "CLIPTextEncode", {"clip": 5}, "a red boat"),
            node(7, "CLIPTextEncode", {"clip": 6}, "fog"),
            node(8, "VAEDecode", {"samples": 7, "vae": 8}),
            node(9, "SaveImage", {"images": 9}, "x"),
            {**node(10, "LoraLoader", {"model": 10, "clip": 11}, "a", 1.0, 1.0), "mode": 4},
        ],
        "links": [[1, 10, 0, 3, 0, "MODEL"], [2, 6, 0, 3, 1, "C"], [3, 7, 0, 3, 2, "C"], [4, 5, 0, 3, 3, "L"],
                  [5, 4, 1, 6, 0, "CLIP"], [6, 4, 1, 7, 0, "CLIP"], [7, 3, 0, 8, 0, "L"], [8, 4, 2, 8, 1, "V"],
                  [9, 8, 0, 9, 0, "I"], [10, 4, 0, 10, 0, "MODEL"], [11, 4, 1, 10, 1, "CLIP"]],
    }  # fmt: skip
    recipe = read_recipe(png(size=(32, 64), workflow=workflow))
    settings = recipe.settings
    assert (settings["seed"], settings["steps"], settings["sampler"]) == (7, 10, "euler")
    assert (settings["prompt"], settings["negative"], settings["height"]) == ("a red boat", "fog", 64)
    assert recipe.model is not None
    assert not recipe.adapters
    assert not recipe.lost


@pytest.mark.parametrize(
    "prompt",
    [
        "{",
        "[]",
        "null",
        {"3": {"class_type": "KSampler"}},
        {"3": {"class_type": "Nothing", "inputs": {"images": ["3", 0]}}},
    ],
)
def test_damaged_graphs(png: Callable[..., Path], prompt: Any) -> None:
    with pytest.raises(InvalidRequest):
        read_recipe(png(prompt=prompt))
    # A saver of others' making writes A1111's text, too.
    assert read_recipe(png(prompt=prompt, parameters=f"a boat\n{COMMON}")).settings["seed"] == 1


def test_circles_end(png: Callable[..., Path]) -> None:
    changed = graph(
        **{
            "10": ("LoraLoader", {"lora_name": "a", "model": ["10", 0], "clip": ["10", 1]}),
            "6": ("ConditioningCombine", {"conditioning_1": ["6", 0]}),
            "5": ("LatentUpscaleBy", {"samples": ["5", 0], "scale_by": 2}),
            "11": ("Reroute", {"": ["11", 0]}),
        }
    )
    read_recipe(png(prompt=changed)).request()


@pytest.mark.parametrize(
    ("node", "way", "lost"),
    [
        (("LatentUpscaleBy", {"upscale_method": "bicubic", "scale_by": 2.0}), "latent-bicubic", ""),
        (("LatentUpscaleBy", {"upscale_method": "bislerp", "scale_by": 2.0}), "lanczos", "bislerp"),
    ],
)
def test_comfy_ways_to_enlarge(png: Callable[..., Path], node: Any, way: str, lost: str) -> None:
    kind, inputs = node
    second = {**graph()["3"]["inputs"], "denoise": 0.5, "latent_image": ["11", 0]}
    changed = graph(
        **{
            "11": (kind, {**inputs, "samples": ["3", 0]}),
            "12": ("KSampler", second),
            "8": ("VAEDecode", {"samples": ["12", 0], "vae": ["4", 2]}),
        }
    )
    recipe = read_recipe(png(size=(64, 64), prompt=changed))
    request = recipe.request()
    assert (request.canvas.upscaler, request.second) == (way, type(request.second)())
    assert any(lost in line for line in recipe.lost) or not lost


def test_a1111_second_pass_of_its_own(png: Callable[..., Path], tmp_path: Path) -> None:
    """Hires fix as A1111 writes it since 1.6, with an upscaler that is here and with one that is not."""
    hires = (
        'Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+, Hires prompt: "a house, <lora:x:1>", '
        "Hires negative prompt: fog, Hires sampler: DPM++ 2M, Hires schedule type: Karras, Hires CFG Scale: 5, "
        "Hires steps: 10, Denoising strength: 0.4"
    )
    recipe = read_recipe(png(parameters=f"a boat\nNegative prompt: rain\n{COMMON}, {hires}"))
    request = recipe.request()
    assert request.second.prompt == "a house, "  # The LoRA is not here.
    assert (request.second.negative, request.second.guidance) == ("fog", 5.0)
    assert (request.second.sampler, request.second.schedule) == ("dpmpp_2m", "karras")
    assert (request.canvas.upscaler, request.canvas.second_steps) == ("lanczos", 10)
    assert any("Hires upscaler: RealESRGAN_x4plus (it is not here" in line for line in recipe.lost)
    upscaler = tmp_path / "RealESRGAN_x4plus.safetensors"
    save_file(Compact(CompactConfig(features=8, layers=1)).state_dict(), upscaler)
    assert main(["models", "add", str(upscaler)]) == 0
    assert (
        read_recipe(png(parameters=f"a boat\n{COMMON}, {hires}")).request().canvas.upscaler
        == "RealESRGAN_x4plus"
    )
    for said, way in (("Latent (bicubic antialiased)", "latent-bicubic-antialiased"), ("None", "lanczos")):
        text = f"a boat\n{COMMON}, Hires upscale: 2, Hires upscaler: {said}, Denoising strength: 0.5"
        assert read_recipe(png(parameters=text)).request().canvas.upscaler == way
    alone = f"a boat\n{COMMON}, Hires upscale: 2, Hires sampler: Heun, Denoising strength: 0.5"
    second = read_recipe(png(parameters=alone)).request().second
    assert (second.sampler, second.schedule) == (
        "heun",
        read_recipe(png(parameters=alone)).settings["schedule"],
    )


def test_comfy_second_pass_of_its_own(png: Callable[..., Path]) -> None:
    """What is otherwise in the second pass is said, and every node between."""
    second = {**graph()["3"]["inputs"], "denoise": 0.4, "latent_image": ["13", 0], "cfg": 9.0, "sampler_name": "heun",
              "model": ["15", 0], "positive": ["16", 0], "seed": 4}  # fmt: skip
    changed = graph(
        **{
            "11": ("ImageUpscaleWithModel", {"image": ["14", 0], "upscale_model": ["18", 0]}),
            "12": ("KSampler", second),
            "13": ("VAEEncode", {"pixels": ["17", 0], "vae": ["4", 2]}),
            "14": ("VAEDecode", {"samples": ["3", 0], "vae": ["4", 2]}),
            "15": ("CheckpointLoaderSimple", {"ckpt_name": "other.safetensors"}),
            "16": ("CLIPTextEncode", {"text": "a blue boat", "clip": ["15", 1]}),
            "17": ("SomeFilter", {"image": ["11", 0]}),
            "18": ("UpscaleModelLoader", {"model_name": "4x.pth"}),
            "8": ("VAEDecode", {"samples": ["12", 0], "vae": ["19", 0]}),
            "19": ("VAELoader", {"vae_name": "fine.pt"}),
        }
    )
    recipe = read_recipe(png(size=(128, 128), prompt=changed))
    canvas = recipe.request().canvas
    assert (canvas.first_width, canvas.width, canvas.second_strength, canvas.second_steps) == (
        32,
        128,
        0.4,
        10,
    )
    assert recipe.vae is not None
    assert recipe.vae.name == "fine.pt"
    said = "\n".join(recipe.lost)
    for words in ("model: other", "LoRAs: a/detail", "seed: 4"):
        assert f"the second pass's {words}" in said
    second = recipe.request().second
    assert (second.prompt, second.sampler, second.guidance) == ("a blue boat", "heun", 9.0)
    assert (second.schedule, second.negative) == (recipe.settings["schedule"], None)
    assert "ImageUpscaleWithModel: 4x.pth (it is not here, Lanczos takes its place" in "\n".join(recipe.lost)
    assert "SomeFilter" in said


def test_comfy_which_picture(png: Callable[..., Path]) -> None:
    """Of two saved pictures that which has the file's size; of two alike it is said."""
    small = graph(
        **{"20": ("SaveImage", {"images": ["21", 0]}), "21": ("ImageUpscaleWithModel", {"image": ["8", 0]})}
    )
    assert "ImageUpscaleWithModel" in "\n".join(read_recipe(png(size=(128, 128), prompt=small)).lost)
    assert not read_recipe(png(size=(32, 32), prompt=small)).lost
    other = {**graph()["3"]["inputs"], "seed": 4}
    twice = graph(**{"20": ("SaveImage", {"images": ["21", 0]}), "21": ("VAEDecode", {"samples": ["22", 0]}),
                     "22": ("KSampler", other)})  # fmt: skip
    assert "saved pictures: 2" in "\n".join(read_recipe(png(prompt=twice)).lost)


def test_comfy_loaders_of_all_at_once(png: Callable[..., Path]) -> None:
    loader = {"ckpt_name": "toy", "vae_name": "fine.pt", "clip_skip": -2, "lora_name": "detail.safetensors",
              "lora_model_strength": 0.7, "lora_clip_strength": 0.6, "positive": "a boat", "negative": "fog",
              "empty_latent_width": 32, "empty_latent_height": 32, "lora_stack": ["41", 0]}  # fmt: skip
    stack = {"lora_count": 2, "lora_name_1": "a", "model_str_1": 0.5, "clip_str_1": 0.4, "lora_name_2": "None",
             "lora_name_3": "not counted"}  # fmt: skip
    told = {**graph()["3"]["inputs"], "model": ["40", 0], "positive": ["40", 1], "negative": ["40", 2],
            "latent_image": ["40", 3], "optional_vae": ["40", 4]}  # fmt: skip
    nodes = {"3": ("KSampler (Efficient)", told), "40": ("Efficient Loader", loader), "41": ("LoRA Stacker", stack),
             "9": ("SaveImage", {"images": ["3", 5]})}  # fmt: skip
    recipe = read_recipe(png(prompt={k: {"class_type": c, "inputs": i} for k, (c, i) in nodes.items()}))
    settings = recipe.settings
    assert (settings["prompt"], settings["negative"], settings["clip_skip"]) == ("a boat", "fog", 2)
    assert recipe.vae is not None
    assert recipe.vae.name == "fine.pt"
    found = {named.name: (tag.strength, tag.strength_in(True)) for named, tag in recipe.adapters}
    assert found == {"detail.safetensors": (0.7, 0.6), "a": (0.5, 0.4)}
    # A second pass by the same loader has the same LoRAs, those that are stacked too.
    nodes["42"] = "LatentUpscaleBy", {"samples": ["3", 3], "scale_by": 2.0}
    nodes["43"] = "KSampler (Efficient)", {**told, "latent_image": ["42", 0], "denoise": 0.5}
    nodes["9"] = "SaveImage", {"images": ["43", 5]}
    twice = {k: {"class_type": c, "inputs": i} for k, (c, i) in nodes.items()}
    assert "LoRAs" not in "\n".join(read_recipe(png(size=(64, 64), prompt=twice)).lost)


@pytest.mark.parametrize(
    ("nodes", "prompt"),
    [
        ({"50": ("StringConcatenate", {"string_a": "a red", "string_b": ["51", 0], "delimiter": " "}),
          "51": ("PrimitiveString", {"value": "boat"})}, "a red boat"),
        ({"50": ("ImpactWildcardEncode", {"wildcard_text": "{a|b}", "populated_text": "a"})}, "a"),
        ({"50": ("ShowText", {"text": ["51", 0]}), "51": ("Thing", {"text": ["50", 0]})}, ""),
    ],
)  # fmt: skip
def test_comfy_prompts_made_of_others(
    png: Callable[..., Path], nodes: dict[str, tuple[str, dict[str, Any]]], prompt: str
) -> None:
    changed = graph(**{"6": ("CLIPTextEncode", {"text": ["50", 0], "clip": ["4", 1]}), **nodes})
    recipe = read_recipe(png(prompt=changed))
    assert recipe.settings["prompt"] == prompt
    assert prompt or "the prompt" in "\n".join(recipe.lost)


def test_comfy_tags_are_words(png: Callable[..., Path]) -> None:
    changed = graph(
        **{
            "6": (
                "CLIPTextEncode",
                {"text": "a boat <lora:x:1> embedding:foo embedding:foobar", "clip": ["4", 1]},
            )
        }
    )
    recipe = read_recipe(png(prompt=changed))
    assert recipe.request().prompt.split() == ["a", "boat"]
    said = "\n".join(recipe.lost)
    assert "<lora:x:1>" in said
    assert "embedding foo (" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"3": ("KSampler", {**graph()["3"]["inputs"], "positive": ["3", 0], "latent_image": ["3", 0]})},
        {"5": ("EmptyLatentImage", {"width": math.inf, "height": -5, "batch_size": math.nan})},
        {"5": ("LatentUpscaleBy", {"samples": ["5", 0], "scale_by": 10**400})},
        {"3": ("KSampler", {**graph()["3"]["inputs"], "cfg": 10**400, "denoise": True, "steps": None})},
        {"6": ("CLIPTextEncode", {"text": ["6", 0], "value": ["6", 0], "string": ["6", 0]})},
        {str(at): ("StringConcatenate", {"string_a": [str(at + 1), 0], "string_b": [str(at + 1), 0]})
         for at in range(100, 140)} | {"6": ("CLIPTextEncode", {"text": ["100", 0]})},
        {"10": ("LoraLoader", {"lora_name": ["x"], "strength_model": 10**400, "model": ["4", 0], "clip": "x"})},
        {"4": ("CheckpointLoaderSimple", {"ckpt_name": 5})},
    ],
)  # fmt: skip
def test_odd_graphs(png: Callable[..., Path], changes: dict[str, Any]) -> None:
    """Nothing of it ends in a traceback, or never."""
    read_recipe(png(prompt=graph(**changes))).request(BY_ID["sdxl"])


@pytest.mark.parametrize(
    "text",
    [
        f"a\n{COMMON}, Size: {'9' * 5000}x1",
        f"a\n{COMMON}, Size: 0x0, Hires resize: 256x0, Hires upscale: inf",
        f"a\n{COMMON}, Skip Early CFG: inf, NGMS: x, CFG scale: nan",
        f"a <lora:x:abc> <lora:/etc/passwd:1>\n{COMMON}, Hypernet: a>b:c, VAE: /etc/passwd",
        f"a\n{COMMON}, Size: 100x128, Hires upscale: 2, Denoising strength: x",
        "a\n" + ", ".join(f"K{at}: [[{{" for at in range(5000)) + f", {COMMON}",
        f"a\n{COMMON}, Foo: \x1b]0;owned\x07, App: \x1b[31mX",
        "x" * 30_000 + f"\n{COMMON}",
    ],
)
def test_odd_parameters(png: Callable[..., Path], text: str) -> None:
    recipe = read_recipe(png(parameters=text))
    recipe.request(BY_ID["sd1"])
    assert recipe.lost
    assert all(line.isprintable() and len(line) < 500 for line in [*recipe.lost, recipe.program])
    assert not any("root:" in line for line in recipe.lost)


# InvokeAI

INVOKED = {
    "app_version": "5.4.2",
    "generation_mode": "txt2img",
    "positive_prompt": "a red boat+++",
    "negative_prompt": "fog",
    "width": 64,
    "height": 32,
    "seed": 12,
    "rand_device": "cpu",
    "cfg_scale": 5.0,
    "steps": 10,
    "scheduler": "euler_a",
    "clip_skip": 1,
    "model": {"key": "x", "name": "toy", "base": "sd-1", "type": "main"},
    "loras": [{"model": {"name": "detail"}, "weight": 0.6}],
    "vae": {"name": "other-vae"},
}


def test_invoke_common(png: Callable[..., Path]) -> None:
    recipe = read_recipe(png(size=(64, 32), invokeai_metadata=INVOKED))
    assert recipe.program == "InvokeAI 5.4.2"
    assert not recipe.lost
    request = recipe.request(BY_ID["sd1"])
    assert (request.prompt, request.text.dialect, request.text.clip_skip) == ("a red boat+++", "compel", 2)
    assert (request.canvas.width, request.seed, request.sampling.steps) == (64, 12, 10)
    assert 12 + request.noise.ensd == 12 ^ 0xFFFFFFFF
    assert [tag.strength for _, tag in recipe.adapters] == [0.6]
    assert str(recipe.vae) == "other-vae"
    more = {"controlnets": [{"x": 1}], "hrf_enabled": True, "cfg_scale": [7, 5]}
    lost = "\n".join(read_recipe(png(invokeai_metadata={**INVOKED, **more})).lost)
    assert all(name in lost for name in more)


@pytest.mark.parametrize("axes", ["", "x", "y", "xy"])
def test_seamless(png: Callable[..., Path], axes: str) -> None:
    said = {f"seamless_{axis}": axis in axes for axis in "xy"}
    recipe = read_recipe(png(invokeai_metadata={**INVOKED, **said}))
    assert recipe.request().tiling.seamless == (axes or None)
    assert not any("seamless" in line for line in recipe.lost)
    assert a1111(png, f"{COMMON}, Tiling: True").request().tiling.seamless == "xy"


@pytest.mark.parametrize(
    ("said", "becomes", "lost"),
    [
        ({}, (768, 384, "average"), []),
        ({"Method": "Mixture of Diffusers"}, (768, 384, "gaussian"), []),
        (
            {"Tile tile height": 64, "NoiseInv": True},
            (768, 384, "average"),
            ["768x512", "NoiseInv: True"],
        ),
        ({"Tile Overlap": 96}, (None, None, "gaussian"), ["Tiled Diffusion"]),
        ({"Tile tile width": "__import__('os')"}, (None, None, "gaussian"), ["Tiled Diffusion"]),
    ],
    ids=str,
)
def test_tiled_diffusion(
    png: Callable[..., Path], said: dict[str, Any], becomes: tuple[object, ...], lost: list[str]
) -> None:
    usual = {"Method": "MultiDiffusion", "Tile tile width": 96, "Tile tile height": 96, "Tile Overlap": 48}
    text = json.dumps(str({**usual, "Tile batch size": 4, **said}))
    recipe = a1111(png, f"{COMMON}, Tiled Diffusion: {text}")
    tiling = recipe.request().tiling
    assert (tiling.tile, tiling.overlap, tiling.blend) == becomes
    found = "\n".join(line for line in recipe.lost if "ile" in line.replace("file", "") or "Noise" in line)
    assert all(word in found for word in lost)
    assert bool(found) == bool(lost)


def test_invoke_of_a_picture(png: Callable[..., Path]) -> None:
    recipe = read_recipe(png(invokeai_metadata={**INVOKED, "generation_mode": "img2img", "strength": 0.6}))
    assert "img2img, strength: 0.6 (made from another picture" in "\n".join(recipe.lost)
    recipe.draw_on("y.png")
    assert not any("img2img" in line for line in recipe.lost)
    assert (recipe.request().edit.strength, recipe.request().edit.strength_as) == (0.6, "diffusers")


def test_invoke_of_sdxl(png: Callable[..., Path]) -> None:
    said = {
        **INVOKED,
        "model": {"model_name": "xl", "base_model": "sdxl"},
        "positive_style_prompt": "oil painting",
        "refiner_model": {"model_name": "refiner"},
        "refiner_start": 0.7,
    }
    recipe = read_recipe(png(invokeai_metadata=said))
    request = recipe.request(BY_ID["sdxl"])
    assert (request.text.prompt_2, request.xl.original_width) == ("oil painting", 1024)
    assert recipe.refiner is not None
    assert request.xl.refiner_switch == 0.7


def test_old_invoke(png: Callable[..., Path]) -> None:
    image = {
        "prompt": [{"prompt": "a red boat [fog] at sea [rain]", "weight": 1.0}],
        "steps": 10,
        "cfg_scale": 7.5,
        "width": 32,
        "height": 64,
        "seed": 3,
        "sampler": "k_euler_a",
        "type": "txt2img",
        "perlin": 0.2,
        "postprocessing": [{"type": "gfpgan"}],
    }
    said = {"app_version": "2.3.0", "model_weights": "toy", "model_hash": "ab" * 32, "image": image}
    recipe = read_recipe(png(sd__metadata=said, Dream="x"))
    assert (recipe.settings["prompt"], recipe.settings["negative"]) == ("a red boat at sea", "fog rain")
    assert recipe.settings["sampler"] == "euler_ancestral"
    assert "perlin" in "\n".join(recipe.lost)
    assert "gfpgan" in "\n".join(recipe.lost)
    assert recipe.settings["noise_source"] == "nv"
    two = {
        **said,
        "image": {**image, "prompt": [{"prompt": "cat", "weight": 0.7}, {"prompt": "dog", "weight": 0.3}]},
    }
    assert read_recipe(png(sd__metadata=two)).settings["prompt"] == '("cat", "dog").blend(0.7, 0.3)'
    odd = {**said, "image": {**image, "postprocessing": 1, "variations": 5}}
    assert "variations: 5" in read_recipe(png(sd__metadata=odd)).lost
    typed = read_recipe(
        png(Dream='"a red boat [fog]" -s 10 -S 7 -W 32 -H64 -C 7.5 -A k_lms -f 0.3 -U 2 0.75 -I x.png')
    )
    assert typed.settings["prompt"] == "a red boat"
    assert {"-f: 0.3", "-U: 2 0.75", "-I: x.png"} <= {*typed.lost}
    assert (typed.settings["seed"], typed.settings["height"], typed.settings["sampler"]) == (7, 64, "lms")


SHAPE = (1, 4, 8, 8)
_MIX = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) * 0.4
_FOLDERS = {
    "sd-1": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": False,
             "steps_offset": 1, "clip_sample": False},
    "sdxl": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": False,
             "steps_offset": 1, "clip_sample": False, "timestep_spacing": "leading"},
}  # fmt: skip
_SCHEDULERS: dict[str, tuple[str, dict[str, Any], float]] = {
    "ddim": ("DDIMScheduler", {}, 1e-5),
    "ddpm": ("DDPMScheduler", {}, 1e-5),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}, 1e-5),
    "lms": ("LMSDiscreteScheduler", {}, 1e-5),
    "euler": ("EulerDiscreteScheduler", {}, 1e-5),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}, 1e-5),
    "heun": ("HeunDiscreteScheduler", {}, 1e-5),
    "deis": ("DEISMultistepScheduler", {}, 5e-3),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}, 1e-4),
    "unipc": ("UniPCMultistepScheduler", {}, 1e-4),
    "lcm": ("LCMScheduler", {}, 1e-5),
    "tcd": ("TCDScheduler", {}, 1e-5),
}


def _network(x: torch.Tensor, time: Any) -> torch.Tensor:
    mixed = torch.einsum("oc,bchw->bohw", _MIX, x)
    return torch.tanh(mixed + 0.3 * x.roll(1, -1)) + 0.1 * math.sin(float(time) / 200)


@pytest.mark.parametrize("base", [*_FOLDERS])
@pytest.mark.parametrize(
    "name", [*_SCHEDULERS, "euler_k", "heun_k", "lms_k", "dpmpp_2m_k", "deis_k", "unipc_k"]
)
def test_invoke_schedulers_against_diffusers(png: Callable[..., Path], name: str, base: str) -> None:
    """A picture's latent is that of the scheduler which InvokeAI takes for it, noise and all."""
    kind, options, tolerance = _SCHEDULERS[name.removesuffix("_k")]
    karras = {"use_karras_sigmas": True} if name.endswith("_k") else {}
    scheduler = getattr(diffusers, kind).from_config({**_FOLDERS[base], **options, **karras})
    scheduler.set_timesteps(10)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(12)) * scheduler.init_noise_sigma
    later = torch.Generator().manual_seed(12 ^ 0xFFFFFFFF)
    drawn = {"generator": later} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for time in scheduler.timesteps:
        output = _network(scheduler.scale_model_input(x, time), time)
        x = scheduler.step(output, time, x, **drawn).prev_sample

    said = {**INVOKED, "scheduler": name, "model": {"name": "toy", "base": base}}
    settings = read_recipe(png(invokeai_metadata=said)).settings
    family = BY_ID["sd1"]
    points = points_for(family.schedule, 10, settings["sampler"], settings["schedule"])
    noise = SeededNoise(12, SHAPE, seeding=Seeding("cpu", settings["ensd"]))
    run = Run.begin(noise, points[0], full=settings["full_noise"])

    def denoised(asked: torch.Tensor, point: Point) -> Any:
        return family.process.denoised(_network(*family.process.network_input(asked, point)), asked, point)

    found, _ = driven(sampler(settings["sampler"]), run, points, denoised)
    assert float((found - x).norm() / x.norm()) < tolerance


# The files they name


def test_files_are_found_by_name_or_hash(
    png: Callable[..., Path], toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "library"))
    file = tmp_path / "found.safetensors"
    save_file({"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.zeros(2, 1)}, file)
    assert main(["models", "add", str(file), "--kind", "lora"]) == 0
    prompt = "a boat <lora:found:0.5:te=0.2> <lora:lost:1> <lyco:found>"
    recipe = a1111(
        png, f'{COMMON}, Model: nowhere, Lora hashes: "lost: 0123456789ab, found: ffffffffffff"', prompt
    )
    request = recipe.request()
    assert request.prompt == "a boat <lora:found:0.5:te=0.2>  <lora:found:1>"
    said = "\n".join(recipe.lost)
    assert "LoRA lost [0123456789ab] (it is not here" in said
    assert "LoRA found [ffffffffffff] (the file here called so is another one" in said
    with pytest.raises(ModelError, match=r"nowhere.*is not here"):
        recipe.loading()
    with pytest.raises(ModelError) as told:
        a1111(png, f"{COMMON}, Model: \x1b[2J{'m' * 500}, Model hash: {'a' * 500}").loading()
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 400
    assert recipe.loading(model="toy").model == "toy"
    assert a1111(png, f"{COMMON}, Model: sub\\toy.safetensors [0123456789]").loading().model == "toy"
    with pytest.raises(InvalidRequest, match="does not say which model"):
        a1111(png, COMMON).loading()


def test_parts_that_are_not_here_are_said(png: Callable[..., Path], toy: Path) -> None:
    line = f"{COMMON}, Model: toy, VAE: gone.safetensors, Refiner: gone [0123456789], Refiner switch at: 0.8"
    recipe = a1111(png, line, size=(512, 768))
    loading = recipe.loading()
    assert (loading.model, loading.vae, loading.refiner) == ("toy", None, None)
    assert recipe.request().xl.refiner_switch is None
    assert "vae" in recipe.lost[0]
    assert "refiner" in recipe.lost[1]


# From end to end


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "euler_ancestral", "schedule": "karras:rho=5", "negative": "fog", "noise_source": "nv"},
        {"sampler": "ddim:eta=0.5", "schedule": "leading", "full_noise": True, "second_pass": "off"},
        {"first_width": 32, "first_height": 32, "width": 64, "height": 48, "second_strength": 0.5},
        {"variation_seed": 4, "variation_strength": 0.3, "ensd": 7, "sampler": "dpmpp_sde"},
    ],
)
def test_our_own_parameters_are_read(
    png: Callable[..., Path], toy: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any]
) -> None:
    """A picture whose file has lost all but A1111's text comes out the same."""
    made = darkroom.load("toy", device="cpu").generate("a red (boat:1.3)", seed=5, steps=4, **settings)[0]
    path = png(parameters=made.parameters)
    made.image.save(path, pnginfo=_text(parameters=made.parameters))
    assert main(["again", str(path), "--device", "cpu"]) == 0
    assert "the same, pixel for pixel" in capsys.readouterr().out


def _text(**texts: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return info


@pytest.mark.parametrize("texts", [{"prompt": graph()}, {"invokeai_metadata": INVOKED}])
def test_again(
    png: Callable[..., Path],
    toy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    texts: dict[str, Any],
) -> None:
    path = png(**texts)
    assert main(["again", str(path), "-o", str(tmp_path / "again.png")]) == 0
    out, said = capsys.readouterr()
    assert "was made by" in said
    assert "not honoured: LoRA" in said
    assert "differs by" in out or "made again" in out
    assert np.asarray(Image.open(tmp_path / "again.png")).std() > 0
    assert main(["info", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["request"]["sampling"]["steps"] == 10


def test_again_without_anything(png: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("again", "info"):
        assert main([command, str(png())]) == 2
        assert "no Darkroom metadata" in capsys.readouterr().err


# ADetailer

DETAILED = (
    f"{COMMON}, Denoising strength: 0.4, ADetailer model: face_yolov8n.pt, "
    'ADetailer prompt: "a [LABEL], tired [SEP] <lora:a:1>", ADetailer confidence: 0.35, '
    "ADetailer dilate erode: 8, ADetailer mask blur: 5, ADetailer denoising strength: 0.45, ADetailer inpaint only "
    "masked: True, ADetailer inpaint padding: 40, ADetailer use inpaint width height: True, ADetailer inpaint width: "
    "768, ADetailer inpaint height: 512, ADetailer use separate steps: True, ADetailer steps: 30, ADetailer mask only "
    "top k: 2, ADetailer model classes: \"face, hand\", ADetailer mask min ratio: 0.01, ADetailer model 2nd: "
    "hand_yolov8n.pt, ADetailer confidence 2nd: 0.3, ADetailer negative prompt 2nd: claws, ADetailer CFG scale 2nd: 4, "
    "ADetailer model 3rd: mediapipe_face_full, ADetailer confidence 3rd: 0.3, ADetailer x offset 2nd: 3, "
    "ADetailer version: 25.3.0"
)  # fmt: skip


def test_what_adetailer_drew_over(
    png: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "detectors").mkdir()
    for name in ("face_yolov8n", "hand_yolov8n"):
        (tmp_path / "detectors" / f"{name}.pt").write_bytes(b"")
    monkeypatch.setenv("DARKROOM_MODELS", str(tmp_path))
    recipe = a1111(png, DETAILED)
    detail = recipe.request().detail
    assert detail.details == (
        "face_yolov8n:confidence=0.35:strength=0.45:most=2:smallest=0.01:grow=4:blur=5:padding=40:steps=30:size=624"
        ":only=face+ hand",
        "hand_yolov8n:confidence=0.3:guidance=4",
    )
    assert detail.prompts[0].startswith("a [LABEL], tired [SEP]")
    assert detail.prompts[1] == ""
    assert detail.negatives == ("", "claws")
    said = "\n".join(recipe.lost)
    assert "ADetailer model 3rd: mediapipe_face_full (it is not here" in said
    assert "ADetailer x offset 2nd: 3" in said
    assert "LoRA a" in said


def test_detectors_that_are_not_here_are_said(png: Callable[..., Path]) -> None:
    recipe = a1111(png, DETAILED)
    assert recipe.request().detail.details == ()
    assert "ADetailer model: face_yolov8n.pt (it is not here: put its file into" in "\n".join(recipe.lost)


def test_details_that_darkroom_says(png: Callable[..., Path]) -> None:
    line = f'{COMMON}, Details: "oracle:only=cat; the boat:strength=0.3", Version: Darkroom 0.1.0'
    assert a1111(png, line).request().detail.details == ("oracle:only=cat", "the boat:strength=0.3")
    assert "Details" in "\n".join(a1111(png, line.replace("Darkroom", "v")).lost)


@pytest.mark.parametrize("named", ["sharp", "sharp.safetensors", "folder/sharp.pth"])
def test_upscalers_of_a_folder_of_models_are_found(
    png: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    (tmp_path / "upscalers").mkdir()
    (tmp_path / "upscalers" / "sharp.safetensors").write_bytes(b"")
    monkeypatch.setenv("DARKROOM_MODELS", str(tmp_path))
    recipe = a1111(png, f"{COMMON}, Denoising strength: 0.4, Hires upscale: 2, Hires upscaler: {named}")
    assert recipe.request().canvas.upscaler == "sharp"
    assert "upscaler" not in "\n".join(recipe.lost)
