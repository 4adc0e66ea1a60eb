"""8-bit files with scales: a weight is its numbers times its scale, in both spellings."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tables import wide

import darkroom
from darkroom.checkpoint.export import convert
from darkroom.checkpoint.opening import open_source
from darkroom.cli import main
from darkroom.errors import ModelError
from darkroom.weights.opening import open_weights

SIZE = {"width": 64, "height": 64, "steps": 2, "seed": 1}


def eighth(tensors, spelling, rows):
    """The tensors with linear layers in 8 bits and scales, and what they then amount to."""
    stored, meant = {}, {}
    for name, tensor in tensors.items():
        if "transformer_blocks" not in name or tensor.ndim != 2 or not name.endswith(".weight"):
            stored[name] = meant[name] = tensor
            continue
        largest = tensor.abs().amax(dim=1, keepdim=True) if rows else tensor.abs().max()
        scale = (largest / 448).float()
        small = (tensor / scale).to(torch.float8_e4m3fn)
        stem = name.removesuffix(".weight")
        stored[name], meant[name] = small, small.float() * scale
        stored[f"{stem}.{spelling}"] = scale
        if spelling == "scale_weight":
            stored[f"{stem}.scale_input"] = torch.tensor(1.0)
        else:
            text = json.dumps({"format": "float8_e4m3fn"}).encode()
            stored[f"{stem}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    if spelling == "scale_weight":
        stored["scaled_fp8"] = torch.empty(2, dtype=torch.float8_e4m3fn)
    return stored, meant


def drawn(path):
    model = darkroom.load(path, device="cpu", precision="float32")
    return model.generate("a red boat", **SIZE)[0].image.tobytes()


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "spelling", "rows"),
    [
        ("sd1", "scale_weight", False),
        wide("sd1", "weight_scale", True),
        wide("sd3-clips", "scale_weight", True),
        ("sd3-clips", "weight_scale", False),
    ],
)
def test_scaled_files(folder, name, spelling, rows, tmp_path, capsys):
    with open_source(folder(name)) as source:
        convert(source, tmp_path / "whole.safetensors")
    with open_weights(tmp_path / "whole.safetensors") as weights:
        metadata = dict(weights.metadata)
    tensors = load_file(tmp_path / "whole.safetensors")
    if name != "sd1":  # The MMDiT's blocks have another name in single files.
        tensors = {key.replace("joint_blocks", "transformer_blocks"): value for key, value in tensors.items()}
    stored, meant = (
        {
            key.replace("transformer_blocks", "joint_blocks") if name != "sd1" else key: v
            for key, v in each.items()
        }
        for each in eighth(tensors, spelling, rows)
    )
    assert sum(value.dtype == torch.float8_e4m3fn for value in stored.values()) > 10
    save_file(stored, tmp_path / "scaled.safetensors", metadata)
    save_file(meant, tmp_path / "meant.safetensors", metadata)
    assert drawn(tmp_path / "scaled.safetensors") == drawn(tmp_path / "meant.safetensors")
    assert main(["inspect", str(tmp_path / "scaled.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "float8_e4m3fn, scaled" in shown
    assert "scale_weight" not in shown
    out = tmp_path / "again.safetensors"
    assert main(["convert", str(tmp_path / "scaled.safetensors"), str(out), "--precision", "float32"]) == 0
    assert drawn(out) == drawn(tmp_path / "meant.safetensors")


@pytest.mark.parametrize(
    "tensors",
    [
        {"a.scale_weight": torch.tensor(2.0)},
        {"a.weight": torch.zeros(3, 2), "a.scale_weight": torch.tensor(2.0)},
        {"a.weight": torch.zeros(3, 2, dtype=torch.float8_e4m3fn), "a.scale_weight": torch.ones(2)},
        {
            "a.weight": torch.zeros(3, 2, dtype=torch.float8_e4m3fn),
            "a.weight_scale": torch.ones(1, dtype=torch.int8),
        },
    ],
)
def test_scales_that_fit_nothing_are_named(tensors, tmp_path):
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(ModelError, match=r"has a scale a\..*: fetch it anew") as raised:
        open_weights(tmp_path / "file.safetensors")
    assert "\n" not in str(raised.value)
