"""LoRA files of diffusers' pipelines, text encoders included: the same latents as diffusers makes with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tests.families import peer, relative_error
from tests.tables import wide
from tests.test_families_against_diffusers import SAME, noise_for, ours

from darkroom.checkpoint.opening import open_source
from darkroom.diffusion import points_for

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

DENOISER = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1"]
JOINT = [
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_q_proj",
    "attn.to_add_out",
    "ff.net.2",
]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
SETTINGS: dict[str, Any] = {"width": 64, "height": 48}


def adapted(loaded: Any, rank: int) -> dict[str, Any]:
    """The layers that `save_lora_weights` takes, of a pipeline that has been given random LoRAs."""
    generator = torch.Generator().manual_seed(rank)
    found = {}
    for role in ("unet", "transformer", "text_encoder", "text_encoder_2"):
        network = getattr(loaded, role, None)
        if network is None:
            continue
        targets = {"unet": DENOISER, "transformer": JOINT}.get(role, TEXT)
        network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        found[f"{role}_lora_layers"] = get_peft_model_state_dict(network)
    return found


def theirs(loaded: Any, path: Path, name: str, prompt: str) -> torch.Tensor:
    sampler, schedule = SAME[name]
    with open_source(path) as source:
        points = points_for(source.family.schedule, 5, sampler, schedule)
        channels = source.family.latent_channels
    noise = noise_for(loaded, loaded.scheduler, points, (5,), (1, channels, 6, 8))
    settings = {"negative_prompt": "rain", "guidance_scale": 4.0, "num_inference_steps": 5}
    return loaded(prompt=prompt, latents=noise, output_type="latent", **settings, **SETTINGS).images


@pytest.mark.parametrize("name", ["sd1", wide("sdxl"), "sd3-clips"])
def test_pictures(folder: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    loaded = peer(folder(name), own=True)
    type(loaded).save_lora_weights(tmp_path, **adapted(loaded, 3))
    file = tmp_path / "pytorch_lora_weights.safetensors"
    again = peer(folder(name), own=True)
    again.load_lora_weights(tmp_path)
    again.set_adapters(["default_0"], 0.7)
    expected = theirs(again, folder(name), name, "a red boat")
    sampler, schedule = SAME[name]
    same = {"guidance": 4.0, "negative": "rain", "sampler": sampler, "schedule": schedule, **SETTINGS}
    found = ours(folder(name), "a red boat", adapters=[f"{file}:0.7"], **same)
    assert relative_error(found, expected) <= 5e-5
    assert torch.equal(ours(folder(name), f"a red boat<lora:{file}:0.7>", **same), found)
    assert relative_error(ours(folder(name), "a red boat", **same), expected) > 0.01
    if name == "sd3-clips":
        return
    renamed = load_file(file)
    if name == "sd1":
        kohya = convert_state_dict_to_kohya(renamed)
    else:
        kohya = {}
        for role, prefix in (
            ("unet", "lora_unet"),
            ("text_encoder", "lora_te1"),
            ("text_encoder_2", "lora_te2"),
        ):
            own = {
                key.removeprefix(f"{role}."): v for key, v in renamed.items() if key.startswith(f"{role}.")
            }
            for key, value in own.items():
                layer, _, part = key.partition(".lora")
                side = "lora_down" if "_A." in part or ".down." in part else "lora_up"
                kohya[f"{prefix}_{layer.replace('.', '_')}.{side}.weight"] = value
    save_file({key: value.contiguous() for key, value in kohya.items()}, tmp_path / "kohya.safetensors")
    assert all(key.startswith("lora_") for key in kohya)
    assert torch.equal(
        ours(folder(name), "a red boat", adapters=[f"{tmp_path / 'kohya.safetensors'}:0.7"], **same), found
    )
