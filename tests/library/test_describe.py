"""Models in words, from their headers alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from tests.checkpoint.test_source import FAMILIES, single_file

from darkroom.checkpoint.export import convert
from darkroom.checkpoint.opening import open_source
from darkroom.errors import ModelError
from darkroom.library.describe import describe

CODE = """
import json, sys
from pathlib import Path
from darkroom.library.describe import describe
found = [describe(Path(path)).to_dict() for path in sys.argv[1:]]
assert "torch" not in sys.modules
print(json.dumps(found))
"""


def test_every_family_is_described_without_torch(tmp_path):
    paths = []
    for number, family in enumerate(FAMILIES):
        file = tmp_path / f"{number}.safetensors"
        save_file(single_file(family), file)
        with open_source(file) as source:
            convert(source, tmp_path / f"{number}")
        torch.save({"state_dict": single_file(family)}, tmp_path / f"{number}.ckpt")
        paths += [file, tmp_path / f"{number}", tmp_path / f"{number}.ckpt"]
    told = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, paths)], check=True, capture_output=True, text=True
    )
    for path, description in zip(paths, json.loads(told.stdout), strict=True):
        with open_source(path) as source:
            assert description["family"] == source.family.name
            built = {role: network.parameters() for role, network in source.build().items()}
        numbers = {network["role"]: network["numbers"] for network in description["networks"]}
        assert numbers == {role: sum(each.numel() for each in own) for role, own in built.items()}
        assert {each for network in description["networks"] for each in network["precisions"]} <= {
            "float16",
            "float32",
        }


def test_weights_are_looked_at_without_torch(tmp_path):
    tensors = single_file("Stable Diffusion 2")
    bias = torch.randn(64, generator=torch.Generator().manual_seed(0)) * 0.2
    tensors["model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"] = bias.bfloat16()
    save_file(tensors, tmp_path / "model.safetensors")
    code = """
import sys
from pathlib import Path
from darkroom.checkpoint.opening import open_source
print(open_source(Path(sys.argv[1])).notes)
assert "torch" not in sys.modules
"""
    told = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.safetensors"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"spreads by {bias.bfloat16().float().std():.3f}" in told.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_file_lacks_is_named(family, tmp_path):
    tensors = single_file(family)
    lacking = [name for name in tensors if name.endswith(("norm1.weight", "ln_q.weight", "mlp.fc2.weight"))][
        -1
    ]
    del tensors[lacking]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=f"lacks {lacking} "):
        describe(tmp_path / "model.safetensors")


def test_an_excess_tensor_is_no_part_of_a_network(tmp_path):
    tensors = single_file("Stable Diffusion 1")
    tensors["model.diffusion_model.of_another"] = torch.zeros(9, dtype=torch.float64)
    save_file(tensors, tmp_path / "model.safetensors")
    unet = describe(tmp_path / "model.safetensors").networks[0]
    assert (unet.role, unet.precisions) == ("unet", ("float16",))


def test_every_file_has_its_hash(tmp_path):
    save_file(single_file("Stable Diffusion 1"), tmp_path / "model.safetensors")
    with open_source(tmp_path / "model.safetensors") as source:
        convert(source, tmp_path / "folder")
    assert [*describe(tmp_path / "model.safetensors", hashes=True).hashes] == ["model.safetensors"]
    hashes = describe(tmp_path / "folder", hashes=True).hashes
    assert {*hashes} == {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
