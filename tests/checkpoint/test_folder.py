"""Model folders: what is read, and what is said of damaged ones."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import darkroom
from darkroom.checkpoint.load import fill, readers
from darkroom.checkpoint.opening import open_source
from darkroom.errors import ModelError
from darkroom.library.locate import available, locate

UNET = "unet/diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")


@pytest.fixture
def copy(toy_folder, tmp_path):
    return shutil.copytree(toy_folder, tmp_path / "copy")


def loaded(folder, dtype=torch.float32):
    with open_source(folder) as source:
        return fill(readers(source, CPU, dtype))


def family_of(folder):
    with open_source(folder) as source:
        return source.family


def rewrite(path, change):
    tensors = load_file(path)
    save_file(change(dict(tensors)), path)


def test_precision_is_the_one_asked_for(toy_folder):
    networks = loaded(toy_folder, torch.bfloat16)
    assert {p.dtype for p in networks["unet"].parameters()} == {torch.bfloat16}
    assert not any(p.is_meta or p.requires_grad for p in networks["vae"].parameters())


def test_flow_and_epsilon_are_read_from_the_scheduler(toy_folder, tmp_path):
    from toys import write_model

    assert family_of(toy_folder).process.name == "flow"
    family = family_of(write_model(tmp_path / "eps", "epsilon"))
    assert family.process.name == "epsilon"
    assert family.native == 32


def test_keys_of_newer_and_older_writers_are_known(copy):
    expected = loaded(copy)
    rewrite(
        copy / "text_encoder/model.safetensors",
        lambda t: {k.removeprefix("text_model."): v for k, v in t.items()},
    )
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def aged(tensors):
        for new, name in old.items():
            tensors = {k.replace(new, name): v for k, v in tensors.items()}
        return tensors

    rewrite(copy / "vae/diffusion_pytorch_model.safetensors", aged)
    found = loaded(copy)
    for name in ("text_encoder", "vae"):
        for one, other in zip(expected[name].parameters(), found[name].parameters(), strict=True):
            assert torch.equal(one, other)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / UNET).unlink(), ["no weights", "unet"]),
        (lambda f: (f / UNET).write_bytes(b""), ["empty", "unet"]),
        (lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:-100]), ["100 bytes", "unet"]),
        (lambda f: (f / UNET).write_bytes(b"\xff" * 64), ["damaged"]),
        (
            lambda f: rewrite(f / UNET, lambda t: {k: v for k, v in t.items() if k != "conv_in.bias"}),
            ["conv_in.bias"],
        ),
        (
            lambda f: rewrite(f / UNET, lambda t: {**t, "conv_in.bias": torch.zeros(3)}),
            ["conv_in.bias", "(3,)"],
        ),
        (lambda f: (f / "unet/config.json").write_text("{"), ["config.json"]),
        (lambda f: edit(f / "vae/config.json", block_out_channels=[]), ["vae/config.json"]),
        (lambda f: edit(f / "text_encoder/config.json", num_attention_heads=0), ["text_encoder"]),
        (lambda f: edit(f / "unet/config.json", norm_num_groups=0), ["unet"]),
        (lambda f: (f / "unet/config.json").write_text("[]"), ["config.json", "object"]),
        (lambda f: (f / "vae/config.json").unlink(), ["vae", "norm_num_groups"]),
        (lambda f: (f / "tokenizer/vocab.json").write_text("{}"), ["CLIP"]),
        (lambda f: (f / "model_index.json").write_text("{}"), ["model_index.json"]),
        (lambda f: (f / "darkroom.json").write_text('{"preferences": {"steeps": 3}}'), ["steeps"]),
        (lambda f: (f / "darkroom.json").write_text('{"judge": 3}'), ["judge is 3"]),
    ],
)
def test_damage_is_named_in_one_line(copy, damage, words):
    damage(copy)
    with pytest.raises(ModelError) as raised:
        darkroom.load(copy, device="cpu")
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_models_are_found_by_name(toy_folder, monkeypatch):
    monkeypatch.setenv("DARKROOM_MODELS", str(toy_folder.parent))
    assert locate("toy") == toy_folder
    assert available()["toy"] == toy_folder
    with pytest.raises(ModelError, match="did you mean 'toy'"):
        locate("tou")


def test_what_is_no_model_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="empty"):
        darkroom.load(tmp_path / "file")
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        locate(tmp_path)


def test_nan_weights_are_found_by_the_first_step(copy):
    rewrite(copy / UNET, lambda t: {**t, "conv_in.bias": t["conv_in.bias"] * float("nan")})
    model = darkroom.load(copy, device="cpu")
    with pytest.raises(darkroom.GenerationError, match="step 1 of"):
        model.generate("a", steps=2)
