"""On the way from one prompt, or one seed, to another; and latents in and out of requests."""

from __future__ import annotations

import base64
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.adapters.test_requests import write_lora

import darkroom
from darkroom.cli import main
from darkroom.errors import InvalidRequest
from darkroom.generation import Picture, Request
from darkroom.generation.wording import Extras, Wording
from darkroom.language import Moment
from darkroom.language.tags import parse_tag
from darkroom.model import Model
from darkroom.networks.conditioning import slerp

SETTINGS: dict[str, Any] = {"steps": 3, "guidance": 3.0, "width": 32, "height": 32}


@pytest.fixture(scope="module")
def model(toy_folder: Path) -> Model:
    return darkroom.load(toy_folder, device="cpu", precision="float32")


def pixels(picture: Picture) -> Any:
    return np.asarray(picture.image)


def same(one: Picture, other: Picture) -> bool:
    return np.array_equal(pixels(one), pixels(other))


# The way


def test_frames_are_evenly_along_the_way() -> None:
    requests = darkroom.between(["a", "b", "c"], [1, 2, 2], frames=9, steps=4)
    said = [(each.prompt, each.text.towards, each.text.towards_strength) for each in requests]
    assert said == [
        ("a", None, 0),
        ("a", "b", 0.25),
        ("a", "b", 0.5),
        ("a", "b", 0.75),
        ("b", None, 0),
        ("b", "c", 0.25),
        ("b", "c", 0.5),
        ("b", "c", 0.75),
        ("c", None, 0),
    ]
    assert [each.noise.variation_strength for each in requests] == [0, 0.25, 0.5, 0.75, *[0] * 5]
    assert {each.sampling.steps for each in requests} == {4}
    for frames, stops in itertools.product((2, 3, 7, 30, 101), (2, 3, 8)):
        requests = darkroom.between([f"{number}" for number in range(stops)], [5], frames=frames)
        places = [int(each.prompt) + each.text.towards_strength for each in requests]
        np.testing.assert_allclose(places, np.linspace(0, stops - 1, frames), atol=1e-8)
        assert len(requests) == frames


def test_a_loop_comes_back_to_the_first() -> None:
    requests = darkroom.between(["a"], [1, 2, 3], frames=6, loop=True)
    assert [each.seed for each in requests] == [1, 1, 2, 2, 3, 3]
    assert requests[5].noise.variation_seed == 1
    assert requests[5].noise.variation_strength == 0.5


def test_a_way_needs_two_ends() -> None:
    for arguments, match in (
        ((["a"], [1]), "there are 1 prompts and 1 seeds"),
        ((["a", "b"], [1, 2, 3]), "there are 2 prompts and 3 seeds"),
        (([], [1, 2]), "there are 0 prompts"),
        ((["a", "b"], [1], 1), "frames is 1"),
        ((["a", "b"], [1.5]), "seed is 1.5"),
        ((["a", "b"], [-2]), "seed is -2"),
        (("abc", [1]), "there are 1 prompts and 1 seeds"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            darkroom.between(*arguments)
    with pytest.raises(InvalidRequest, match="seed changes on the way"):
        darkroom.between(["a", "b"], seed=4)
    for seeds in ((), -1, [-1]):
        one, other = darkroom.between(["a", "b"], seeds, frames=2)
        assert one.seed == other.seed
        assert one.seed != -1
    assert darkroom.between(["a", "b"], 7, frames=2)[1].seed == 7
    with pytest.raises(InvalidRequest, match="dynamic would draw"):
        darkroom.between(["a", "{b|c}"], dynamic="random")
    with pytest.raises(InvalidRequest, match="latents take the place"):
        darkroom.between(["a"], [1, 2], latents=np.zeros((1, 4, 4, 4)))


def test_the_ends_are_the_pictures_themselves(model: Model) -> None:
    frames = model.interpolate(
        ["a red boat", "a blue house, (at night:1.4)"], seeds=[3, 4], frames=4, **SETTINGS
    )
    assert same(frames[0], model.generate("a red boat", seed=3, **SETTINGS)[0])
    assert same(frames[-1], model.generate("a blue house, (at night:1.4)", seed=4, **SETTINGS)[0])
    assert len({pixels(each).tobytes() for each in frames}) == 4
    whole = model.generate("x", towards="a red boat", towards_strength=1, seed=3, **SETTINGS)[0]
    assert same(whole, frames[0])
    unmoved = model.generate("a red boat", towards="x", towards_strength=0, seed=3, **SETTINGS)[0]
    assert same(unmoved, frames[0])
    (again,) = model.generate(Request.from_dict(json.loads(json.dumps(frames[1].metadata["request"]))))
    assert same(again, frames[1])


def test_the_way_of_vectors() -> None:
    a, b = (
        torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 4.0], [3.0, 3.0], [1.0, 2.0]]),
    )
    half = slerp(a, b, 0.5)
    side = 3 / 2**0.5
    torch.testing.assert_close(half, torch.tensor([[side, side], [2.0, 2.0], [0.5, 1.0]]))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, -a, 0.25), 0.5 * a)
    assert slerp(a.bfloat16(), b.bfloat16(), 0.3).dtype == torch.bfloat16


def test_prompts_of_other_lengths_and_steps(model: Model) -> None:
    """Of several chunks, and with a part for some steps; parts joined by AND go together, or not at all."""
    long = ", ".join(["a red boat on a calm sea"] * 20)
    (picture,) = model.generate("a [house:boat:0.5]", towards=long, towards_strength=0.5, seed=1, **SETTINGS)
    assert pixels(picture).shape == (32, 32, 3)
    wording = Wording(Request("a :1 AND b :2", towards="c :3 AND d", towards_strength=0.25))
    assert wording.weights == (1.5, 1.75)
    with pytest.raises(InvalidRequest, match=r"has 2 parts joined by AND, that which it goes towards 1"):
        model.generate("a AND b", towards="c", towards_strength=0.5, **SETTINGS)


def test_adapters_come_and_go_on_the_way(model: Model, tmp_path: Path) -> None:
    file = write_lora(tmp_path / "ink.safetensors", model)
    tag = parse_tag(f"{file}:0.8")
    extras = Extras(model._collection.adapters([tag]))
    request = Request("a boat", towards=f"a house <lora:{file}:0.8>", towards_strength=0.25)
    wording = Wording(request, extras)
    moment = Moment(0, 4)
    assert [dose.strength for dose in wording.doses(moment)] == [0.2]
    (one, first), (other, second) = wording.told("positive", moment)
    assert (first, second) == (0.75, 0.25)
    assert one.changes is None
    assert [dose.strength for dose in other.changes.doses] == [0.8]
    both = Wording(request.replace(prompt=f"a boat <lora:{file}:0.8>"), extras)
    assert [dose.strength for dose in both.doses(moment)] == [0.8]


def test_styles_and_what_is_drawn_by_lot(model: Model, tmp_path: Path, monkeypatch: Any) -> None:
    styles = tmp_path / "styles.csv"
    styles.write_text("name,prompt,negative_prompt\nink,in ink,\n")
    monkeypatch.setenv("DARKROOM_STYLES", str(styles))
    settings = SETTINGS | {"seed": 1, "towards_strength": 0.5}
    (picture,) = model.generate(
        "a {boat|boat}", towards="a {sea|sea}", styles=["ink"], dynamic="random", **settings
    )
    said = picture.metadata["request"]
    assert (said["prompt"], said["text"]["towards"]) == ("a boat, in ink", "a sea, in ink")
    empty = model.settle(Request("a", towards="", styles=("ink",), towards_strength=0.5))
    assert empty.text.towards == "in ink"


# The command


@pytest.fixture
def run(toy_folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> Any:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, list[str], str]:
        given = ["--model", str(toy_folder), "--size", "32", "--steps", "2"]
        try:
            status = main(["interpolate", *words, *given])
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out.split(), captured.err

    return call


def test_frames_in_a_folder(run: Any, capsys: Any) -> None:
    status, paths, _ = run("a boat", "a house", "--seed", "3", "--frames", "3", "--grid")
    assert status == 0
    assert paths == [f"out/interpolation/{name}.png" for name in ("0000", "0001", "0002", "0-grid")]
    assert run("a boat", "a house", "--frames", "2")[1] == [f"out/interpolation-2/000{n}.png" for n in (0, 1)]
    assert main(["again", paths[1]]) == 0
    assert "pixel for pixel" in capsys.readouterr().out


def test_a_strip_and_animations(run: Any) -> None:
    for name, frames in (("it.png", 1), ("it.jpg", 1), ("it.gif", 4), ("it.webp", 4), ("it.apng", 4)):
        status, paths, err = run("a boat", "--seeds", "3", "4", "--frames", "4", "--fps", "5", "-o", name)
        assert (status, paths) == (0, [name]), err
        with Image.open(name) as image:
            assert getattr(image, "n_frames", 1) == frames
            assert image.size == ((128, 32) if frames == 1 else (32, 32))
            image.load()
            assert frames == 1 or image.info["duration"] == 200
    assert run("a boat", "--seeds", "3", "4", "-o", "it.gif")[1] == ["it-2.gif"]


def test_mistakes(run: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "notes").write_text("x")
    for words, said in (
        (("a boat",), "there are 1 prompts and 1 seeds"),
        (("a", "b", "--seeds", "1", "--seed", "2"), "leave one out"),
        (("a", "b", "--fps", "0"), "--fps is 0"),
        (("a", "b", "-o", "x.mp4"), "an animation .gif"),
        (("a", "b", "-o", "notes.txt"), "a strip is .png"),
        (("a", "b", "-o", "notes"), "a strip is .png"),
        (("a", "b <lora:nobody:1>"), "there is no lora 'nobody'"),
        (("a", "b", "--frames", "1"), "frames is 1"),
        (("a", "b", "--count", "2"), "unknown option --count"),
        (("a", "b", "-o", "x.gif", "--grid"), "leave --grid out"),
        (("a", "b", "-o", "x.jpg", "--frames", "3000"), "96,000 pixels wide"),
    ):
        status, _, err = run(*words)
        assert status in (1, 2)
        assert said in err
        assert not (tmp_path / "out/interpolation/0000.png").exists()


def test_what_a_strip_was_made_of(run: Any) -> None:
    status, _, err = run("a boat", "a house", "--frames", "2", "-o", "it.png")
    assert status == 0
    assert "the seed was" in err
    _, told, _ = run("a boat", "a house", "--frames", "3", "--seed", "4", "-o", "it.png", "--json")
    frames = json.loads(" ".join(told))["frames"]
    assert [each["prompt"] for each in frames] == ["a boat", "a boat", "a house"]
    assert [each["text"].get("towards") for each in frames] == [None, "a house", None]


# Latents


def noise(model: Model, seed: int = 0, count: int = 1) -> torch.Tensor:
    side = 32 // model.family.factor
    shape = count, model.family.latent_channels, side, side
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_picture_s_own_latents(model: Model) -> None:
    (picture,) = model.generate("a boat", seed=3, **SETTINGS)
    assert picture.latents is not None
    assert picture.latents.shape == noise(model).shape
    assert picture.latents.dtype == torch.float32
    picture.latents.add_(0)  # It is the user's own.
    (decoded,) = model.decode(picture.latents)
    assert np.array_equal(np.asarray(decoded), pixels(picture))
    assert model.encode(decoded).shape == picture.latents.shape
    assert torch.equal(model.encode(pixels(picture)), model.encode(decoded))
    assert len(model.decode(picture.latents.numpy().repeat(3, 0))) == 3


def test_latents_to_begin_with(model: Model, tmp_path: Path) -> None:
    expected = model.generate("a boat", seed=3, **SETTINGS)[0]
    given = noise(model, 3)
    for latents in (given, given[0], given.numpy(), given.double().numpy(), given.tolist()):
        picture = model.generate("a boat", seed=3, latents=latents, **SETTINGS)[0]
        assert same(picture, expected)
    (again,) = model.generate(Request.from_dict(json.loads(json.dumps(picture.metadata["request"]))))
    assert same(again, picture)
    small = model.generate("a boat", seed=3, latents=given, steps=3, guidance=3.0)[0]
    assert same(small, expected)
    assert not same(model.generate("a boat", seed=3, latents=noise(model, 4), **SETTINGS)[0], expected)


def test_several_latents(model: Model) -> None:
    given = noise(model, 1, 2)
    first, second, third = model.generate("a boat", seed=3, count=3, latents=given, **SETTINGS)
    for picture, number in ((first, 0), (second, 1), (third, 0)):
        alone = model.generate("a boat", seed=picture.seed, latents=given[number], **SETTINGS)[0]
        assert same(picture, alone)


def test_latents_with_a_command_line(
    model: Model, toy_folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    given = noise(model, 3)
    np.save("it.npy", given.numpy())
    save_file({"noise": given}, "it.safetensors")
    save_file({"noise": given.bfloat16()}, "half.safetensors")
    words = [
        "generate",
        "a boat",
        "--model",
        str(toy_folder),
        "--steps",
        "2",
        "--seed",
        "3",
        "--precision",
        "float32",
    ]
    for number, name in enumerate(("it.npy", "it.safetensors")):
        assert main([*words, "--latents", name, "--output", f"{number}.png"]) == 0
        assert main(["again", f"{number}.png"]) == 0
    assert Image.open("0.png").tobytes() == Image.open("1.png").tobytes()
    assert main([*words, "--latents", "half.safetensors", "--output", "2.png"]) == 0


def test_latents_that_are_none(model: Model, toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    content = io.BytesIO()
    np.save(content, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    pickled = base64.b64encode(content.getvalue()).decode()
    wide = torch.zeros(1, model.family.latent_channels, 4, 40)
    for latents, match in (
        (torch.zeros(4), "latents is an array of"),
        (torch.zeros(1, 4, 0, 4), "latents is an array of"),
        ([[1], [2, 3]], "latents is no array"),
        ("nonsense", "holds no array"),
        (pickled, "holds no array"),
        (base64.b64encode(b"\x93NUMPY\x01\x00").decode(), "holds no array"),
        (noise(model) * float("nan"), "NaN"),
        (wide, r"the picture begins as one of 32x32"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            model.generate("a boat", latents=latents, **SETTINGS)
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(3))
    for latents, match in (
        (base64.b64encode(archive.getvalue()).decode(), "holds no array"),
        (torch.zeros(1, 4, 4, 4, dtype=torch.complex64), "latents is an array of"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            Request("a", latents=latents)
    array = np.zeros((1, 4, 2, 2), np.float32)
    assert Request("a", latents=array) == Request("a", latents=torch.tensor(array))
    assert len(repr(Request("a", latents=array))) < 80
    with pytest.raises(InvalidRequest, match="latents are a str"):
        model.decode("x")
    for latents in (torch.zeros(4, 4), torch.zeros(1, 99, 4, 4)):
        with pytest.raises(InvalidRequest, match="latents are of"):
            model.decode(latents)
    for image in (np.zeros((8, 8, 7)), Image.new("RGB", (9, 8)), b"no picture"):
        with pytest.raises(InvalidRequest, match=r"picture|image"):
            model.encode(image)
    with pytest.raises(InvalidRequest, match="leave seed_resize_width out"):
        Request("a", latents=noise(model), seed_resize_width=64, seed_resize_height=64).checked()
    save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "two.safetensors")
    (tmp_path / "it.npy").write_bytes(b"no array")
    (tmp_path / "it.npz").write_bytes(archive.getvalue())
    for name, said in (
        ("two.safetensors", "2 arrays"),
        ("it.npy", "holds no array"),
        ("gone.npy", "No such file"),
        ("it.npz", "give an .npy or .safetensors file"),
    ):
        assert main(["generate", "a", "--model", str(toy_folder), "--latents", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err
