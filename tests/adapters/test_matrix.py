"""Every kind of adapter under every spelling of a layer: read, applied row by row, and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.adapters.test_files import LORA, PEFT, SPELLINGS, found, networks, noise
from torch import Tensor

from darkroom.adapters.adapter import read_adapter
from darkroom.adapters.applied import applied
from darkroom.adapters.dose import Dose
from darkroom.adapters.merged import Merged

__all__ = ["networks"]
pytestmark = [pytest.mark.peer, pytest.mark.wide]
Tensors = dict[str, Tensor]


def low_rank(out: int, into: int, *kernel: int) -> Tensors:
    ones = (1,) * len(kernel)
    return {
        "lora_down.weight": noise(3, into, *kernel),
        "lora_up.weight": noise(out, 3, *ones, seed=1),
        "alpha": torch.tensor(2.0),
    }


def core(out: int, into: int, *kernel: int) -> Tensors:
    ones = (1,) * len(kernel)
    middle = {"lora_mid.weight": noise(3, 3, *kernel, seed=5)} if kernel else {}
    return {
        "lora_down.weight": noise(3, into, *ones),
        "lora_up.weight": noise(out, 3, *ones, seed=1),
    } | middle


def hadamard(out: int, into: int, *kernel: int) -> Tensors:
    inner = into * torch.Size(kernel).numel()
    sides = {"w1_a": (out, 3), "w1_b": (3, inner), "w2_a": (out, 3), "w2_b": (3, inner)}
    return {f"hada_{name}": noise(*shape, seed=n) for n, (name, shape) in enumerate(sides.items())}


def kronecker(out: int, into: int, *kernel: int) -> Tensors:
    return {"lokr_w1": noise(4, 2), "lokr_w2": noise(out // 4, into // 2, *kernel, seed=1)}


def kronecker_factors(out: int, into: int, *kernel: int) -> Tensors:
    inner = into // 2 * torch.Size(kernel).numel()
    parts = {"lokr_w2_a": noise(out // 4, 2, seed=1), "lokr_w2_b": noise(2, inner, seed=2)}
    return {"lokr_w1": noise(4, 2), "alpha": torch.tensor(1.0), **parts}


def dora(out: int, into: int, *kernel: int) -> Tensors:
    return low_rank(out, into, *kernel) | {
        "dora_scale": noise(out, *(1 for _ in (into, *kernel)), seed=3).abs()
    }


def glora(out: int, into: int, *kernel: int) -> Tensors:
    ones = (1,) * len(kernel)
    return {
        "a1.weight": 0.1 * noise(into, 2, *ones),
        "a2.weight": noise(2, into, *ones, seed=1),
        "b1.weight": noise(out, 2, *ones, seed=2),
        "b2.weight": noise(2, into, *kernel, seed=3),
        "alpha": torch.tensor(1.0),
    }


KINDS: dict[str, Callable[..., Tensors]] = {
    "lora": low_rank,
    "core": core,
    "loha": hadamard,
    "lokr": kronecker,
    "lokr-factors": kronecker_factors,
    "dora": dora,
    "glora": glora,
    "ia3": lambda out, *_: {"weight": noise(out, 1), "on_input": torch.tensor(False)},
    "diff": lambda *shape: {"diff": noise(*shape)},
    "set": lambda *shape: {"set_weight": noise(*shape)},
    "oft": lambda out, *_: {"oft_blocks": noise(out // 4, 4, 4), "rescale": 1 + 0.1 * noise(out, 1)},
    "boft": lambda out, *_: {"oft_blocks": noise(2, out // 4, 4, 4), "alpha": torch.tensor(0.01)},
    "boft-peft": lambda out, into, *kernel: {
        "boft_R": noise(2, into * torch.Size(kernel).numel() // 4, 4, 4),
        "boft_s": noise(out, 1),
    },
    "oft-2": lambda out, into, *kernel: {
        "oft_R.weight": 0.1 * noise(into * torch.Size(kernel).numel() // 4, 6)
    },
}


def cases() -> Iterator[tuple[str, str, str]]:
    for name, key, suffixes, layer in SPELLINGS:
        if suffixes in (LORA, PEFT):
            yield name, key, layer


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_pair(networks: Any, kind: str, tmp_path: Path) -> None:
    file, plain = tmp_path / "it.safetensors", tmp_path / "plain.safetensors"
    tried = 0
    for name, key, layer in cases():
        own = networks(name)
        role, _, rest = layer.partition(".")
        module = own[role].get_submodule(rest)
        shape = tuple(module.weight.shape)
        if any(side % 8 for side in shape[:2]):
            continue  # Blocks of 4, twice over.
        tensors = KINDS[kind](*shape)
        save_file({f"{key}.{part}": tensor for part, tensor in tensors.items()}, file)
        save_file({f"{layer}.{part}": tensor for part, tensor in tensors.items()}, plain)
        adapter = read_adapter(file, own, "it")
        change = found(adapter, own)
        assert list(change) == [layer]
        expected = found(read_adapter(plain, own, "it"), own)[layer]
        assert torch.equal(change[layer], expected)
        assert bool(expected.any())
        x = noise(2, shape[1], *(5 for _ in shape[2:]), seed=9)
        before, dose = module(x), Dose(adapter, 0.7)
        with applied(own[role], role, [[dose], []]):
            beside = module(x)
        assert torch.equal(beside[1], before[1])
        merged = Merged({role: own[role]}, {role: [dose]})
        within = module(x)
        merged.undo()
        assert torch.equal(module(x), before)
        scale = float((within - before).abs().max())
        assert float((beside[0] - within[0]).abs().max()) <= 1e-4 * scale + 1e-5 * float(before.abs().max())
        tried += 1
    assert tried > 30
