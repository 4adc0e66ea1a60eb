"""A1111's interface: as its client speaks it, and in all that its requests may say."""

from __future__ import annotations

import base64
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import webuiapi
from PIL import Image
from tests.serve.conftest import PATIENCE, until
from tests.serve.test_api import Hired
from tests.serve.test_intake import png
from tests.serve.test_openai import claim_of, preview

from darkroom.checkpoint.families import SD1, SDXL
from darkroom.errors import DarkroomError
from darkroom.recipes.a1111 import recipe_of
from darkroom.serve import results
from darkroom.serve.api.a1111 import options
from darkroom.serve.api.a1111.meaning import job_of
from darkroom.serve.api.a1111.payload import IMG2IMG, TXT2IMG, read
from darkroom.serve.results import Progress

SMALL = {"width": 32, "height": 32, "steps": 2}


@pytest.fixture
def client(house):
    return a_client(house[0])


def a_client(api):
    return webuiapi.WebUIApi(baseurl=f"{api.url}/sdapi/v1")


@pytest.fixture
def worker(api):
    return Hired(api)


def noise(width=32, height=32):
    return Image.effect_noise((width, height), 90).convert("RGB")


def b64(image):
    found = io.BytesIO()
    image.save(found, "PNG")
    return base64.b64encode(found.getvalue()).decode()


def meant(family=SD1, said=None, **payload):
    """The body of the job that a request comes to."""
    known = IMG2IMG if "init_images" in payload else TXT2IMG
    return job_of(read(payload, known), said or {}, "toy", lambda model: family)[0]


# What requests mean.


def test_what_a_request_leaves_out_is_as_there():
    body = meant(prompt="a (red) boat", negative_prompt="fog")
    expected = {
        "prompt": "a (red) boat",
        "negative": "fog",
        "steps": 50,
        "guidance": 7.0,
        "sampler": "euler",
        "schedule": "normal",
        "width": 512,
        "height": 512,
        "noise_source": "nv",
        "dialect": "a1111",
        "count": 1,
        "format": "png",
    }
    assert {name: body.get(name) for name in expected} == expected
    assert "seed" not in body


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"seed": 7, "batch_size": 2, "n_iter": 3}, {"seed": 7, "count": 6}),
        (
            {"steps": "20", "cfg_scale": "4.5", "tiling": "true"},
            {"steps": 20, "guidance": 4.5, "seamless": "xy"},
        ),
        ({"sampler_name": "DPM++ 2M Karras"}, {"sampler": "dpmpp_2m", "schedule": "karras"}),
        ({"sampler_name": "DPM++ 2M"}, {"sampler": "dpmpp_2m", "schedule": "karras"}),
        ({"sampler_index": "Euler a", "scheduler": "Exponential"}, {"schedule": "exponential"}),
        (
            {"sampler_name": "DDIM", "eta": 0.5},
            {"sampler": "ddim:eta=0.5", "schedule": "leading", "full_noise": True},
        ),
        ({"sampler_name": "Euler a", "eta": 0.5}, {"sampler": "euler_ancestral:eta=0.5"}),
        (
            {"sampler_name": "Euler", "eta": 1.0, "s_tmax": 0, "s_noise": 1},
            {"sampler": "euler"},
        ),
        ({"subseed": 3, "subseed_strength": 0.25}, {"variation_seed": 3, "variation_strength": 0.25}),
        (
            {"seed_resize_from_w": 256, "seed_resize_from_h": 384},
            {"seed_resize_width": 256, "seed_resize_height": 384},
        ),
        ({"denoising_strength": 0.7}, {"strength": None, "second_strength": None}),
        (
            {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.4, "hr_second_pass_steps": 9},
            {
                "width": 768,
                "first_width": 512,
                "second_strength": 0.4,
                "second_steps": 9,
                "upscaler": "latent",
            },
        ),
        (
            {
                "enable_hr": True,
                "hr_resize_x": 768,
                "hr_resize_y": 1024,
                "hr_upscaler": "Lanczos",
                "hr_prompt": "a ship",
                "hr_sampler_name": "Euler a",
                "hr_checkpoint_name": "Use same checkpoint",
            },
            {
                "width": 768,
                "height": 1024,
                "upscaler": "lanczos",
                "second_prompt": "a ship",
                "second_sampler": "euler_ancestral",
                "second_steps": 50,
            },
        ),
        (
            {"enable_hr": True, "firstphase_width": 384, "firstphase_height": 384},
            {"width": 512, "first_width": 384},
        ),
        ({"s_min_uncond": 1.5}, {"guides": ("off_steps:below=1.5",)}),
        ({"prompt": "<lora:a:1> a boat", "disable_extra_networks": True}, {"prompt": " a boat"}),
        ({"styles": ["sketch"]}, {"styles": ["sketch"]}),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"enabled": False, "model": "canny"}]}}}, {}),
        ({"alwayson_scripts": {"ControlNet": {"args": []}, "ADetailer": {"args": [False, {}]}}}, {}),
        (
            {"script_name": "", "restore_faces": False, "refiner_checkpoint": None, "distilled_cfg_scale": 0},
            {},
        ),
        (
            {
                "infotext": "a ship\nNegative prompt: fog\nSteps: 9, Sampler: Heun, CFG scale: 3, Seed: 4, Size: 64x96"
            },
            {
                "prompt": "a ship",
                "negative": "fog",
                "steps": 9,
                "sampler": "heun",
                "seed": 4,
                "height": 96,
                "guidance": 3,
            },
        ),
        (
            {
                "prompt": "a cat",
                "steps": 5,
                "infotext": "a ship\nSteps: 9, Sampler: Heun, CFG scale: 3, Seed: 4, Size: 64x96",
            },
            {"prompt": "a cat", "steps": 5, "sampler": "heun"},
        ),
    ],
)
def test_txt2img_means(payload, expected):
    body = meant(**payload)
    assert {name: body.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"CLIP_stop_at_last_layers": 2}, {"clip_skip": 2}),
        ({"eta_noise_seed_delta": 31337, "randn_source": "CPU"}, {"ensd": 31337, "noise_source": "cpu"}),
        ({"samples_format": "jpg", "jpeg_quality": 60}, {"format": "jpeg", "quality": 60}),
        ({"emphasis": "No norm"}, {"emphasis": "no_norm"}),
        ({"sd_vae": "Automatic", "live_previews_enable": True, "save_to_dirs": False}, {"format": "png"}),
        ({"eta_ancestral": 0.5}, {"sampler": "euler"}),
        ({"sgm_noise_multiplier": True}, {"full_noise": True}),
    ],
)
def test_options_mean(said, expected):
    body = meant(said=options.check(said))
    assert {name: body.get(name) for name in expected} == expected


def test_clip_skip_is_of_stable_diffusion_1():
    assert meant(SDXL, {"CLIP_stop_at_last_layers": 2})["clip_skip"] == 1


IMAGE = "aGVsbG8="


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            {},
            {
                "strength": 0.75,
                "strength_as": "a1111",
                "fit": "stretch",
                "noise_multiplier": 1.0,
                "mask": None,
            },
        ),
        ({"resize_mode": 1, "denoising_strength": 0.3}, {"fit": "crop", "strength": 0.3}),
        ({"resize_mode": 2}, {"fit": "pad"}),
        ({"resize_mode": 3}, {"fit": "stretch", "upscaler": "latent"}),
        ({"initial_noise_multiplier": 1.2}, {"noise_multiplier": 1.2}),
        (
            {"mask": IMAGE},
            {
                "mask": IMAGE,
                "mask_blur": 4,
                "fill": "neighbors",
                "only_masked": True,
                "mask_padding": 0,
                "fit": None,
            },
        ),
        (
            {"mask": IMAGE, "inpaint_full_res": False, "inpainting_fill": 1, "mask_blur": 9},
            {
                "mask_blur": 9,
                "fill": "original",
                "only_masked": False,
                "mask_invert": False,
                "fit": "stretch",
            },
        ),
        (
            {"mask": IMAGE, "inpainting_fill": 2, "inpainting_mask_invert": 1},
            {"fill": "noise", "mask_invert": True},
        ),
        (
            {"mask": IMAGE, "inpainting_fill": 3, "mask_blur_x": 8, "mask_blur_y": 8},
            {"fill": "nothing", "mask_blur": 8},
        ),
        ({"image_cfg_scale": 1.5}, {"image_guidance": None}),
    ],
)
def test_img2img_means(payload, expected):
    body = meant(init_images=[IMAGE], **payload)
    assert {name: body.get(name) for name in expected} == expected


def test_adetailer_means_details(monkeypatch):
    monkeypatch.setattr("darkroom.recipes.recipe.here", lambda named, *kinds: named.name)
    unit = {
        "ad_model": "face.pt",
        "ad_prompt": "a face",
        "ad_confidence": 0.5,
        "ad_denoising_strength": 0.3,
        "ad_dilate_erode": 8,
        "ad_mask_k_largest": 0,
        "ad_steps": 9,
        "ad_use_steps": True,
        "ad_cfg_scale": 3,
        "ad_controlnet_weight": 1.0,
        "ad_inpaint_only_masked": True,
    }
    body = meant(alwayson_scripts={"ADetailer": {"args": [True, False, unit, {"ad_model": "None"}]}})
    assert body["details"] == ("face.pt:confidence=0.5:strength=0.3:grow=4:steps=9",)
    assert body["detail_prompts"] == ("a face",)
    with pytest.raises(DarkroomError, match="ad_controlnet"):
        meant(alwayson_scripts={"ADetailer": {"args": [unit | {"ad_controlnet_model": "canny"}]}})


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"sampler_name": "Eulr"}, "Sampler not found.*did you mean"),
        ({"scheduler": "Karas"}, "Scheduler not found"),
        ({"script_name": "X/Y/Z plot"}, "Script 'X/Y/Z plot' not found"),
        ({"restore_faces": True}, "restore_faces"),
        ({"refiner_checkpoint": "xl"}, "refiner_checkpoint"),
        ({"firstpass_image": IMAGE}, "firstpass_image"),
        ({"enable_hr": True, "hr_upscaler": "4x-UltraSharp"}, "no upscaler '4x-UltraSharp'"),
        ({"enable_hr": True, "hr_checkpoint_name": "other"}, "Hires checkpoint"),
        ({"prompt": "<lora:nope:1>"}, "LoRA nope"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"model": "canny"}]}}}, "ControlNet is to do"),
        ({"alwayson_scripts": {"ADetailer": {"args": [{"ad_model": "face.pt"}]}}}, "face.pt"),
        ({"alwayson_scripts": {"Dynamic Thresholding": {"args": [True, 7]}}}, "Dynamic Thresholding"),
        ({"alwayson_scripts": {"ControlNet": "yes"}}, "ControlNet is 'yes'"),
        ({"hr_second_pass_step": 3}, "hr_second_pass_step is not known here: did you mean"),
        ({"steps": "many"}, "steps is 'many': give a whole number"),
        ({"steps": 0}, "steps is 0"),
        ({"cfg_scale": float("inf")}, "cfg_scale"),
        ({"width": 30}, "width is 30"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"prompt": 7}, "prompt is 7: give a text"),
        ({"styles": "sketch"}, "styles is 'sketch': give a list"),
        ({"tiling": "maybe"}, "tiling"),
        ({"init_images": []}, "Init image not found"),
        ({"init_images": [IMAGE, IMAGE]}, "init_images holds 2"),
        ({"init_images": [IMAGE], "resize_mode": 4}, "resize_mode is 4"),
        ({"init_images": [IMAGE], "mask": IMAGE, "inpainting_fill": 4}, "inpainting_fill is 4"),
        ({"init_images": [IMAGE], "mask": IMAGE, "mask_blur_x": 1}, "mask_blur_x"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(payload, message):
    with pytest.raises(DarkroomError, match=message):
        meant(**payload)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"sd_model_checkpoint": "nope [0123456789]"}, "no model 'nope"),
        ({"sd_vae": "other.pt"}, "other.pt"),
        ({"img2img_fix_steps": True}, "img2img_fix_steps"),
        ({"use_old_emphasis_implementation": True}, "use_old_emphasis_implementation"),
        ({"samples_format": "gif"}, "samples_format"),
        ({"CLIP_stop_at_last_layers": "two"}, "CLIP_stop_at_last_layers"),
        ({"CLIP_stop_at_last_layers": 0}, "Clip skip: 0"),
        ({"sd_noise_schedule": "Zero Terminal SNR"}, "zero_snr"),
        ({"randn_source": "TPU"}, "RNG"),
    ],
)
def test_options_that_cannot_be(said, message):
    with pytest.raises(DarkroomError, match=message):
        meant(said=options.check(said))


# The client.


def test_pictures_are_those_of_the_library(house, client):
    _, model = house
    made = client.txt2img(prompt="a boat", negative_prompt="fog", seed=7, batch_size=2, cfg_scale=3, **SMALL)
    assert made.info["all_seeds"] == [7, 8]
    assert made.info["infotexts"][0] == made.image.info["parameters"]
    assert "Euler a, Schedule type: Normal, CFG scale: 3, Seed: 7, Size: 32x32" in made.info["infotexts"][0]
    assert (made.info["width"], made.info["sampler_name"], made.info["steps"]) == (32, "Euler a", 2)
    assert made.parameters["steps"] == 2
    assert isinstance(made.json["info"], str)
    # As the text in the picture says, read as A1111's own.
    alone = model.generate(
        recipe_of(made.info["infotexts"][0].replace("Darkroom 0", "v1"), "a").request(model.family)
    )
    assert np.array_equal(np.asarray(made.image), np.asarray(alone[0].image))


def test_edits_keep_to_what_is_around(house, client):
    given, mask = noise(64, 64), Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 24, 24))
    drawn = client.img2img(images=[given], prompt="a boat", denoising_strength=0.5, seed=1, **SMALL)
    assert drawn.image.size == (32, 32)
    whole = client.img2img(
        images=[given],
        mask_image=mask,
        mask_blur=0,
        prompt="a boat",
        inpaint_full_res=False,
        **SMALL | {"width": 64, "height": 64},
    )
    # What is masked alone is drawn at the size that is asked for; the picture keeps its own.
    part = client.img2img(
        images=[given], mask_image=mask, mask_blur=0, prompt="a boat", inpaint_full_res_padding=4, **SMALL
    )
    for each in (whole, part):
        assert each.image.size == (64, 64)
        assert np.array_equal(np.asarray(each.image)[32:], np.asarray(given)[32:])
        assert not np.array_equal(np.asarray(each.image)[8:24, 8:24], np.asarray(given)[8:24, 8:24])
    assert drawn.parameters["init_images"] is None
    assert drawn.parameters["denoising_strength"] == 0.5


def test_pictures_are_made_larger(client):
    given = noise(16, 8)
    larger = client.extra_single_image(image=given, upscaler_1="Lanczos", upscaling_resize=3)
    assert (larger.image.size, larger.info) == (
        (48, 24),
        "<p>Postprocess upscale by: 3, Postprocess upscaler: lanczos</p>",
    )
    sized = {"resize_mode": 1, "upscaling_resize_w": 32, "upscaling_resize_h": 32}
    cut = client.extra_single_image(image=given, upscaler_1="Nearest", **sized)
    whole = client.extra_single_image(image=given, upscaler_1="Nearest", upscaling_crop=False, **sized)
    assert (cut.image.size, whole.image.size) == ((32, 32), (64, 32))
    same = client.extra_single_image(image=given)
    assert np.array_equal(np.asarray(same.image), np.asarray(given))
    several = client.extra_batch_images(images=[given, noise(8, 8)], upscaler_1="Nearest")
    assert [each.size for each in several.images] == [(32, 16), (16, 16)]
    for said, message in (
        ({"upscaler_1": "LDSR"}, "no upscaler"),
        ({"upscaler_1": "Lanczos", "gfpgan_visibility": 1}, "face restorer"),
        (
            {"upscaler_1": "Lanczos", "upscaler_2": "Nearest", "extras_upscaler_2_visibility": 0.5},
            "upscaler_2",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            client.extra_single_image(image=given, **said)


def test_a_picture_says_how_it_was_made(client):
    made = client.txt2img(prompt="a boat", seed=7, **SMALL)
    told = client.png_info(made.image)
    assert told.info == made.info["infotexts"][0]
    assert told.parameters["Prompt"] == "a boat"
    assert (told.parameters["Seed"], told.parameters["Size-1"], told.parameters["Size-2"]) == (
        "7",
        "32",
        "32",
    )
    nothing = client.png_info(noise())
    assert (nothing.info, nothing.parameters) == ("", {})


def test_options_hold_until_they_are_changed(house, client):
    api, _ = house
    said = client.get_options()
    assert said["sd_model_checkpoint"] == f"toy [{said['sd_checkpoint_hash'][:10]}]"
    try:
        said |= {"CLIP_stop_at_last_layers": 2, "samples_format": "webp"}
        assert client.set_options(said) is None  # All of them, as clients do.
        made = client.txt2img(prompt="a boat", **SMALL)
        assert (made.info["clip_skip"], made.image.format) == (2, "WEBP")
        once = client.txt2img(prompt="a boat", override_settings={"samples_format": "png"}, **SMALL)
        assert (once.image.format, client.get_options()["samples_format"]) == ("PNG", "webp")
        kept = {"override_settings": {"samples_format": "jpg"}, "override_settings_restore_afterwards": False}
        client.txt2img(prompt="a boat", **kept, **SMALL)
        assert client.get_options()["samples_format"] == "jpg"
    finally:
        client.set_options({"CLIP_stop_at_last_layers": 1, "samples_format": "png"})
    for name, value in (("sd_vae", "other.pt"), ("sd_model_checkpoint", "nope"), ("samples_format", "gif")):
        refused = api.post("/sdapi/v1/options", json={name: value})
        assert refused.status_code in (404, 422), refused.text
    client.util_set_model("toy")
    assert client.util_get_current_model().startswith("toy")


def test_lists(house, client):
    assert {"DPM++ 2M", "Euler a"} <= {*client.util_get_sampler_names()}
    assert {"automatic", "karras"} <= {*client.util_get_scheduler_names()}
    (model,) = [each for each in client.get_sd_models() if each["model_name"] == "toy"]
    assert model["title"] == f"toy [{model['sha256'][:10]}]"
    assert model["hash"] == model["sha256"][:10]
    assert "/" not in model["filename"]
    assert {"None", "Lanczos", "Nearest"} <= {each["name"] for each in client.get_upscalers()}
    assert client.get_latent_upscale_modes()[0] == {"name": "Latent"}
    assert client.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert client.get_memory()["ram"]["total"] > 0
    assert client.get_scripts() == {"txt2img": [], "img2img": []}
    for nothing in (
        "loras",
        "sd_vae",
        "hypernetworks",
        "face_restorers",
        "realesrgan_models",
        "prompt_styles",
    ):
        assert getattr(client, f"get_{nothing}")() == []
    assert (client.controlnet_model_list(), client.controlnet_module_list()) == ([], [])
    assert client.refresh_checkpoints() == {}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("sdapi/v1/txt2img", {"sampler_name": "Eulr"}, 400, "Sampler not found"),
        ("sdapi/v1/img2img", {}, 404, "Init image not found"),
        ("sdapi/v1/img2img", {"init_images": ["no picture at all"]}, 422, "base64"),
        ("sdapi/v1/img2img", {"init_images": ["https://example.org/a.png"]}, 422, "base64"),
        ("sdapi/v1/txt2img", {"override_settings": {"sd_model_checkpoint": "nope"}}, 404, "nope"),
        ("sdapi/v1/txt2img", [], 422, "no object"),
        ("sdapi/v1/png-info", {}, 404, "Image not found"),
        ("sdapi/v1/png-info", {"image": "aGVsbG8="}, 422, "picture"),
        ("sdapi/v1/interrogate", {"image": IMAGE}, 501, "interrogate"),
        ("controlnet/detect", {}, 501, "preprocessors"),
        ("sdapi/v1/extra-batch-images", {"imageList": [{}]}, 422, "imageList"),
        ("internal/progress", {}, 422, "id_task"),
    ],
)
def test_errors_are_told_in_its_form(house, path, body, status, message):
    answer = house[0].post(f"/{path}", json=body)
    said = answer.json()
    assert answer.status_code == status, said
    assert said.keys() == {"error", "detail", "body", "errors"}
    assert re.search(message, said["detail"]), said


def test_progress_and_interrupt(api, worker):
    client = a_client(api)
    assert (client.get_progress()["progress"], client.get_progress()["state"]["job_count"]) == (0, 0)
    with ThreadPoolExecutor(1) as pool:
        asked = {"prompt": "a boat", "batch_size": 2, "force_task_id": "mine"} | SMALL
        made = pool.submit(api.post, "/sdapi/v1/txt2img", json=asked)
        until(lambda: api.get("/internal/pending-tasks").json() == {"size": 1, "tasks": ["mine"]})
        waits = api.post("/internal/progress", json={"id_task": "mine"}).json()
        assert (waits["queued"], waits["active"], waits["textinfo"]) == (True, False, "Waiting...")
        job = until(lambda: worker(claim_of(worker)))
        worker.make(job, 0)
        worker(results.preview, job, 1, preview(), 3)
        worker(results.advance, worker.id, [Progress(job, 3, 4, {})])
        told = client.get_progress()
        assert (told["progress"], told["state"]["job_no"], told["state"]["job"]) == (0.75, 1, "mine")
        assert base64.b64decode(told["current_image"]) == preview()
        assert told["eta_relative"] >= 0
        mine = api.post("/internal/progress", json={"id_task": "mine"}).json()
        assert (mine["active"], mine["progress"]) == (True, 0.75)
        assert mine["live_preview"].startswith("data:image/jpeg;base64,")
        assert api.get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
        assert api.post("/sdapi/v1/skip").status_code == 422  # Which of two?
        assert client.interrupt() == {}
        assert client.get_progress()["state"]["interrupted"]
        worker(results.end, job, "cancelled")
        answer = made.result(PATIENCE).json()
    assert [base64.b64decode(each) for each in answer["images"]] == [png()]
    assert json.loads(answer["info"])["all_seeds"] == [7]
    assert api.post("/internal/progress", json={"id_task": "mine"}).json()["completed"]
    assert client.interrupt() == {}  # Nothing is being made.


@pytest.mark.parametrize("kept", [False, True])
def test_whoever_goes_away(api, worker, kept):
    with pytest.raises(Exception, match="timed out"):
        api.client.post(
            "/sdapi/v1/txt2img", json={"prompt": "a boat", "save_images": kept} | SMALL, timeout=0.3
        )
    (job,) = api.get("/v1/jobs").json()["data"]
    if kept:
        worker.make(worker(claim_of(worker)))
    state = "succeeded" if kept else "cancelled"
    until(lambda: api.get(f"/v1/jobs/{job['id']}").json()["state"] == state)
