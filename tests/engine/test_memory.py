"""Networks that come and go: the same pictures in less memory, and what is foretold of it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import darkroom
from darkroom.assembly import Opened
from darkroom.checkpoint.load import readers
from darkroom.checkpoint.opening import open_source
from darkroom.engine.devices import place
from darkroom.engine.memory import MODES, Memory, Room, memory_mode, seated
from darkroom.errors import InvalidRequest, ModelError
from darkroom.forecast.cost import cost_of
from darkroom.forecast.forecast import Forecaster
from darkroom.generation import Request
from darkroom.generation.settle import settle
from darkroom.networks import Conditioning, UNet, UNetConfig, unfilled
from darkroom.numeric import parse_size

CPU = torch.device("cpu")


def drawn(path, memory, precision="float32", **settings):
    model = darkroom.load(path, device="cpu", precision=precision, memory=memory)
    picture = model.generate(
        "a red boat", negative="night", steps=2, width=64, height=64, seed=3, **settings
    )[0]
    model.close()
    return np.asarray(picture.image)


# What a mode does is the same in either precision: one family in the other.
@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "precision"),
    [("sd1", "float32"), ("sd2", "float32"), ("sdxl", "bfloat16"), ("sd3", "float32")],
)
def test_every_mode_draws_the_same_picture(folder, name, precision, monkeypatch):
    # All layers of so small a model are small: have them come and go all the same, but for tables of positions.
    monkeypatch.setattr("darkroom.engine.memory._SMALL", 77 * 64)
    expected = drawn(folder(name), "full", precision)
    for mode in MODES:
        assert np.array_equal(drawn(folder(name), mode, precision), expected), mode


def held(networks):
    return {role for role, network in networks.items() if any(not p.is_meta for p in network.parameters())}


def test_networks_that_take_turns_are_there_one_at_a_time(toy_folder):
    with open_source(toy_folder) as source:
        by_role = readers(source, CPU, torch.float32)
        networks = seated(by_role, Memory(others="turns", denoiser="turns"), Room())
        assert held(networks) == set()
        networks["text_encoder"](torch.zeros(1, 4, dtype=torch.long))
        assert held(networks) == {"text_encoder"}
        networks["vae"].decode(torch.zeros(1, 4, 4, 4))
        assert held(networks) == {"vae"}


def test_layers_that_stream_are_gone_when_they_are_done(toy_folder, monkeypatch):
    monkeypatch.setattr("darkroom.engine.memory._SMALL", 0)
    with open_source(toy_folder) as source:
        networks = seated(readers(source, CPU, torch.float32), MODES["lowest"], Room())
        networks["vae"].decode(torch.zeros(1, 4, 4, 4))
        assert held(networks) == set()


def test_a_layer_that_fails_leaves_the_others_usable(toy_folder, monkeypatch):
    monkeypatch.setattr("darkroom.engine.memory._SMALL", 0)
    with open_source(toy_folder) as source:
        vae = seated(readers(source, CPU, torch.float32), MODES["lowest"], Room())["vae"]
        expected = vae.decode(torch.ones(1, 4, 4, 4))
        with pytest.raises(RuntimeError):
            vae.decode(torch.zeros(1, 7, 4, 4))
        assert torch.equal(vae.decode(torch.ones(1, 4, 4, 4)), expected)


def test_a_model_that_reads_its_files_notices_when_they_change(toy_folder, tmp_path):
    import shutil

    folder = shutil.copytree(toy_folder, tmp_path / "model")
    model = darkroom.load(folder, device="cpu", precision="float32", memory="low")
    file = next((folder / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ModelError, match="changed"):
        model.generate("a", steps=2, width=32, height=32)


def test_an_unknown_mode_is_refused():
    with pytest.raises(InvalidRequest, match="low"):
        memory_mode("lwo")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 << 30),
        ("6.5 GiB", int(6.5 * 2**30)),
        ("900m", 900 << 20),
        ("1024", 1024),
        ("low", None),
        ("", None),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


def forecaster(path, precision="float32", **settings):
    with open_source(path) as source:
        request = settle(Request.from_dict({"prompt": "", **settings}), source.family, "toy")
        return Forecaster(Opened("toy", source), place("cpu", precision), request)


def test_the_fastest_mode_that_fits_is_chosen(toy_folder):
    found = forecaster(toy_folder, width=64, height=64)
    peaks = {mode: found.forecast(mode).peak for mode in MODES}
    assert peaks["full"] > peaks["medium"] > peaks["low"]
    for mode in ("full", "medium", "low"):
        assert found.fitting(peaks[mode]).mode == mode
    with pytest.raises(InvalidRequest, match="do not suffice"):
        found.fitting(min(peaks.values()) - 1)


def test_weights_and_precision_are_counted(toy_folder):
    long, short = forecaster(toy_folder), forecaster(toy_folder, "bfloat16")
    assert all(long.weights[role] == 2 * short.weights[role] for role in ("unet", "vae"))


def test_a_cost_is_that_of_the_real_call():
    config = UNetConfig(block_out_channels=(32, 64), layers_per_block=1, transformer_layers_per_block=(0, 1))
    with unfilled():
        network = UNet(config).requires_grad_(False)

    def call(network):
        told = Conditioning(torch.zeros(2, 77, config.cross_attention_dim))
        network(torch.zeros(2, 4, 16, 16), torch.zeros(2), told)

    cost = cost_of(lambda: call(network))

    from torch.utils.flop_counter import FlopCounterMode

    real = UNet(config).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        call(real)
    # The counter knows no attention of CPUs.
    attention = sum(o.flops for o in cost.operations if o.kind == "attention")
    assert cost.flops - attention == pytest.approx(counter.get_total_flops(), rel=0.01)
    largest = 2 * 96 * 16 * 16 * 4  # What enters the last ResNet block: two states side by side.
    assert largest < cost.peak < 8 * largest
    gc.collect()


def test_the_memory_of_nested_calls_is_given_back():
    def call():
        for _ in range(10):
            torch.zeros(1024) + 1

    assert cost_of(call).peak == 2 * 4096


@pytest.mark.peer
def test_a_model_that_needs_a_picture_loads_all_the_same(tmp_path):
    from tests import families

    folder = families.write_sd1(tmp_path / "pix2pix", in_channels=8)
    model = darkroom.load(folder, device="cpu", precision="float32")
    with pytest.raises(InvalidRequest, match="needs"):
        model.generate("a red boat")


@pytest.fixture(scope="module")
def overflowing(toy_folder, tmp_path_factory):
    """A model whose decoder passes float16's largest number on its way, and no more than float32's."""
    import json
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(toy_folder, tmp_path_factory.mktemp("models") / "overflowing")
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["post_quant_conv.weight"] *= 1e3
    tensors["decoder.conv_in.weight"] *= 1e3
    save_file(tensors, file)
    config = json.loads((folder / "vae/config.json").read_text())
    (folder / "vae/config.json").write_text(json.dumps({**config, "force_upcast": False}))
    return folder


@pytest.mark.parametrize("memory", MODES)
def test_what_overflows_is_decoded_in_float32(overflowing, memory):
    model = darkroom.load(overflowing, device="cpu", precision="float16", memory=memory)
    made = [model.generate("a boat", steps=1, seed=1, width=32, height=32)[0] for _ in range(2)]
    for picture in made:
        assert any("decoded in float32" in note for note in picture.metadata["notes"])
        assert picture.image.getextrema() != ((0, 0),) * 3
    assert made[0].image.tobytes() == made[1].image.tobytes()


def test_what_finds_no_memory_is_made_in_smaller_parts(toy_folder, monkeypatch):
    model = darkroom.load(toy_folder, device="cpu", precision="float32")
    settings = {"steps": 1, "seed": 1, "width": 64, "height": 48}
    (whole,) = model.generate("a boat", **settings)
    kind, refused = type(model.engine.networks.vae), []
    plain = {"from_latent": kind.from_latent, "to_latent": kind.to_latent}

    def crowd(name):
        def crowded(vae, x, parts="whole", **how):
            if parts in refused:
                raise torch.OutOfMemoryError("the memory is full")
            return plain[name](vae, x, parts, **how)

        monkeypatch.setattr(kind, name, crowded)

    crowd("from_latent")
    crowd("to_latent")
    monkeypatch.setattr("darkroom.networks.vae.TILE", 4)
    refused.append("whole")
    (picture,) = model.generate("a boat", **settings)
    assert "decoded in bands: memory did not suffice for more at once" in picture.metadata["notes"]
    near = np.abs(np.asarray(picture.image, int) - np.asarray(whole.image, int))
    assert near.max() <= 1
    (edited,) = model.edit(whole, "a boat", strength=0.5, steps=2, seed=1)
    assert "read in bands: memory did not suffice for more at once" in edited.metadata["notes"]
    refused.append("bands")
    (picture,) = model.generate("a boat", **settings)
    assert "decoded in tiles: memory did not suffice for more at once" in picture.metadata["notes"]
    refused.append("tiles")
    with pytest.raises(darkroom.GenerationError, match="out of memory: ask for a smaller picture"):
        model.generate("a boat", **settings)


@pytest.mark.parametrize(
    ("file", "tensor", "words"),
    [
        (
            "vae/diffusion_pytorch_model.safetensors",
            "decoder.conv_in.weight",
            "autoencoder's output .*`vae=`",
        ),
        (
            "text_encoder/model.safetensors",
            "text_model.final_layer_norm.weight",
            "text encoder's output .* not a number",
        ),
    ],
)
def test_weights_that_are_no_numbers_make_no_black_picture(toy_folder, tmp_path, file, tensor, words):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(toy_folder, tmp_path / "model")
    tensors = load_file(folder / file)
    tensors[tensor] = tensors[tensor] * float("nan")
    save_file(tensors, folder / file)
    model = darkroom.load(folder, device="cpu")
    with pytest.raises(darkroom.GenerationError, match=words):
        model.generate("a boat", steps=1, seed=1, width=32, height=32)
