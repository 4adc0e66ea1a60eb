"""Files of upscalers: which network is in one, its dimensions, and how the file names its tensors.

The files of one network are in several layouts, by whose code it was trained with: ESRGAN's own (`model.1.sub.0.RDB1`),
that of BSRGAN and RealSR (`RRDB_trunk`), that of Real-ESRGAN (`body.0.rdb1`), whose names are ours. Another network is
another record, listed in `ARCHITECTURES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darkroom.checkpoint.components.component import Names, Shape
from darkroom.checkpoint.infer import within
from darkroom.checkpoint.rules import AS_IT_IS, SAME, Block, Leaf, Rule, generated
from darkroom.errors import ModelError
from darkroom.lazy import imported
from darkroom.networks.configs import CompactConfig, RRDBNetConfig

if TYPE_CHECKING:
    from torch import nn

Config = RRDBNetConfig | CompactConfig


@dataclass(frozen=True)
class Architecture:
    """One sort of network that upscalers are.

    network: its class, as MODULE:NAME; label: what people call it. layouts: by the name of a tensor that tells each,
    how it names the network's blocks. dimensions: from a file's tensors and its layout. Raises ModelError for what
    makes no network.
    """

    network: str
    label: str
    layouts: Mapping[str, Callable[[Any], Iterable[Block]]]
    dimensions: Callable[[Names, str], Config]


@dataclass(frozen=True)
class UpscalerFile:
    """An upscaler in a file: what it is, its dimensions, and where its names begin and whose they are."""

    architecture: Architecture
    config: Config
    prefix: str
    mark: str

    @property
    def described(self) -> str:
        """What it is, in words."""
        config = self.config
        deep = f"{config.blocks} blocks" if isinstance(config, RRDBNetConfig) else f"{config.layers} layers"
        return f"{self.architecture.label}, x{config.scale}, {deep} of {config.features} features"

    def build(self) -> nn.Module:
        """The network on the meta device."""
        from darkroom.networks.unfilled import unfilled

        with unfilled():
            network: nn.Module = imported(self.architecture.network)(self.config)
        return network

    def rules(self, network: nn.Module) -> list[Rule]:
        """A rule for each tensor of the network, to the name that it has in the file behind the prefix."""
        return generated(self.architecture.layouts[self.mark](self.config), network.state_dict())


def upscaler_in(shapes: Mapping[str, Shape]) -> UpscalerFile | None:
    """The upscaler of a file with tensors of these names and shapes; None where it is none of those that there are
    here. Raises ModelError for one that is damaged."""
    for architecture in ARCHITECTURES:
        for mark in architecture.layouts:
            for prefix in _PREFIXES:
                if prefix + mark in shapes:
                    own = Names(within(shapes, prefix))
                    try:
                        config = architecture.dimensions(own, mark)
                    except (ValueError, ArithmeticError, LookupError) as error:
                        raise ModelError(f"the tensors make no {architecture.label}: {error}") from None
                    return UpscalerFile(architecture, config, prefix, mark)
    return None


_PREFIXES = ("", "module.", "netG.", "params_ema.", "params.", "generator.")
"""What code around a network leaves before its names."""

# RRDBNet

_OURS = "body.0.rdb1.conv1.weight"
_TRUNK = "RRDB_trunk.0.RDB1.conv1.weight"
_FIRST = "model.1.sub.0.RDB1.conv1.0.weight"
_CONVS = tuple(f"conv{i}" for i in range(1, 6))


def _names_of(mark: str) -> tuple[str, str, str, str]:
    """The first convolution, a block, its dense blocks, and what ends the name of a convolution in these."""
    if mark == _OURS:
        return "conv_first", "body.{}", ".rdb{}", ""
    if mark == _TRUNK:
        return "conv_first", "RRDB_trunk.{}", ".RDB{}", ""
    return "model.0", "model.1.sub.{}", ".RDB{}", ".0"


def _rrdb(names: Names, mark: str) -> RRDBNetConfig:
    first, block, dense, end = _names_of(mark)
    features, folded = names[f"{first}.weight"][:2]
    blocks = _count(names, block + dense.format(1))
    if mark == _FIRST:
        numbers = sorted(int(name.split(".")[1]) for name in names.shapes if name.endswith(".weight"))
        last, doublings = f"model.{numbers[-1]}", (numbers[-1] - 4) // 3
    else:
        up = "conv_up{}" if mark == _OURS else "upconv{}"
        last, doublings = "conv_last", _count(names, up, first=1)
    out = names[f"{last}.weight"][0]
    unshuffle = _fold(folded, out, 1 << doublings)
    inner = block.format(0) + dense.format(1)
    return RRDBNetConfig(
        in_channels=folded // unshuffle**2,
        out_channels=out,
        features=features,
        growth=names[f"{inner}.conv1{end}.weight"][0],
        blocks=blocks,
        scale=(1 << doublings) // unshuffle,
        unshuffle=unshuffle,
        plus=f"{inner}.conv1x1" in names,
    )


def _count(names: Names, form: str, first: int = 0) -> int:
    """How many blocks there are whose names are `form` with consecutive numbers in it."""
    return next(n for n in range(len(names.shapes) + 1) if form.format(first + n) not in names)


def _fold(channels: int, out: int, most: int) -> int:
    """By how much a picture is folded of which a network sees so many channels and makes `out`: 2 or 4, where that many
    come to it, else 1."""
    return next((by for by in (2, 4) if channels == out * by**2 and by <= most), 1)


def _rrdb_blocks(mark: str) -> Callable[[RRDBNetConfig], Iterator[Block]]:
    first, block, dense, end = _names_of(mark)
    leaves: list[Leaf] = [(each, each + end, SAME) for each in _CONVS] + [("conv1x1", "conv1x1", SAME)]

    def blocks(config: RRDBNetConfig) -> Iterator[Block]:
        ups = config.doublings
        yield "conv_first", first, AS_IT_IS
        for i in range(config.blocks):
            for j in (1, 2, 3):
                yield f"body.{i}.rdb{j}", block.format(i) + dense.format(j), leaves
        rest = {
            _OURS: ("conv_body", "conv_up{}", "conv_hr", "conv_last"),
            _TRUNK: ("trunk_conv", "upconv{}", "HRconv", "conv_last"),
        }.get(mark, (block.format(config.blocks), "", f"model.{3 * ups + 2}", f"model.{3 * ups + 4}"))
        yield "conv_body", rest[0], AS_IT_IS
        for number in range(1, ups + 1):
            yield f"conv_up{number}", (rest[1] or f"model.{3 * number}").format(number), AS_IT_IS
        yield "conv_hr", rest[2], AS_IT_IS
        yield "conv_last", rest[3], AS_IT_IS

    return blocks


RRDB = Architecture(
    network="darkroom.networks.upscaler:RRDBNet",
    label="RRDBNet (ESRGAN)",
    layouts={mark: _rrdb_blocks(mark) for mark in (_OURS, _TRUNK, _FIRST)},
    dimensions=_rrdb,
)

# The compact one

_COMPACT = "body.0.weight"


def _compact(names: Names, mark: str) -> CompactConfig:
    features, channels = names[_COMPACT][:2]
    layers = _count(names, "body.{}")
    if layers < 3 or not layers % 2 or len(names["body.1.weight"]) != 1:
        raise ModelError("the compact upscaler's convolutions and activations (PReLU) do not take turns")
    made = names[f"body.{layers - 1}.weight"][0]
    scale = math.isqrt(made // channels)
    if scale < 1 or channels * scale**2 != made:
        raise ModelError(f"the compact upscaler makes {made} channels of {channels}, which is no whole scale")
    return CompactConfig(channels, channels, features, (layers - 3) // 2, scale)


COMPACT = Architecture(
    network="darkroom.networks.upscaler:Compact",
    label="compact (Real-ESRGAN)",
    layouts={_COMPACT: lambda config: [("", "", AS_IT_IS)]},
    dimensions=_compact,
)

ARCHITECTURES = (RRDB, COMPACT)
