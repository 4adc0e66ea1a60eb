"""Trained networks as Hugging Face folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save_file

from darkroom.checkpoint.configs import text_json, unet_json, vae_json, vision_json
from darkroom.networks import VAE, CLIPText, CLIPVision, UNet

Network: TypeAlias = UNet | VAE | CLIPText | CLIPVision

_TO_JSON: dict[type, Callable[[Any], dict[str, Any]]] = {
    UNet: unet_json,
    VAE: vae_json,
    CLIPText: text_json,
    CLIPVision: vision_json,
}


def save_network(folder: Path, network: Network, dtype: torch.dtype = torch.float32) -> None:
    """Write a network's `config.json` and weights under the names that the layout has for them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", _TO_JSON[type(network)](network.config))
    clip = isinstance(network, CLIPText | CLIPVision)
    file = folder / ("model.safetensors" if clip else "diffusion_pytorch_model.safetensors")
    weights = {
        name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()
    }
    save_file(weights, file, metadata={"format": "pt"})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
