"""Models as people have them: with odd words in their settings, parts that nobody needs, parts that are in the way."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoint.test_beside import bare, only, picture, put, without, xl
from tests.checkpoint.test_source import TEXT, ours, prefixed, single_file

from darkroom.checkpoint.export import convert
from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.single_file import DARKROOM
from darkroom.cli import main
from darkroom.errors import ModelError
from darkroom.library.describe import describe
from darkroom.library.kinds import identify
from darkroom.library.scan import scan
from darkroom.networks import CLIPText, CLIPVision, CLIPVisionConfig

SD1 = "Stable Diffusion 1"
VISION = CLIPVisionConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=32,
    patch_size=16,
)


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    return put(tmp_path_factory.mktemp("sd1") / "sd1.safetensors", single_file(SD1))


@pytest.mark.parametrize("entry", [{"a": 1}, 3, True, "UNet", ["diffusers"], [1, 2], []])
@pytest.mark.parametrize("role", ["unet", "vae"])
def test_an_index_that_makes_no_sense_hides_no_other_model(tmp_path, sd1, toy_folder, role, entry):
    folder = shutil.copytree(toy_folder, tmp_path / "broken")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {role: entry}))
    for look in (open_source, describe, identify):
        with pytest.raises(ModelError, match=rf"model_index.json lists .* as {role}: it must be"):
            look(folder)
    shutil.copy(sd1, tmp_path / "good.safetensors")
    told = []
    assert [each.entry.name for each in scan([tmp_path], told.append)] == ["good"]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"preferences": {"sampler": "nope"}}, "the preferred sampler is 'nope'"),
        ({"preferences": {"sampler": 3}}, "the preferred sampler is 3"),
        ({"preferences": {"schedule": "nope"}}, "the preferred schedule is 'nope'"),
        ({"preferences": {"steps": "2"}}, "the preferred steps is '2': it must be a whole number"),
        ({"preferences": {"steps": 2.5}}, "the preferred steps is 2.5"),
        ({"preferences": {"steps": 0}}, "the preferred steps is 0"),
        ({"preferences": {"guidance": "7"}}, "the preferred guidance is '7'"),
        ({"preferences": {"second_strength": "x"}}, "the preferred second_strength is 'x'"),
        ({"preferences": {"compose": "zzz"}}, "the preferred compose is 'zzz'"),
        ({"native_size": 0}, "native_size is 0"),
        ({"native_size": -8}, "native_size is -8"),
        ({"native_size": 1_000_000}, "native_size is 1000000"),
        ({"native_size": "64"}, "native_size is '64'"),
    ],
)
def test_words_of_ours_are_checked(tmp_path, toy_folder, extra, words):
    folder = shutil.copytree(toy_folder, tmp_path / "toy")
    (folder / "darkroom.json").write_text(json.dumps(extra))
    with pytest.raises(ModelError, match=f"toy: its settings cannot be used: {words}"):
        open_source(folder)


def test_other_programs_names_of_samplers_are_understood(tmp_path, toy_folder):
    folder = shutil.copytree(toy_folder, tmp_path / "toy")
    said = {"preferences": {"sampler": "Euler a", "schedule": "Karras"}}
    (folder / "darkroom.json").write_text(json.dumps(said))
    with open_source(folder) as source:
        assert source.family.preferences.sampler == "euler_ancestral"
        assert source.family.preferences.schedule == "karras"


def test_schedulers_say_true_or_false_and_may_list_their_betas(tmp_path, toy_folder):
    folder = shutil.copytree(toy_folder, tmp_path / "toy")
    file = folder / "scheduler/scheduler_config.json"
    for config, words in (
        ({"rescale_betas_zero_snr": "no"}, "rescale_betas_zero_snr is 'no'"),
        ({"beta_start": "abc"}, "abc"),
        ({"beta_start": -1.0}, "betas from -1"),
        ({"num_train_timesteps": 0}, "at least 1"),
        ({"num_train_timesteps": float("inf")}, "infinity"),
    ):
        file.write_text(json.dumps({"_class_name": "DDIMScheduler", **config}))
        with pytest.raises(ModelError, match=words):
            open_source(folder)
    trained = [0.001 + 0.01 * i / 99 for i in range(100)]
    file.write_text(json.dumps({"_class_name": "DDIMScheduler", "trained_betas": trained}))
    with open_source(folder) as source:
        assert source.family.schedule.betas == tuple(trained)


def test_zero_snr_is_nothing_to_a_network_that_predicts_the_noise(tmp_path):
    marked = single_file("Stable Diffusion XL") | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    put(tmp_path / "v.safetensors", marked)
    with open_source(tmp_path / "v.safetensors", prediction="epsilon") as source:
        assert not source.family.schedule.zero_terminal_snr
        assert not any("zero terminal SNR" in note for note in source.notes)
        convert(source, tmp_path / "e.safetensors")
    for path in (tmp_path / "e.safetensors",):
        picture(path)
    put(tmp_path / "said.safetensors", marked, metadata={"modelspec.prediction_type": "epsilon"})
    picture(tmp_path / "said.safetensors")
    with open_source(tmp_path / "said.safetensors") as source:
        assert any("learns nothing: left out" in note for note in source.notes)
    with open_source(tmp_path / "v.safetensors", zero_snr=False) as source:
        assert source.family.process.name == "v_prediction"
        assert not any("ends in pure noise" in note for note in source.notes)


@pytest.mark.parametrize(
    ("ending", "text", "kind"),
    [
        (
            ".civitai.info",
            {"description": "There is also one with v_prediction: v, this one is EPS"},
            "epsilon",
        ),
        (".civitai.info", {"description": "epsilon-prediction: true, not v"}, "epsilon"),
        (".json", {"notes": "prediction: v"}, "epsilon"),
        (".json", {"ss_v_parameterization": "True"}, "v_prediction"),
        (".metadata.json", {"model": {"prediction_type": "v_prediction"}}, "v_prediction"),
        (".json", [{"v_parameterization": True}], "v_prediction"),
    ],
)
def test_sentences_beside_a_file_decide_nothing(tmp_path, ending, text, kind):
    path = put(tmp_path / "m.safetensors", single_file("Stable Diffusion XL"))
    path.with_suffix(ending).write_text(json.dumps(text))
    with open_source(path) as source:
        assert source.family.process.name == kind


def test_encoders_of_pictures_are_in_nobodys_way(tmp_path, sd1):
    whole = load_file(sd1) | prefixed("safety_checker.", ours(CLIPVision(VISION)))
    put(tmp_path / "m.safetensors", whole)
    with open_source(tmp_path / "m.safetensors") as source:
        assert "image_encoder" not in source.parts
        convert(source, tmp_path / "again.safetensors")
        convert(source, tmp_path / "folder")
    with open_source(tmp_path / "again.safetensors") as source:
        assert source.family.name == SD1
    index = json.loads((tmp_path / "folder/model_index.json").read_text())
    encoder = tmp_path / "folder/image_encoder"
    put(encoder.with_name("image_encoder.safetensors"), ours(CLIPVision(VISION)))
    assert main(["convert", str(tmp_path / "folder/image_encoder.safetensors"), str(encoder)]) == 0
    index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    (tmp_path / "folder/model_index.json").write_text(json.dumps(index))
    with open_source(tmp_path / "folder") as source:
        assert any("its image_encoder is left out" in note for note in source.notes)
        convert(source, tmp_path / "third.safetensors")
    out = tmp_path / "merged.safetensors"
    assert main(["merge", str(tmp_path / "folder"), f"{sd1}:0.3", "--output", str(out)]) == 0


def test_of_two_autoencoders_the_usual_one_is_used(tmp_path, sd1):
    own = bare(load_file(sd1), "first_stage_model.")
    other = prefixed("vae.", {name: t * 2 for name, t in own.items()})
    path = put(tmp_path / "m.safetensors", load_file(sd1) | other)
    assert picture(path)[0] == picture(sd1)[0]
    with open_source(path) as source:
        convert(source, tmp_path / "again.safetensors", prune=True)
    again = load_file(tmp_path / "again.safetensors")
    assert all(torch.equal(again[f"first_stage_model.{name}"], tensor) for name, tensor in own.items())


@pytest.mark.parametrize("damage", ["position_embedding.weight", "layers.0.mlp"])
def test_a_damaged_text_encoder_is_replaced(tmp_path, sd1, damage):
    whole = load_file(sd1)
    bad = put(tmp_path / "bad.safetensors", {name: t for name, t in whole.items() if damage not in name})
    text = put(tmp_path / "te.safetensors", bare(whole, "cond_stage_model.transformer."))
    assert picture(bad, others=[text])[0] == picture(sd1)[0]
    with pytest.raises(ModelError, match=r"bad\.safetensors"):
        open_source(bad)


def test_inspect_says_why_a_model_cannot_be_opened(tmp_path):
    tensors = without(xl(), "conditioner.embedders.1.model.text_projection")
    with pytest.raises(ModelError, match="text_projection"):
        describe(put(tmp_path / "m.safetensors", tensors))


def test_shards_without_a_configuration(tmp_path, sd1):
    folder = tmp_path / "text_encoders/shards"
    folder.mkdir(parents=True)
    state = {name: tensor.contiguous() for name, tensor in ours(CLIPText(TEXT)).items()}
    names = sorted(state)
    where = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"clip-{number:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "clip.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    told = []
    found = scan([tmp_path], told.append)
    assert [(each.entry.name, each.entry.kind) for each in found] == [("shards", "text-encoder")]
    assert not told
    assert picture(sd1, others=[found[0].version.path])[1].count("in place of its own") == 1
    with pytest.raises(ModelError, match="lists the files of a network: give the folder"):
        open_source(folder / "model.safetensors.index.json")


def test_merging_with_what_has_no_text_encoder(tmp_path, sd1, capsys):
    bare_unet = put(tmp_path / "unet.safetensors", only(load_file(sd1), "model.diffusion_model."))
    out = tmp_path / "merged.safetensors"
    assert main(["merge", str(sd1), f"{bare_unet}:0.3", "--output", str(out)]) == 0
    assert (
        "its text_encoder is that of sd1.safetensors as it is: unet.safetensors has none"
        in capsys.readouterr().err
    )


def test_names_in_the_hub_s_cache(tmp_path):
    for repository, name in (
        ("models--acme--xl-lightning-4step", "model.safetensors"),
        ("models--acme--xl-lightning-4step-unet", "unet/diffusion_pytorch_model.safetensors"),
        ("models--acme--lightning-4step-bin", "xl.fp16.safetensors"),
    ):
        file = tmp_path / repository / "snapshots/0a1b" / name
        file.parent.mkdir(parents=True)
        put(file, single_file("Stable Diffusion XL"))
        with open_source(file) as source:
            assert source.family.preferences.steps == 4, repository
    (tmp_path / "sdxl-turbo/unet").mkdir(parents=True)
    file = put(
        tmp_path / "sdxl-turbo/unet/diffusion_pytorch_model.safetensors", single_file("Stable Diffusion XL")
    )
    with open_source(file) as source:
        assert source.family.preferences.steps == 1


def test_what_a_name_says_of_prediction_is_not_said_otherwise(tmp_path):
    path = put(tmp_path / "sdxl_lightning_1step_x0.safetensors", single_file("Stable Diffusion XL"))
    with open_source(path) as source:
        assert source.family.process.name == "sample"
        assert not any("predicts epsilon" in note for note in source.notes)


def test_a_vocabulary_that_cannot_be_read_is_named_with_its_file(tmp_path, sd1):
    said = {DARKROOM: json.dumps({"tokenizers": {"text_encoder": {}}})}
    with pytest.raises(ModelError, match=r"m\.safetensors: "):
        open_source(put(tmp_path / "m.safetensors", load_file(sd1), metadata=said))
