"""CLIP as a judge, against transformers' own."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

import darkroom
from darkroom.checkpoint.components import CLIP_TEXT, CLIP_VISION, ORIGINAL
from darkroom.errors import GenerationError, InvalidRequest, ModelError
from darkroom.prompt import Tokenizer
from darkroom.ranking.clip import clip_judge
from darkroom.ranking.judges import judge_called
from darkroom.ranking.phrases import PHRASES, Phrases, phrases_in

CPU = torch.device("cpu")
TEXTS = ["a red boat on a calm sea", "a cat", "", "Ein Häuschen, étoilé!"]


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def whole(request, tmp_path_factory):
    """The folder of a whole CLIP, its model and its tokenizer."""
    folder = tmp_path_factory.mktemp("clips") / f"clip-{request.param}"
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1}
    own = {"hidden_act": request.param, "projection_dim": 48}
    text = {**shape, **own, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    vision = {**shape, **own, "image_size": 32, "patch_size": 8}
    torch.manual_seed(3)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=48)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    Tokenizer.clip().save(folder)
    return folder, model, CLIPTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(5)
    sizes = [(32, 32), (50, 37), (20, 64)]
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).resize((width, height))
        for width, height in sizes
    ]


def theirs(whole, texts, pictures):
    """Cosines, (pictures, texts), by transformers."""
    _, model, tokenizer = whole
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    with torch.no_grad():
        found = model(
            **tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt"),
            pixel_values=torch.cat([processor(each, return_tensors="pt").pixel_values for each in pictures]),
        )
    return found.image_embeds @ found.text_embeds.T


def ours(judge, texts, pictures):
    several = [judge.asked(text, "") for text in texts]
    return torch.tensor([[each.score for each in asked(pictures)] for asked in several]).T


def test_scores_are_transformers_cosines(whole, pictures):
    judge = clip_judge([whole[0]], CPU)
    torch.testing.assert_close(
        ours(judge, TEXTS, pictures), theirs(whole, TEXTS, pictures), atol=2e-5, rtol=0
    )
    assert judge.name == whole[0].name


@pytest.mark.parametrize("whole", ["gelu"], indirect=True)
def test_an_openclip_file_is_the_same_pair(whole, pictures, tmp_path):
    """The names of OpenCLIP's authors, whose activation is gelu."""
    judge = clip_judge([whole[0]], CPU)
    state = {}
    for component, network, prefix in (
        (CLIP_TEXT, judge.pair.text, ""),
        (CLIP_VISION, judge.pair.vision, "visual."),
    ):
        own = network.state_dict()
        for rule in component.rules(network, ORIGINAL):
            state[prefix + rule.theirs] = rule.write([own[name] for name in rule.ours])
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "open_clip.safetensors"
    )
    found = clip_judge([tmp_path / "open_clip.safetensors"], CPU)
    torch.testing.assert_close(ours(found, TEXTS, pictures), ours(judge, TEXTS, pictures), atol=1e-6, rtol=0)


@pytest.mark.parametrize("whole", ["quick_gelu"], indirect=True)
def test_a_whole_clip_in_one_file_is_the_same_pair(whole, pictures):
    """What shapes do not say is OpenAI's, as most such files are."""
    folder = whole[0]
    file, judge = clip_judge([folder / "model.safetensors"], CPU), clip_judge([folder], CPU)
    torch.testing.assert_close(ours(file, TEXTS, pictures), ours(judge, TEXTS, pictures), atol=1e-6, rtol=0)


def test_an_encoder_of_pictures_goes_with_the_models_own_text_encoder(folder, whole, pictures, tmp_path):
    """As ComfyUI's clip_vision_g does with SDXL, whose second text encoder is of the same pair."""
    state = load_file(folder("unclip") / "image_encoder/model.safetensors")
    save_file(state, tmp_path / "clip_vision.safetensors")
    judge = clip_judge([tmp_path / "clip_vision.safetensors", folder("sdxl")], CPU)
    assert judge.pair.text.config.projection_dim == judge.pair.vision.config.projection_dim
    assert all(abs(each.score) <= 1 for each in judge.asked("a boat", "")(pictures))


def test_a_text_of_any_length_is_read(whole, pictures):
    judge = clip_judge([whole[0]], CPU)
    long = ", ".join(["a red boat on a calm sea"] * 30)
    short, middle, whole_text = judge.pair.texts(["a cat", TEXTS[0], long])
    torch.testing.assert_close(judge.pair.texts(["a cat"])[0], short, atol=1e-6, rtol=0)
    assert torch.isfinite(whole_text).all()
    assert float(whole_text @ middle) > float(short @ middle)


def test_models_without_a_pair_say_so(folder, toy_folder):
    with pytest.raises(ModelError, match=r"toy has no judge of its own .* there is the oracle"):
        judge_called(None, toy_folder, "", CPU)
    with pytest.raises(ModelError, match="no text encoder with a projection into the same space"):
        judge_called("clip", folder("unclip"), "", CPU)
    with pytest.raises(ModelError, match="there is no judge 'oracel': did you mean 'oracle'"):
        judge_called("oracel", toy_folder, "", CPU)
    with pytest.raises(ModelError, match="there is no judge 'nothing': give oracle, clip, or"):
        judge_called("nothing", toy_folder, "", CPU)
    assert judge_called(None, toy_folder, "oracle", CPU).name == "oracle"


def test_interrogation_begins_with_the_nearest_and_comes_nearer(whole, pictures):
    judge = clip_judge([whole[0]], CPU)
    seen = pictures[1]
    found = judge.interrogate(seen)
    first, *more = found.phrases
    (near,) = judge.asked(first.text, "")([seen])
    subjects = [judge.asked(text, "")([seen])[0].score for text in PHRASES["subject"].texts]
    assert near.score == pytest.approx(max(subjects), abs=1e-6)
    (whole_near,) = judge.asked(found.prompt, "")([seen])
    assert whole_near.score >= near.score
    assert len({each.about for each in found.phrases}) == len(found.phrases) <= 8
    assert found.prompt == ", ".join(each.text for each in (first, *more))
    assert found.to_dict()["phrases"][0] == {**first.to_dict()}


def test_ones_own_phrases(whole, pictures, tmp_path):
    judge = clip_judge([whole[0]], CPU)
    (tmp_path / "mediums.txt").write_text("an oil painting\n\n# none\na photo\na photo\n")
    (tmp_path / "flavors.top3.txt").write_text("smooth\nrough")
    (tmp_path / "notes.md").write_text("nothing")
    several = phrases_in(tmp_path)
    assert several == {
        "flavors": Phrases(("smooth", "rough"), 3),
        "mediums": Phrases(("an oil painting", "a photo")),
    }
    found = judge.interrogate(pictures[0], several)
    assert {each.text for each in (*found.phrases, *found.others)} == {
        "an oil painting",
        "a photo",
        "smooth",
        "rough",
    }
    assert sum(each.score for each in (*found.phrases, *found.others)) == pytest.approx(2, abs=1e-5)
    # Of a single list there may be as many as help.
    assert phrases_in(tmp_path / "mediums.txt") == {"mediums": Phrases(("an oil painting", "a photo"), 2)}
    (tmp_path / "flavors.txt").write_text("sharp\nrough")
    assert phrases_in(tmp_path)["flavors"] == Phrases(("smooth", "rough", "sharp"), 3)


def test_of_a_sort_there_are_as_many_as_may_be(whole, pictures, monkeypatch):
    monkeypatch.setattr("darkroom.ranking.clip._GAIN", -2.0)  # Whatever there is helps.
    judge = clip_judge([whole[0]], CPU)
    found = judge.interrogate(
        pictures[0], {"a": Phrases(("one", "two")), "b": Phrases(("three", "four", "five", "six"), 3)}
    )
    assert [each.about for each in found.phrases].count("a") == 1
    assert [each.about for each in found.phrases].count("b") == 3
    assert len({each.text for each in found.phrases}) == 4


def test_a_judge_whose_numbers_are_none_is_told(whole, pictures):
    judge = clip_judge([whole[0]], CPU)
    with torch.no_grad():
        judge.pair.vision.visual_projection.weight[0, 0] = float("nan")
    with pytest.raises(GenerationError, match="the judge's encoders make no numbers"):
        judge.asked("a cat", "")(pictures)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no phrases in"),
        (b"# nothing\n\n", "no phrases in"),
        (b"\xff\xfe\x00\xd8", "cannot read"),
        (b"x" * 300, "is no list of phrases"),
        (b"".join(b"%d\n" % i for i in range(20_001)), "20,001 phrases: give 20,000 at most"),
    ],
)
def test_what_is_no_list_of_phrases_is_told(tmp_path, content, words):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InvalidRequest, match=re.escape(words)):
        phrases_in(tmp_path / "list.txt")
    with pytest.raises(InvalidRequest, match="cannot read the phrases"):
        phrases_in(tmp_path / "none.txt")


def test_phrases_are_told_apart():
    several = [text for each in PHRASES.values() for text in each.texts]
    assert all(text == " ".join(text.split()) and "," not in text for text in several)
    for about, each in PHRASES.items():
        assert len(set(each.texts)) == len(each.texts) >= 10, about


def test_a_model_ranks_by_a_clip(toy_folder, whole):
    model = darkroom.load(toy_folder, device="cpu")
    choice = model.choose("a red boat", judge=str(whole[0]), variants=3, seed=1, steps=3, width=40)
    scores = [each.judgement.score for each in choice.variants if each.picture is not None]
    assert scores == sorted(scores, reverse=True)
    assert choice.judge == whole[0].name
    assert choice.kept[0].metadata["chosen"]["judge"] == whole[0].name
    assert "right" not in choice.to_dict()["variants"][0]
    assert json.dumps(choice.to_dict())
