"""Stable Diffusion 3's T5 and its tokenizer, however people have the two."""

from __future__ import annotations

import json
import shutil

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

import darkroom
from darkroom.checkpoint.export import convert
from darkroom.checkpoint.opening import open_source
from darkroom.cli import main
from darkroom.errors import ModelError
from darkroom.prompt.t5_tokenizer import TEXT, T5Tokenizer
from darkroom.weights.opening import open_weights

pytestmark = pytest.mark.peer
T5_PREFIX = "text_encoders.t5xxl.transformer."


def read(model, **options):
    """What the network is told of a text, and whether T5 has read it."""
    loaded = darkroom.load(model, device="cpu", precision="float32", **options)
    networks = loaded.engine.networks
    with torch.inference_mode():
        return networks.encode(["a red boat, two houses"])[0].context, networks.experts[0].text.t5 is not None


@pytest.fixture(scope="module")
def whole(folder):
    return folder("sd3")


@pytest.fixture(scope="module")
def expected(whole):
    context, reads = read(whole)
    assert reads
    return context


@pytest.fixture(scope="module")
def bare(whole, tmp_path_factory):
    """The model as a single file, from before T5's tokenizer was written into such files."""
    path = tmp_path_factory.mktemp("bare") / "m.safetensors"
    with open_source(whole) as source:
        convert(source, path)
    tensors = load_file(path)
    with open_weights(path) as weights:
        metadata = {name: value for name, value in weights.metadata.items() if name != TEXT}
    save_file(tensors, path, metadata)
    return path


@pytest.fixture(scope="module")
def lacking(bare, tmp_path_factory):
    """The same without T5, as most single files are."""
    path = tmp_path_factory.mktemp("lacking") / "m.safetensors"
    with open_source(bare, t5=False) as source:
        convert(source, path)
    return path


@pytest.fixture(scope="module")
def quantised(whole, tmp_path_factory):
    """A GGUF file of T5 alone, with llama.cpp's facts about its tokenizer."""
    import sentencepiece

    path = tmp_path_factory.mktemp("gguf") / "t5.gguf"
    model = sentencepiece.SentencePieceProcessor(model_file=str(whole / "tokenizer_3/spiece.model"))
    count = rows_of(whole)
    writer = gguf.GGUFWriter(path, "t5encoder")
    kinds = [
        gguf.TokenType.UNKNOWN
        if model.is_unknown(i)
        else gguf.TokenType.CONTROL
        if model.is_control(i)
        else gguf.TokenType.NORMAL
        for i in range(len(model))
    ]
    rest = range(len(model), count)
    writer.add_tokenizer_model("t5")
    writer.add_token_list([*(model.id_to_piece(i) for i in range(len(model))), *(f"[PAD{i}]" for i in rest)])
    writer.add_token_scores([*(model.get_score(i) for i in range(len(model))), *(-10000.0 for _ in rest)])
    writer.add_token_types([*kinds, *(gguf.TokenType.UNUSED for _ in rest)])
    for name, tensor in load_file(whole / "text_encoder_3/model.safetensors").items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rows_of(model):
    with open_weights(model / "text_encoder_3/model.safetensors") as weights:
        return weights.entries["shared.weight"].shape[0]


def test_a_single_file_keeps_the_tokenizer(whole, expected, tmp_path):
    with open_source(whole) as source:
        convert(source, tmp_path / "m.safetensors")
    context, reads = read(tmp_path / "m.safetensors")
    assert reads
    assert torch.equal(context, expected)
    with open_source(tmp_path / "m.safetensors") as source:
        convert(source, tmp_path / "again")
    assert torch.equal(read(tmp_path / "again")[0], expected)
    with open_source(tmp_path / "m.safetensors", t5=False) as source:
        convert(source, tmp_path / "small.safetensors")
    with open_weights(tmp_path / "small.safetensors") as weights:
        assert TEXT not in weights.metadata


def test_a_folder_of_t5_alone_has_its_own(whole, expected, lacking, tmp_path):
    alone = shutil.copytree(whole / "text_encoder_3", tmp_path / "t5-v1_1-xxl")
    shutil.copytree(whole / "tokenizer_3", alone, dirs_exist_ok=True)
    assert not read(lacking)[1]
    context, reads = read(lacking, others=[alone])
    assert reads
    assert torch.equal(context, expected)
    with open_source(lacking, others=[alone]) as source:
        convert(source, tmp_path / "m")
    assert {file.name for file in (tmp_path / "m/tokenizer_3").iterdir()} <= {
        file.name for file in (whole / "tokenizer_3").iterdir()
    }
    assert torch.equal(read(tmp_path / "m")[0], expected)


def test_a_gguf_of_t5_has_its_own(expected, lacking, quantised, tmp_path, capsys):
    context, reads = read(lacking, others=[quantised])
    assert reads
    assert torch.allclose(context, expected, atol=1e-5)
    for out in (tmp_path / "t5.safetensors", tmp_path / "t5"):
        assert main(["convert", str(quantised), str(out)]) == 0
        assert torch.equal(read(lacking, others=[out])[0], context)
    with open_source(lacking, others=[quantised]) as source:
        convert(source, tmp_path / "m")
    assert torch.equal(read(tmp_path / "m")[0], context)


def test_a_tokenizer_is_given_alone(whole, expected, bare, lacking, tmp_path):
    with open_source(bare) as source:
        assert any("give a folder that holds its tokenizer.json" in note for note in source.notes)
    assert not read(bare)[1]
    context, reads = read(bare, others=[whole / "tokenizer_3"])
    assert reads
    assert torch.equal(context, expected)
    with pytest.raises(ModelError, match=r"no use for .*tokenizer_3: it holds a tokenizer"):
        open_source(lacking, others=[whole / "tokenizer_3"])


def test_there_and_back_without_a_tokenizer(whole, expected, bare, tmp_path):
    """diffusers is not to load a T5 that it cannot ask anything; we keep it for who has its tokenizer."""
    with open_source(bare) as source:
        convert(source, tmp_path / "folder")
    index = json.loads((tmp_path / "folder/model_index.json").read_text())
    assert index["text_encoder_3"] == index["tokenizer_3"] == [None, None]
    assert not read(tmp_path / "folder")[1]
    assert torch.equal(read(tmp_path / "folder", others=[whole / "tokenizer_3"])[0], expected)
    with open_source(tmp_path / "folder") as source:
        convert(source, tmp_path / "back.safetensors")
    assert load_file(tmp_path / "back.safetensors").keys() == load_file(bare).keys()


def test_a_file_without_one_says_so(lacking, tmp_path):
    with pytest.raises(ModelError, match="holds no tokenizer of T5's"):
        T5Tokenizer.load(lacking)
    writer = gguf.GGUFWriter(tmp_path / "t5.gguf", "t5encoder")
    writer.add_tokenizer_model("t5")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="holds no tokenizer of T5's"):
        T5Tokenizer.load(tmp_path / "t5.gguf")
