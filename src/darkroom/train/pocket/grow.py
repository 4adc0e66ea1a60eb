"""A U-Net that begins as a trained, shallower one with finer levels around it.

What pictures of one size taught is so kept for larger ones: the old network sees, on the inner levels, what it used to
see, and the new levels begin as a plain mean on the way down and a plain enlargement on the way up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darkroom.errors import ModelError
from darkroom.networks import UNet


@torch.no_grad()
def grown(unet: UNet, trained: UNet) -> None:
    """Give `unet` the weights of `trained`, whose levels are its inner ones.

    Layers that only `unet` has keep their initial values, but for those that new states pass straight through. Raises
    ModelError where the two do not fit.
    """
    finer = len(unet.down_blocks) - len(trained.down_blocks)
    own = dict(unet.state_dict())
    for name, value in trained.state_dict().items():
        place = _inner(name, finer)
        if place not in own or own[place].shape != value.shape:
            raise ModelError(
                f"the U-Net to start from has {name} {tuple(value.shape)}, which the settings' network has no "
                "place for: give it as many channels per level, and as many levels or more"
            )
        own[place].copy_(value)
    for block in unet.down_blocks[:finer]:
        for downsample in block.downsamplers:  # type: ignore[union-attr]
            _pass(downsample.conv, _MEAN)
    for block in unet.up_blocks[-1 - finer : -1]:
        for upsample in block.upsamplers:  # type: ignore[union-attr]
            _pass(upsample.conv, _CENTRE)
    for block in unet.up_blocks[len(trained.up_blocks) :]:
        for resnet in block.resnets:  # type: ignore[union-attr]
            if resnet.conv_shortcut is not None:
                _pass(resnet.conv_shortcut, torch.ones(1, 1))


def _inner(name: str, finer: int) -> str:
    """A parameter's name in a network with so many finer levels. The way up is counted from the coarsest."""
    part, _, rest = name.partition(".")
    if part != "down_blocks":
        return name
    index, _, rest = rest.partition(".")
    return f"{part}.{int(index) + finer}.{rest}"


_CENTRE = torch.zeros(3, 3)
_CENTRE[1, 1] = 1
_MEAN = torch.zeros(3, 3)  # A stride's two rows and columns are the kernel's last.
_MEAN[1:, 1:] = 0.25


def _pass(conv: nn.Conv2d, kernel: Tensor) -> None:
    """The first channels through, each as the kernel weighs it, and nothing else."""
    nn.init.zeros_(conv.weight)
    for i in range(min(conv.out_channels, conv.in_channels)):
        conv.weight[i, i] = kernel
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
