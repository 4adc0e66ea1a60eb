"""Hypernetworks: files as A1111 writes them, and what they do, computed once more by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.toys import randomised
from torch import nn

import darkroom
from darkroom.adapters.applied import applied
from darkroom.adapters.dose import Dose
from darkroom.adapters.hypernetwork import read_hypernetwork
from darkroom.errors import ModelError
from darkroom.library.kinds import identify
from darkroom.networks import Conditioning, UNet, UNetConfig
from darkroom.networks.layers import Attention

TEXT = 24


@pytest.fixture(scope="module")
def unet() -> UNet:
    config = UNetConfig(
        block_out_channels=(16, 32),
        layers_per_block=1,
        transformer_layers_per_block=(0, 1),
        num_attention_heads=2,
        cross_attention_dim=TEXT,
        norm_num_groups=4,
    )
    unet = randomised(UNet(config), 3)
    assert isinstance(unet, UNet)
    return unet.requires_grad_(False)


def network(width: int, seed: int, activation: nn.Module | None, norm: bool, drop: bool) -> nn.Sequential:
    """With the modules in A1111's order, so that their numbers are those of its files."""
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(((1, 2), (2, 1))):
        layers.append(nn.Linear(width * a, width * b))
        if activation is not None and number == 0:
            layers.append(activation)
        if norm:
            layers.append(nn.LayerNorm(width * b))
        if drop and number == 0:
            layers.append(nn.Dropout(0.3))
    made = randomised(nn.Sequential(*layers), seed)
    assert isinstance(made, nn.Sequential)
    return made


def save(path: Path, pairs: dict[int, tuple[nn.Sequential, nn.Sequential]], **said: Any) -> None:
    states = {
        width: tuple({f"linear.{key}": value for key, value in each.state_dict().items()} for each in pair)
        for width, pair in pairs.items()
    }
    torch.save({"step": 100, "name": "it", "layer_structure": [1, 2, 1], **states, **said}, path)


@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_weights_that_come_and_go(toy_folder: Path, memory: str, tmp_path: Path) -> None:
    """It is where the network's input is, whatever becomes of the network's weights."""
    model = darkroom.load(toy_folder, device="cpu", precision="float32")
    width = next(each for each in model.networks() if isinstance(each, UNet)).config.cross_attention_dim
    pair = network(width, 1, None, False, False), network(width, 2, None, False, False)
    save(tmp_path / "it.pt", {width: pair})
    settings: dict[str, Any] = {"seed": 1, "steps": 2, "width": 32, "height": 32}
    settings["adapters"] = [f"hypernet:{tmp_path / 'it.pt'}:0.8"]
    expected = model.generate("a boat", **settings)[0]
    small = darkroom.load(toy_folder, device="cpu", precision="float32", memory=memory)
    for _ in range(2):
        assert small.generate("a boat", **settings)[0].image == expected.image
    assert model.generate("a boat", **settings | {"adapters": []})[0].image != expected.image


CASES: dict[str, tuple[Any, bool, bool, dict[str, Any]]] = {
    "plain": (None, False, False, {}),
    "relu": (nn.ReLU(), False, False, {"activation_func": "relu"}),
    "swish-norm": (nn.Hardswish(), True, False, {"activation_func": "swish", "is_layer_norm": True}),
    "mish-dropout": (nn.Mish(), False, True, {"activation_func": "mish", "use_dropout": True}),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_rows(unet: UNet, case: str, tmp_path: Path) -> None:
    activation, norm, drop, said = CASES[case]
    pairs = {
        width: (
            network(width, width, activation, norm, drop),
            network(width, width + 1, activation, norm, drop),
        )
        for width in (TEXT, 32)
    }
    save(tmp_path / "it.pt", pairs, **said)
    assert identify(tmp_path / "it.pt").kind == "hypernetwork"
    adapter = read_hypernetwork(tmp_path / "it.pt", {"unet": unet}, "the model")
    x, context = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1), torch.randn(1, 5, TEXT).repeat(2, 1, 1)
    times, told = torch.tensor([7.0, 7.0]), Conditioning(context)
    plain = unet(x, times, told)
    with applied(unet, "unet", [[Dose(adapter, 0.6)], []]):
        mixed = unet(x, times, told)
    hooks = []
    for module in unet.modules():
        if isinstance(module, Attention) and (pair := pairs.get(module.to_k.in_features)):
            for layer, own in zip((module.to_k, module.to_v), pair, strict=True):
                hooks.append(
                    layer.register_forward_pre_hook(lambda _, args, own=own: args[0] + 0.6 * own(args[0]))
                )
    expected = unet(x, times, told)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(mixed[0], expected[0])
    assert torch.equal(mixed[1], plain[1])
    assert not torch.allclose(mixed[0], plain[0], atol=1e-3)
    assert torch.equal(unet(x, times, told), plain)


def test_the_oldest_files(unet: UNet, tmp_path: Path) -> None:
    """Their layers are called linear1 and linear2."""
    own = network(TEXT, 0, None, False, False)
    state = {f"linear{int(key[0]) + 1}.{key[2:]}": each for key, each in own.state_dict().items()}
    torch.save({TEXT: (state, state)}, tmp_path / "it.pt")
    adapter = read_hypernetwork(tmp_path / "it.pt", {"unet": unet}, "the model")
    x = torch.randn(3, TEXT)
    torch.testing.assert_close(adapter.hypernetwork[TEXT][0](x), own(x))


def test_refusals(unet: UNet, tmp_path: Path) -> None:
    own = network(768, 0, None, False, False)
    save(tmp_path / "it.pt", {768: (own, own)})
    with pytest.raises(ModelError, match=r"attention over 768 channels, which the model has not \(24, 32\)"):
        read_hypernetwork(tmp_path / "it.pt", {"unet": unet}, "the model")
    own = network(TEXT, 0, None, False, False)
    save(tmp_path / "it.pt", {TEXT: (own, own)}, activation_func="magic")
    with pytest.raises(ModelError, match="its activation 'magic' is not known"):
        read_hypernetwork(tmp_path / "it.pt", {"unet": unet}, "the model")
    torch.save({"w": torch.ones(2)}, tmp_path / "it.pt")
    with pytest.raises(ModelError, match="holds no hypernetwork"):
        read_hypernetwork(tmp_path / "it.pt", {"unet": unet}, "the model")
