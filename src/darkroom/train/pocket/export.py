"""Trained networks put together as a Stable Diffusion model in the Hugging Face layout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from darkroom.checkpoint.settings import read_json
from darkroom.files import write_json
from darkroom.networks import VAE, CLIPText, UNet
from darkroom.pixels import to_images
from darkroom.prompt.tokenizer import Tokenizer
from darkroom.train.folders import load_network, save_network, weights_hash
from darkroom.train.pocket.data import WorldConfig, rendered, scene_at
from darkroom.version import __version__
from darkroom.weights.names import WRITTEN_AS

_SCHEDULERS: dict[str, dict[str, Any]] = {
    "flow": {
        "_class_name": "DPMSolverMultistepScheduler",
        "prediction_type": "flow_prediction",
        "steps_offset": 1,
        "use_flow_sigmas": True,
        "flow_shift": 1.0,
        "num_train_timesteps": 1000,
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "final_sigmas_type": "zero",
    },
    **{
        name: {
            "_class_name": "DPMSolverMultistepScheduler",
            "prediction_type": name,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "steps_offset": 1,
            "num_train_timesteps": 1000,
            "algorithm_type": "dpmsolver++",
            "solver_order": 2,
            "final_sigmas_type": "zero",
        }
        for name in ("epsilon", "v_prediction", "sample")
    },
}


def assemble(vae_folder: Path, trained: Path, out: Path, name: str = "pocket") -> None:
    """Write a model folder from the autoencoder's folder and the U-Net stage's result.

    Weights are written in float16. diffusers' StableDiffusionPipeline reads it too; what the layout has no place
    for is in darkroom.json. Raises ModelError where a part is missing or belongs to another autoencoder.
    """
    facts = read_json(trained / "trained.json")
    vae, unet = load_network(vae_folder, VAE), load_network(trained / "unet", UNet)
    text = load_network(trained / "text_encoder", CLIPText)
    for part, network in (("vae", vae), ("unet", unet), ("text_encoder", text)):
        save_network(out / part, network, torch.float16)
    shutil.copytree(trained / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    tokenizer = Tokenizer.load(out / "tokenizer")
    # transformers takes the precision and the marks from here; diffusers runs all networks in one precision.
    marks = {"dtype": "float32", "bos_token_id": tokenizer.start, "pad_token_id": tokenizer.pad}
    write_json(out / "text_encoder/config.json", read_json(out / "text_encoder/config.json") | marks)
    write_json(out / "scheduler" / "scheduler_config.json", _SCHEDULERS[facts["process"]])
    write_json(out / "model_index.json", _index())
    write_json(
        out / "darkroom.json",
        {
            "family": f"Darkroom {name}",
            "version": __version__,
            "native_size": unet.config.sample_size * vae.config.factor,
            "preferences": {
                "steps": facts["steps"],
                "guidance": facts["guidance"],
                "sampler": facts["sampler"],
                "schedule": "simple" if facts["process"] == "flow" else "karras",
                "compose": "native",  # It knows squares alone.
                "upscaler": "pocket-x4",
            },
            "judge": "oracle",
            "preview": preview_matrix(vae),
            "trained_on": {"world": "darkroom.world", "vae": facts["vae"]},
            "weights": {part: weights_hash(out / part) for part in ("vae", "unet", "text_encoder")},
        },
    )


def _index() -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        **WRITTEN_AS,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


@torch.no_grad()
def preview_matrix(vae: VAE, count: int = 64) -> list[list[float]]:
    """Three rows of (channels + 1) numbers: the affine map from a latent to its colours in [-1, 1] that is best in
    the least-squares sense over drawn pictures."""
    scenes = [scene_at(WorldConfig(), -4, i) for i in range(count)]
    images = to_images(rendered(scenes, vae.config.sample_size))
    latents = torch.cat([vae.to_latent(part) for part in torch.split(images, 16)]).float()
    small = F.avg_pool2d(images, vae.config.factor)
    given = latents.permute(0, 2, 3, 1).flatten(0, 2)
    given = torch.cat([given, torch.ones(len(given), 1)], dim=1)
    solution = torch.linalg.lstsq(given, small.permute(0, 2, 3, 1).flatten(0, 2)).solution
    return [[round(value, 5) for value in row] for row in solution.T.tolist()]
