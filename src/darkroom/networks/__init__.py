"""The networks: plain `torch` modules whose attribute names are the keys of the published files."""

from darkroom.networks.clip import CLIPOutput, CLIPText, CLIPTextConfig, CLIPVision, CLIPVisionConfig
from darkroom.networks.layers import Attend, attend
from darkroom.networks.unet import Added, Residuals, UNet, UNetConfig
from darkroom.networks.vae import VAE, VAEConfig

__all__ = [
    "VAE",
    "Added",
    "Attend",
    "CLIPOutput",
    "CLIPText",
    "CLIPTextConfig",
    "CLIPVision",
    "CLIPVisionConfig",
    "Residuals",
    "UNet",
    "UNetConfig",
    "VAEConfig",
    "attend",
]
