"""GGUF as stable-diffusion.cpp, ComfyUI-GGUF and llama.cpp write it."""

from __future__ import annotations

import gguf
import pytest
import torch
from safetensors.torch import save_file
from tests.checkpoint.test_beside import TEXT, WIDE, picture, put, read, without, xl
from tests.checkpoint.test_source import TRANSFORMER, ours, prefixed, single_file

from darkroom.checkpoint.load import fill, readers
from darkroom.checkpoint.opening import open_source
from darkroom.networks import CLIPText, T5Config, T5Encoder

CPU = torch.device("cpu")


def as_gguf(path, tensors, arch="sdxl", trim=False):
    """A GGUF file; with `trim` without first dimensions of 1, as ggml keeps tensors."""
    writer = gguf.GGUFWriter(path, arch)
    for name, tensor in tensors.items():
        array = tensor.numpy()
        while trim and array.ndim > 1 and array.shape[0] == 1:
            array = array[0]
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("trim", [False, True])
def test_a_first_dimension_of_one_may_be_left_out(tmp_path, trim):
    tensors = single_file("Stable Diffusion 3 medium")
    path = as_gguf(tmp_path / "sd3.gguf", tensors, "sd3", trim)
    save_file(tensors, tmp_path / "sd3.safetensors")
    found = []
    for each in (path, tmp_path / "sd3.safetensors"):
        with open_source(each) as source:
            assert source.parts["transformer"].config.pos_embed_max_size == TRANSFORMER.pos_embed_max_size
            found.append(fill(readers(source, CPU, torch.float32))["transformer"].state_dict())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def in_ggml_names(text, stacked):
    """An OpenCLIP text encoder of ours in the names of stable-diffusion.cpp."""
    state = {name: tensor.clone() for name, tensor in text.items()}
    state["text_model.text_projection"] = state.pop("text_projection.weight").T.contiguous()
    if stacked:
        for leaf in ("weight", "bias"):
            for i in range(WIDE.num_hidden_layers):
                layer = f"text_model.encoder.layers.{i}.self_attn"
                state[f"{layer}.in_proj.{leaf}"] = torch.cat(
                    [state.pop(f"{layer}.{part}_proj.{leaf}") for part in "qkv"]
                )
    return state


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("square", [False, True])
def test_the_second_encoder_in_names_of_stable_diffusion_cpp(tmp_path, stacked, square):
    from dataclasses import replace

    wide = ours(CLIPText(replace(WIDE, projection_dim=128) if square else WIDE), 3)
    plain = without(xl(), "conditioner.embedders.1")
    first = {
        name.replace("conditioner.embedders.0.", "cond_stage_model."): tensor
        for name, tensor in plain.items()
    }
    theirs = first | prefixed("cond_stage_model.1.transformer.", in_ggml_names(wide, stacked))
    path = as_gguf(tmp_path / "xl.gguf", theirs, trim=True)
    with open_source(path) as source:
        network = fill(readers(source, CPU, torch.float16))["text_encoder_2"]
        assert source.parts["text_encoder_2"].config.hidden_act == "gelu"
        assert not [note for note in source.notes if "left out" in note]
    assert all(torch.equal(tensor, wide[name]) for name, tensor in network.state_dict().items())
    if square:
        return
    from tests.checkpoint.test_source import original

    whole = plain | prefixed("conditioner.embedders.1.model.", original(CLIPText(WIDE), 3))
    assert picture(path)[0] == picture(put(tmp_path / "xl.safetensors", whole))[0]
    assert torch.equal(read(path), read(tmp_path / "xl.safetensors"))


def test_a_projection_of_transformers_under_its_other_name(tmp_path):
    """What stable-diffusion.cpp makes of Stable Diffusion 3's encoders keeps the way their projections lie."""
    tensors, names = single_file("Stable Diffusion 3 medium"), {}
    for name, tensor in tensors.items():
        old, new = "transformer.text_projection.weight", "transformer.text_model.text_projection"
        names[name.replace(old, new)] = tensor
    path = as_gguf(tmp_path / "sd3.gguf", names, "sd3", trim=True)
    with open_source(path) as source:
        networks = fill(readers(source, CPU, torch.float16))
    for role, place in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")):
        expected = tensors[f"text_encoders.{place}.transformer.text_projection.weight"]
        assert torch.equal(networks[role].state_dict()["text_projection.weight"], expected)


@pytest.mark.parametrize("gated", [True, False])
def test_t5_in_names_of_llama_cpp(tmp_path, gated):
    config = T5Config(
        vocab_size=64,
        d_model=TRANSFORMER.joint_attention_dim,
        d_kv=16,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu" if gated else "relu",
    )
    state = ours(T5Encoder(config))
    leaves = {
        "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
        **{f"layer.0.SelfAttention.{part}": f"attn_{part}" for part in "qkvo"},
        "layer.0.layer_norm": "attn_norm",
        "layer.1.layer_norm": "ffn_norm",
        "layer.1.DenseReluDense.wi_0": "ffn_gate",
        "layer.1.DenseReluDense.wi_1": "ffn_up",
        "layer.1.DenseReluDense.wi": "ffn_up",
        "layer.1.DenseReluDense.wo": "ffn_down",
    }
    theirs = {"enc.output_norm.weight": state["encoder.final_layer_norm.weight"]}
    theirs |= {"token_embd.weight": state["shared.weight"], "dec.blk.0.attn_q.weight": torch.zeros(2, 2)}
    for name, tensor in state.items():
        if name.startswith("encoder.block."):
            _, _, number, rest = name.split(".", 3)
            theirs[f"enc.blk.{number}.{leaves[rest.removesuffix('.weight')]}.weight"] = tensor
    save_file(single_file("Stable Diffusion 3 medium"), tmp_path / "sd3.safetensors")
    t5 = as_gguf(tmp_path / "t5.gguf", theirs, "t5")
    with open_source(tmp_path / "sd3.safetensors", others=[t5]) as source:
        network = fill(readers(source, CPU, torch.float16))["text_encoder_3"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_text_encoders_alone(tmp_path):
    clip = as_gguf(tmp_path / "clip_l.gguf", ours(CLIPText(TEXT), 2), "clip")
    rest = put(tmp_path / "rest.safetensors", without(single_file("Stable Diffusion 1"), "cond_stage_model."))
    whole = put(tmp_path / "whole.safetensors", single_file("Stable Diffusion 1"))
    assert picture(rest, others=[clip])[0] == picture(whole)[0]
