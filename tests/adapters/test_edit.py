"""`darkroom lora`: files made of files, models made with them, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.adapters.test_requests import make, pixels, write_lora
from torch import Tensor

import darkroom
from darkroom.adapters.adapter import deltas, read_adapter
from darkroom.adapters.truncated import Size, truncated, truncated_product
from darkroom.cli import main
from darkroom.model import Model


@pytest.fixture(scope="module")
def model(toy_folder: Path) -> Model:
    return darkroom.load(toy_folder, device="cpu", precision="float32")


@pytest.fixture
def loras(model: Model, tmp_path: Path) -> tuple[Path, Path]:
    return (
        write_lora(tmp_path / "ink.safetensors", model),
        write_lora(tmp_path / "oil.safetensors", model, 1, ("unet",)),
    )


def changes(model: Model, path: Path) -> dict[str, Tensor]:
    """What a file adds to each layer."""
    networks = model._networks.experts[0].networks
    adapter = read_adapter(path, networks, "it")
    found = {}
    for role, by_place in adapter.patches.items():
        for place, layered in by_place.items():
            assert layered.weight is not None
            for layer, delta in zip(place.layers, deltas(layered.weight, place, networks[role]), strict=True):
                found[f"{role}.{layer}"] = delta
    return found


def close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], within: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        assert float((found[name] - each).norm()) <= within * float(each.norm()), name


@pytest.mark.parametrize("model_given", [False, True])
def test_merge(
    model: Model, loras: tuple[Path, Path], toy_folder: Path, model_given: bool, tmp_path: Path
) -> None:
    ink, oil = loras
    out = tmp_path / "both.safetensors"
    extra = ["--model", str(toy_folder)] if model_given else []
    words = ["lora", "merge", f"{ink}:0.5:te=2", f"{oil}:-1", "--output", str(out), "--precision", "float32"]
    assert main([*words, *extra]) == 0
    expected = {
        name: delta * (2 if name.startswith("text") else 0.5) for name, delta in changes(model, ink).items()
    }
    for name, delta in changes(model, oil).items():
        expected[name] = expected[name] - delta
    close(changes(model, out), expected)
    assert main(words) == 2  # It is there already.


def test_merge_of_other_kinds(
    model: Model, loras: tuple[Path, Path], toy_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    """LoHa and LoKr add up where the model is known; what depends on its weights does not."""
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    parts = {f"{layer}.hada_{name}": torch.randn(32, 2) for name in ("w1_a", "w2_a")}
    parts |= {f"{layer}.hada_{name}": torch.randn(2, 32) for name in ("w1_b", "w2_b")}
    save_file(parts, tmp_path / "loha.safetensors")
    words = ["lora", "merge", f"{loras[0]}:0.5", str(tmp_path / "loha.safetensors")]
    assert main([*words, "--output", str(tmp_path / "a.safetensors")]) == 2
    assert "say for which model (--model)" in capsys.readouterr().err
    known = [*words, "--model", str(toy_folder), "--precision", "float32"]
    assert main([*known, "--output", str(tmp_path / "b.safetensors")]) == 0
    expected = {name: 0.5 * delta for name, delta in changes(model, loras[0]).items()}
    for name, delta in changes(model, tmp_path / "loha.safetensors").items():
        expected[name] = expected[name] + delta
    close(changes(model, tmp_path / "b.safetensors"), expected)
    dora = load_file(loras[0])
    name = next(iter(dora)).removesuffix(".lora_A.weight").removesuffix(".lora_B.weight")
    dora[f"{name}.lora_magnitude_vector"] = torch.ones(len(dora[f"{name}.lora_B.weight"]))
    save_file(dora, tmp_path / "dora.safetensors")
    words = ["lora", "merge", str(tmp_path / "dora.safetensors"), "--model", str(toy_folder)]
    assert main([*words, "--output", str(tmp_path / "c.safetensors")]) == 2
    assert "depends on the model's weights" in capsys.readouterr().err


def test_what_peft_said_of_it_is_not_said_twice(model: Model, tmp_path: Path) -> None:
    """Scales are in the new file's alphas."""
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.randn(4, 32), f"{layer}.lora_B.weight": torch.randn(32, 4)}
    said = json.dumps({"unet.r": 4, "unet.lora_alpha": 6, "unet.use_rslora": True, "use_rslora": True})
    save_file(tensors, tmp_path / "it.safetensors", {"lora_adapter_metadata": said, "ss_output_name": "it"})
    out = tmp_path / "out.safetensors"
    words = ["lora", "resize", str(tmp_path / "it.safetensors"), "--rank", "4", "--precision", "float32"]
    assert main([*words, "--output", str(out)]) == 0
    close(changes(model, out), changes(model, tmp_path / "it.safetensors"))


def test_layers_without_a_prefix(model: Model, tmp_path: Path) -> None:
    """Whose network is told by their names: those of PEFT's on a text encoder, of LyCORIS's wrapper."""
    for key in (
        "base_model.model.encoder.layers.0.mlp.fc1",
        "lycoris_encoder_layers_0_mlp_fc1",
        "lycoris_text_model_encoder_layers_0_mlp_fc1",
        "lycoris_mid_block_attentions_0_proj_in",
    ):
        shape = (32, 32, 1, 1) if "proj_in" in key else (32, 16)
        tensors = {f"{key}.lora_down.weight": torch.randn(2, *shape[1:])}
        tensors[f"{key}.lora_up.weight"] = torch.randn(shape[0], 2, *shape[2:])
        save_file(tensors, tmp_path / "it.safetensors")
        out = tmp_path / f"{len(key)}.safetensors"
        words = ["lora", "merge", f"{tmp_path / 'it.safetensors'}:0.5:te=2", "--precision", "float32"]
        assert main([*words, "--output", str(out)]) == 0
        factor = 0.5 if "proj_in" in key else 2
        expected = {
            name: factor * delta for name, delta in changes(model, tmp_path / "it.safetensors").items()
        }
        close(changes(model, out), expected)


def test_merge_says_what_it_cannot_do(tmp_path: Path, capsys: Any) -> None:
    pair = {"lora_down.weight": torch.ones(2, 4), "lora_up.weight": torch.ones(4, 2)}
    files = {
        "theirs": {f"lora_unet_input_blocks_3_1_proj_in.{name}": tensor for name, tensor in pair.items()},
        "ours": {
            f"lora_unet_down_blocks_1_attentions_0_proj_in.{name}": tensor for name, tensor in pair.items()
        },
        "dora": {f"lora_unet_x.{name}": tensor for name, tensor in pair.items()},
    }
    files["dora"]["lora_unet_x.dora_scale"] = torch.ones(4, 1)
    for name, tensors in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    for names, said in (
        (("theirs", "ours"), "call layers in different ways"),
        (("dora",), "(DoRA (LoRA)) depends on"),
    ):
        out = str(tmp_path / f"{'-'.join(names)}-out.safetensors")
        words = [str(tmp_path / f"{name}.safetensors") for name in names]
        assert main(["lora", "merge", *words, "--output", out]) == 2
        assert said in capsys.readouterr().err


def test_resize(model: Model, loras: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    """The nearest of that rank, by the singular values of the whole difference; what is said to be lost is lost."""
    ink = loras[0]
    wide = tmp_path / "wide.safetensors"
    assert (
        main(["lora", "merge", str(ink), str(loras[1]), "--output", str(wide), "--precision", "float32"]) == 0
    )
    whole = changes(model, wide)
    out = tmp_path / "one.safetensors"
    assert (
        main(["lora", "resize", str(wide), "--rank", "1", "--output", str(out), "--precision", "float32"])
        == 0
    )
    lost = 0.0
    for name, each in changes(model, out).items():
        singular = torch.linalg.svdvals(whole[name])
        assert torch.linalg.matrix_rank(each) == 1
        torch.testing.assert_close((each - whole[name]).norm(), singular[1:].norm(), rtol=1e-3, atol=1e-5)
        lost += float(singular[1:].pow(2).sum())
    share = (lost / sum(float(each.pow(2).sum()) for each in whole.values())) ** 0.5
    assert f"{share:.1%} of the change is lost" in capsys.readouterr().err
    out = tmp_path / "kept.safetensors"
    assert (
        main(["lora", "resize", str(wide), "--keep", "0.9", "--output", str(out), "--precision", "float32"])
        == 0
    )
    for name, each in changes(model, out).items():
        assert float((each - whole[name]).pow(2).sum()) <= 0.1001 * float(whole[name].pow(2).sum())


def test_bake_then_extract(model: Model, loras: tuple[Path, Path], toy_folder: Path, tmp_path: Path) -> None:
    """A baked model draws what the adapters do, and gives them back."""
    ink, oil = loras
    tuned = tmp_path / "tuned"
    assert main(["lora", "bake", str(toy_folder), f"{ink}:0.5", str(oil), "--output", str(tuned)]) == 0
    baked = darkroom.load(tuned, device="cpu", precision="float32")
    apart = np.asarray(make(model, adapters=[f"{ink}:0.5", str(oil)]).image, int)
    assert np.abs(pixels(baked).astype(int) - apart).max() <= 2
    assert not np.array_equal(pixels(baked), pixels(model))
    back = tmp_path / "back.safetensors"
    words = ["lora", "extract", str(tuned), str(toy_folder), "--rank", "4", "--output", str(back)]
    assert main([*words, "--precision", "float32"]) == 0
    expected = {name: 0.5 * delta for name, delta in changes(model, ink).items()}
    for name, delta in changes(model, oil).items():
        expected[name] = expected[name] + delta
    close(changes(model, back), expected, 1e-4)
    assert (
        main(
            ["lora", "extract", str(toy_folder), str(toy_folder), "--output", str(tmp_path / "x.safetensors")]
        )
        == 2
    )


def test_extract_whole_differences(toy_folder: Path, tmp_path: Path) -> None:
    """Norms and biases only where they are asked for; the model made with them is the tuned one."""
    import shutil

    tuned = shutil.copytree(toy_folder, tmp_path / "tuned")
    file = tuned / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    generator = torch.Generator().manual_seed(3)
    save_file(
        {name: w + 0.1 * torch.randn(w.shape, generator=generator) for name, w in weights.items()}, file
    )
    out = tmp_path / "it.safetensors"
    words = ["lora", "extract", str(tuned), str(toy_folder), "--rank", "999", "--norms", "--output", str(out)]
    assert main([*words, "--precision", "float32"]) == 0
    found = pixels(darkroom.load(tuned, precision="float32"))
    again = pixels(darkroom.load(toy_folder, precision="float32", fuse=[str(out)]))
    assert np.abs(found.astype(int) - again.astype(int)).max() <= 2


def test_inspect(loras: tuple[Path, Path], toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["lora", "inspect", str(loras[0]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ranks"] == [2, 2]
    assert set(found["layers"]) == {"denoiser", "text_encoder"}
    assert found["kinds"] == {"LoRA": sum(found["layers"].values())}
    assert found["fit"] is None
    assert main(["lora", "inspect", str(loras[0]), "--model", str(toy_folder)]) == 0
    assert f"fits {toy_folder}" in capsys.readouterr().out
    assert main(["lora", "inspect", str(loras[0]), "--model", "pocket"]) == 1
    assert "does not fit pocket" in capsys.readouterr().out
    save_file(
        {"a.lora_down.weight": torch.ones(2, 4), "a.lora_up.weight": torch.ones(4, 2)},
        tmp_path / "k.safetensors",
        {"ss_tag_frequency": json.dumps({"10_boats": {"boat ": 4, "sea": 9}}), "ss_sd_model_name": "v1-5"},
    )
    assert main(["lora", "inspect", str(tmp_path / "k.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "sea, boat" in said
    assert "v1-5" in said
    for tensors, what in (
        (
            {"emb_params": torch.ones(2, 768)},
            "an embedding, no LoRA and nothing of the kind: give it as --embedding",
        ),
        (
            {"768.k.linear.0.weight": torch.ones(8, 8)},
            "a hypernetwork, no LoRA and nothing of the kind: give it as --adapter",
        ),
        ({"conv_in.weight": torch.ones(2, 2), "x.y": torch.ones(1)}, "not known"),
    ):
        save_file(tensors, tmp_path / "other.safetensors")
        status = main(["lora", "inspect", str(tmp_path / "other.safetensors")])
        told = capsys.readouterr()
        assert what in told.out + told.err
        assert status == (0 if what == "not known" else 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["merge", "nobody", "--output", "x.safetensors"], "there is no lora 'nobody'"),
        (["resize", "{ink}", "--output", "x.safetensors"], "say how large it is to be"),
        (["resize", "{ink}", "--rank", "0", "--output", "x.safetensors"], "--rank is 0"),
        (["resize", "{ink}", "--keep", "2", "--output", "x.safetensors"], "--keep is 2"),
        (["resize", "{ink}", "--rank", "1", "--output", "x.ckpt"], "written as .safetensors"),
        (["merge", "{ink}:stop=0.5", "--output", "x.safetensors"], "not steps and blocks"),
        (["bake", "{toy}", "{ink}:stop=0.5", "--output", "x"], "is for some steps"),
    ],
)  # fmt: skip
def test_mistakes(
    words: list[str], said: str, loras: tuple[Path, Path], toy_folder: Path, capsys: Any
) -> None:
    assert main(["lora", *(word.format(ink=loras[0], toy=toy_folder) for word in words)]) in (1, 2)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (200, 200)])
def test_the_nearest_product(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for size in (Size(4), Size(30), Size(None, 0.8), Size(3, 0.8)):
        up, down = truncated(matrix, size)
        best = torch.linalg.svdvals(matrix)[up.shape[1] :].norm()
        assert float((matrix - up @ down).norm()) <= 1.02 * float(best) + 1e-3
    factors = torch.randn(shape[0], 9), torch.randn(9, shape[1])
    up, down = truncated_product(*factors, Size(5))
    expected = truncated(factors[0] @ factors[1], Size(5))
    torch.testing.assert_close(up @ down, expected[0] @ expected[1], atol=2e-3, rtol=1e-3)
