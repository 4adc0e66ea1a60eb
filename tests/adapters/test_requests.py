"""Adapters and embeddings in requests: by prompt, by setting, by the library; mixed in one batch; made again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import darkroom
from darkroom.cli import main
from darkroom.engine import Engine
from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation import Picture, Request, open_picture
from darkroom.generation.job import Job
from darkroom.library.records import changing, version_of
from darkroom.model import Model


def write_lora(
    path: Path, model: Model, seed: int = 0, roles: tuple[str, ...] = ("unet", "text_encoder")
) -> Path:
    """A random LoRA of the attention of a model's networks."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for role, network in model._networks.experts[0].networks.items():
        for name, module in network.named_modules():
            if role in roles and name.endswith(("to_q", "to_v", "q_proj")):
                out, inputs = module.weight.shape
                tensors[f"{role}.{name}.lora_A.weight"] = 0.5 * torch.randn(2, inputs, generator=generator)
                tensors[f"{role}.{name}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def model(toy_folder: Path) -> Model:
    return darkroom.load(toy_folder, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def lora(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("loras") / "ink.safetensors", model)


@pytest.fixture(scope="module")
def other(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("loras") / "oil.safetensors", model, 1, ("unet",))


SETTINGS: dict[str, Any] = {"seed": 3, "steps": 4, "guidance": 3.0, "width": 32, "height": 32}


def make(model: Model, prompt: str = "a red boat", **settings: Any) -> Picture:
    return model.generate(prompt, **{**SETTINGS, **settings})[0]


def pixels(model: Model, prompt: str = "a red boat", **settings: Any) -> Any:
    return np.asarray(make(model, prompt, **settings).image)


def record(kind: str, name: str, path: Path) -> None:
    with changing() as library:
        library.record(
            kind, name, version_of(path, path.parent, (path.name,), family="", how="test", when="")
        )


def test_by_tag_by_setting_by_name(model: Model, lora: Path) -> None:
    plain, changed = pixels(model), pixels(model, f"a red boat<lora:{lora}:0.5>")
    assert not np.array_equal(plain, changed)
    record("lora", "ink", lora)
    for prompt, adapters in (
        ("a red boat", [f"{lora}:0.5"]),
        ("a red boat", ["ink:0.5"]),
        ("a red boat<lora:ink:0.5>", []),
        ("a red boat<lora:ink:unet=0.5:te=0.5>", []),
        ("a red boat<lora:ink:0.25>", [f"{lora}:0.25"]),
    ):
        np.testing.assert_array_equal(pixels(model, prompt, adapters=adapters), changed)
    np.testing.assert_array_equal(pixels(model), plain)


def test_where_and_when(model: Model, lora: Path) -> None:
    plain = pixels(model)
    for nothing in ("0", "1:start=1", "1:stop=0", "1:lbw=NONE"):
        np.testing.assert_array_equal(pixels(model, adapters=[f"{lora}:{nothing}"]), plain)
    whole = pixels(model, adapters=[str(lora)])
    for same in ("1:lbw=ALL", "1:start=0:stop=1", "1:1"):
        np.testing.assert_array_equal(pixels(model, adapters=[f"{lora}:{same}"]), whole)
    parts = [
        pixels(model, adapters=[f"{lora}:{each}"]) for each in ("1:0", "0:1", "1:stop=0.5", "1:lbw=OUTALL")
    ]
    for number, one in enumerate([plain, whole, *parts]):
        assert all(not np.array_equal(one, another) for another in [plain, whole, *parts][number + 1 :])


def test_one_batch_of_many(model: Model, lora: Path, other: Path) -> None:
    """Jobs with other adapters in the same network calls: each picture is what it is alone."""

    def jobs() -> list[Job]:
        requests = [
            {"adapters": [str(lora)]},
            {"adapters": [f"{lora}:0.3", f"{other}:-0.5"]},
            {},
            {"prompt": f"a house<lora:{other}:0.8:stop=0.5>", "steps": 5},
        ]
        made = []
        for each in requests:
            request = model.settle(
                Request.from_dict({"prompt": "a red boat", **SETTINGS, "guidance": 1.0, **each})
            )
            made.append(Job(request, model.family, extras=model._extras(request)))
        return made

    alone = []
    for job in jobs():
        engine = Engine(model._networks)
        task = engine.submit(job)
        engine.run()
        alone.append(task.result())
    engine = Engine(model._networks, calls=2)
    tasks = [engine.submit(job) for job in jobs()]
    engine.run()
    for task, expected in zip(tasks, alone, strict=True):
        np.testing.assert_array_equal(task.result(), expected)
    assert len({each.tobytes() for each in alone}) == len(alone)


def test_made_again(model: Model, toy_folder: Path, lora: Path, tmp_path: Path, capsys: Any) -> None:
    record("lora", "ink", lora)
    copy = tmp_path / "word.safetensors"
    save_file({"emb_params": torch.randn(2, 16)}, copy)
    picture = make(model, "a red word <lora:ink:0.5>", embeddings=[str(copy)])
    weights = picture.metadata["model"]["weights"]
    assert {"adapter ink", "embedding word"} <= weights.keys()
    file = picture.save(tmp_path / "it.png")
    again = ["again", str(file), "--model", str(toy_folder), "--precision", "float32"]
    assert main(again) == 0
    write_lora(lora.with_name("changed.safetensors"), model, 5)
    kept = lora.read_bytes()
    try:
        lora.write_bytes(lora.with_name("changed.safetensors").read_bytes())
        assert main(again) == 1
        assert "weights adapter ink: was" in capsys.readouterr().err
    finally:
        lora.write_bytes(kept)


def test_named_by_its_path_in_a_prompt(
    toy_folder: Path, lora: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """From wherever it is made again; the path may hold colons, as folders of people do."""
    folder = tmp_path / "a:b"
    folder.mkdir()
    shutil.copy(lora, folder / "my:ink.safetensors")
    monkeypatch.chdir(folder)
    for number, prompt in enumerate(("a {boat|boat} <lora:./my:ink.safetensors:0.5:te=0.2>", "a boat")):
        given = ["--adapter", "my:ink.safetensors:0.5"] if number else ["--dynamic", "random"]
        size = ["--width", "32", "--height", "32", "--steps", "2", "--seed", "3", "--output", "out"]
        words = ["generate", prompt, "--model", str(toy_folder), *size, *given, "--name", str(number)]
        assert main(words) == 0
    monkeypatch.chdir("/")
    for number in (0, 1):
        assert main(["again", str(folder / f"out/{number}.png")]) == 0
        assert "pixel for pixel" in capsys.readouterr().out
    assert open_picture(folder / "out/0.png")[1]["template"]["prompt"].endswith(
        "<lora:./my:ink.safetensors:0.5:te=0.2>"
    )


@pytest.fixture
def more(lora: Path, tmp_path: Path) -> Path:
    """A LoRA with a layer that the model has not."""
    layer = {"lora_unet_nowhere.lora_down.weight": torch.ones(2, 8)}
    layer["lora_unet_nowhere.lora_up.weight"] = torch.ones(8, 2)
    save_file({**load_file(lora), **layer}, tmp_path / "more.safetensors")
    return tmp_path / "more.safetensors"


def test_what_fits_of_one_that_does_not(model: Model, lora: Path, more: Path, monkeypatch: Any) -> None:
    """By setting and by tag; the picture says what is not used."""
    monkeypatch.chdir(more.parent)
    expected = pixels(model, adapters=[f"{lora}:0.5"])
    with pytest.raises(ModelError, match="1 of its 19 layers are none of this model's"):
        make(model, adapters=["more.safetensors:0.5"])
    for prompt, settings in (
        ("a red boat", {"adapters": ["more.safetensors:0.5"], "lora_partial": True}),
        ("a red boat", {"adapters": ["more.safetensors:0.5:partial"]}),
        ("a red boat<lora:./more.safetensors:0.5:partial>", {}),
        ("a red boat<lora:./more.safetensors:0.5>", {"lora_partial": True}),
    ):
        picture = make(model, prompt, **settings)
        np.testing.assert_array_equal(np.asarray(picture.image), expected)
        assert "more is used in part: 1 of its 19 layers" in " ".join(picture.metadata["notes"])


def test_the_same_on_the_command_line(
    toy_folder: Path, more: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    toy, part, whole = str(toy_folder), f"{more}:partial", str(more)
    size = ["--size", "32", "--steps", "2", "--seed", "3", "--output", "out/it.png"]
    assert main(["generate", "a boat", "--model", toy, "--adapter", whole, "--lora-partial", *size]) == 0
    assert "more is used in part" in capsys.readouterr().err
    assert main(["again", "out/it.png"]) == 0
    assert "more is used in part" in capsys.readouterr().err
    assert main(["generate", "a boat", "--model", toy, "--fuse", part, "--precision", "float32", *size]) == 0
    assert "more is used in part" in capsys.readouterr().err
    assert main(["prompt", f"a boat <lora:{whole}:0.5>", "--model", toy, "--lora-partial"]) == 0
    assert "more is used in part" in capsys.readouterr().err
    for words in (["bake", toy], ["merge", "--model", toy]):
        kept = ["--output", f"{words[0]}.safetensors"]
        assert main(["lora", *words, whole, *kept]) == 1
        assert "more.safetensors does not fit" in capsys.readouterr().err
        assert main(["lora", *words, part, *kept]) == 0
        assert "more is used in part" in capsys.readouterr().err


def test_what_is_refused(model: Model, lora: Path, tmp_path: Path) -> None:
    for settings, error, match in (
        ({"adapters": ["nobody"]}, ModelError, "there is no lora 'nobody'"),
        ({"prompt": "a <hypernet:nobody:1>"}, ModelError, "there is no hypernetwork 'nobody'"),
        ({"adapters": [f"{lora}:lbw=1,2,x"]}, InvalidRequest, "the block weights .1,2,x. are neither"),
        ({"embeddings": [str(lora)]}, ModelError, "no embedding but 36 tensors"),
        ({"prompt_2": "x"}, InvalidRequest, "prompt_2 is for a text encoder that this model has not"),
        ({"clip_skip": 4}, InvalidRequest, "clip_skip is 4: .* 3 layers"),
        ({"guides": ["slg"]}, InvalidRequest, "for Stable Diffusion 3"),
        ({"guides": ["pag:layers=nowhere"]}, InvalidRequest, "nowhere"),
    ):
        with pytest.raises(error, match=match):
            make(model, **settings)


# Embeddings


def word(path: Path, seed: int = 0, count: int = 2) -> torch.Tensor:
    vectors = 0.5 * torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    if path.suffix == ".pt":
        said = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "it", "step": 10}
        torch.save(said, path)
    elif path.suffix == ".bin":
        torch.save({"<it>": vectors}, path)
    else:
        save_file({"emb_params": vectors}, path)
    return vectors


def test_embeddings_of_every_file(model: Model, tmp_path: Path) -> None:
    plain, found = pixels(model, "a red inky"), []
    for number, suffix in enumerate((".pt", ".bin", ".safetensors")):
        file = tmp_path / f"inky{suffix}"
        word(file)
        found.append(pixels(model, "a red inky", embeddings=[str(file)]))
        np.testing.assert_array_equal(
            pixels(model, "a red inky", dialect="plain", embeddings=[str(file)]), plain
        )
        written = {"plain": "a red <inky>", "compel": "a red <inky>", "comfy": "a red embedding:inky"}
        for dialect, prompt in written.items():
            np.testing.assert_array_equal(
                pixels(model, prompt, dialect=dialect, embeddings=[str(file)]), found[-1]
            )
        named = pixels(model, f"a red other{number}", embeddings=[f"other{number}={file}"])
        np.testing.assert_array_equal(named, found[0])
    for each in found:
        np.testing.assert_array_equal(each, found[0])
    assert not np.array_equal(found[0], plain)


def test_the_library_s_embeddings(model: Model, tmp_path: Path) -> None:
    plain = pixels(model, "a boat", negative="badly-drawn")
    word(tmp_path / "badly-drawn.pt")
    record("embedding", "badly-drawn", tmp_path / "badly-drawn.pt")
    changed = make(model, "a boat", negative="badly-drawn")
    assert not np.array_equal(np.asarray(changed.image), plain)
    assert "embedding badly-drawn" in changed.metadata["model"]["weights"]
    assert "embedding badly-drawn" not in make(model, "a boat").metadata["model"]["weights"]
    save_file({"emb_params": torch.zeros(2, 768)}, tmp_path / "large.safetensors")
    record("embedding", "large", tmp_path / "large.safetensors")
    noted = make(model, "a large boat")
    assert "the embedding large is not used" in noted.metadata["notes"][0]
    assert "vectors of 768 numbers: the text encoders of" in noted.metadata["notes"][0]


def test_an_embedding_that_came_with_a_lora(model: Model, lora: Path, tmp_path: Path) -> None:
    vectors = word(tmp_path / "it.pt")
    bundled = {f"bundle_emb.inky.string_to_param.{'*'}": vectors}
    save_file({**load_file(lora), **bundled}, tmp_path / "ink.safetensors")
    expected = pixels(model, "a inky", adapters=[str(lora)], embeddings=[f"inky={tmp_path / 'it.pt'}"])
    np.testing.assert_array_equal(
        pixels(model, "a inky", adapters=[str(tmp_path / "ink.safetensors")]), expected
    )


def test_a_bundle_of_onetrainer_s(
    model: Model, toy_folder: Path, lora: Path, tmp_path: Path, capsys: Any
) -> None:
    """What stands behind an encoder is left out, and said; a word that the prompt has not is in nobody's way; fused,
    the words count as well."""
    vectors = word(tmp_path / "it.pt")
    expected = pixels(model, "a inky", adapters=[str(lora)], embeddings=[f"inky={tmp_path / 'it.pt'}"])
    bundle = {"bundle_emb.inky.clip_l": vectors, "bundle_emb.inky.clip_l_out": vectors + 1}
    bundle |= {"bundle_emb.inky.t5": torch.ones(2, 4096), "bundle_emb.other.clip_l_out": vectors + 2}
    file = tmp_path / "ink.safetensors"
    save_file({**load_file(lora), **bundle}, file)
    picture = make(model, "a inky", adapters=[str(file)])
    np.testing.assert_array_equal(np.asarray(picture.image), expected)
    assert picture.metadata["notes"] == ["the embedding inky in ink: its clip_l_out, t5 are not used"]
    with pytest.raises(ModelError, match="only what stands behind text encoders, clip_l_out"):
        make(model, "an other", adapters=[str(file)])
    fused = darkroom.load(toy_folder, device="cpu", precision="float32", fuse=[str(file)])
    assert np.abs(pixels(fused, "a inky").astype(int) - expected).max() <= 2
    fused.unfuse()
    np.testing.assert_array_equal(pixels(fused, "a inky"), pixels(model, "a inky"))
    assert main(["lora", "bake", str(toy_folder), str(file), "--output", str(tmp_path / "baked")]) == 0
    assert "came with it (inky, other) are not in a model's weights" in capsys.readouterr().err


def test_named_twice_it_is_there_twice(model: Model, lora: Path) -> None:
    twice = pixels(model, adapters=[f"{lora}:0.25", f"{lora}:0.25"])
    np.testing.assert_array_equal(twice, pixels(model, adapters=[f"{lora}:0.5"]))
    tag = f"<lora:{lora}:0.25>"
    np.testing.assert_array_equal(pixels(model, f"a red boat{tag}{tag}"), twice)
    np.testing.assert_array_equal(pixels(model, f"a red boat{tag}", adapters=[f"{lora}:0.25"]), twice)


# In the weights


def test_what_depends_on_the_weights_is_measured_from_the_model_s_own(
    toy_folder: Path, lora: Path, tmp_path: Path
) -> None:
    """Whatever is in them already."""
    dora = load_file(lora)
    for name in [*dora]:
        if name.endswith("lora_B.weight"):
            dora[name.replace("lora_B.weight", "lora_magnitude_vector")] = torch.ones(len(dora[name]))
    save_file(dora, tmp_path / "dora.safetensors")
    second = str(tmp_path / "dora.safetensors")
    model = darkroom.load(toy_folder, device="cpu", precision="float32")
    expected = pixels(model, adapters=[str(lora), second]).astype(int)
    model.fuse(str(lora))
    assert np.abs(pixels(model, adapters=[second]) - expected).max() <= 2
    model.fuse(second)
    assert np.abs(pixels(model) - expected).max() <= 2


def test_fused(model: Model, toy_folder: Path, lora: Path, other: Path, tmp_path: Path) -> None:
    plain = pixels(model)
    before = {name: value.clone() for net in model.networks() for name, value in net.state_dict().items()}
    apart = np.asarray(make(model, adapters=[f"{lora}:0.5", str(other)]).image, int)
    model.fuse(f"{lora}:0.5")
    model.fuse(str(other))
    picture = make(model)
    assert np.abs(np.asarray(picture.image, int) - apart).max() <= 2
    assert not np.array_equal(np.asarray(picture.image), plain)
    model.unfuse()
    assert all(
        torch.equal(v, before[name]) for net in model.networks() for name, v in net.state_dict().items()
    )
    np.testing.assert_array_equal(pixels(model), plain)
    file = picture.save(tmp_path / "it.png")
    assert main(["again", str(file), "--model", str(toy_folder)]) == 0
    assert "fused" in " ".join(picture.metadata["model"]["weights"])
    for each, match in (("1:stop=0.5", "for some steps"),):
        with pytest.raises(InvalidRequest, match=match):
            model.fuse(f"{lora}:{each}")


def test_fused_twice_is_made_again_as_such(toy_folder: Path, lora: Path, tmp_path: Path) -> None:
    both = darkroom.load(toy_folder, device="cpu", precision="float32", fuse=[str(lora), str(lora)])
    picture = make(both)
    assert picture.metadata["model"]["fuse"] == [str(lora), str(lora)]
    once = darkroom.load(toy_folder, device="cpu", precision="float32", fuse=[str(lora)])
    assert not np.array_equal(np.asarray(picture.image), pixels(once))
    assert main(["again", str(picture.save(tmp_path / "it.png")), "--model", str(toy_folder)]) == 0


def test_weights_that_come_and_go_are_not_written_to(toy_folder: Path, lora: Path) -> None:
    with pytest.raises(InvalidRequest, match='`memory="full"`'):
        darkroom.load(toy_folder, memory="low", fuse=[str(lora)])


@pytest.mark.parametrize("memory", ["medium", "low", "lowest"])
def test_weights_that_come_and_go(model: Model, toy_folder: Path, lora: Path, memory: str) -> None:
    small = darkroom.load(toy_folder, device="cpu", precision="float32", memory=memory)
    np.testing.assert_array_equal(pixels(small, adapters=[str(lora)]), pixels(model, adapters=[str(lora)]))
    small.close()
