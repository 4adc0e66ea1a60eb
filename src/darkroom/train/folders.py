"""Trained networks as Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from darkroom.checkpoint.components import component_of
from darkroom.checkpoint.settings import read_json
from darkroom.errors import ModelError
from darkroom.files import replacing, write_json
from darkroom.networks import VAE, CLIPText, CLIPVision, UNet
from darkroom.weights.hashes import sha256

Network: TypeAlias = UNet | VAE | CLIPText | CLIPVision
AnyNetwork = TypeVar("AnyNetwork", UNet, VAE, CLIPText, CLIPVision)


def weights_file(folder: Path, kind: type[Network]) -> Path:
    """Where the layout has the weights of a network of that kind."""
    return folder / f"{component_of(kind).weights_stem}.safetensors"


def weights_hash(folder: Path) -> str:
    """The SHA-256 of the one weights file in a network's folder."""
    return sha256(next(folder.glob("*.safetensors")))


def load_network(folder: Path, kind: type[AnyNetwork]) -> AnyNetwork:
    """The network that `save_network` wrote, in float32. Raises ModelError naming the folder."""
    network = kind(component_of(kind).read(read_json(folder / "config.json")))
    file = weights_file(folder, kind)
    try:
        network.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{file} cannot be loaded: {error}") from error
    return network


def save_network(folder: Path, network: Network, dtype: torch.dtype = torch.float32) -> None:
    """Write a network's `config.json` and weights under the names that the layout has for them."""
    write_json(folder / "config.json", component_of(type(network)).to_json(network.config))
    save_weights(weights_file(folder, type(network)), network, dtype)


def save_weights(path: Path, network: nn.Module, dtype: torch.dtype) -> None:
    """Write a network's tensors under its own names for them."""
    weights = {
        name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()
    }
    with replacing(path) as file:
        save_file(weights, file, metadata={"format": "pt"})
