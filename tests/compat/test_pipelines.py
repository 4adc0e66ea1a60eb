"""Code written for diffusers, run by diffusers and with the import line changed: the same seeds, the same pictures."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tests.families import absent, peer, relative_error
from tests.tables import pairs, wide

from darkroom.checkpoint.export import convert
from darkroom.checkpoint.opening import open_source
from darkroom.compat import diffusers as compat
from darkroom.compat.diffusers.schedulers import CLASSES
from darkroom.errors import InvalidRequest, ModelError

pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),  # diffusers', of numpy
]

PROMPT, OTHER = "a red boat on a calm sea", "two grey houses at night"
SIZE = {"width": 64, "height": 80}
TOLERANCE = 1e-4
FAMILIES = ("sd1", "sd2", "sdxl", "sdxl-said", "sd3", "sd3-clips", "sd35-medium", "lcm", "turbo")
QUICK = ("sd1", "sdxl", "sd3", "lcm")


@cache
def loaded(path):
    pipe = compat.DiffusionPipeline.from_pretrained(path, local_files_only=True, **absent(path))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipes(path, own=False):
    """diffusers' pipeline of a folder, and ours, each with a scheduler of its own, and networks of its `own` or those
    that were read when first asked for."""
    ours = loaded.__wrapped__(path) if own else compat.DiffusionPipeline.from_pipe(loaded(path))
    ours.scheduler = type(ours.scheduler).from_config(ours.scheduler.config)
    return peer(path, own), ours


def seeded(*seeds):
    made = [torch.Generator().manual_seed(seed) for seed in seeds]
    return made[0] if len(made) == 1 else made


def compare(
    path, *, change=lambda pipe, library: None, own=False, seeds=(42,), output_type="latent", **settings
):
    """The latents of the same call to both; they are equal to single precision."""
    made = []
    for pipe, library in zip(pipes(path, own), (diffusers, compat), strict=True):
        change(pipe, library)
        settings = {"num_inference_steps": 3, **SIZE, **settings}
        made.append(pipe(generator=seeded(*seeds), output_type=output_type, **settings).images)
    theirs, ours = (torch.as_tensor(np.asarray(each)) for each in made)
    assert ours.shape == theirs.shape
    assert relative_error(ours, theirs) <= TOLERANCE
    return ours


@pytest.mark.parametrize("name", [name if name in QUICK else wide(name) for name in FAMILIES])
def test_prompts_and_seeds(folder, name):
    alone = compare(folder(name), prompt=PROMPT)
    two = compare(
        folder(name), prompt=[PROMPT, OTHER], negative_prompt=["bad", "ugly"], num_images_per_prompt=2
    )
    assert len(two) == 4
    each = compare(folder(name), prompt=[PROMPT, OTHER], seeds=(42, 7))
    assert torch.equal(each[:1], alone)  # Alone or beside another: the same picture.
    assert not torch.equal(compare(folder(name), prompt=PROMPT, seeds=(43,)), alone)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3"])
@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 1.5, 12.0])
def test_guidance(folder, name, guidance_scale):
    compare(folder(name), prompt=PROMPT, guidance_scale=guidance_scale)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3-clips"])
def test_prompts_that_are_empty_or_too_long(folder, name):
    compare(folder(name), prompt="", negative_prompt="")
    compare(folder(name), prompt=f"{PROMPT}, " * 30, negative_prompt=OTHER * 40)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "sd3"])
def test_clip_skip(folder, name, monkeypatch):
    # Of today's transformers diffusers asks for what is no longer there.
    monkeypatch.setattr(transformers.CLIPTextModel, "text_model", property(lambda self: self), raising=False)
    skipped = compare(folder(name), prompt=PROMPT, negative_prompt=OTHER, clip_skip=1)
    assert not torch.equal(skipped, compare(folder(name), prompt=PROMPT, negative_prompt=OTHER))


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_guidance_rescale(folder, name):
    compare(folder(name), prompt=PROMPT, guidance_scale=9.0, guidance_rescale=0.7)


def scheduled(name, **settings):
    def change(pipe, library):
        pipe.scheduler = getattr(library, name).from_config(pipe.scheduler.config, **settings)

    return change


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"DPMSolverSDEScheduler"}))
def test_schedulers(folder, name):
    """Fresh noise included: both draw it from the call's generator, for all pictures at once."""
    model = "sd3" if name.startswith("FlowMatch") else "sd1"
    settings = {"prompt": [PROMPT, OTHER], "num_inference_steps": 6, "change": scheduled(name)}
    if name == "FlowMatchHeunDiscreteScheduler":  # diffusers' forgets the settings it does not know.
        settings["change"] = scheduled(name, shift=3.0)
    compare(folder(model), seeds=(1, 2), **settings)
    if "Ancestral" in name or "DDPM" in name or name.startswith("LCM"):
        compare(folder(model), **settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
        ("UniPCMultistepScheduler", {"use_karras_sigmas": True}),
        ("DDIMScheduler", {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
    ],
)
@pytest.mark.parametrize("model", ["sdxl", wide("sd2")])
def test_schedulers_with_options(folder, name, settings, model):
    if "rescale_betas_zero_snr" in settings and model == "sdxl":
        pytest.skip("a network that predicts noise learns nothing from pure noise")
    compare(folder(model), prompt=PROMPT, num_inference_steps=6, change=scheduled(name, **settings))


@pytest.mark.parametrize(
    "name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"]
)
def test_solvers_on_flow_models(folder, name):
    settings = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    compare(folder("sd3"), prompt=PROMPT, num_inference_steps=6, change=scheduled(name, **settings))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["DDIMScheduler", "TCDScheduler", "EulerDiscreteScheduler"])
def test_eta(folder, name, eta):
    compare(folder("sd1"), prompt=PROMPT, eta=eta, change=scheduled(name))


def test_custom_timesteps_and_sigmas(folder):
    compare(
        folder("sd1"), prompt=PROMPT, timesteps=[900, 500, 30], change=scheduled("EulerDiscreteScheduler")
    )
    compare(folder("sdxl"), prompt=PROMPT, sigmas=[12.0, 3.0, 0.4, 0.0])
    compare(folder("sd3"), prompt=PROMPT, sigmas=[1.0, 0.7, 0.1])
    shifted = scheduled("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True)
    compare(folder("sd3"), prompt=PROMPT, change=shifted)
    compare(folder("sd3"), prompt=PROMPT, mu=0.3, change=shifted)


def test_what_sdxl_is_told(folder):
    sizes = {
        "original_size": (512, 768),
        "crops_coords_top_left": (24, 8),
        "target_size": (1024, 1024),
        "negative_original_size": (256, 256),
        "negative_crops_coords_top_left": (1, 2),
        "negative_target_size": (640, 320),
    }
    told = compare(folder("sdxl"), prompt=PROMPT, **sizes)
    assert not torch.equal(told, compare(folder("sdxl"), prompt=PROMPT))
    compare(folder("sdxl"), prompt=PROMPT, prompt_2=OTHER, negative_prompt="bad", negative_prompt_2="ugly")
    compare(folder("sdxl"), prompt=[PROMPT, OTHER], prompt_2=[OTHER, PROMPT], negative_prompt="bad")


@pytest.mark.parametrize(
    ("denoising_end", "scheduler"),
    pairs([0.0, 0.35, 0.8, 1.0], ["EulerDiscreteScheduler", "HeunDiscreteScheduler"]),
)
def test_a_way_that_ends_before_its_end(folder, denoising_end, scheduler):
    settings = {"num_inference_steps": 10, "denoising_end": denoising_end}
    compare(folder("sdxl"), prompt=PROMPT, change=scheduled(scheduler), **settings)


def test_what_sd3_is_told(folder):
    compare(
        folder("sd3"),
        prompt=PROMPT,
        prompt_2=OTHER,
        prompt_3="a dog",
        negative_prompt="bad",
        negative_prompt_3="b",
    )
    short = compare(folder("sd3"), prompt=PROMPT, max_sequence_length=20)
    assert not torch.equal(short, compare(folder("sd3"), prompt=PROMPT))


def test_stable_diffusion_3_without_t5(folder, tmp_path):
    path = shutil.copytree(folder("sd3"), tmp_path / "model")
    without = {"text_encoder_3": None, "tokenizer_3": None}
    theirs = diffusers.StableDiffusion3Pipeline.from_pretrained(path, **without)
    ours = compat.StableDiffusion3Pipeline.from_pretrained(path, **without)
    settings = {"prompt": PROMPT, "num_inference_steps": 2, "output_type": "latent", **SIZE}
    made = [pipe(generator=seeded(1), **settings).images for pipe in (ours, theirs)]
    assert relative_error(*made) <= TOLERANCE


# Ready tensors


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3"])
def test_ready_prompts(folder, name):
    theirs, ours = pipes(folder(name))
    names = ["prompt_embeds", "negative_prompt_embeds"]
    if name != "sd1":
        names += ["pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    order = names
    asked = {"prompt": [PROMPT, OTHER], "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    asked |= {"prompt_2": None, "prompt_3": None} if name == "sd3" else {}
    asked |= {"negative_prompt": ["bad", "worse"], "device": "cpu"}
    expected, found = theirs.encode_prompt(**asked), ours.encode_prompt(**asked)
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other.detach()) <= 1e-5
    ready = {key: value[:1] for key, value in zip(order, found, strict=True)}
    settings = {"num_inference_steps": 3, "output_type": "latent", **SIZE}
    given = ours(**ready, num_images_per_prompt=2, generator=seeded(5), **settings).images
    said = ours(
        PROMPT, negative_prompt="bad", num_images_per_prompt=2, generator=seeded(5), **settings
    ).images
    assert torch.equal(given, said)
    wide = {key: torch.cat([v, v], dim=1) if v.ndim == 3 else v for key, v in ready.items()}
    made = [pipe(**wide, generator=seeded(5), **settings).images for pipe in (ours, theirs)]
    assert relative_error(*made) <= TOLERANCE


def test_ready_latents(folder):
    noise = torch.randn((2, 4, 10, 8), generator=seeded(3))
    compare(folder("sd1"), prompt=[PROMPT, OTHER], latents=noise)
    compare(folder("sdxl"), prompt=PROMPT, num_images_per_prompt=2, latents=noise)
    pipe = pipes(folder("sd1"))[1]
    shape = (1, pipe.unet.config.in_channels, 80 // pipe.vae_scale_factor, 64 // pipe.vae_scale_factor)
    assert shape == (1, 4, 10, 8)


# Results


@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_kinds_of_output(folder, name):
    made = {}
    for kind in ("pil", "np", "pt"):
        theirs, ours = (
            pipe([PROMPT, OTHER], num_inference_steps=2, output_type=kind, generator=seeded(4), **SIZE)
            for pipe in pipes(folder(name))
        )
        assert type(ours.images) is type(theirs.images)
        made[kind] = ours.images
        if kind == "pil":
            assert [image.mode for image in ours.images] == ["RGB", "RGB"]
            for one, other in zip(ours.images, theirs.images, strict=True):
                assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1
        else:
            assert ours.images.dtype == theirs.images.dtype
            assert np.abs(np.asarray(ours.images) - np.asarray(theirs.images)).max() <= 1e-4
    assert np.array_equal(np.asarray(made["pt"]).transpose(0, 2, 3, 1), made["np"])
    rounded = (made["np"] * 255).round().astype(np.uint8)
    assert np.abs(rounded.astype(int) - np.stack(made["pil"]).astype(int)).max() <= 1


def test_results_as_tuples(folder, tmp_path):
    pipe = pipes(folder("sd1"))[1]
    found = pipe(PROMPT, num_inference_steps=1, **SIZE)
    assert found[0] is found.images is found["images"]
    assert found.nsfw_content_detected is None
    images, unsafe = pipe(PROMPT, num_inference_steps=1, return_dict=False, **SIZE)
    assert unsafe is None
    images[0].save(tmp_path / "boat.png")
    with Image.open(tmp_path / "boat.png") as image:
        assert image.size == (64, 80)
    assert pipe(PROMPT, num_inference_steps=1).images[0].size == (64, 64)  # The folder's own size.


def test_a_generator_left_out_is_torchs_own(folder):
    made = []
    for pipe in pipes(folder("sd1")):
        torch.manual_seed(11)
        made.append(pipe(PROMPT, num_inference_steps=2, output_type="latent", **SIZE).images)
    assert relative_error(made[1], made[0]) <= TOLERANCE


# Callbacks


@pytest.mark.parametrize(
    "name",
    [
        "DDIM",
        "PNDM",
        "EulerDiscrete",
        "EulerAncestralDiscrete",
        "HeunDiscrete",
        "KDPM2Discrete",
        "DPMSolverSinglestep",
    ],
)
def test_callbacks_see_every_call(folder, name):
    seen = []
    for pipe, library in zip(pipes(folder("sd1")), (diffusers, compat), strict=True):
        scheduled(f"{name}Scheduler")(pipe, library)
        told, old = [], []

        def callback(pipe, step, time, values, told=told):
            told.append((step, float(time), sorted(values), values["latents"].clone(), pipe.num_timesteps))
            return values

        pipe(
            PROMPT,
            num_inference_steps=4,
            generator=seeded(8),
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
            callback=lambda step, time, latents, old=old: old.append((step, float(time), latents.clone())),
            callback_steps=2,
            **SIZE,
        )
        seen.append((told, old))
    (told, old), (found, found_old) = seen
    assert [each[:3] + each[4:] for each in found] == [
        (each[0], pytest.approx(each[1], abs=1e-2), *each[2:3], *each[4:]) for each in told
    ]
    for one, other in zip(found, told, strict=True):
        assert relative_error(one[3], other[3]) <= TOLERANCE
    assert [each[0] for each in found_old] == [each[0] for each in old]
    for one, other in zip(found_old, old, strict=True):
        assert relative_error(one[2], other[2]) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "options"),
    [
        wide("PNDM", {"skip_prk_steps": True}),
        ("EulerAncestralDiscrete", {}),
        ("DPMSolverMultistep", {}),
        wide("LMSDiscrete", {}),
        wide("HeunDiscrete", {}),
    ],
)
def test_callbacks_change_latents(folder, name, options):
    def brighter(pipe, step, time, values):
        return {"latents": values["latents"] + 0.05} if step == 3 else {}

    settings = {
        "prompt": [PROMPT, OTHER],
        "num_inference_steps": 5,
        "change": scheduled(f"{name}Scheduler", **options),
    }
    changed = compare(folder("sd1"), callback_on_step_end=brighter, **settings)
    assert not torch.equal(changed, compare(folder("sd1"), **settings))

    def darker_at_last(pipe, step, time, values):
        return {"latents": values["latents"] - 0.5} if step == pipe.num_timesteps - 1 else {}

    last = compare(folder("sd1"), callback_on_step_end=darker_at_last, **settings)
    assert torch.allclose(last, compare(folder("sd1"), **settings) - 0.5, atol=1e-5)


def test_callbacks_turn_guidance_off(folder):
    def on_sd1(pipe, step, time, values):
        if step == int(pipe.num_timesteps * 0.4):
            pipe._guidance_scale = 0.0
            values["prompt_embeds"] = values["prompt_embeds"].chunk(2)[-1]
        return values

    def on_sdxl(pipe, step, time, values):
        if step == 1:
            pipe._guidance_scale = 0.0
            values |= {name: values[name].chunk(2)[-1] for name in values if name != "latents"}
        return values

    for name, callback, inputs in (
        ("sd1", on_sd1, ["prompt_embeds"]),
        ("sdxl", on_sdxl, ["latents", "prompt_embeds", "add_text_embeds", "add_time_ids"]),
    ):
        settings = {"prompt": [PROMPT, OTHER], "num_inference_steps": 5}
        extra = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": inputs}
        changed = compare(folder(name), **settings, **extra)
        assert not torch.equal(changed, compare(folder(name), **settings))


@pytest.mark.parametrize("name", ["PNDM", "EulerDiscrete", "HeunDiscrete"])
@pytest.mark.parametrize("last", [0, 1, 2])
def test_callbacks_stop_the_work(folder, name, last):
    def stop(pipe, step, time, values):
        pipe._interrupt = step == last
        return values

    settings = {"prompt": PROMPT, "num_inference_steps": 5, "change": scheduled(f"{name}Scheduler")}
    compare(folder("sd1"), callback_on_step_end=stop, **settings)


def test_errors_of_callbacks_come_through(folder):
    def broken(pipe, step, time, values):
        raise RuntimeError("mine")

    pipe = pipes(folder("sd1"))[1]
    with pytest.raises(RuntimeError, match="mine"):
        pipe(PROMPT, num_inference_steps=2, callback_on_step_end=broken, **SIZE)
    assert pipe(PROMPT, num_inference_steps=2, **SIZE).images


def test_progress(folder, capfd):
    pipe = compat.DiffusionPipeline.from_pretrained(folder("sd1"))
    pipe.scheduler = compat.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe(PROMPT, num_inference_steps=4, **SIZE)
    assert "4/4" in capfd.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    pipe(PROMPT, num_inference_steps=4, **SIZE)
    assert not capfd.readouterr().err


# Models


def test_classes(folder):
    kinds = {
        "sd1": compat.StableDiffusionPipeline,
        "sd2": compat.StableDiffusionPipeline,
        "sdxl": compat.StableDiffusionXLPipeline,
        "sd3": compat.StableDiffusion3Pipeline,
    }
    for name, kind in kinds.items():
        for made in (kind, compat.DiffusionPipeline, compat.AutoPipelineForText2Image):
            assert type(made.from_pretrained(folder(name))) is kind
        with pytest.raises(ModelError, match=f"use {kind.__name__}"):
            next(each for each in kinds.values() if each is not kind).from_pretrained(folder(name))
    pipe = compat.DiffusionPipeline.from_pretrained(folder("sdxl"))
    again = compat.AutoPipelineForText2Image.from_pipe(pipe)
    assert again.unet is pipe.unet


@pytest.mark.parametrize(
    "compiled", ["", wide('pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead", fullgraph=True)')]
)
def test_the_code_people_copy(folder, tmp_path, compiled):
    """With the import line changed and nothing else."""
    script = tmp_path / "script.py"
    script.write_text(f"""
import torch
from darkroom.compat.diffusers import StableDiffusionPipeline, DPMSolverMultistepScheduler

pipe = StableDiffusionPipeline.from_pretrained(
    {str(folder("sd1"))!r}, torch_dtype=torch.float16, safety_checker=None, use_safetensors=True
)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
pipe = pipe.to("cuda" if torch.cuda.is_available() else "cpu")
pipe.enable_attention_slicing()
pipe.enable_xformers_memory_efficient_attention()
pipe.enable_vae_slicing()
pipe.unet.to(memory_format=torch.channels_last)
{compiled}

generator = torch.Generator("cpu").manual_seed(42)
image = pipe(
    "an astronaut riding a horse", negative_prompt="blurry", num_inference_steps=3, guidance_scale=7.5,
    width=64, height=64, generator=generator,
).images[0]
image.save("astronaut.png")
""")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "astronaut.png") as image:
        assert image.size == (64, 64)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3-clips"])
def test_single_files(folder, name, tmp_path):
    with open_source(folder(name)) as source:
        convert(source, tmp_path / "model.safetensors")
    kind = type(compat.DiffusionPipeline.from_pretrained(folder(name)))
    whole, file = kind.from_pretrained(folder(name)), kind.from_single_file(tmp_path / "model.safetensors")
    made = [
        p(PROMPT, num_inference_steps=2, generator=seeded(2), output_type="pt", **SIZE).images
        for p in (whole, file)
    ]
    assert torch.equal(*made)


def test_precisions(folder):
    def noise(dtype):
        return torch.randn((1, 4, 10, 8), generator=seeded(6), dtype=dtype).float()

    settings = {"num_inference_steps": 2, "output_type": "latent", **SIZE}
    pipe = compat.StableDiffusionPipeline.from_pretrained(folder("sd1"), torch_dtype=torch.float16)
    half = pipe(PROMPT, generator=seeded(6), **settings).images
    assert half.dtype == torch.float16
    # Its noise is that which diffusers draws in this precision; a CPU computes in float32.
    single = compat.StableDiffusionPipeline.from_pretrained(folder("sd1"))
    expected = single(PROMPT, latents=noise(torch.float16), **settings).images
    assert torch.equal(half, expected.half())
    brain = pipe.to(torch.bfloat16)(PROMPT, generator=seeded(6), **settings).images
    expected = single(PROMPT, latents=noise(torch.bfloat16), **settings).images
    assert brain.dtype == torch.bfloat16
    assert 1e-4 < relative_error(brain.float(), expected) < 0.2
    assert next(pipe.unet.parameters()).dtype == torch.bfloat16


def test_memory(folder):
    settings = {"num_inference_steps": 2, "output_type": "pt", **SIZE}
    pipe = compat.StableDiffusionXLPipeline.from_pretrained(folder("sdxl"))
    expected = pipe(PROMPT, generator=seeded(1), **settings).images
    for enable in ("enable_model_cpu_offload", "enable_sequential_cpu_offload", "remove_all_hooks"):
        getattr(pipe, enable)()
        again = pipe(PROMPT, generator=seeded(1), **settings).images
        # The lowest memory decodes in tiles, which a picture this small is one of.
        assert torch.equal(again, expected)
    pipe.enable_vae_tiling()
    assert pipe(PROMPT, generator=seeded(1), **settings).images.shape == expected.shape
    pipe.disable_vae_tiling()
    assert torch.equal(pipe(PROMPT, generator=seeded(1), **settings).images, expected)


def test_other_autoencoders(folder, tmp_path):
    shutil.copytree(folder("sd2") / "vae", tmp_path / "vae")
    settings = {"num_inference_steps": 2, "output_type": "np", **SIZE}
    made = []
    for library in (diffusers, compat):
        vae = library.AutoencoderKL.from_pretrained(tmp_path / "vae", torch_dtype=torch.float32)
        pipe = library.StableDiffusionPipeline.from_pretrained(folder("sd1"), vae=vae)
        made.append(pipe(PROMPT, generator=seeded(1), **settings).images)
    assert np.abs(made[0] - made[1]).max() <= 1e-4
    pipe = compat.StableDiffusionPipeline.from_pretrained(folder("sd1"))
    own = pipe(PROMPT, generator=seeded(1), **settings).images
    assert np.abs(own - made[1]).max() > 0.01
    pipe.vae = compat.AutoencoderKL.from_pretrained(folder("sd2"), subfolder="vae")
    assert np.array_equal(pipe(PROMPT, generator=seeded(1), **settings).images, made[1])


def test_the_embedded_model(tmp_path):
    pipe = compat.DiffusionPipeline.from_pretrained("pocket")
    image = pipe("a red boat on a calm sea", num_inference_steps=6, generator=seeded(3)).images[0]
    assert image.size == (128, 128)
    assert np.asarray(image).std() > 20


# Refusals


def test_what_is_refused(folder, tmp_path):
    pipe = compat.StableDiffusionXLPipeline.from_pretrained(folder("sdxl"))

    def refused(words, make):
        with pytest.raises((InvalidRequest, ModelError), match=words) as raised:
            make()
        assert "\n" not in str(raised.value)

    def call(words, **settings):
        refused(words, lambda: pipe(**{"prompt": PROMPT, "num_inference_steps": 2, **SIZE, **settings}))

    states = torch.zeros(1, 77, 128)
    call("either prompt or prompt_embeds", prompt=None)
    call("either prompt or prompt_embeds", prompt_embeds=states)
    call("prompt is 3: give text", prompt=3)
    call("without pooled_prompt_embeds", prompt=None, prompt_embeds=states)
    call("both negative_prompt and", negative_prompt="a", negative_prompt_embeds=states)
    call("negative_prompt has 3 texts, prompt has 1", negative_prompt=["a", "b", "c"])
    call("height is 81, not a multiple of 8", height=81)
    call("num_inference_steps is 0", num_inference_steps=0)
    call("num_images_per_prompt is 0", num_images_per_prompt=0)
    call("guidance_scale is 'high'", guidance_scale="high")
    call("generator has 2 entries for 1 pictures", generator=seeded(1, 2))
    call("generator has 1 entries", generator=42)
    call("latents have the shape", latents=torch.zeros(1, 4, 8, 8))
    call("output_type is 'jpg'", output_type="jpg")
    call("clip_skip is 9: this model's text encoder takes 0 to", clip_skip=9)
    call("denoising_end is 2", denoising_end=2)
    call("has 'image': ", callback_on_step_end=print, callback_on_step_end_tensor_inputs=["image"])
    call("a call takes no 'stepz'", stepz=3)
    call("ip_adapter_image is not there", ip_adapter_image=Image.new("RGB", (8, 8)))
    call("attention settings", cross_attention_kwargs={"gligen": 1})
    wide = {"prompt_embeds": states, "pooled_prompt_embeds": torch.zeros(1, 64)}
    call("without negative_pooled", prompt=None, **wide, negative_prompt_embeds=states)
    more = {
        "negative_prompt_embeds": torch.zeros(1, 154, 128),
        "negative_pooled_prompt_embeds": torch.zeros(1, 64),
    }
    call("negative_prompt_embeds have the shape", prompt=None, **wide, **more)
    refused(
        "there is no model 'someone/something'",
        lambda: compat.DiffusionPipeline.from_pretrained("someone/something"),
    )
    refused("takes no 'unet'", lambda: compat.DiffusionPipeline.from_pretrained(folder("sd1"), unet=3))
    refused("vae is builtins.int", lambda: compat.DiffusionPipeline.from_pretrained(folder("sd1"), vae=3))
    theirs = diffusers.DDIMScheduler()
    refused(
        "import it from darkroom",
        lambda: compat.DiffusionPipeline.from_pretrained(folder("sd1"), scheduler=theirs),
    )
    sd1 = compat.DiffusionPipeline.from_pretrained(folder("sd1"))
    sd1.scheduler = theirs
    refused("import it from darkroom", lambda: sd1(PROMPT))
    refused("torch_dtype is torch.int8", lambda: pipe.to(torch.int8))
    refused("device 'cuda:77'", lambda: pipe.to("cuda:77"))
    refused("not exchanged here", lambda: setattr(pipe, "unet", torch.nn.Linear(1, 1)))
    sd3 = compat.DiffusionPipeline.from_pretrained(folder("sd3"))
    refused("max_sequence_length is 600", lambda: sd3(PROMPT, max_sequence_length=600))
    refused("skip_guidance_layers is not there", lambda: sd3(PROMPT, skip_guidance_layers=[1]))
    with pytest.raises(AttributeError, match="no 'load_ip_adapter'"):
        _ = pipe.load_ip_adapter
