"""Toy models: real architectures of a few thousand parameters, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from darkroom.checkpoint.components import AUTOENCODER, CLIP_TEXT, UNET
from darkroom.networks import VAE, CLIPText, CLIPTextConfig, UNet, UNetConfig, VAEConfig
from darkroom.prompt import Tokenizer

CAPTIONS = ["a red boat on a calm sea", "two green trees at night", "a small grey house, watercolour"]

SCHEDULERS: dict[str, dict[str, Any]] = {
    "flow": {
        "_class_name": "DPMSolverMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 1.0,
        "num_train_timesteps": 1000,
    },
    "epsilon": {
        "_class_name": "PNDMScheduler",
        "prediction_type": "epsilon",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "clip_sample": False,
    },
}


def randomised(network: nn.Module, seed: int, spread: float = 0.15) -> nn.Module:
    """The network with every parameter random, those included that training starts at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def write_model(folder: Path, prediction: str = "flow", seed: int = 0, native: int = 32) -> Path:
    """A toy model folder in the Hugging Face layout."""
    tokenizer = Tokenizer.train(CAPTIONS, size=600)
    tokenizer.save(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer.vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tokenizer.end,
    )
    unet = UNetConfig(
        block_out_channels=(16, 32),
        layers_per_block=1,
        transformer_layers_per_block=(0, 1),
        num_attention_heads=2,
        cross_attention_dim=16,
        norm_num_groups=4,
        sample_size=native // 8,
    )
    vae = VAEConfig(
        block_out_channels=(8, 8, 8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=native,
        scaling_factor=1.0,
    )
    parts = {
        "text_encoder": (randomised(CLIPText(text), seed), CLIP_TEXT.to_json(text), "model"),
        "unet": (randomised(UNet(unet), seed + 1), UNET.to_json(unet), "diffusion_pytorch_model"),
        "vae": (randomised(VAE(vae), seed + 2), AUTOENCODER.to_json(vae), "diffusion_pytorch_model"),
    }
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
    for name, (network, config, file) in parts.items():
        (folder / name).mkdir(parents=True)
        save_file(network.state_dict(), folder / name / f"{file}.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(config))
        index[name] = (
            ["diffusers", config["_class_name"]]
            if "_class_name" in config
            else ["transformers", "CLIPTextModel"]
        )
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    index["scheduler"] = ["diffusers", SCHEDULERS[prediction]["_class_name"]]
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULERS[prediction]))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
