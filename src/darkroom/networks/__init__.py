"""The networks: plain `torch` modules whose attribute names are the keys of the published files."""

from darkroom.networks.clip import CLIPOutput, CLIPText, CLIPTextConfig, CLIPVision, CLIPVisionConfig
from darkroom.networks.layers import Attend, attend
from darkroom.networks.mmdit import MMDiT, MMDiTConfig
from darkroom.networks.t5 import T5Config, T5Encoder
from darkroom.networks.tiny import TinyVAE, TinyVAEConfig
from darkroom.networks.unet import Added, Residuals, UNet, UNetConfig
from darkroom.networks.unfilled import unfilled
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
    "MMDiT",
    "MMDiTConfig",
    "Residuals",
    "T5Config",
    "T5Encoder",
    "TinyVAE",
    "TinyVAEConfig",
    "UNet",
    "UNetConfig",
    "VAEConfig",
    "attend",
    "unfilled",
]
