"""Where the words of a prompt are read: the watched attention, by hand; whose token is whose; pictures of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import darkroom
from darkroom.cli import main
from darkroom.errors import InvalidRequest
from darkroom.generation.attention import AttentionMaps
from darkroom.model import Model
from darkroom.networks.conditioning import each_its_own
from darkroom.networks.layers import attend
from darkroom.networks.watched import Watcher
from darkroom.prompt import Prompt
from darkroom.prompt.words import words

SETTINGS: dict[str, Any] = {"seed": 3, "steps": 2, "guidance": 3.0, "width": 32, "height": 32}
CROSS, SELF = (
    "mid_block.attentions.0.transformer_blocks.0.attn2",
    "mid_block.attentions.0.transformer_blocks.0.attn1",
)


@pytest.fixture(scope="module")
def model(toy_folder: Path) -> Model:
    return darkroom.load(toy_folder, device="cpu", precision="float32")


def heads(rows: int, tokens: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 2, tokens, 8, generator=torch.Generator().manual_seed(seed))


def test_what_is_seen() -> None:
    """The softmax over tokens, of each place, averaged over heads and rows; nothing of other layers."""
    watcher = Watcher((4, 6), 5, joint=False)
    q, k, v = heads(2, 24, 0), heads(2, 5, 1), heads(2, 5, 2)
    assert torch.equal(watcher(q, k, v, CROSS), attend(q, k, v))
    expected = torch.einsum("bhnd,bhmd->bhnm", q, k).div(8**0.5).softmax(-1).mean((0, 1))
    torch.testing.assert_close(watcher.total, expected.T.reshape(5, 4, 6))
    watcher.see(heads(2, 5, 0), k, SELF)
    watcher.see(q, heads(2, 24, 1), SELF)
    assert watcher.count == 1
    watcher.see(heads(1, 6, 3), heads(1, 5, 4), CROSS)  # Half as high and as wide.
    assert watcher.count == 2
    torch.testing.assert_close(watcher.total.sum(0), torch.full((4, 6), 2.0))


def test_what_is_seen_beside_the_picture() -> None:
    """One sequence of picture and text: text is behind, and has less than all of the attention."""
    watcher = Watcher((4, 6), 5, joint=True)
    q, k = heads(1, 6 + 5, 0), heads(1, 6 + 5, 1)
    watcher.see(q, k, "transformer_blocks.0.attn")
    shares = torch.einsum("bhnd,bhmd->bhnm", q, k).div(8**0.5).softmax(-1).mean((0, 1))[:6, 6:]
    small = torch.nn.functional.interpolate(shares.T.reshape(1, 5, 2, 3), (4, 6), mode="bilinear")[0]
    torch.testing.assert_close(watcher.total, small)
    watcher.see(heads(1, 6, 0), heads(1, 6, 1), "transformer_blocks.0.attn2")
    assert watcher.count == 1


def test_each_watcher_sees_its_own_rows() -> None:
    first, second = Watcher((4, 6), 5, joint=False), Watcher((4, 6), 5, joint=False)
    alone = Watcher((4, 6), 5, joint=False)
    q, k, v = heads(4, 24, 0), heads(4, 5, 1), heads(4, 5, 2)
    attention = each_its_own([first, None, second, first])
    assert attention is not None
    assert torch.equal(attention(q, k, v, CROSS), attend(q, k, v))
    alone.see(q[[0, 3]], k[[0, 3]], CROSS)
    torch.testing.assert_close(first.total, alone.total)
    alone.see(q[2:3], k[2:3], CROSS)
    torch.testing.assert_close(first.total + second.total, alone.total)


def test_pictures_are_what_they_are_unwatched(model: Model) -> None:
    prompts = ["a red boat", "a house AND a tree :0.5", "a [red:blue:0.5] boat"]
    for settings in ({}, {"guides": ["pag"]}, {"guidance": 1.0}):
        own = SETTINGS | {"steps": 4} | settings
        watched = model.generate(prompts, attention=True, **own)
        plain = model.generate(prompts, **own)
        for one, other in zip(watched, plain, strict=True):
            assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
            assert one == other
            assert other.attention is None
    assert watched[0].attention is not None
    assert watched[0].attention.words == ("a", "red", "boat")
    side = 32 // model.family.factor
    assert watched[0].attention.maps.shape == (3, side, side)
    assert watched[1].attention.words == ("a", "house", "a", "tree")
    assert watched[1].attention.prompts == (0, 0, 1, 1)
    assert watched[2].attention.words == ("a", "red", "boat", "a", "blue", "boat")


def test_words_of_several_prompts(model: Model) -> None:
    """What is told all along counts all along, whatever changes beside it, in both passes of a larger picture."""
    (whole,) = model.generate("a boat", attention=True, **SETTINGS)
    (twice,) = model.generate("a boat AND a boat", attention=True, **SETTINGS)
    np.testing.assert_allclose(twice.attention.of("boat"), whole.attention.of("boat"), atol=0.02)
    settings = SETTINGS | {"width": 64, "height": 64, "compose": "native", "second_pass": "on"}
    (large,) = model.generate("[red:blue:0.5] boat AND a house", attention=True, **settings | {"steps": 4})
    assert large.attention.words == ("red", "boat", "a", "house", "blue", "boat")
    assert large.attention.maps.shape[1:] == large.latents.shape[2:]
    assert 0.35 < float(large.attention.of("boat").mean() / whole.attention.of("boat").mean()) < 0.65


def test_the_end_that_there_is_more_of_names_the_words(model: Model) -> None:
    for strength, first in ((0.2, "a"), (0.8, "house")):
        settings = SETTINGS | {"towards": "house in snow", "towards_strength": strength}
        (picture,) = model.generate("a boat", attention=True, **settings)
        assert picture.attention.words[0] == first


def test_nothing_was_read(model: Model) -> None:
    (picture,) = model.generate("", attention=True, **SETTINGS)
    assert picture.attention.maps.shape == (0, *picture.latents.shape[2:])
    with pytest.raises(InvalidRequest, match="its words are none"):
        picture.attention.of("boat")


def test_what_a_picture_s_maps_are(model: Model) -> None:
    """Shares of all that a place pays attention to, the same whatever is drawn beside it."""
    (picture,) = model.generate("a red boat", attention=True, **SETTINGS)
    maps = picture.attention
    assert maps is not None
    assert float(maps.maps.min()) > 0
    assert float(maps.maps.sum(0).max()) < 1
    beside = model.generate(["a house", "a red boat"], attention=True, **SETTINGS)[1]
    np.testing.assert_allclose(beside.attention.maps, maps.maps, atol=1e-6)
    future = model.submit("a red boat", attention=True, **SETTINGS)
    np.testing.assert_allclose(future.result()[0].attention.maps, maps.maps, atol=1e-6)


# Words


def test_words_and_their_places(model: Model) -> None:
    text = model._networks.experts[0].text
    length = text.clips[0].tokenizer.length

    def found(*texts: str, **settings: Any) -> list[tuple[str, tuple[int, ...]]]:
        return [tuple(word) for word in words(text, Prompt(texts, **settings), 2 * length)]

    assert found("") == []
    whole = found("A lighthouse, naïve 図 boat")
    assert [word for word, _ in whole] == ["a", "lighthouse", ",", "naïve", "図", "boat"]
    places = [place for _, own in whole for place in own]
    assert places == list(range(1, len(places) + 1))
    long = found(", ".join(["boat"] * 60), dialect="a1111")
    assert [word for word, _ in long].count("boat") == 60
    second = [own for _, own in long if own[0] >= length]
    assert second
    assert second[0][0] == length + 1


def test_an_embedding_is_a_word(model: Model, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"emb_params": torch.randn(3, 16)}, tmp_path / "inky.safetensors")
    embeddings = [str(tmp_path / "inky.safetensors")]
    (picture,) = model.generate("a inky boat", embeddings=embeddings, attention=True, **SETTINGS)
    assert picture.attention.words == ("a", "inky", "boat")


def test_text_in_one_sequence_with_the_picture(folder: Callable[[str], Path]) -> None:
    """Stable Diffusion 3, which reads it as T5 does besides."""
    model = darkroom.load(folder("sd3"), device="cpu", precision="float32")
    (picture,) = model.generate("a red boat", attention=True, **SETTINGS | {"width": 64, "height": 48})
    maps = picture.attention
    assert maps is not None
    assert maps.words[:3] == ("a", "red", "boat")
    assert len(maps.words) > 3
    assert maps.maps.shape[1:] == picture.latents.shape[2:]
    assert float(maps.maps.min()) > 0


# Pictures of it


@pytest.fixture
def maps() -> AttentionMaps:
    arrays = np.zeros((5, 4, 8), np.float32)
    arrays[1, :2], arrays[2, :, :4], arrays[4, 3, 7] = 1, 1, 1
    return AttentionMaps(("a", "Red", "boat", ",", "boat"), arrays, (0, 0, 0, 0, 0))


def test_maps_of_words(maps: AttentionMaps) -> None:
    np.testing.assert_array_equal(maps.of("red"), maps.maps[1])
    np.testing.assert_array_equal(maps.of("BOAT"), (maps.maps[2] + maps.maps[4]) / 2)
    np.testing.assert_array_equal(maps.of("red  boat"), (maps.maps[1] + maps.maps[2]) / 2)
    for text in ("blue", "boat red", "", "red boat boat"):
        with pytest.raises(InvalidRequest, match="its words are a, Red, boat"):
            maps.of(text)


def test_pictures_of_maps(maps: AttentionMaps) -> None:
    image = Image.new("RGB", (64, 32), (100, 100, 100))
    heat = np.asarray(maps.over(image, "red"), int).sum(-1)
    assert heat.shape == (32, 64)
    assert heat[:12].min() > heat[20:].max()
    even = AttentionMaps(("a",), np.full((1, 4, 8), 0.5, np.float32), (0,))
    assert len(np.unique(np.asarray(even.over(image, "a")))) <= 3
    whole, two = maps.sheet(image), maps.sheet(image, ["red boat"])
    assert whole.width > two.width > 2 * image.width
    file = np.load(io.BytesIO(maps.encoded()))
    assert [*file["words"]] == [*maps.words]
    np.testing.assert_array_equal(file["maps"], maps.maps)


def test_the_command(toy_folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "generate",
        "a red boat",
        "--model",
        str(toy_folder),
        "--size",
        "32",
        "--steps",
        "2",
        "-o",
        "it.png",
    ]
    assert main(words) == 0
    assert main(["attention", "it.png", "--word", "red boat", "--arrays", "it.npz"]) == 0
    assert capsys.readouterr().out.split()[-2:] == ["it-attention.png", "it.npz"]
    assert [*np.load("it.npz")["words"]] == ["a", "red", "boat"]
    for given, said in (
        (["it.png", "--word", "blue"], "the prompt has no 'blue': it is 'a red boat'"),
        (["it.png", "--word", "boat red"], "its words are a, red, boat"),
        (["it.png", "--arrays", "x.txt"], "written as .npz"),
        (["it.png", "-o", "x.txt"], "x.txt"),
        (["it-attention.png"], "it-attention.png"),
        (["gone.png"], "gone.png"),
    ):
        assert main(["attention", *given]) == 2
        assert said in capsys.readouterr().err
