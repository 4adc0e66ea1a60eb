"""Files and folders of models that Darkroom does not run, and things given as models that are none."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from tests.checkpoint.test_source import AUTOENCODER, original, prefixed, single_file
from tests.library.test_scan import PARTS

import darkroom
from darkroom.checkpoint.opening import open_source
from darkroom.errors import ModelError, UnsupportedModel
from darkroom.library.describe import describe
from darkroom.library.kinds import identify
from darkroom.library.locate import locate
from darkroom.networks import VAE

VAE_INSIDE = prefixed("vae.", original(VAE(AUTOENCODER)))
FOREIGN = {
    "Flux": ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"],
    "Stable Video Diffusion": ["input_blocks.1.1.time_stack.0.attn1.to_q.weight"],
    "PixArt": ["blocks.0.scale_shift_table"],
    "AnimateDiff": ["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"],
    "Qwen-Image": ["transformer_blocks.0.img_mod.1.weight"],
    "Kolors": ["encoder_hid_proj.weight"],
    "NF4": ["input_blocks.0.0.weight.absmax", "input_blocks.0.0.weight.quant_state.bitsandbytes__nf4"],
    "int8": ["input_blocks.0.0.SCB"],
    "NVFP4": ["input_blocks.0.0.weight_scale_2", "input_blocks.0.0.weight_scale"],
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
def test_other_models_are_called_by_their_names(tmp_path, what, prefix):
    path = tmp_path / "m.safetensors"
    save_file({**VAE_INSIDE, **{prefix + name: torch.zeros(2, 2) for name in FOREIGN[what]}}, path)
    for look in (open_source, describe, identify, lambda path: darkroom.load(path, device="cpu")):
        with pytest.raises(UnsupportedModel, match=what) as raised:
            look(path)
        assert "\n" not in str(raised.value)


def test_a_folder_of_another_pipeline_is_called_by_its_name(toy_folder, tmp_path):
    folder = shutil.copytree(toy_folder, tmp_path / "copy")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    del index["unet"]
    (folder / "unet").rename(folder / "transformer")
    (folder / "model_index.json").write_text(json.dumps(index))
    for look in (open_source, describe, identify):
        with pytest.raises(UnsupportedModel, match="FluxPipeline"):
            look(folder)


def test_noise_of_another_kind_is_refused(toy_folder, tmp_path):
    tensors, path = single_file("Stable Diffusion XL"), tmp_path / "m.safetensors"
    for mark in ("edm_vpred.sigma_max", "edm_mean"):
        save_file({**tensors, mark: torch.ones(1)}, path)
        with pytest.raises(UnsupportedModel, match=f"EDM.*{mark}"):
            describe(path)
    save_file(tensors, path)
    path.with_suffix(".yaml").write_text(
        "target: sgm.modules.diffusionmodules.denoiser_scaling.VScalingWithEDMcNoise"
    )
    with pytest.raises(UnsupportedModel, match="EDM"):
        open_source(path)
    folder = shutil.copytree(toy_folder, tmp_path / "copy")
    (folder / "scheduler/scheduler_config.json").write_text('{"_class_name": "EDMEulerScheduler"}')
    with pytest.raises(UnsupportedModel, match="EDMEulerScheduler"):
        open_source(folder)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lora", "LoRA: give it as `adapters=`"),
        ("embedding", "`embeddings=`"),
        ("controlnet", "a ControlNet"),
    ],
)
def test_what_goes_beside_a_model_is_told_so(tmp_path, kind, words):
    path = tmp_path / "thing.safetensors"
    save_file(PARTS[kind], path)
    with pytest.raises(ModelError, match=f"is no model but .*{words}"):
        darkroom.load(path, device="cpu")


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        (".yaml", 'model:\n  params:\n    parameterization: "v"\n', "v_prediction"),
        (".yaml", '    # parameterization: "v"\n    parameterization: "eps"\n', "epsilon"),
        (
            ".yml",
            "scaling_config:\n  target: sgm.modules.diffusionmodules.denoiser_scaling.VScaling\n",
            "v_prediction",
        ),
        (".json", '{"prediction_type": "v_prediction"}', "v_prediction"),
        (".json", '{"v_parameterization": true}', "v_prediction"),
        (".json", '{"modelspec.prediction_type": "v"}', "v_prediction"),
        (".civitai.info", '{"baseModel": "SD 2.1 768"}', "v_prediction"),
    ],
)
def test_configurations_beside_a_file_decide(tmp_path, name, text, kind):
    path = tmp_path / "model.safetensors"
    save_file(single_file("Stable Diffusion XL"), path)
    path.with_suffix(name).write_text(text)
    with open_source(path) as source:
        assert source.family.process.name == kind
        assert any("beside it says so" in note for note in source.notes)


def test_zero_terminal_snr_is_read_beside_a_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(single_file("Stable Diffusion XL"), path)
    path.with_suffix(".json").write_text(
        '{"prediction_type": "v_prediction", "rescale_betas_zero_snr": true}'
    )
    with open_source(path) as source:
        assert source.family.schedule.zero_terminal_snr


LAYER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
MORE_BESIDE = {
    "IA3": (dict.fromkeys([f"{LAYER}.weight"], (64, 1)) | {f"{LAYER}.on_input": ()}, "lora"),
    "IA3 of PEFT": ({"base_model.model.down_blocks.0.attn.to_k.ia3_l": (64, 1)}, "lora"),
    "GLoRA": ({f"{LAYER}.{name}.weight": (4, 64) for name in ("a1", "a2", "b1", "b2")}, "lora"),
    "OFT": ({f"{LAYER}.oft_diag": (4, 16, 16)}, "lora"),
    "all of a layer": ({f"{LAYER}.diff": (64, 64)}, "lora"),
    "LyCORIS": ({"lycoris_te1_text_model_encoder_layers_0_mlp_fc1.w_norm": (64,)}, "lora"),
    "a bare word": ({"toy": (2, 768)}, "embedding"),
    "A1111's": ({"*": (3, 1024)}, "embedding"),
    "one vector": ({"<toy>": (768,)}, "embedding"),
    "not a word": ({"toy": (3,)}, None),
    "two words": ({"toy": (2, 768), "boat": (2, 768)}, None),
}


@pytest.mark.parametrize("what", MORE_BESIDE)
def test_what_changes_a_model_is_told_by_its_tensors(tmp_path, what):
    shapes, kind = MORE_BESIDE[what]
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, tmp_path / "m.safetensors")
    if kind is None:
        for look in (describe, identify):
            with pytest.raises(ModelError, match="it is another kind of file"):
                look(tmp_path / "m.safetensors")
    else:
        assert describe(tmp_path / "m.safetensors").form == f"{kind} (safetensors)"
        assert identify(tmp_path / "m.safetensors").kind == kind


def test_a_folder_says_what_it_is(toy_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    several = tmp_path / "several"
    several.mkdir()
    for name in ("a", "b", "c", "d"):
        save_file({"x": torch.ones(3)}, several / f"{name}.safetensors")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/read.me").touch()
    for name, words in (
        ("empty", "is an empty folder"),
        ("several", r"holds 4 files of weights \(a.safetensors, b.safetensors, c.safetensors, ...\)"),
        ("notes", "has no model_index.json"),
    ):
        with pytest.raises(ModelError, match=f"{words}: give a model folder"):
            locate(tmp_path / name)
    for look in (darkroom.load, describe):
        with pytest.raises(ModelError, match="holds a tokenizer and no weights"):
            look(toy_folder / "tokenizer")
    alone = tmp_path / "alone"
    shutil.copytree(toy_folder / "vae", alone / "vae")
    index = {"_class_name": "MyPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    (alone / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"no Stable Diffusion model but MyPipeline \(it holds autoencoder"):
        open_source(alone)


def test_a_control_network_of_diffusers_is_told_so(tmp_path):
    names = ["controlnet_cond_embedding.conv_in.weight", "controlnet_down_blocks.0.weight"]
    names += ["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight", "mid_block.resnets.0.conv1.weight"]
    folder = tmp_path / "control"
    folder.mkdir()
    (folder / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    save_file({name: torch.zeros(2, 2) for name in names}, folder / "diffusion_pytorch_model.safetensors")
    for path in (folder, folder / "diffusion_pytorch_model.safetensors"):
        with pytest.raises(ModelError, match="is no model but a ControlNet"):
            darkroom.load(path, device="cpu")
        assert identify(path).kind == "controlnet"


def test_the_autoencoder_of_another_kind_of_model_is_one(toy_folder, tmp_path):
    folder = shutil.copytree(toy_folder, tmp_path / "flux")
    index = json.loads((folder / "model_index.json").read_text())
    del index["unet"]
    index |= {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet").rename(folder / "transformer")
    one, other = (
        darkroom.load(toy_folder, device="cpu", vae=vae).generate("a", steps=1, seed=1, width=32, height=32)[
            0
        ]
        for vae in (folder, None)
    )
    assert one.image.tobytes() == other.image.tobytes()
