"""The layers of the YOLO family's networks (v3, v5 to v12, 26), by the names of their classes in people's files.

Such a file has the parts of each layer by their names; what a layer does with them is here, a function a kind. The
names and what they mean are those of Ultralytics' published models; the papers are named where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Forward = Callable[[Any, Any], Any]
_MOST_POOLED = 16


def convolution(m: Any, x: Tensor) -> Tensor:
    """Convolution, batch norm (unless it was worked into the weights) and activation."""
    y = m.conv(x)
    return m.act(y if m.bn is None else m.bn(y))


def twofold(m: Any, x: Tensor) -> Tensor:
    """RepVGG (Ding et al. 2021, https://arxiv.org/abs/2101.03697): two convolutions side by side."""
    if m.conv is not None and m.conv1 is None:
        return m.act(m.conv(x))
    first = m.conv1 if m.conv is None else m.conv
    second = m.conv2 if m.conv is None else m.conv1
    y = first(x) + second(x)
    return m.act(y if m.bn is None else y + m.bn(x))


def bottleneck(m: Any, x: Tensor) -> Tensor:
    y = m.cv2(m.cv1(x))
    return x + y if m.fact("add", False) else y


def inverted(m: Any, x: Tensor) -> Tensor:
    """YOLOv10's CIB (Wang et al. 2024, https://arxiv.org/abs/2405.14458)."""
    y = m.cv1(x)
    return x + y if m.fact("add", False) else y


def beside(m: Any, x: Tensor) -> Tensor:
    """CSP with three convolutions: C3."""
    return m.cv3(torch.cat([m.m(m.cv1(x)), m.cv2(x)], dim=1))


def through(parts: Sequence[Tensor], layers: Iterable[Any]) -> Tensor:
    """The last part on its way through some layers: what all parts are and each layer makes, joined."""
    kept = [*parts]
    for each in layers:
        kept.append(each(kept[-1]))
    return torch.cat(kept, dim=1)


def faster(m: Any, x: Tensor) -> Tensor:
    """C2f and its kin: halves, one of which goes on through all blocks; every one's result is kept."""
    return m.cv2(through(m.cv1(x).chunk(2, dim=1), m.m))


def aggregated(m: Any, x: Tensor) -> Tensor:
    """YOLOv9's GELAN (Wang et al. 2024, https://arxiv.org/abs/2402.13616)."""
    return m.cv4(through(m.cv1(x).chunk(2, dim=1), (m.cv2, m.cv3)))


def pooled(m: Any, x: Tensor) -> Tensor:
    """Pyramids of one pooling layer, over and over (SPPF)."""
    times = m.fact("n", 3)
    if times > _MOST_POOLED:
        raise ValueError(f"it pools {times} times")
    y = m.cv2(through([m.cv1(x)], [m.m] * times))
    return y + x if m.fact("add", False) else y


def pooled_thrice(m: Any, x: Tensor) -> Tensor:
    return m.cv5(through([m.cv1(x)], (m.cv2, m.cv3, m.cv4)))


def averaged_down(m: Any, x: Tensor) -> Tensor:
    return m.cv1(F.avg_pool2d(x, 2, 1, 0))


def halved_down(m: Any, x: Tensor) -> Tensor:
    first, second = F.avg_pool2d(x, 2, 1, 0).chunk(2, dim=1)
    return torch.cat([m.cv1(first), m.cv2(F.max_pool2d(second, 3, 2, 1))], dim=1)


def one_by_one(m: Any, x: Tensor) -> Tensor:
    """Its two convolutions, one after the other."""
    return m.cv2(m.cv1(x))


def attention(m: Any, x: Tensor) -> Tensor:
    """Over all places, keys narrower than values, with a convolution that knows places."""
    batch, width, height, across = x.shape
    heads, key = m.fact("num_heads"), m.fact("key_dim")
    q, k, v = m.qkv(x).view(batch, heads, -1, height * across).split([key, key, width // heads], dim=2)
    y = F.scaled_dot_product_attention(*(each.transpose(-2, -1) for each in (q, k, v)))
    y = y.transpose(-2, -1).reshape(x.shape)
    return m.proj(y + m.pe(v.reshape(x.shape)))


def area_attention(m: Any, x: Tensor) -> Tensor:
    """YOLOv12's (Tian et al. 2025, https://arxiv.org/abs/2502.12524): within each of some strips of the picture."""
    batch, width = x.shape[:2]
    heads, areas = m.fact("num_heads"), m.fact("area", 1)
    parts = m.qkv(x).view(batch, heads, 3, width // heads, areas, -1).permute(2, 0, 4, 1, 5, 3)
    y = F.scaled_dot_product_attention(*parts)
    y, v = (each.permute(0, 2, 4, 1, 3).reshape(x.shape) for each in (y, parts[2]))
    return m.proj(y + m.pe(v))


def attending(m: Any, x: Tensor) -> Tensor:
    added = m.fact("add", True)
    y = x + m.attn(x) if added else m.attn(x)
    return y + m.ffn(y) if added else m.ffn(y)


def area_attending(m: Any, x: Tensor) -> Tensor:
    y = x + m.attn(x)
    return y + m.mlp(y)


def half_attending(m: Any, x: Tensor) -> Tensor:
    """PSA and C2PSA: one half goes through attention."""
    kept, y = m.cv1(x).chunk(2, dim=1)
    if m.m is not None:
        y = m.m(y)
    else:
        y = y + m.attn(y)
        y = y + m.ffn(y)
    return m.cv2(torch.cat([kept, y], dim=1))


def residual(m: Any, x: Tensor) -> Tensor:
    """YOLOv12's R-ELAN: all blocks' results joined, and a little of them added."""
    y = m.cv2(through([m.cv1(x)], m.m))
    return y if m.gamma is None else x + m.gamma.view(1, -1, 1, 1) * y


def split_apart(m: Any, x: Tensor) -> Sequence[Tensor]:
    return m.conv(x).split([*m.fact("c2s")], dim=1)


def fused(m: Any, several: Sequence[Any]) -> Tensor:
    *others, last = several
    for each, at in zip(others, m.fact("idx"), strict=True):
        last = last + F.interpolate(each[at], size=last.shape[2:], mode="nearest")
    return last


def joined(m: Any, several: Sequence[Tensor]) -> Tensor:
    return torch.cat([*several], dim=m.fact("d", 1))


def prototypes(m: Any, several: Sequence[Tensor]) -> Tensor:
    """What masks are mixed of; of the newest networks out of all grids."""
    x = several[0]
    if m.feat_refine is not None:
        for number, each in enumerate(m.feat_refine, 1):
            x = x + F.interpolate(each(several[number]), scale_factor=2.0**number, mode="nearest")
        x = m.feat_fuse(x)
    return m.cv3(m.cv2(m.upsample(m.cv1(x))))


def head(m: Any, several: Sequence[Tensor]) -> Mapping[str, Tensor]:
    """`rows` (B, 4 + kinds + masks, cells): middle, width and height in pixels, how sure each kind is, and the weights
    of the `prototypes`. Distances to a box's sides are distributions (Li et al. 2020, "Generalized Focal Loss",
    https://arxiv.org/abs/2006.04388) or, in the newest, numbers."""
    bins, rows = m.fact("reg_max", 16), []
    of_masks = _head_of(m, "cv4")
    for at, x in enumerate(several):
        height, width = x.shape[2:]
        stride = m.stride[at]
        sides = _head_of(m, "cv2")[at](x).float().view(len(x), 4, bins, height * width)
        if bins > 1:
            steps = torch.arange(bins, dtype=sides.dtype, device=sides.device)
            sides = (sides.softmax(dim=2) * steps[:, None]).sum(dim=2)
        left, top, right, bottom = sides.view(len(x), 4, -1).unbind(1)
        y, x_of = torch.meshgrid(
            torch.arange(height, device=x.device) + 0.5,
            torch.arange(width, device=x.device) + 0.5,
            indexing="ij",
        )
        middle = x_of.flatten() + (right - left) / 2, y.flatten() + (bottom - top) / 2
        parts = [stride * torch.stack([*middle, left + right, top + bottom], dim=1)]
        parts.append(_head_of(m, "cv3")[at](x).float().sigmoid().flatten(2))
        if of_masks is not None:
            parts.append(of_masks[at](x).float().flatten(2))
        rows.append(torch.cat(parts, dim=1))
    found = {"rows": torch.cat(rows, dim=2)}
    return found if of_masks is None else {**found, "prototypes": m.proto(several).float()}


def _head_of(m: Any, name: str) -> Any:
    """The heads that answer many cells of a thing, or else the only ones that are left."""
    own = getattr(m, name)
    return getattr(m, f"one2one_{name}") if own is None else own


FORWARDS: Mapping[str, Forward] = {
    **dict.fromkeys(("Conv", "DWConv"), convolution),
    **dict.fromkeys(("RepConv", "RepVGGDW"), twofold),
    **dict.fromkeys(("Bottleneck", "RepBottleneck"), bottleneck),
    "CIB": inverted,
    **dict.fromkeys(("C3", "C3k", "RepCSP"), beside),
    **dict.fromkeys(("C2f", "C3k2", "C2fCIB"), faster),
    **dict.fromkeys(("RepNCSPELAN4", "ELAN1"), aggregated),
    "SPPF": pooled,
    "SPPELAN": pooled_thrice,
    "AConv": averaged_down,
    "ADown": halved_down,
    "SCDown": one_by_one,
    "Attention": attention,
    "AAttn": area_attention,
    "PSABlock": attending,
    "ABlock": area_attending,
    **dict.fromkeys(("PSA", "C2PSA"), half_attending),
    "A2C2f": residual,
    "CBLinear": split_apart,
    "CBFuse": fused,
    "Concat": joined,
    **dict.fromkeys(("Proto", "Proto26"), prototypes),
    **dict.fromkeys(("Detect", "v10Detect", "Segment", "Segment26"), head),
}
"""What a layer of each kind does with what it is given."""

HEADS = ("Detect", "v10Detect", "Segment", "Segment26")


class Layer(nn.Module):
    """A layer of some kind, with the parts, tensors and facts that its file gives it; a part that it lacks is None."""

    def __init__(
        self,
        forward: Forward,
        parts: Mapping[str, nn.Module],
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self._does, self._facts = forward, facts
        # Not by torch's own ways, which ask first whether there is such an attribute.
        self._modules.update(parts)
        self._buffers.update(tensors)

    def fact(self, name: str, usual: Any = None) -> Any:
        """A fact of the layer; the usual one in files that were written before there was another."""
        found = self._facts.get(name, usual)
        if found is None:
            raise ValueError(f"no {name}")
        return found

    def __getattr__(self, name: str) -> Any:
        for kept in ("_modules", "_buffers"):
            if name in (own := self.__dict__.get(kept, {})):
                return own[name]
        if name.startswith("_"):
            raise AttributeError(name)
        return None

    def forward(self, x: Any) -> Any:
        return self._does(self, x)


def plain_layer(kind: str, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module | None:
    """A layer of torch's own, by the name of its class; None for one that such networks do not have."""
    made: nn.Module
    if kind in ("Conv2d", "ConvTranspose2d"):
        weight, transposed, groups = tensors["weight"], kind == "ConvTranspose2d", facts.get("groups", 1)
        wide, narrow = weight.shape[0], weight.shape[1] * groups
        given = {name: facts[name] for name in ("stride", "padding", "dilation") if name in facts}
        given |= (
            {"output_padding": facts["output_padding"]} if transposed and "output_padding" in facts else {}
        )
        inner, outer = (wide, narrow) if transposed else (narrow, wide)
        made = getattr(nn, kind)(
            inner,
            outer,
            tuple(weight.shape[2:]),
            groups=groups,
            bias="bias" in tensors,
            device="meta",
            **given,
        )
    elif kind == "BatchNorm2d":
        made = nn.BatchNorm2d(len(tensors["running_mean"]), eps=facts.get("eps", 1e-5), device="meta")
    elif kind == "MaxPool2d":
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return nn.MaxPool2d(**{name: facts[name] for name in names if name in facts})
    elif kind == "Upsample":
        return nn.Upsample(
            **{name: facts[name] for name in ("size", "scale_factor", "mode") if name in facts}
        )
    elif kind == "ZeroPad2d":
        return nn.ZeroPad2d(facts["padding"])
    elif kind == "LeakyReLU":
        return nn.LeakyReLU(facts.get("negative_slope", 0.01))
    elif kind in ("SiLU", "ReLU", "Hardswish", "Identity", "Sigmoid"):
        made = getattr(nn, kind)()
        return made
    else:
        return None
    made.load_state_dict(tensors, strict=True, assign=True)
    return made
