from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import (
    LatentConsistencyModelPipeline,
)
from torch.nn import functional as F

from darkroom.checkpoint.components import UNET
from darkroom.errors import ModelError
from darkroom.networks import Conditioning, Residuals, UNet, UNetConfig
from darkroom.networks.layers import attend, guidance_embedding, timestep_embedding

CROSS_DOWN, DOWN, CROSS_UP, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
THREE = {
    "block_out_channels": (16, 32, 48),
    "down_block_types": (CROSS_DOWN, CROSS_DOWN, DOWN),
    "up_block_types": (UP, CROSS_UP, CROSS_UP),
    "cross_attention_dim": 12,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "layers_per_block": 2,
}
XL = {
    "down_block_types": (DOWN, CROSS_DOWN, CROSS_DOWN),
    "up_block_types": (CROSS_UP, CROSS_UP, UP),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 6),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 10,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sd2": {"attention_head_dim": (2, 4, 6), "use_linear_projection": True},
    "inpainting": {"in_channels": 9},
    "instruct_pix2pix": {"in_channels": 8},
    "depth": {"in_channels": 5, "use_linear_projection": True},
    "unclip": {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 20},
    "upscaler": {
        "in_channels": 7,
        "num_class_embeds": 1000,
        "only_cross_attention": (True, True, False),
        "down_block_types": (DOWN, CROSS_DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, CROSS_UP, UP),
        "use_linear_projection": True,
    },
    "noise_level": {"class_embed_type": "timestep"},
    "xl": XL,
    "refiner": XL
    | {
        "down_block_types": (DOWN, CROSS_DOWN, DOWN),
        "up_block_types": (UP, CROSS_UP, UP),
        "transformer_layers_per_block": 2,
        "projection_class_embeddings_input_dim": 5 * 8 + 10,
    },
    "asymmetric": {
        "transformer_layers_per_block": (1, (2, 1), 1),
        "reverse_transformer_layers_per_block": (1, (1, 2, 3), 2),
    },
    "layers": {"layers_per_block": (1, 3, 2)},
    "lcm": {"time_cond_proj_dim": 14},
    "no_mid": {"mid_block_type": None},
    "plain_mid": {"mid_block_type": "UNetMidBlock2D"},
    "two_levels": {
        "block_out_channels": (16, 32),
        "down_block_types": (DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, UP),
        "layers_per_block": 1,
    },
    "eps": {"norm_eps": 1e-3, "norm_num_groups": 4},
}


def inputs(config: UNetConfig, batch: int = 2, height: int = 12, width: int = 8, tokens: int = 7) -> Any:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.in_channels, height, width, generator=g)
    context = torch.randn(batch, tokens, config.cross_attention_dim, generator=g)
    time = torch.tensor([901.0, 3.0, 421.5])[:batch]
    told: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    if config.addition_embed_type:
        count = (config.projection_class_embeddings_input_dim - 10) // 8
        pooled, ids = torch.randn(batch, 10, generator=g), torch.randint(0, 1024, (batch, count), generator=g)
        told |= {"pooled": pooled, "sizes": ids}
        theirs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids}
    if config.class_embed_type == "projection":
        labels = torch.randn(batch, config.projection_class_embeddings_input_dim, generator=g)
    else:
        labels = torch.tensor([20, 350, 7])[:batch]
    if config.class_embed_type or config.num_class_embeds:
        told["labels"] = labels
        theirs["class_labels"] = labels
    if config.time_cond_proj_dim:
        scales = torch.tensor([7.5, 1.0, 3.0])[:batch]
        told["guidance"] = scales
        theirs["timestep_cond"] = guidance_embedding(scales, config.time_cond_proj_dim)
    return (x, time, Conditioning(context, **told)), {"encoder_hidden_states": context, **theirs}


def more(given: Any, **parts: Any) -> Any:
    """The same, with the network told more."""
    *others, told = given
    return *others, dataclasses.replace(told, **parts)


def pair(variant: str, randomise: Any) -> tuple[UNet, UNet2DConditionModel]:
    theirs = randomise(UNet2DConditionModel(**THREE | VARIANTS[variant]))
    with torch.device("meta"):
        ours = UNet(UNET.read(theirs.config))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return ours.eval().requires_grad_(False), theirs


@pytest.mark.peer
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_module_gives_what_its_peer_gives(variant, randomise, compare_modules, close):
    ours, theirs = pair(variant, randomise)
    mine, kwargs = inputs(ours.config)
    out = {}
    names = compare_modules(
        ours,
        lambda: out.update(ours=ours(*mine)),
        theirs,
        lambda: out.update(theirs=theirs(mine[0], mine[1], **kwargs).sample),
    )
    close(out["ours"], out["theirs"])
    blocks = {n for n, _ in ours.named_modules() if n.split(".")[-1].isdigit() and "net" not in n.split(".")}
    returns_states = {f"down_blocks.{i}" for i in range(len(ours.config.block_out_channels))}
    assert blocks - returns_states <= names


@pytest.mark.peer
@pytest.mark.parametrize(
    ("variant", "height", "width"),
    [("sd1", 9, 14), ("sd1", 11, 5), ("sd1", 1, 3), ("xl", 7, 16), ("xl", 11, 5), ("layers", 9, 14)],
)
def test_sizes_that_do_not_halve_evenly(variant, height, width, randomise, close):
    ours, theirs = pair(variant, randomise)
    mine, kwargs = inputs(ours.config, batch=1, height=height, width=width, tokens=77)
    close(ours(*mine), theirs(mine[0], mine[1], **kwargs).sample)


@pytest.mark.peer
@pytest.mark.parametrize("variant", ["sd1", "xl"])
def test_residuals_are_added_as_a_controlnet_s_are(variant, randomise, close, relative_error):
    ours, theirs = pair(variant, randomise)
    mine, kwargs = inputs(ours.config, batch=3)
    shapes = []
    hooks = [
        block.register_forward_hook(lambda _m, _i, out: shapes.extend(s.shape for s in out[1]))
        for block in theirs.down_blocks
    ]
    plain = theirs(mine[0], mine[1], **kwargs).sample
    for hook in hooks:
        hook.remove()
    g = torch.Generator().manual_seed(2)
    first = (len(mine[0]), ours.config.block_out_channels[0], *mine[0].shape[2:])
    down = tuple(torch.randn(shape, generator=g) for shape in [first, *shapes])
    mid = torch.randn(shapes[-1], generator=g)
    want = theirs(
        mine[0],
        mine[1],
        down_block_additional_residuals=down,
        mid_block_additional_residual=mid,
        **kwargs,
    ).sample
    assert relative_error(want, plain) > 0.1
    close(ours(*more(mine, residuals=Residuals(down, mid))), want)


@pytest.mark.peer
def test_time_embedding_and_guidance_embedding(close):
    times = torch.tensor([0.0, 1.0, 17.25, 500.0, 999.0])
    close(timestep_embedding(times, 32), get_timestep_embedding(times, 32, True, 0))
    embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    close(guidance_embedding(times, 256), embed(None, times, 256))


def small(**changes: Any) -> UNet:
    torch.manual_seed(0)
    return UNet(
        UNetConfig(
            block_out_channels=(16, 32),
            transformer_layers_per_block=(1, 1),
            num_attention_heads=2,
            cross_attention_dim=12,
            norm_num_groups=8,
            **changes,
        )
    )


@pytest.mark.parametrize("half", [False, True])
def test_a_new_network_predicts_nothing_and_learns(half):
    unet = small()
    mine, _ = inputs(unet.config)
    assert not unet(*mine).any()
    target = torch.randn(mine[0].shape)
    optimiser = torch.optim.SGD(unet.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = (unet(*mine) - target).square().mean()
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize("causal", [False, True])
def test_plain_and_fused_attention_agree_on_values_and_gradients(causal, close):
    q, k, v = (torch.randn(2, 3, 10, 8, requires_grad=True) for _ in range(3))
    plain = attend(q, k, v, causal=causal)
    fused = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    assert "ScaledDotProduct" in fused.grad_fn.name()
    assert "ScaledDotProduct" not in plain.grad_fn.name()
    close(plain.detach(), fused.detach())
    gradients = [torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (plain, fused)]
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, theirs)


def test_attention_argument_sees_every_layer_and_replaces_it(randomise, close, relative_error):
    unet = randomise(small())
    mine, _ = inputs(unet.config)
    names = []

    def spy(q, k, v, name):
        names.append(name)
        assert q.shape[:2] == k.shape[:2] == (2, 2)
        return attend(q, k, v, name)

    plain = unet(*mine)
    assert torch.equal(unet(*more(mine, attention=spy)), plain)
    layers = {key.removesuffix(".to_q.weight") for key in unet.state_dict() if key.endswith(".to_q.weight")}
    assert set(names) == layers
    assert len(names) == len(layers)
    values = unet(*more(mine, attention=lambda q, k, v, name: v[:, :, :1].expand_as(q)))
    assert relative_error(values, plain) > 0.01


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_channels_last_and_autocast(layout, randomise, relative_error):
    unet = randomise(small())
    mine, _ = inputs(unet.config)
    exact = unet(*mine)
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_error(unet(*mine), exact) < 0.05
    half = unet.to(torch.bfloat16, memory_format=layout)
    x = mine[0].to(memory_format=layout)
    got = half(x, *mine[1:])
    assert got.dtype == torch.bfloat16
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert relative_error(got, exact) < 0.05


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({"num_class_embeds": 10}, "labels"),
        (
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 58,
            },
            "pooled",
        ),
    ],
)
def test_missing_conditioning_is_named(changes, needs):
    unet = small(**changes)
    x = torch.zeros(1, 4, 8, 8)
    with pytest.raises(ModelError, match=f"Conditioning.{needs}"):
        unet(x, torch.zeros(1), Conditioning(torch.zeros(1, 3, 12)))


def test_tuples_of_the_wrong_length_are_named():
    with pytest.raises(ModelError, match=r"num_attention_heads = \(8, 8\) needs 4 entries"):
        UNetConfig(num_attention_heads=(8, 8))
    with pytest.raises(ModelError, match=r"\(1, 2, 3\) of one level need 2 entries"):
        UNetConfig(transformer_layers_per_block=((1, 2, 3), 1, 1, 1))
    with pytest.raises(ModelError, match="num_attention_heads = 3 must divide 320"):
        UNetConfig(num_attention_heads=3)


WIDE = {
    "sd15": (UNetConfig(), 64),
    "sdxl": (
        UNetConfig(
            block_out_channels=(320, 640, 1280),
            transformer_layers_per_block=(0, 2, 10),
            mid_transformer_layers=10,
            num_attention_heads=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        32,
    ),
    # Few layers: whole, it takes nine gigabytes.
    "refiner": (
        UNetConfig(
            block_out_channels=(384, 768, 1536, 1536),
            layers_per_block=1,
            transformer_layers_per_block=(0, 1, 1, 0),
            mid_transformer_layers=1,
            num_attention_heads=(6, 12, 24, 24),
            cross_attention_dim=1280,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2560,
        ),
        16,
    ),
    "upscaler": (
        UNetConfig(
            in_channels=7,
            block_out_channels=(256, 512, 512, 1024),
            transformer_layers_per_block=(0, 1, 1, 1),
            cross_attention_dim=1024,
            only_cross_attention=(True, True, True, False),
            use_linear_projection=True,
            num_class_embeds=1000,
        ),
        32,
    ),
}


@pytest.mark.peer
@pytest.mark.wide
@pytest.mark.parametrize("name", WIDE)
def test_full_width(name, randomise, relative_error):
    config, size = WIDE[name]
    data = UNET.to_json(config)
    assert UNET.read(data) == config
    with torch.device("meta"):
        theirs, ours = UNet2DConditionModel.from_config(data), UNet(config)
    theirs = randomise(theirs.to_empty(device="cpu"))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    g = torch.Generator().manual_seed(1)
    x = torch.randn(1, config.in_channels, size, size, generator=g)
    time, context = torch.tensor([601.0]), torch.randn(1, 77, config.cross_attention_dim, generator=g)
    count = ((config.projection_class_embeddings_input_dim or 0) - 1280) // 256
    pooled, ids = torch.randn(1, 1280, generator=g), torch.tensor([[1024, 768, 16, 0, 512, 640][:count]])
    labels = torch.tensor([20]) if config.num_class_embeds else None
    with torch.inference_mode():
        mine = ours(x, time, Conditioning(context, pooled, ids, labels))
        told = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}, "class_labels": labels}
        error = relative_error(mine, theirs(x, time, context, **told).sample)
    print(f"{name}: relative error {error:.1e}")
    assert error <= 1e-4
