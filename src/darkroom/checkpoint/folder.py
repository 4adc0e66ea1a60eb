"""Reading model folders in the Hugging Face layout.

A folder holds model_index.json and one folder a component, each with a config.json and a
safetensors file; `darkroom.json` beside them says what the layout has no place for (native size,
preferences, preview).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from darkroom.checkpoint.configs import text_config, unet_config, vae_config
from darkroom.checkpoint.family import Family, Preferences
from darkroom.checkpoint.registry import INDEX
from darkroom.diffusion import Discrete, FlowSchedule, NoiseSchedule, betas, process
from darkroom.errors import DarkroomError, ModelError
from darkroom.networks import VAE, CLIPText, UNet, VAEConfig

Network = TypeVar("Network", bound=nn.Module)

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
_OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class Components:
    """The networks of a folder, and the files their weights came from."""

    text_encoder: CLIPText
    unet: UNet
    vae: VAE
    family: Family
    files: dict[str, Path]


def load_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> Components:
    """Load every network of a folder to a device and precision. Raises ModelError naming the file."""
    index = read_json(folder / INDEX)
    missing = [name for name in WEIGHTS if name not in index]
    if missing:
        raise ModelError(
            f"{folder / INDEX} lists no {', '.join(missing)}: not a Stable Diffusion 1 or 2 folder"
        )
    files = {name: folder / name / file for name, file in WEIGHTS.items()}

    def load(name: str, build: Callable[[dict[str, Any]], Network]) -> Network:
        return _load_network(build, folder / name / "config.json", files[name], device, dtype)

    text_encoder = load("text_encoder", lambda config: CLIPText(text_config(config)))
    unet = load("unet", lambda config: UNet(unet_config(config)))
    vae = load("vae", lambda config: VAE(vae_config(config)))
    return Components(text_encoder, unet, vae, read_family(folder, vae.config), files)


def _load_network(
    build: Callable[[dict[str, Any]], Network],
    config: Path,
    file: Path,
    device: torch.device,
    dtype: torch.dtype,
) -> Network:
    """A network built on the meta device, where it costs nothing, and given its weights."""
    values = read_json(config)
    try:
        with torch.device("meta"):
            network = build(values)
    except Exception as error:
        # Numbers that fit no network surface wherever torch first stumbles over them.
        raise ModelError(f"{config} describes no network that can be built: {error}") from error
    _fill(network, file, device, dtype)
    return network


def _fill(network: nn.Module, file: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Give a network on the meta device its weights, memory-mapped until they are converted."""
    try:
        tensors = load_file(file)
    except FileNotFoundError:
        raise ModelError(f"{file} is missing: the model folder is incomplete") from None
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is damaged or no safetensors file ({error}): fetch it anew") from error
    expected = network.state_dict()
    found = {
        _known_as(key, expected): tensor
        for key, tensor in tensors.items()
        if not key.endswith("position_ids")
    }
    for what, keys in (
        ("lacks", expected.keys() - found.keys()),
        ("holds the unknown", found.keys() - expected),
    ):
        if keys:
            raise ModelError(
                f"{file} {what} {', '.join(sorted(keys)[:3])} ({len(keys)} in all): it is another model's"
            )
    for key, tensor in found.items():
        wanted = expected[key].shape
        if tensor.shape != wanted and tensor.numel() == wanted.numel():
            found[key] = tensor.reshape(wanted)  # Old linear layers stored as 1x1 convolutions.
        elif tensor.shape != wanted:
            raise ModelError(f"{file}: {key} is {tuple(tensor.shape)}, config.json says {tuple(wanted)}")
    network.load_state_dict(
        {key: tensor.to(device, dtype) for key, tensor in found.items()}, strict=True, assign=True
    )
    network.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]


def _known_as(key: str, expected: dict[str, Any]) -> str:
    """Today's name of a key: newer transformers drop `text_model.`, older autoencoders say `query`."""
    if key in expected:
        return key
    if f"text_model.{key}" in expected:
        return f"text_model.{key}"
    parts = key.split(".")
    return ".".join(_OLD_VAE_NAMES.get(part, part) for part in parts)


def read_family(folder: Path, vae: VAEConfig) -> Family:
    """What the folder's scheduler and darkroom.json say of how to use its networks."""
    config = read_json(folder / "scheduler/scheduler_config.json")
    extra = read_json(folder / "darkroom.json") if (folder / "darkroom.json").exists() else {}
    try:
        return Family(
            name=str(extra.get("family", "Stable Diffusion")),
            process=process(config.get("prediction_type", "epsilon")),
            schedule=_noise_schedule(config),
            latent_channels=vae.latent_channels,
            factor=vae.factor,
            native=int(extra.get("native_size", vae.sample_size)),
            preferences=Preferences(**extra.get("preferences", {})),
            preview=_rows(extra.get("preview")),
        )
    except (TypeError, ValueError, DarkroomError) as error:
        raise ModelError(f"{folder}: its settings cannot be used: {error}") from error


def _noise_schedule(config: dict[str, Any]) -> NoiseSchedule:
    if config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas"):
        return FlowSchedule(float(config.get("flow_shift", config.get("shift", 1.0))))
    return Discrete(
        betas(
            config.get("beta_schedule", "scaled_linear"),
            float(config.get("beta_start", 0.00085)),
            float(config.get("beta_end", 0.012)),
            int(config.get("num_train_timesteps", 1000)),
        ),
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
    )


def _rows(matrix: Any) -> tuple[tuple[float, ...], ...] | None:
    return None if matrix is None else tuple(tuple(float(x) for x in row) for row in matrix)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or ModelError."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: the model folder is incomplete") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object")
    return value
