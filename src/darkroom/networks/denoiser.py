"""What every denoising network has, so that whoever runs one needs not know which it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from darkroom.networks.conditioning import Conditioning
from darkroom.networks.layers import Attention
from darkroom.networks.roles import Role


class Denoiser(nn.Module):
    """A network that takes x (B, in_channels, h, w), `time` (B,) and what it is told to (B, out_channels, h, w).

    `role`: what it is in a model. `joint`: whether text is among the tokens of its self-attention, after those of the
    picture. `middle`: what the name of each layer in its middle begins with.
    """

    role: ClassVar[Role]
    joint: ClassVar[bool]
    config: Any

    def forward(self, x: Tensor, time: Tensor, told: Conditioning) -> Tensor:
        raise NotImplementedError

    @property
    def middle(self) -> str:
        raise NotImplementedError

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Its blocks that do as well one without another, each from tokens to tokens; none in a network of other
        parts."""
        return ()

    def merging(self) -> Iterator[tuple[nn.Module, int, int]]:
        """Where what it knows meets what it is reminded of by skip connections: (ResNet block, how many of the channels
        that go in are not the skip's, number of the way-up block); nothing where there is no such place."""
        return iter(())

    def tokens(self, x: Tensor) -> int:
        """How many of the tokens of its finest self-attention are those of the picture x."""
        raise NotImplementedError

    def blank(self, tokens: int, sizes: int = 0) -> Conditioning:
        """Zeros in place of all that a row of it is told: so many tokens of text, so many sizes or scores."""
        raise NotImplementedError

    def name_layers(self) -> None:
        """Tell every attention layer its name."""
        for name, module in self.named_modules():
            if isinstance(module, Attention):
                module.name = name

    def self_attentions(self) -> list[str]:
        """The names of the layers in which the tokens of a picture see one another."""
        return [
            module.name
            for module in self.modules()
            if isinstance(module, Attention) and module.to_k.in_features == module.to_q.in_features
            if self.joint or module.name.endswith("attn1")
        ]
