"""Parts of a model from elsewhere, parts that are left out, and what lies in a file besides."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoint.test_source import (
    AUTOENCODER,
    OPEN,
    TEXT,
    TRANSFORMER,
    UNETS,
    original,
    ours,
    prefixed,
    single_file,
)

import darkroom
from darkroom.checkpoint.beside import with_vae
from darkroom.checkpoint.export import convert
from darkroom.checkpoint.load import fill, readers
from darkroom.checkpoint.opening import open_source
from darkroom.checkpoint.source import noted
from darkroom.cli import main
from darkroom.errors import ModelError
from darkroom.library.describe import describe
from darkroom.networks import VAE, CLIPText, UNet

CPU = torch.device("cpu")
WIDE = replace(OPEN, hidden_size=128, num_hidden_layers=2, num_attention_heads=2)
SETTINGS = {"steps": 1, "width": 32, "height": 32, "seed": 3, "second_pass": "off"}


def xl() -> dict[str, torch.Tensor]:
    """XL with encoders of two widths."""
    unet = replace(UNETS["Stable Diffusion XL"], cross_attention_dim=192)
    tensors = prefixed("model.diffusion_model.", original(UNet(unet)))
    tensors |= prefixed("first_stage_model.", original(VAE(AUTOENCODER), 1))
    tensors |= prefixed("conditioner.embedders.0.transformer.", ours(CLIPText(TEXT), 2))
    return tensors | prefixed("conditioner.embedders.1.model.", original(CLIPText(WIDE), 3))


def put(path, tensors, **options):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, **options)
    return path


def only(tensors, *prefixes):
    return {name: t for name, t in tensors.items() if name.startswith(prefixes)}


def without(tensors, *prefixes):
    return {name: t for name, t in tensors.items() if not name.startswith(prefixes)}


def bare(tensors, prefix):
    return {name.removeprefix(prefix): t for name, t in only(tensors, prefix).items()}


def picture(model, **options):
    made = darkroom.load(model, device="cpu", precision="float32", **options)
    return made.generate("a boat", **SETTINGS)[0].image.tobytes(), " ".join(made.notes)


def read(model):
    """What a model's networks are told of a text with a word that may be its own."""
    networks = darkroom.load(model, device="cpu", precision="float32").engine.networks
    with torch.inference_mode():
        return networks.encode(["a <toy> boat"])[0].context


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Models as single files and folders: their paths by name."""
    folder = tmp_path_factory.mktemp("models")
    paths = {
        "sd1": put(folder / "sd1.safetensors", single_file("Stable Diffusion 1")),
        "xl": put(folder / "xl.safetensors", xl()),
        "sd3": put(folder / "sd3.safetensors", single_file("Stable Diffusion 3 medium")),
    }
    for name in [*paths]:
        paths[f"{name} folder"] = folder / name
        with open_source(paths[name]) as source:
            convert(source, folder / name)
    return paths


@pytest.mark.parametrize("model", ["sd1", "sd1 folder"])
def test_an_autoencoder_may_come_from_anywhere(files, tmp_path, model):
    other = {
        name: t * 1.01 if t.is_floating_point() else t
        for name, t in single_file("Stable Diffusion 1").items()
    }
    whole = put(tmp_path / "other.safetensors", other)
    alone = put(tmp_path / "vae.safetensors", bare(other, "first_stage_model."))
    with open_source(whole) as source:
        convert(source, tmp_path / "folder")
    plain, _ = picture(files[model])
    pictures = {
        picture(files[model], vae=each)[0]
        for each in (whole, alone, tmp_path / "folder", tmp_path / "folder/vae")
    }
    assert len(pictures) == 1
    assert plain not in pictures
    with with_vae(open_source(files[model]), alone) as source:
        convert(source, tmp_path / "made.safetensors")
    assert picture(tmp_path / "made.safetensors")[0] in pictures


def test_an_autoencoder_scales_latents_as_where_it_is_from(files, tmp_path):
    alone = put(tmp_path / "vae.safetensors", bare(load_file(files["xl"]), "first_stage_model."))
    for vae, scale in ((files["xl"], 0.13025), (files["xl folder"], 0.13025), (alone, 0.18215)):
        with open_source(files["sd1"], vae=vae) as source:
            assert source.parts["vae"].config.scaling_factor == scale
            said = [note for note in source.notes if "scales latents by 0.13025" in note]
            assert bool(said) == (scale == 0.13025)


@pytest.mark.parametrize("memory", ["medium", "low", "lowest"])
def test_networks_that_come_and_go_may_be_of_other_files(files, tmp_path, memory):
    alone = put(tmp_path / "vae.safetensors", bare(load_file(files["sd1"]), "first_stage_model."))
    assert picture(files["sd1"], vae=alone, memory=memory) == picture(files["sd1"], memory=memory)


def test_an_encoder_takes_the_place_of_the_one_as_wide(files, tmp_path):
    clip = put(tmp_path / "clip_l.safetensors", ours(CLIPText(TEXT), 7))
    for model, role in (("sd1", "text_encoder"), ("xl", "text_encoder"), ("xl folder", "text_encoder")):
        with open_source(files[model], others=[clip]) as source:
            assert source.parts[role].weights.path == clip
            assert any("clip_l.safetensors" in note for note in source.notes)
            if "text_encoder_2" in source.parts:
                assert source.parts["text_encoder_2"].weights.path != clip
            fill(readers(source, CPU, torch.float32))
    wide = put(tmp_path / "wide_clip.safetensors", ours(CLIPText(WIDE)))
    with pytest.raises(ModelError, match=r"wide_clip.*text_encoder of 64"):
        open_source(files["sd1"], others=[wide])
    vae = put(tmp_path / "vae.safetensors", original(VAE(AUTOENCODER)))
    with pytest.raises(ModelError, match="no use for"):
        open_source(files["sd1"], others=[vae])


@pytest.mark.parametrize("wrapper", ["", "clip.", "model.", "cond_stage_model.transformer."])
def test_a_whole_clip_is_a_text_encoder(files, tmp_path, wrapper):
    projected = CLIPText(replace(TEXT, projection_dim=32))
    clip = ours(projected, 5) | {
        "logit_scale": torch.tensor(4.6),
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(4, 4),
        "visual_projection.weight": torch.zeros(4, 4),
    }
    put(tmp_path / "clip.safetensors", prefixed(wrapper, clip))
    rest = put(tmp_path / "rest.safetensors", without(load_file(files["sd1"]), "cond_stage_model."))
    given, notes = picture(rest, others=[tmp_path / "clip.safetensors"])
    assert "left out" not in notes
    own = without(clip, "vision_model", "visual", "logit", "text_projection")
    whole = {**load_file(rest), **prefixed("cond_stage_model.transformer.", own)}
    assert given == picture(put(tmp_path / "whole.safetensors", whole))[0]
    # In a folder, under the configuration of its text side and under the whole one's.
    folder = shutil.copytree(files["sd1 folder"], tmp_path / "folder")
    put(folder / "text_encoder/model.safetensors", clip)
    assert picture(folder)[0] == given
    config = json.loads((folder / "text_encoder/config.json").read_text())
    whole_config = {
        "architectures": ["CLIPModel"],
        "text_config": config,
        "vision_config": {},
        "projection_dim": 32,
    }
    (folder / "text_encoder/config.json").write_text(json.dumps(whole_config))
    assert picture(folder)[0] == given


def test_tensors_that_nobody_needs_are_left_out_with_a_note(files, tmp_path):
    plain, notes = picture(files["sd1"])
    assert "left out" not in notes
    for extra in (
        "cond_stage_model.transformer.text_projection.weight",
        "cond_stage_model.logit_scale",
        "first_stage_model.loss.logvar",
        "model_ema.diffusion_model.out",
    ):
        put(tmp_path / "m.safetensors", {**load_file(files["sd1"]), extra: torch.eye(64)})
        assert picture(tmp_path / "m.safetensors") == (plain, notes)
    for extra in (
        "bundle_emb.easyneg.string_to_param.*",
        "model.diffusion_model.surprise",
        "cond_stage_model.transformer.text_model.encoder.new",
    ):
        put(tmp_path / "m.safetensors", {**load_file(files["sd1"]), extra: torch.eye(64)})
        found, notes = picture(tmp_path / "m.safetensors")
        assert found == plain
        assert f"1 tensors that no network of Stable Diffusion 1 has are left out: {extra}" in notes


def test_one_of_two_encoders_is_said_at_once(files, tmp_path):
    for kept, missing in (("0", "text_encoder_2"), ("1", "text_encoder")):
        put(
            tmp_path / "half.safetensors",
            without(load_file(files["xl"]), f"conditioner.embedders.{1 - int(kept)}"),
        )
        found = describe(tmp_path / "half.safetensors")
        assert (found.family, found.missing) == ("Stable Diffusion XL", [missing])
        with pytest.raises(ModelError, match=f"holds no {missing}: give the file"):
            darkroom.load(tmp_path / "half.safetensors", device="cpu")


def test_a_component_is_described_and_used(files, tmp_path):
    rest = put(tmp_path / "rest.safetensors", without(load_file(files["xl"]), "model.diffusion_model."))
    folder = files["xl folder"]
    assert picture(folder / "unet", others=[rest])[0] == picture(files["xl"])[0]
    for name, words in (("vae", "`vae=`"), ("text_encoder", "`others=`")):
        found = describe(folder / name)
        assert "folder of a component" in found.form
        assert words in found.notes[0]
        with pytest.raises(ModelError, match=words):
            darkroom.load(folder / name, device="cpu")
    assert describe(folder / "unet").family == "Stable Diffusion XL"


def test_t5_is_left_out_of_files_and_given_to_them(files, tmp_path):
    from darkroom.networks import T5Config, T5Encoder

    t5 = T5Encoder(
        T5Config(
            vocab_size=64,
            d_model=TRANSFORMER.joint_attention_dim,
            d_kv=16,
            d_ff=32,
            num_layers=1,
            num_heads=2,
        )
    )
    with_t5 = load_file(files["sd3"]) | prefixed("text_encoders.t5xxl.transformer.", ours(t5))
    put(tmp_path / "with.safetensors", with_t5)
    put(tmp_path / "t5.safetensors", {**ours(t5), "lm_head.weight": torch.zeros(2)})
    for options in ({}, {"t5": False}, {"others": [tmp_path / "t5.safetensors"]}):
        with open_source(tmp_path / "with.safetensors", **options) as source:
            assert ("text_encoder_3" in source.parts) == options.get("t5", True)
            assert not any("left out" in note for note in noted(source).notes)
    with open_source(files["sd3 folder"], others=[tmp_path / "t5.safetensors"]) as source:
        assert source.parts["text_encoder_3"].weights.path == tmp_path / "t5.safetensors"


def test_the_second_encoder_needs_its_projection(files, tmp_path):
    tensors = load_file(files["xl"])
    del tensors["conditioner.embedders.1.model.text_projection"]
    with pytest.raises(ModelError, match="text_projection"):
        open_source(put(tmp_path / "m.safetensors", tensors))


def test_openclip_of_one_width_with_another_is_known_by_its_place(tmp_path):
    """Where a file has both encoders with the names of transformers, the second is still OpenCLIP's: GELU."""
    tensors = without(xl(), "conditioner.embedders.1")
    tensors |= prefixed("conditioner.embedders.1.transformer.", ours(CLIPText(WIDE), 3))
    with open_source(put(tmp_path / "m.safetensors", tensors)) as source:
        acts = [source.parts[role].config.hidden_act for role in ("text_encoder", "text_encoder_2")]
    assert acts == ["quick_gelu", "gelu"]


def test_words_added_to_a_tokenizer_need_vectors(files, tmp_path):
    folder = shutil.copytree(files["sd1 folder"], tmp_path / "folder")
    plain, _ = picture(folder)
    (folder / "tokenizer/added_tokens.json").write_text('{"<toy>": 49408}')
    with pytest.raises(ModelError, match=r"<toy>.*49408 in all"):
        picture(folder)
    # A text encoder from elsewhere comes without them.
    file = folder / "text_encoder/model.safetensors"
    tensors = load_file(file)
    table = tensors["text_model.embeddings.token_embedding.weight"]
    more = put(
        tmp_path / "more.safetensors",
        {
            **tensors,
            "text_model.embeddings.token_embedding.weight": torch.cat(
                [table, torch.randn_like(table[:1]) * 9]
            ),
        },
    )
    put(file, load_file(more))
    config = folder / "text_encoder/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 49409}))
    assert picture(folder)[0] == plain
    word = read(folder)
    assert not torch.equal(word, read(files["sd1"]))
    with open_source(folder) as source:
        convert(source, tmp_path / "made.safetensors")
    assert torch.equal(read(tmp_path / "made.safetensors"), word)
    clip = put(tmp_path / "clip.safetensors", bare(load_file(files["sd1"]), "cond_stage_model.transformer."))
    assert picture(folder, others=[clip])[0] == plain


def test_a_tokenizer_comes_along_with_its_encoder(files, tmp_path):
    folder = shutil.copytree(files["sd1 folder"], tmp_path / "folder")
    file, config = folder / "text_encoder/model.safetensors", folder / "text_encoder/config.json"
    tensors = load_file(file)
    name = "text_model.embeddings.token_embedding.weight"
    put(file, {**tensors, name: torch.cat([tensors[name], 9 * tensors[name][:1].flip(1)])})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 49409}))
    (folder / "tokenizer/added_tokens.json").write_text('{"<toy>": 49408}')
    for model in (files["sd1"], files["sd1 folder"], files["sd1 folder"] / "unet"):
        for giver in (folder, folder / "text_encoder"):
            with open_source(model, others=[giver]) as source:
                assert source.tokenizers["text_encoder"] == folder / "tokenizer"


def test_encoders_find_their_seats_in_any_order(files, tmp_path):
    whole = load_file(files["xl"])
    first = put(tmp_path / "clip_l.safetensors", bare(whole, "conditioner.embedders.0.transformer."))
    second = put(tmp_path / "clip_g.safetensors", bare(whole, "conditioner.embedders.1.model."))
    folder = files["xl folder"]
    expected, _ = picture(files["xl"])
    unet = put(tmp_path / "unet.safetensors", without(whole, "conditioner."))
    lacking = [
        put(tmp_path / f"no{i}.safetensors", without(whole, f"conditioner.embedders.{i}.")) for i in (0, 1)
    ]
    for model, others in (
        (unet, [second, first]),
        (unet, [first, second]),
        (unet, [folder / "text_encoder_2", first]),
        (unet, [folder]),
        (lacking[0], [first]),
        (lacking[0], [folder / "text_encoder"]),
        (lacking[1], [folder / "text_encoder_2"]),
        (lacking[1], [second]),
    ):
        assert picture(model, others=others)[0] == expected


def test_a_folder_may_be_given_what_it_lacks(files, tmp_path):
    expected, _ = picture(files["sd1"])
    for name, option in (("text_encoder", "others"), ("vae", "vae")):
        for listed in (True, False):
            folder = shutil.copytree(files["sd1 folder"], tmp_path / f"{name} {listed}")
            shutil.rmtree(folder / name)
            if not listed:
                index = json.loads((folder / "model_index.json").read_text())
                (folder / "model_index.json").write_text(json.dumps({**index, name: [None, None]}))
            assert describe(folder).missing == [name]
            with pytest.raises(ModelError, match=f"holds no {name}"):
                picture(folder)
            for giver in (files["sd1 folder"] / name, files["sd1"]):
                given = [giver] if option == "others" else giver
                assert picture(folder, **{option: given})[0] == expected


@pytest.mark.parametrize("harm", ["truncated", "no config"])
@pytest.mark.parametrize(
    ("model", "role", "given"),
    [
        ("sd1", "vae", {"vae": "sd1 folder/vae"}),
        ("sd1", "text_encoder", {"others": ["sd1 folder/text_encoder"]}),
        ("xl", "text_encoder_2", {"others": ["xl folder/text_encoder_2"]}),
        ("sd3", "text_encoder_3", {"t5": False}),
    ],
)
def test_a_damaged_part_that_is_replaced_is_in_nobodys_way(files, tmp_path, model, role, given, harm):
    def at(place):
        name, _, part = place.partition("/")
        return files[name] / part

    options = {
        name: [at(each) for each in value] if isinstance(value, list) else at(value) if value else value
        for name, value in given.items()
    }
    folder = shutil.copytree(files[f"{model} folder"], tmp_path / "model")
    if role == "text_encoder_3":  # Too large for a toy.
        index = json.loads((folder / "model_index.json").read_text())
        index[role] = ["transformers", "T5EncoderModel"]
        (folder / "model_index.json").write_text(json.dumps(index))
        put((folder / role).mkdir() or folder / role / "model.safetensors", {"shared.weight": torch.zeros(9)})
        (folder / role / "config.json").write_text("{}")
    for path in (folder / role).glob("*.safetensors" if harm == "truncated" else "config.json"):
        path.write_bytes(path.read_bytes()[:20] if harm == "truncated" else b"{")
    whole = {"t5": False} if "t5" in given else {}
    assert picture(folder, **options)[0] == picture(files[model], **whole)[0]
    with pytest.raises(ModelError, match=role):
        darkroom.load(folder, device="cpu")


def test_half_an_autoencoder_may_be_replaced(files, tmp_path, capsys):
    half = put(tmp_path / "half.safetensors", without(load_file(files["sd1"]), "first_stage_model.encoder."))
    with pytest.raises(ModelError, match="no encoder"):
        picture(half)
    vae = files["sd1 folder"] / "vae"
    assert picture(half, vae=vae)[0] == picture(files["sd1"])[0]
    assert main(["convert", str(half), str(tmp_path / "out.safetensors"), "--vae", str(vae)]) == 0
    assert picture(tmp_path / "out.safetensors")[0] == picture(files["sd1"])[0]


def test_encoders_as_wide_as_each_other_find_their_seats(tmp_path):
    """As in toys: the one that lacks is given, not put in place of the other."""
    whole = put(tmp_path / "xl.safetensors", single_file("Stable Diffusion XL"))
    with open_source(whole) as source:
        convert(source, tmp_path / "xl")
    for role in ("text_encoder", "text_encoder_2"):
        folder = shutil.copytree(tmp_path / "xl", tmp_path / f"no {role}")
        shutil.rmtree(folder / role)
        assert picture(folder, others=[tmp_path / "xl" / role])[0] == picture(whole)[0]


def test_encoders_of_another_width_are_refused(files, tmp_path):
    rest = put(tmp_path / "rest.safetensors", without(load_file(files["sd1"]), "cond_stage_model."))
    for giver in (
        files["xl folder"] / "text_encoder_2",
        put(tmp_path / "wide.safetensors", ours(CLIPText(WIDE))),
    ):
        with pytest.raises(ModelError, match="128"):
            darkroom.load(rest, device="cpu", others=[giver])


def test_only_what_a_family_knows_is_taken(files, tmp_path):
    from darkroom.networks import T5Config, T5Encoder

    small = T5Config(vocab_size=64, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
    t5 = put(tmp_path / "t5.safetensors", ours(T5Encoder(small)))
    for model in ("sd1", "sd1 folder", "xl"):
        with pytest.raises(ModelError, match=r"no use for .*t5\.safetensors"):
            open_source(files[model], others=[t5])
    with open_source(files["sd1"], others=[files["sd3"]]) as source:
        assert {*source.parts} == {"unet", "vae", "text_encoder"}
        assert not any("T5" in note for note in source.notes)


def test_whole_numbers_are_no_weights(files, tmp_path):
    tensors = load_file(files["sd1"])
    name = "model.diffusion_model.out.2.weight"
    put(tmp_path / "int8.safetensors", {**tensors, name: tensors[name].to(torch.int8)})
    with pytest.raises(ModelError, match=r"int8.*does not read"):
        darkroom.load(tmp_path / "int8.safetensors", device="cpu")


@pytest.mark.parametrize(
    "said",
    [
        {"vae": 3},
        {"scheduler": None},
        {"text": {"layers": None}},
        {"extra": {"native_size": "big"}},
        {"extra": {"preferences": {"unknown": 1}}},
        {"tokenizers": {"nope": {}}},
        {"scheduler": {"prediction_type": "banana"}},
    ],
)
def test_a_damaged_note_of_ours_is_named(files, tmp_path, said):
    path = put(tmp_path / "m.safetensors", load_file(files["sd1"]), metadata={"darkroom": json.dumps(said)})
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        open_source(path)
