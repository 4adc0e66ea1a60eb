"""What is written for other programs: marks of v-prediction, parts by themselves."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.checkpoint.test_source import AUTOENCODER, original, ours, single_file

import darkroom
from darkroom.checkpoint.beside import with_vae
from darkroom.checkpoint.export import convert
from darkroom.checkpoint.opening import open_source
from darkroom.cli import main
from darkroom.networks import VAE


def told(path):
    """The marks of a file, and what its metadata says of the prediction."""
    with safe_open(path, "pt") as file:
        said = (file.metadata() or {}).get("modelspec.prediction_type")
        return {name for name in file.keys() if name in ("v_pred", "ztsnr")}, said  # noqa: SIM118


def test_marks_of_v_prediction_are_written_for_others(tmp_path):
    tensors = single_file("Stable Diffusion XL")
    plain, marked = tmp_path / "plain.safetensors", tmp_path / "marked.safetensors"
    save_file(tensors, plain)
    save_file({**tensors, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, marked)
    for path, options, marks, said, prune in (
        (plain, {}, set(), None, False),
        (plain, {"prediction": "v_prediction"}, {"v_pred"}, "v", True),
        (marked, {}, {"v_pred", "ztsnr"}, "v", False),
        (marked, {"prediction": "epsilon", "zero_snr": False}, set(), None, True),
    ):
        folder, out, again = (tmp_path / name for name in ("folder", "out.safetensors", "again.safetensors"))
        with open_source(path, **options) as source:
            convert(source, out, prune=prune)
            convert(source, folder, prune=prune)
        with open_source(folder) as source:
            convert(source, again, prune=prune)
        for made in (out, again):
            assert told(made) == (marks, said)
            save_file(load_file(made), made)  # Without our own metadata, as other programs see it.
            with open_source(made) as source:
                assert (source.family.process.name == "v_prediction") == ("v_pred" in marks)
                assert source.family.schedule.zero_terminal_snr == ("ztsnr" in marks)
            made.unlink()
        import shutil

        shutil.rmtree(folder)


def test_what_metadata_says_follows_what_was_asked_for(tmp_path):
    path, out = tmp_path / "v.safetensors", tmp_path / "eps.safetensors"
    save_file(single_file("Stable Diffusion XL"), path, {"modelspec.prediction_type": "v"})
    with open_source(path, prediction="epsilon") as source:
        convert(source, out)
    assert told(out) == (set(), "epsilon")


def test_an_autoencoder_alone_is_converted_there_and_back(tmp_path, capsys):
    with open_source(_put(tmp_path / "xl.safetensors", single_file("Stable Diffusion XL"))) as source:
        convert(source, tmp_path / "model")
    assert main(["convert", str(tmp_path / "model/vae"), str(tmp_path / "vae.safetensors")]) == 0
    tensors = load_file(tmp_path / "vae.safetensors")
    assert "decoder.up.0.block.0.conv1.weight" in tensors  # As A1111 and ComfyUI look for it.
    assert main(["convert", str(tmp_path / "vae.safetensors"), str(tmp_path / "vae")]) == 0
    before, after = (
        load_file(tmp_path / name / "diffusion_pytorch_model.safetensors") for name in ("model/vae", "vae")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("model/vae", "vae")]
    assert configs[0] == configs[1]
    assert configs[0]["scaling_factor"] == 0.13025
    assert "note" not in capsys.readouterr().err


def test_nothing_says_how_an_autoencoder_scales(tmp_path, capsys):
    for tensors in (original(VAE(AUTOENCODER)), ours(VAE(AUTOENCODER))):
        path = _put(tmp_path / "vae.safetensors", tensors)
        assert (
            main(["convert", str(path), str(tmp_path / "made.safetensors"), "--precision", "bfloat16"]) == 0
        )
        assert "the usual is assumed" in capsys.readouterr().err
        made = load_file(tmp_path / "made.safetensors")
        assert {tensor.dtype for tensor in made.values()} == {torch.bfloat16}
        # So it is scaled as the model is that it is given to.
        xl = _put(tmp_path / "xl.safetensors", single_file("Stable Diffusion XL"))
        with with_vae(open_source(xl), tmp_path / "made.safetensors") as source:
            assert source.parts["vae"].config.scaling_factor == 0.13025
        (tmp_path / "made.safetensors").unlink()


def test_pocket_as_a_file_opens_again(tmp_path, capsys):
    out = tmp_path / "pocket.safetensors"
    assert main(["convert", "pocket", str(out)]) == 0
    request = {"steps": 1, "seed": 1, "width": 64, "height": 64}
    one, other = (
        darkroom.load(each, device="cpu").generate("a boat", **request)[0] for each in ("pocket", out)
    )
    assert one.image.tobytes() == other.image.tobytes()


def _put(path, tensors):
    save_file(tensors, path)
    return path


def test_zero_terminal_snr_is_kept_for_every_family(tmp_path):
    tensors = single_file("Stable Diffusion 1") | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    path = _put(tmp_path / "sd1.safetensors", tensors)
    for out in (tmp_path / "out.safetensors", tmp_path / "folder"):
        with open_source(path) as source:
            convert(source, out)
        with open_source(out) as source:
            assert source.family.process.name == "v_prediction"
            assert source.family.schedule.zero_terminal_snr


@pytest.mark.parametrize("word", ["v", "V-Pred", "vpred", "v_prediction", " v-prediction "])
def test_v_prediction_in_every_spelling(tmp_path, word):
    path = tmp_path / "m.safetensors"
    save_file(single_file("Stable Diffusion XL"), path, {"modelspec.prediction_type": word})
    with open_source(path) as source:
        assert source.family.process.name == "v_prediction"
    with open_source(_put(path, single_file("Stable Diffusion XL")), prediction=word) as source:
        assert source.family.process.name == "v_prediction"
        assert len([note for note in source.notes if "predicts" in note]) == 1


def test_names_that_cannot_be_are_one_line(tmp_path, capsys):
    path = _put(tmp_path / "sd1.safetensors", single_file("Stable Diffusion 1"))
    for out in ("x" * 250 + ".safetensors", "y" * 300):
        assert main(["convert", str(path), str(tmp_path / out)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["generate", "a", "--model", "z" * 5000]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_zero_terminal_snr_alone_means_v_prediction(tmp_path):
    """Of pure noise epsilon says nothing: what learned from it predicts something else, unless a word says what."""
    tensors = single_file("Stable Diffusion XL")
    path = tmp_path / "m.safetensors"
    for said, marks, found in (
        ({}, {"ztsnr": torch.zeros(0)}, "v_prediction"),
        ({"ss_zero_terminal_snr": "True"}, {}, "v_prediction"),
        ({"ss_zero_terminal_snr": "True", "modelspec.prediction_type": "epsilon"}, {}, "epsilon"),
    ):
        save_file(tensors | marks, path, said)
        with open_source(path) as source:
            assert source.family.process.name == found
            # Of pure noise a network that predicts the noise has learned nothing, whatever was said.
            assert source.family.schedule.zero_terminal_snr == (found != "epsilon")
        with open_source(path, prediction="epsilon") as source:
            assert source.family.process.name == "epsilon"
