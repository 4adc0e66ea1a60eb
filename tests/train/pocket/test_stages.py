"""The stages on tiny networks: what they train, what they leave, and that the parts fit together."""

from __future__ import annotations

import json
from functools import cache, partial, partialmethod

import numpy as np
import pytest
import torch
from torch import nn

from darkroom.errors import InvalidRequest, ModelError
from darkroom.model import load
from darkroom.networks import VAE, CLIPTextConfig, CLIPVisionConfig, UNetConfig, VAEConfig
from darkroom.train.config import LoopConfig
from darkroom.train.folders import load_network, save_network
from darkroom.train.loop import Trainer
from darkroom.train.pocket.clip import (
    Captions,
    CLIPData,
    CLIPLoss,
    CLIPSettings,
    CLIPStage,
    contrastive,
    world_tokenizer,
)
from darkroom.train.pocket.data import WorldConfig, scenes_by_style
from darkroom.train.pocket.export import assemble, preview_matrix
from darkroom.train.pocket.latents import Latents, Turns, build
from darkroom.train.pocket.unet import UNetLoss, UNetSettings, UNetStage, cell_loss
from darkroom.train.pocket.vae import (
    Discriminator,
    VAELoss,
    VAESettings,
    VAEStage,
    adversarial,
    reconstruction,
)

LOOP = LoopConfig(
    batch=2,
    steps=2,
    decay=1,
    warmup=0,
    workers=0,
    log_every=1,
    validate_every=0,
    sample_every=0,
    precision="float32",
)


@pytest.fixture(scope="module", autouse=True)
def few_scenes():
    """Fewer scenes to learn words from, to measure latents of, and to judge by."""
    few_words = cache(partial(world_tokenizer, captions=1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("darkroom.train.pocket.clip.world_tokenizer", few_words)
        patch.setattr(
            Captions,
            "__call__",
            lambda self, start, count, call=Captions.__call__: call(self, start, min(count, 12)),
        )
        patch.setattr(
            UNetStage, "_held_out", lambda self, count, held_out=UNetStage._held_out: held_out(self, 16)
        )
        patch.setattr(
            "darkroom.train.pocket.vae.scenes_by_style", lambda world, count: scenes_by_style(world, 1)
        )
        patch.setattr("darkroom.train.pocket.export.preview_matrix", partial(preview_matrix, count=16))
        patch.setattr(VAEStage, "calibrated", partialmethod(VAEStage.calibrated, count=32))
        yield


@pytest.fixture(scope="module")
def trained(few_scenes, tmp_path_factory):
    """Every stage trained for two steps, one on the other's results: the folder of all of them."""
    folder = tmp_path_factory.mktemp("runs")
    vae = VAEConfig(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=128,
        force_upcast=False,
    )
    Trainer(VAEStage(VAESettings(vae, loop=LOOP, loss=VAELoss(half=0.0))), LOOP, folder / "vae").run()
    text = CLIPTextConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, projection_dim=8
    )
    vision = CLIPVisionConfig(32, 32, 1, 4, image_size=128, patch_size=64, projection_dim=8)
    clip = CLIPStage(CLIPSettings(text, vision, loop=LOOP, data=CLIPData(700, 1, 2)))
    Trainer(clip, LOOP, folder / "clip").run()
    changes = ["scenes=6", "batch=3", "workers=0", "world.size=128"]
    assert build("pocket/latents", changes, folder / "vae/result/vae", folder / "latents", "cpu") == 0
    unet = UNetConfig(
        block_out_channels=(8, 16),
        layers_per_block=1,
        transformer_layers_per_block=(0, 1),
        num_attention_heads=2,
        norm_num_groups=4,
        sample_size=16,
    )
    places = {"vae": str(folder / "vae/result/vae"), "clip": str(folder / "clip/result")}
    settings = UNetSettings(unet, **places, latents=(str(folder / "latents"),), steps=2, loop=LOOP)
    stage = UNetStage(settings)
    Trainer(stage, LOOP, folder / "unet").run()
    assert stage.validate()["error"] > 0
    assert stage.sheet().size == (4 * 130 + 2, 4 * 130 + 2)
    assemble(folder / "vae/result/vae", folder / "unet/result", folder / "model")
    return folder


def test_the_autoencoder_is_saved_with_latents_of_unit_variance(trained):
    config = json.loads((trained / "vae/result/vae/config.json").read_text())
    vae = load_network(trained / "vae/result/vae", VAE)
    pictures = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert config["scaling_factor"] == vae.config.scaling_factor != 0.18215
    assert vae.to_latent(pictures).shape == (4, 4, 16, 16)


def test_caches_take_turns_batch_by_batch(trained):
    tokenizer = trained / "clip/result/tokenizer"
    first, second = (Latents.open(trained / "latents", tokenizer, seed) for seed in (0, 1))
    turns = Turns([first, first, second])
    wanted = [(first, 0), (first, 2), (second, 0), (first, 4), (first, 6), (second, 2)]
    for i, (source, start) in enumerate(wanted):
        assert np.array_equal(turns(2 * i, 2)["ids"], source(start, 2)["ids"])


def test_a_decoder_trained_alone_keeps_the_latents(trained, tmp_path):
    first = load_network(trained / "vae/result/vae", VAE)
    settings = VAESettings(
        first.config,
        start_from=str(trained / "vae/result/vae"),
        decoder_only=True,
        loop=LOOP,
        loss=VAELoss(half=0.0),
    )
    Trainer(VAEStage(settings), LOOP, tmp_path).run()
    second = load_network(tmp_path / "result/vae", VAE)
    pictures = torch.rand(1, 3, 64, 64)
    assert torch.equal(first.to_latent(pictures), second.to_latent(pictures))
    assert not torch.equal(first.decoder.conv_out.weight, second.decoder.conv_out.weight)


def test_a_cache_grows_and_belongs_to_its_autoencoder(trained, tmp_path):
    folder = trained / "latents"
    source = Latents.open(folder, trained / "clip/result/tokenizer", seed=0)
    assert source.count == 6
    epoch = source(0, 6)
    assert epoch["latents"].shape == (6, 4, 16, 16)
    assert epoch["cells"].shape == (6, 2, 8, 8)
    assert np.array_equal(source(4, 2)["latents"], epoch["latents"][4:])
    again = source(6, 6)
    assert sorted(row.tobytes() for row in again["latents"]) == sorted(
        row.tobytes() for row in epoch["latents"]
    )
    assert not np.array_equal(again["ids"], epoch["ids"])
    other = VAEConfig(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, sample_size=128)
    save_network(tmp_path / "vae", VAE(other))
    with pytest.raises(InvalidRequest, match="was made with vae"):
        build("pocket/latents", ["workers=0", "world.size=128"], tmp_path / "vae", folder, "cpu")


def test_the_model_folder_draws(trained):
    model = load(trained / "model", device="cpu", precision="float32")
    picture = model.generate("a red circle", steps=2, width=128, height=128, seed=1)[0]
    assert picture.image.size == (128, 128)
    facts = json.loads((trained / "model/darkroom.json").read_text())
    assert np.array(facts["preview"]).shape == (3, 5)


@pytest.mark.peer
def test_the_model_folder_loads_in_diffusers(trained):
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(trained / "model")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config.prediction_type == "flow_prediction"
    made = pipeline("a red circle", num_inference_steps=2, width=128, height=128, output_type="np").images
    assert made.shape == (1, 128, 128, 3)


def test_a_missing_network_is_named(trained, tmp_path):
    with pytest.raises(ModelError, match=r"trained\.json is missing"):
        assemble(trained / "vae/result/vae", tmp_path, tmp_path / "out")


def test_text_alone_needs_no_pictures():
    text = CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    vision = CLIPVisionConfig(16, 16, 1, 2, image_size=128, patch_size=64)
    stage = CLIPStage(
        CLIPSettings(
            text, vision, loop=LOOP, data=CLIPData(700, 1, 2), loss=CLIPLoss(contrast=0.0, picture=0.0)
        )
    )
    batch = {name: torch.from_numpy(value) for name, value in stage.source()(0, 2).items()}
    assert "pictures" not in batch
    loss, parts = stage.loss(batch, torch.Generator())
    assert parts.keys() == {"text"}
    assert loss.requires_grad


def test_contrast_prefers_the_own_caption_and_heeds_wrong_ones():
    own = torch.eye(3, 8)
    scale = torch.tensor(3.0)
    good = contrastive(own, own, scale)
    assert good < contrastive(own, own.roll(1, 0), scale)
    assert good < contrastive(own, torch.cat([own, own]), scale)


def test_reconstruction_is_zero_only_for_the_truth():
    truth = torch.rand(2, 3, 32, 32)
    assert reconstruction(truth, truth, VAELoss()) == 0
    shifted = reconstruction(truth + 0.1, truth, VAELoss())
    assert shifted == pytest.approx(0.1 + 0.01, abs=1e-5)  # A constant has no gradient.


def test_each_side_of_the_adversarial_loss_trains_its_own_network():
    judge, images = Discriminator(8), torch.rand(2, 3, 32, 32, requires_grad=True)
    fooled, told = adversarial(judge, images, torch.rand(2, 3, 32, 32))
    fooled.backward(retain_graph=True)
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in judge.parameters())
    images.grad = None
    told.backward()
    assert images.grad is None
    assert all(isinstance(p, nn.Parameter) and p.grad is not None for p in judge.parameters())


def test_cells_are_only_asked_of_rows_with_their_caption():
    scores = torch.zeros(2, 31, 2, 2)
    cells = torch.zeros(2, 2, 2, 2, dtype=torch.int8)
    scores[1] = torch.randn(31, 2, 2)
    uniform = torch.log(torch.tensor(19.0)) + torch.log(torch.tensor(12.0))
    assert cell_loss(scores, cells, torch.tensor([True, False])) == pytest.approx(uniform.item(), rel=1e-5)
    assert cell_loss(scores, cells, torch.tensor([False, False])) == 0


def test_settings_out_of_range_are_named():
    with pytest.raises(InvalidRequest, match=r"dropout is 1\.0"):
        UNetLoss(dropout=1.0)
    with pytest.raises(InvalidRequest, match="core is 2"):
        WorldConfig(core=2)
