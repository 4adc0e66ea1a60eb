"""What a pipeline is made of, beside diffusers' pipeline of the same folder."""

from __future__ import annotations

import copy
import pickle

import diffusers
import diffusers.callbacks
import pytest
import torch
import transformers
from tests.compat.test_pipelines import PROMPT, SIZE, compare, pipes, seeded
from tests.tables import wide

from darkroom.compat import diffusers as compat
from darkroom.compat.diffusers.faces import tokenizer
from darkroom.errors import InvalidRequest, ModelError
from darkroom.prompt import Tokenizer

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3"])
def test_networks_and_tokenizers(folder, name):
    theirs, ours = pipes(folder(name))
    denoiser = "transformer" if name == "sd3" else "unet"
    parts = [
        denoiser,
        "vae",
        *(f"text_encoder{n}" for n in ("", "_2", "_3") if hasattr(theirs, f"text_encoder{n}")),
    ]
    for part in parts:
        own, other = getattr(ours, part), getattr(theirs, part)
        assert (own.dtype, own.device) == (other.dtype, other.device), part
        assert sum(each.numel() for each in own.parameters()) > 0
    assert getattr(ours, denoiser) is getattr(ours, denoiser)
    for key in ("in_channels", "sample_size"):
        assert getattr(getattr(ours, denoiser).config, key) == getattr(theirs, denoiser).config[key]
    for key in ("scaling_factor", "latent_channels"):
        assert getattr(ours.vae.config, key) == theirs.vae.config[key]
    assert len(ours.vae.config.block_out_channels) == len(theirs.vae.config.block_out_channels)
    assert set(ours.components) <= set(theirs.components) | {"safety_checker", "feature_extractor"}
    assert {denoiser, "vae", "text_encoder", "tokenizer", "scheduler"} <= set(ours.components)
    assert ours.components["scheduler"] is ours.scheduler
    assert ours.tokenizer.model_max_length == theirs.tokenizer.model_max_length
    assert ours.tokenizer(PROMPT).input_ids == theirs.tokenizer(PROMPT).input_ids
    assert ours.config["_class_name"] == type(theirs).__name__
    assert ours.name_or_path == str(folder(name))
    assert ours.feature_extractor is None


def test_latents_prepared(folder):
    for scheduler in ("DDIMScheduler", "EulerDiscreteScheduler"):
        made = []
        for pipe, library in zip(pipes(folder("sd1")), (diffusers, compat), strict=True):
            pipe.scheduler = getattr(library, scheduler).from_config(pipe.scheduler.config)
            pipe.scheduler.set_timesteps(5)
            made.append(pipe.prepare_latents(2, 4, 80, 64, torch.float32, torch.device("cpu"), seeded(3)))
        assert made[0].shape == made[1].shape
        assert torch.allclose(*made, rtol=1e-5)
    noise = torch.ones(1, 4, 10, 8)
    ours = pipes(folder("sd1"))[1]
    assert torch.equal(ours.prepare_latents(1, 4, 80, 64, latents=noise), noise)
    with pytest.raises(InvalidRequest, match="this call needs"):
        ours.prepare_latents(1, 4, 64, 64, latents=noise)


def test_bars_and_pictures(folder, capfd):
    ours = pipes(folder("sd1"))[1]
    ours.set_progress_bar_config(disable=False)
    assert list(ours.progress_bar([1, 2, 3])) == [1, 2, 3]
    with ours.progress_bar(total=2) as bar:
        bar.update()
    assert "1/2" in capfd.readouterr().err
    images = ours(PROMPT, num_inference_steps=1, output_type="np", **SIZE).images
    assert ours.numpy_to_pil(images)[0].size == (64, 80)


def test_the_autoencoder_of_another_pipeline(folder):
    first = pipes(folder("sd1"))[1]
    second = compat.DiffusionPipeline.from_pretrained(folder("sd2"), vae=first.vae)
    latents = torch.randn(1, 4, 10, 8, generator=seeded(1))
    assert torch.equal(first.vae.decode(latents).sample, second.vae.decode(latents).sample)
    own = compat.DiffusionPipeline.from_pretrained(folder("sd2"))
    assert not torch.equal(own.vae.decode(latents).sample, second.vae.decode(latents).sample)
    own.vae = first.vae
    assert torch.equal(own.vae.decode(latents).sample, second.vae.decode(latents).sample)
    with pytest.raises(InvalidRequest, match=r"vae is torch\.nn.*Linear: give AutoencoderKL"):
        own.vae = torch.nn.Linear(1, 1)


def test_a_pipeline_is_not_put_together_from_parts(folder):
    pipe = pipes(folder("sd1"))[1]
    with pytest.raises(InvalidRequest, match="use from_pretrained, from_single_file, or from_pipe"):
        compat.StableDiffusionPipeline(**pipe.components)
    with pytest.raises(InvalidRequest, match="StableDiffusionPipeline"):
        compat.StableDiffusionPipeline()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_callbacks_are_given_latents_of_the_networks_type(folder, dtype):
    """They stay unrounded where nobody changes them, and are changed where somebody does."""
    pipe = compat.StableDiffusionPipeline.from_pretrained(folder("sd1"), torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    seen = []

    def look(pipe, step, time, values):
        seen.append(values["latents"].dtype)
        return values

    def double(pipe, step, time, values):
        values["latents"] *= 2
        return values

    settings = {"num_inference_steps": 3, "output_type": "latent", **SIZE}
    alone = pipe(PROMPT, generator=seeded(2), **settings).images
    watched = pipe(PROMPT, generator=seeded(2), callback_on_step_end=look, **settings).images
    changed = pipe(PROMPT, generator=seeded(2), callback_on_step_end=double, **settings).images
    assert seen == [dtype] * 3
    assert torch.equal(alone, watched)
    assert float(changed.float().std()) > 2 * float(alone.float().std())


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3"])
def test_what_a_family_has_not_is_not_there(folder, name):
    theirs, ours = pipes(folder(name))
    for part in (
        "unet",
        "transformer",
        *(f"{kind}{n}" for kind in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")),
    ):
        assert hasattr(ours, part) == hasattr(theirs, part), part
    for config, other in ((ours.vae.config, theirs.vae.config),):
        assert config["scaling_factor"] == other["scaling_factor"]
        assert config.get("none") is None


def test_a_pipeline_of_the_same_networks_goes_its_own_way(folder, tmp_path):
    first = compat.DiffusionPipeline.from_pretrained(folder("sd1"))
    first.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "output_type": "pt", **SIZE}
    before = first(PROMPT, generator=seeded(1), **settings).images
    for make in (compat.DiffusionPipeline.from_pipe, copy.copy):
        second = make(first)
        second.vae = compat.AutoencoderKL.from_pretrained(folder("sd2") / "vae")
        assert not torch.equal(second(PROMPT, generator=seeded(1), **settings).images, before)
    first.to(torch.bfloat16).to(torch.float32)
    assert torch.equal(first(PROMPT, generator=seeded(1), **settings).images, before)
    assert compat.DiffusionPipeline.from_pipe(first, torch_dtype="bf16").dtype == torch.bfloat16
    assert first.dtype == torch.float32


@pytest.mark.parametrize("scheduler", ["HeunDiscreteScheduler", "DDIMScheduler", "PNDMScheduler"])
def test_whatever_a_callback_raises_comes_out(folder, scheduler):
    ours = pipes(folder("sd1"))[1]
    ours.scheduler = getattr(compat, scheduler).from_config(ours.scheduler.config, skip_prk_steps=False)
    for last in range(3):

        def end(pipe, step, time, values, last=last):
            if step == last:
                raise StopIteration("mine")
            return values

        with pytest.raises(StopIteration, match="mine"):
            ours(PROMPT, num_inference_steps=3, callback_on_step_end=end, **SIZE)


def test_gradients_in_callbacks(folder):
    kept = []

    def nearer(pipe, step, time, values):
        with torch.enable_grad():
            latents = values["latents"].detach().clone().requires_grad_(True)
            slope = torch.autograd.grad((latents**2).sum(), latents)[0]
        kept.append(values["latents"])
        return {"latents": values["latents"] - 0.01 * slope}

    compare(folder("sd1"), prompt=PROMPT, callback_on_step_end=nearer)
    for each in kept:
        each += 1


@pytest.mark.parametrize("name", ["SDCFGCutoffCallback", "SDXLCFGCutoffCallback", "SD3CFGCutoffCallback"])
def test_diffusers_own_callbacks(folder, name):
    model = {"SDC": "sd1", "SDX": "sdxl", "SD3": "sd3"}[name[:3]]
    cutoff = getattr(diffusers.callbacks, name)(cutoff_step_ratio=0.5)
    compare(folder(model), prompt=PROMPT, num_inference_steps=4, callback_on_step_end=cutoff)


def test_spellings_of_types_and_places(folder):
    for said, dtype in (
        ("torch.float16", torch.float16),
        ("fp16", torch.float16),
        ("bfloat16", torch.bfloat16),
        ({"default": torch.bfloat16, "vae": torch.float32}, torch.bfloat16),
        ("auto", torch.float32),
        (None, torch.float32),
    ):
        pipe = compat.DiffusionPipeline.from_pretrained(
            folder("sd1"), torch_dtype=said, disable_mmap=True, quantization_config=None
        )
        assert pipe.dtype == dtype
    assert (
        pipe.to(None).to(device="cpu", dtype=None).to(memory_format=torch.channels_last).dtype
        == torch.float32
    )
    with pytest.raises(InvalidRequest, match="torch_dtype is 'float17'"):
        compat.DiffusionPipeline.from_pretrained(folder("sd1"), torch_dtype="float17")
    assert pipe(PROMPT, num_inference_steps=1, output_type="np.array", **SIZE).images.shape == (1, 80, 64, 3)


# Tokenizers


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """transformers' and ours, of one vocabulary."""
    own = Tokenizer.clip()
    own.save(folder := tmp_path_factory.mktemp("tokenizer"))
    return transformers.CLIPTokenizer.from_pretrained(folder), tokenizer(own)


TEXTS = ("A Red boat, on a sea!", "naïve café — 東京 🚀", "", "x " * 100)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"},
        {"padding": "max_length", "truncation": True},
        {"padding": "longest", "return_tensors": "np"},
        {"padding": "do_not_pad", "truncation": "do_not_truncate"},
        {"padding": False, "truncation": "longest_first", "max_length": 6},
        {"truncation": True, "max_length": 7},
        {"add_special_tokens": False},
        {"padding": True, "truncation": True, "max_length": 10, "add_special_tokens": False},
    ],
)
def test_ids_of_a_text(tokenizers, text, settings):
    theirs, ours = (each(text, **settings) for each in tokenizers)
    for name in ("input_ids", "attention_mask"):
        assert type(ours[name]) is type(theirs[name])
        assert torch.equal(torch.as_tensor(getattr(ours, name)), torch.as_tensor(getattr(theirs, name)))


def test_texts_and_words(tokenizers):
    theirs, ours = tokenizers
    for name in ("model_max_length", "bos_token_id", "eos_token_id", "pad_token_id", "vocab_size"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert len(ours) == len(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    both = [each(TEXTS[:3], padding=True, return_tensors="pt").input_ids for each in tokenizers]
    assert torch.equal(*both)
    for skip in (True, False):
        read = [each.batch_decode(both[0], skip_special_tokens=skip) for each in tokenizers]
        assert read[0] == read[1]
    for text in TEXTS:
        assert ours.tokenize(text) == theirs.tokenize(text)
        assert ours.encode(text) == theirs.encode(text)
    with pytest.raises(InvalidRequest, match="of several lengths make no tensor"):
        ours(TEXTS[:2], return_tensors="pt")
    with pytest.raises(InvalidRequest, match="return_tensors is 'tf'"):
        ours("a", return_tensors="tf")
    with pytest.raises(InvalidRequest, match="max_length is 1"):
        ours("a", max_length=1)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "sd3"])
def test_text_encoders_called_as_transformers_are(folder, name):
    theirs, ours = pipes(folder(name))
    for number in ("", "_2", "_3"):
        if not hasattr(theirs, f"text_encoder{number}"):
            continue
        network, own = getattr(theirs, f"text_encoder{number}"), getattr(ours, f"text_encoder{number}")
        ids = theirs.tokenizer([PROMPT, "cat"], padding="max_length", return_tensors="pt").input_ids
        ids = ids % network.config.vocab_size if number == "_3" else ids  # A toy of few words.
        mask = (torch.arange(ids.shape[1]) < 6).long().expand(len(ids), -1)
        for settings in ({}, {"attention_mask": mask}):
            states = {} if number == "_3" else {"output_hidden_states": True}
            with torch.no_grad():
                wanted, made = network(ids, **settings, **states), own(ids, **settings, **states)
                pairs = zip(wanted.to_tuple(), made.to_tuple(), strict=True)
                for one, other in pairs:
                    for a, b in zip(
                        *((one, other) if isinstance(one, tuple) else ([one], [other])), strict=True
                    ):
                        assert torch.allclose(a, b, atol=2e-5)
                assert torch.equal(own(ids, return_dict=False, **settings)[0], made[0])
                assert torch.equal(made["last_hidden_state"], made.last_hidden_state)
        vectors = own.get_input_embeddings().weight
        assert torch.equal(vectors, network.get_input_embeddings().weight)


def test_compel_reads_prompts_with_them(folder):
    from compel import Compel

    theirs, ours = pipes(folder("sd1"))
    made = [
        Compel(tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder)("a (red)1.4 boat, not a cat")
        for pipe in (theirs, ours)
    ]
    assert torch.allclose(*made, atol=1e-5)


@pytest.mark.parametrize("name", [wide("sd1"), "sd3"])
def test_an_autoencoder_by_itself(folder, name):
    theirs, pipe = pipes(folder(name))
    image = torch.rand(2, 3, 48, 64, generator=seeded(2)) * 2 - 1
    wanted = theirs.vae.encode(image).latent_dist.mean
    for own in (
        compat.AutoencoderKL.from_pretrained(folder(name), subfolder="vae"),
        compat.AutoencoderKL.from_pretrained(folder(name) / "vae", torch_dtype=torch.float32),
        compat.AutoencoderKL.from_pretrained(folder(name)).to("cpu"),
    ):
        assert torch.allclose(own.encode(image).latent_dist.mode(), wanted, atol=1e-4)
        assert torch.allclose(own.decode(wanted).sample, theirs.vae.decode(wanted).sample, atol=1e-4)
        assert own.config.scaling_factor == theirs.vae.config.scaling_factor
        assert (own.dtype, own.device) == (torch.float32, torch.device("cpu"))
        again = pickle.loads(pickle.dumps(own))
        assert torch.equal(again.decode(wanted)[0], copy.deepcopy(own).decode(wanted, return_dict=False)[0])
    own.enable_tiling()
    assert own.decode(torch.zeros(1, wanted.shape[1], 80, 80)).sample.isfinite().all()
    assert own.to(torch.bfloat16).decode(wanted).sample.dtype == torch.bfloat16
    pipe.vae = own.enable_slicing() or own
    assert torch.allclose(pipe.vae.decode(wanted).sample, theirs.vae.decode(wanted).sample, atol=1e-4)
    with pytest.raises(ModelError, match="holds no autoencoder"):
        compat.AutoencoderKL.from_pretrained(folder(name) / "text_encoder").decode(wanted)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        own.nothing_like_it  # noqa: B018
