"""The networks: plain `torch` modules whose attribute names are the keys of the published files.

Names are imported when first used: the dimensions (`darkroom.networks.configs`) are read without torch.
"""

from typing import TYPE_CHECKING

from darkroom.lazy import lazily

if TYPE_CHECKING:
    from darkroom.networks.clip import CLIPOutput, CLIPText, CLIPVision
    from darkroom.networks.conditioning import Conditioning, Residuals
    from darkroom.networks.configs import (
        CLIPTextConfig,
        CLIPVisionConfig,
        MMDiTConfig,
        T5Config,
        TinyVAEConfig,
        UNetConfig,
        VAEConfig,
    )
    from darkroom.networks.denoiser import Denoiser
    from darkroom.networks.layers import Attend, attend
    from darkroom.networks.mmdit import MMDiT
    from darkroom.networks.t5 import T5Encoder
    from darkroom.networks.tiny import TinyVAE
    from darkroom.networks.unet import UNet
    from darkroom.networks.unfilled import unfilled
    from darkroom.networks.vae import VAE

__all__ = [
    "VAE",
    "Attend",
    "CLIPOutput",
    "CLIPText",
    "CLIPTextConfig",
    "CLIPVision",
    "CLIPVisionConfig",
    "Conditioning",
    "Denoiser",
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

__getattr__, __dir__ = lazily(
    __name__,
    {
        "clip": "CLIPOutput CLIPText CLIPVision",
        "conditioning": "Conditioning Residuals",
        "configs": "CLIPTextConfig CLIPVisionConfig MMDiTConfig T5Config TinyVAEConfig UNetConfig VAEConfig",
        "denoiser": "Denoiser",
        "layers": "Attend attend",
        "mmdit": "MMDiT",
        "t5": "T5Encoder",
        "tiny": "TinyVAE",
        "unet": "UNet",
        "unfilled": "unfilled",
        "vae": "VAE",
    },
)
