"""An autoencoder as callbacks and scripts of diffusers' users speak to it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from darkroom.compat.diffusers.faces import Network, face_of
from darkroom.compat.diffusers.outputs import BaseOutput
from darkroom.networks import VAE, TinyVAE

log = logging.getLogger(__name__)


@dataclass
class DecoderOutput(BaseOutput):
    """`sample`: pictures (B, 3, H, W) in [-1, 1]."""

    sample: Tensor


@dataclass
class LatentDistribution:
    """What an encoder makes of pictures: a Gaussian of each number of z, (B, C, h, w)."""

    mean: Tensor
    logvar: Tensor

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    @property
    def var(self) -> Tensor:
        return torch.exp(self.logvar)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        device = generator.device if generator is not None else self.mean.device
        noise = torch.randn(self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype)
        return self.mean + self.std * noise.to(self.mean.device)

    def mode(self) -> Tensor:
        return self.mean


@dataclass
class EncoderOutput(BaseOutput):
    """`latent_dist`: the distribution of z; `latents`: its mean, which is all that tiny autoencoders have."""

    latent_dist: LatentDistribution

    @property
    def latents(self) -> Tensor:
        return self.latent_dist.mean


class _Autoencoder(Network):
    """An autoencoder with diffusers' methods. `_pipe` is whose it is: that has a `device`, and says in `_tiled` whether
    large pictures go through in tiles."""

    _pipe: Any
    _lock: Any
    _network: Any

    def decode(self, z: Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        """Pictures of z, the network's latents divided by `config.scaling_factor`."""
        with self._lock, torch.no_grad():
            decode = self._network.decode_tiled if self._pipe._tiled else self._network.decode
            found = decode(z.to(self._pipe.device))
        return DecoderOutput(found) if return_dict else (found,)

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """The distribution of z of pictures in [-1, 1]."""
        with self._lock, torch.no_grad():
            encode = self._network.encode_tiled if self._pipe._tiled else self._network.encode
            found = LatentDistribution(*encode(x.to(self._pipe.device)))
        return EncoderOutput(found) if return_dict else (found,)

    @property
    def device(self) -> torch.device:
        return self._pipe.device  # type: ignore[no-any-return]

    def enable_tiling(self, use_tiling: bool = True) -> None:
        """Large pictures are decoded in tiles."""
        self._pipe._tiled = use_tiling

    def disable_tiling(self) -> None:
        self._pipe._tiled = False

    def enable_slicing(self) -> None:
        """Nothing: pictures are always decoded one by one."""

    def disable_slicing(self) -> None:
        """Nothing: see enable_slicing."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("decode", "encode", "forward"):
            log.info("%s is left as it is: torch.compile is left out", name)
        else:
            super().__setattr__(name, value)


def autoencoder(network: VAE | TinyVAE, lock: RLock, pipe: Any) -> Any:
    """A pipeline's autoencoder, with diffusers' methods; `lock` is held while it runs."""
    return face_of(network, _Autoencoder, _pipe=pipe, _lock=lock, _network=network)
