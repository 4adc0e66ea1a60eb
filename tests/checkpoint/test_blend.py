"""Models made of several, computed once more by hand from their files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.toys import write_model
from torch import Tensor

import darkroom
from darkroom.checkpoint.blend import slerp
from darkroom.cli import main

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [write_model(root / name, seed=10 * number) for number, name in enumerate("abc")]


def merged(out: Path, *words: object) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    assert main(["merge", *map(str, words), "--output", str(out)]) == 0
    return load_file(out / UNET), load_file(out / TEXT), load_file(out / VAE)


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-6, msg=name)


def test_weighted_sum(three: list[Path], tmp_path: Path) -> None:
    a, b, c = three
    unet, text, vae = merged(tmp_path / "m", a, f"{b}:0.3", f"{c}:0.2")
    for found, file in ((unet, UNET), (text, TEXT)):
        ours, others = load_file(a / file), (load_file(b / file), load_file(c / file))
        close(found, {n: 0.5 * w + 0.3 * others[0][n] + 0.2 * others[1][n] for n, w in ours.items()})
    close(vae, load_file(a / VAE))
    assert darkroom.load(tmp_path / "m").generate("a boat", width=32, height=32, steps=2)


def test_difference(three: list[Path], tmp_path: Path) -> None:
    a, b, c = three
    unet, text, _ = merged(tmp_path / "m", a, f"{b}:0.7", c, "--method", "difference", "--no-text")
    weights = [load_file(each / UNET) for each in three]
    close(unet, {name: w + 0.7 * (weights[1][name] - weights[2][name]) for name, w in weights[0].items()})
    close(text, load_file(a / TEXT))


def test_by_block(three: list[Path], tmp_path: Path) -> None:
    """26 numbers: the way down from b, the middle half and half, everything else a."""
    a, b, _ = three
    numbers = ",".join(["0", *["1"] * 12, "0.5", *["0"] * 12])
    unet, text, _ = merged(tmp_path / "m", a, f"{b}:1", "--blocks", numbers)
    ours, theirs = load_file(a / UNET), load_file(b / UNET)

    def share(name: str) -> float:
        if name.startswith(("down_blocks", "conv_in")):
            return 1.0
        return 0.5 * name.startswith("mid_block")

    close(unet, {name: (1 - share(name)) * w + share(name) * theirs[name] for name, w in ours.items()})
    close(text, load_file(a / TEXT))


def test_along_the_arc(three: list[Path], tmp_path: Path) -> None:
    a, b, _ = three
    unet, _, _ = merged(tmp_path / "m", a, f"{b}:0.25", "--method", "slerp")
    ours, theirs = load_file(a / UNET), load_file(b / UNET)
    for name in ("conv_in.weight", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"):
        x, y = ours[name].double(), theirs[name].double()
        angle = math.acos(float((x / x.norm() * (y / y.norm())).sum()))
        expected = (math.sin(0.75 * angle) * x + math.sin(0.25 * angle) * y) / math.sin(angle)
        torch.testing.assert_close(unet[name].double(), expected, atol=1e-6, rtol=1e-5)
    turned = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), 1 / 3)
    torch.testing.assert_close(turned, 2 * torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))
    torch.testing.assert_close(slerp(torch.ones(3), 3 * torch.ones(3), 0.5), 2 * torch.ones(3))
    torch.testing.assert_close(slerp(torch.zeros(3), torch.ones(3), 0.5), 0.5 * torch.ones(3))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{a}", "{b}:x"], "is no number"),
        (["{a}", "{b}", "--method", "mean"], "unknown way of merging 'mean'"),
        (["{a}", "{b}", "--method", "difference"], "a model and 2 other models, not 1"),
        (["{a}", "{b}", "{c}", "--method", "slerp"], "a model and 1 other model, not 2"),
        (["{a}", "pocket"], "has another shape than"),
        (["{a}", "{b}", "{v}"], "predicts neither"),
        (["{a}", "{b}", "--blocks", "1,2,x"], "the block weights '1,2,x' are neither"),
    ],
)
def test_mistakes(words: list[str], said: str, three: list[Path], tmp_path: Path, capsys: Any) -> None:
    named = dict(zip("abc", three, strict=True))
    if "{v}" in words:
        named["v"] = shutil.copytree(three[1], tmp_path / "v")
        config = tmp_path / "v/scheduler/scheduler_config.json"
        kind = json.loads(config.read_text())["prediction_type"]
        other = "epsilon" if kind == "v_prediction" else "v_prediction"
        config.write_text(config.read_text().replace(kind, other))
    assert main(["merge", *(word.format(**named) for word in words), "--output", str(tmp_path / "m")]) in (
        1,
        2,
    )
    assert said in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
