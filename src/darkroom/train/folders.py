"""Trained networks as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from darkroom.checkpoint.configs import (
    text_config,
    text_json,
    unet_config,
    unet_json,
    vae_config,
    vae_json,
    vision_config,
    vision_json,
)
from darkroom.checkpoint.settings import read_json
from darkroom.errors import ModelError
from darkroom.files import replacing, write_json
from darkroom.networks import VAE, CLIPText, CLIPVision, UNet
from darkroom.weights.hashes import sha256

Network: TypeAlias = UNet | VAE | CLIPText | CLIPVision
AnyNetwork = TypeVar("AnyNetwork", UNet, VAE, CLIPText, CLIPVision)

_TO_JSON: dict[type, Callable[[Any], dict[str, Any]]] = {
    UNet: unet_json,
    VAE: vae_json,
    CLIPText: text_json,
    CLIPVision: vision_json,
}
_FROM_JSON: dict[type, Callable[[dict[str, Any]], Any]] = {
    UNet: unet_config,
    VAE: vae_config,
    CLIPText: text_config,
    CLIPVision: vision_config,
}


def weights_file(folder: Path, kind: type) -> Path:
    """Where the layout has the weights of a network of that kind."""
    clip = kind in (CLIPText, CLIPVision)
    return folder / ("model.safetensors" if clip else "diffusion_pytorch_model.safetensors")


def weights_hash(folder: Path) -> str:
    """The SHA-256 of the one weights file in a network's folder."""
    return sha256(next(folder.glob("*.safetensors")))


def load_network(folder: Path, kind: type[AnyNetwork]) -> AnyNetwork:
    """The network that `save_network` wrote, in float32. Raises ModelError naming the folder."""
    network = kind(_FROM_JSON[kind](read_json(folder / "config.json")))
    file = weights_file(folder, kind)
    try:
        network.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{file} cannot be loaded: {error}") from error
    return network


def save_network(folder: Path, network: Network, dtype: torch.dtype = torch.float32) -> None:
    """Write a network's `config.json` and weights under the names that the layout has for them."""
    write_json(folder / "config.json", _TO_JSON[type(network)](network.config))
    weights = {
        name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()
    }
    with replacing(weights_file(folder, type(network))) as file:
        save_file(weights, file, metadata={"format": "pt"})
