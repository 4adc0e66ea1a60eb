"""Models in every layout, told from their headers: single files and folders, there and back again."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoint.test_rules import weights, written
from torch import nn

import darkroom
from darkroom.checkpoint.beside import with_vae
from darkroom.checkpoint.export import convert
from darkroom.checkpoint.family import Shapes
from darkroom.checkpoint.identify import Evidence, family_of
from darkroom.checkpoint.load import fill, readers
from darkroom.checkpoint.opening import open_source
from darkroom.errors import InvalidRequest, ModelError
from darkroom.networks import (
    VAE,
    CLIPText,
    CLIPTextConfig,
    MMDiT,
    MMDiTConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)

CPU = torch.device("cpu")
TEXT = CLIPTextConfig(
    vocab_size=49408, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1
)
OPEN = CLIPTextConfig(
    vocab_size=49408,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=1,
    hidden_act="gelu",
    projection_dim=64,
)
AUTOENCODER = VAEConfig(block_out_channels=(32, 32), layers_per_block=1)
UNETS = {
    "Stable Diffusion 1": UNetConfig(
        block_out_channels=(32, 32),
        layers_per_block=1,
        transformer_layers_per_block=(0, 1),
        cross_attention_dim=64,
    ),
    "Stable Diffusion 2": UNetConfig(
        block_out_channels=(32, 64),
        layers_per_block=1,
        transformer_layers_per_block=(0, 1),
        cross_attention_dim=64,
        use_linear_projection=True,
    ),
    "Stable Diffusion XL": UNetConfig(
        block_out_channels=(32, 64),
        layers_per_block=1,
        transformer_layers_per_block=(0, 2),
        mid_transformer_layers=2,
        cross_attention_dim=128,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=64 + 6 * 256,
    ),
}
TRANSFORMER = MMDiTConfig(
    sample_size=16,
    num_layers=2,
    num_attention_heads=2,
    joint_attention_dim=160,
    caption_projection_dim=128,
    pooled_projection_dim=128,
    pos_embed_max_size=12,
)


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def original(network: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    return written(network, {name: t.half() * 0.05 for name, t in weights(network, seed).items()})


def ours(network: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    return {name: t.half() * 0.05 for name, t in weights(network, seed).items()}


def single_file(family: str) -> dict[str, torch.Tensor]:
    """A single file's tensors as its authors name them, extra keys of training and all."""
    return {name: tensor.clone() for name, tensor in _single_file(family).items()}


@cache
@torch.random.fork_rng(devices=[])  # Whether it is made or remembered, the next draw is the same.
def _single_file(family: str) -> dict[str, torch.Tensor]:
    if family == "Stable Diffusion 3 medium":
        three = VAEConfig(
            block_out_channels=(32, 32),
            layers_per_block=1,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        return (
            prefixed("model.diffusion_model.", original(MMDiT(TRANSFORMER)))
            | prefixed("first_stage_model.", original(VAE(three)))
            | prefixed("text_encoders.clip_l.transformer.", ours(CLIPText(OPEN), 1))
            | prefixed("text_encoders.clip_g.transformer.", ours(CLIPText(OPEN), 2))
        )
    tensors = prefixed("model.diffusion_model.", original(UNet(UNETS[family])))
    tensors |= prefixed("first_stage_model.", original(VAE(AUTOENCODER), 1))
    tensors["betas"] = torch.rand(1000)
    tensors["model_ema.decay"] = torch.tensor(0.9999)
    if family == "Stable Diffusion 1":
        tensors |= prefixed("cond_stage_model.transformer.", ours(CLIPText(TEXT), 2))
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    elif family == "Stable Diffusion 2":
        tensors |= prefixed("cond_stage_model.model.", original(CLIPText(OPEN), 2))
        tensors["cond_stage_model.model.logit_scale"] = torch.tensor(4.6)
    else:
        tensors |= prefixed("conditioner.embedders.0.transformer.", ours(CLIPText(TEXT), 2))
        tensors |= prefixed("conditioner.embedders.1.model.", original(CLIPText(OPEN), 3))
        tensors["conditioner.embedders.1.model.logit_scale"] = torch.tensor(4.6)
    return tensors


FAMILIES = [*UNETS, "Stable Diffusion 3 medium"]


@pytest.fixture(params=FAMILIES)
def file(request, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(single_file(request.param), path)
    return path, request.param


def test_single_files_are_told_by_their_shapes(file):
    path, family = file
    with open_source(path) as source:
        assert source.family.name == family
        roles = {"vae", source.denoiser.role, *source.family.text}
        assert source.parts.keys() == roles
        networks = fill(readers(source, CPU, torch.float32))
    assert not any(p.is_meta for network in networks.values() for p in network.parameters())


def test_there_and_back_again_changes_no_bit(file, tmp_path):
    path, _ = file
    with open_source(path) as source:
        convert(source, tmp_path / "folder")
    with open_source(tmp_path / "folder") as source:
        convert(source, tmp_path / "again.safetensors")
    before, after = load_file(path), load_file(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert torch.equal(tensor, after[name]), name


def test_a_folder_makes_the_picture_of_its_file(file, tmp_path):
    path, _ = file
    with open_source(path) as source:
        convert(source, tmp_path / "folder", prune=True)
    settings = {"steps": 2, "width": 32, "height": 32, "seed": 3, "second_pass": "off", "sampler": "euler"}
    one, other = (
        darkroom.load(where, device="cpu", precision="float32").generate("a red boat", **settings)[0]
        for where in (path, tmp_path / "folder")
    )
    assert one.image.tobytes() == other.image.tobytes()


def test_precision_is_changed_on_the_way(file, tmp_path):
    path, _ = file
    with open_source(path) as source:
        convert(source, tmp_path / "new.safetensors", torch.bfloat16, prune=True)
    tensors = load_file(tmp_path / "new.safetensors")
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.bfloat16}
    assert not any(name.startswith("model_ema") for name in tensors)


def test_what_is_missing_is_named(tmp_path):
    tensors = single_file("Stable Diffusion 1")
    name = "model.diffusion_model.out.0.weight"
    for change, words in (
        ({key: t for key, t in tensors.items() if key != name}, name),
        ({key: t for key, t in tensors.items() if "cond_stage" not in key}, "text_encoder"),
        ({key: t for key, t in tensors.items() if "diffusion_model" not in key}, "`vae=`"),
        ({"weight": torch.zeros(3)}, "another kind of file"),
    ):
        save_file(change, tmp_path / "model.safetensors")
        with pytest.raises(ModelError) as raised:
            darkroom.load(tmp_path / "model.safetensors", device="cpu")
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)


def test_parts_may_lie_in_files_of_their_own(tmp_path):
    whole = single_file("Stable Diffusion XL")
    for name, prefix in (("unet", "model."), ("text", "conditioner."), ("vae", "first_stage_model.")):
        save_file(
            {key: t for key, t in whole.items() if key.startswith(prefix)}, tmp_path / f"{name}.safetensors"
        )
    model = darkroom.load(
        tmp_path / "unet.safetensors",
        others=[tmp_path / "text.safetensors"],
        vae=tmp_path / "vae.safetensors",
        device="cpu",
    )
    save_file(whole, tmp_path / "whole.safetensors")
    other = darkroom.load(tmp_path / "whole.safetensors", device="cpu")
    settings = {"steps": 2, "width": 32, "height": 32, "seed": 3, "second_pass": "off"}
    one, two = (each.generate("a boat", **settings)[0].image.tobytes() for each in (model, other))
    assert one == two


def test_another_autoencoder_must_fit(file, tmp_path):
    path, family = file
    channels = 4 if "3" in family else 16
    save_file(
        original(VAE(VAEConfig(block_out_channels=(32, 32), latent_channels=channels))),
        tmp_path / "vae.safetensors",
    )
    with open_source(path) as source, pytest.raises(ModelError, match=f"{channels} channels"):
        with_vae(source, tmp_path / "vae.safetensors")


def test_v_prediction_is_found_said_and_overridden(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = single_file("Stable Diffusion XL")

    def predicts(**options):
        with open_source(path, **options) as source:
            return (
                source.family.process.name,
                source.family.schedule.zero_terminal_snr,
                " ".join(source.notes),
            )

    save_file(tensors, path)
    assert predicts()[0] == "epsilon"
    assert "assumed" in predicts()[2]
    save_file({**tensors, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, path)
    assert predicts()[:2] == ("v_prediction", True)
    assert predicts(prediction="epsilon", zero_snr=False)[:2] == ("epsilon", False)
    save_file(tensors, path, metadata={"modelspec.prediction_type": "v"})
    assert predicts()[0] == "v_prediction"
    save_file(tensors, path)
    path.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert predicts()[0] == "v_prediction"
    with pytest.raises(InvalidRequest, match="unknown prediction type"):
        predicts(prediction="vv")


def test_stable_diffusion_2_is_judged_by_its_weights(tmp_path):
    config = UNetConfig(
        cross_attention_dim=1024, num_attention_heads=(5, 10, 20, 20), use_linear_projection=True
    )
    for spread, kind, native in ((0.2, "v_prediction", 768), (0.03, "epsilon", 512)):
        bias = torch.randn(320, generator=torch.Generator().manual_seed(0)) * spread
        found, notes = family_of(
            Shapes(config, True, 1),
            Evidence({}, "", lambda name, bias=bias: bias.numpy() if "11.1" in name else None),
        )
        assert (found.process.name, found.native) == (kind, native)
        assert "judged by its weights" in notes[-1]


def test_distilled_models_are_told_by_their_names(tmp_path):
    path = tmp_path / "sdxl_lightning_4step.safetensors"
    save_file(single_file("Stable Diffusion XL"), path)
    with open_source(path) as source:
        assert (source.family.preferences.steps, source.family.preferences.schedule) == (4, "trailing")
        assert any("distilled" in note for note in source.notes)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_variants_and_shards_of_folders(toy_folder, tmp_path, variant):
    import shutil

    folder = shutil.copytree(toy_folder, tmp_path / "copy")
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    dot = f".{variant}" if variant else ""
    names = sorted(tensors)
    halves = {f"diffusion_pytorch_model{dot}-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for name, keys in halves.items():
        save_file({key: tensors[key] for key in keys}, folder / "unet" / name)
    index = {"metadata": {}, "weight_map": {key: name for name, keys in halves.items() for key in keys}}
    (folder / f"unet/diffusion_pytorch_model.safetensors.index{dot}.json").write_text(json.dumps(index))
    with open_source(folder, variant=variant) as source:
        network = fill(readers(source, CPU, torch.float32))["unet"]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, tensors[name].float())
