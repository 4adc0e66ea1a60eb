from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import Tensor, nn

from darkroom.checkpoint.components import MMDIT
from darkroom.diffusion import Without
from darkroom.errors import ModelError
from darkroom.networks import Conditioning, MMDiT, MMDiTConfig, Residuals, attend
from darkroom.networks.altered import altered

SMALL = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 3,
    "joint_attention_dim": 20,
    "caption_projection_dim": 24,
    "pooled_projection_dim": 10,
    "pos_embed_max_size": 12,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "medium": {},
    "large": {"qk_norm": "rms_norm", "num_layers": 4},
    "medium_3_5": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1), "pos_embed_max_size": 21},
    "dual_to_the_end": {"dual_attention_layers": (1, 3), "num_layers": 4},
    "patches_of_one": {"patch_size": 1, "sample_size": 5, "num_layers": 2, "pos_embed_max_size": 24},
    "patches_of_three": {"patch_size": 3, "sample_size": 13, "out_channels": 7, "in_channels": 5},
    "one_block": {"num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 6},
}


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def inputs(config: MMDiTConfig, batch: int, rows: int, columns: int, tokens: int = 7, seed: int = 1) -> Any:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(
        batch, config.in_channels, rows * config.patch_size, columns * config.patch_size, generator=g
    )
    context = torch.randn(batch, tokens, config.joint_attention_dim, generator=g)
    pooled = torch.randn(batch, config.pooled_projection_dim, generator=g)
    return x, torch.tensor([901.0, 3.25, 421.5])[:batch], Conditioning(context, pooled)


def more(given: Any, residuals: Any = None, attention: Any = None) -> Any:
    """The same, with the network told more."""
    *others, told = given
    added = None if residuals is None else Residuals(tuple(residuals))
    return *others, dataclasses.replace(told, residuals=added, attention=attention)


def pair(variant: str, randomise: Any, seed: int = 0) -> tuple[MMDiT, SD3Transformer2DModel]:
    theirs = randomise(SD3Transformer2DModel(**SMALL | VARIANTS[variant]), seed)
    with torch.device("meta"):
        ours = MMDiT(MMDIT.read(theirs.config))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return ours.eval().requires_grad_(False), theirs


def ask(theirs: SD3Transformer2DModel, given: Any, **more: Any) -> Tensor:
    x, time, told = given
    return theirs(x, told.context, told.pooled, time, **more).sample


def outputs(network: nn.Module, run: Callable[[], Any]) -> dict[str, tuple[Tensor, ...]]:
    """What every module gave, all of it where it gives several tensors."""
    seen: dict[str, tuple[Tensor, ...]] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(_module: nn.Module, _inputs: Any, out: Any) -> None:
            if isinstance(out, Tensor | tuple):
                # An output of None stays, so that it is not taken for its neighbour.
                parts = (out,) if isinstance(out, Tensor) else out
                seen[name] = tuple(None if part is None else part.clone() for part in parts)

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in network.named_modules()]
    run()
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.peer
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("batch", "rows", "columns"), [(1, 4, 4), (3, 5, 2), (2, 1, 12), (1, 11, 7)])
def test_gives_what_its_peer_gives(variant, batch, rows, columns, randomise):
    ours, theirs = pair(variant, randomise, seed=rows)
    given = inputs(ours.config, batch, rows, columns, tokens=3 + columns, seed=columns)
    got = ours(*given)
    assert error(got, ask(theirs, given)) <= 1e-4
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.peer
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_block_and_layer_gives_what_its_peer_s_gives(variant, randomise):
    ours, theirs = pair(variant, randomise)
    given = inputs(ours.config, batch=2, rows=5, columns=3)
    mine = outputs(ours, lambda: ours(*given))
    peers = outputs(theirs, lambda: ask(theirs, given))
    last = len(ours.transformer_blocks) - 1
    compared = set()
    for name in mine.keys() & peers.keys():
        got, want = mine[name], peers[name]
        if name == f"transformer_blocks.{last}":
            assert want[0] is None  # The peer drops the text, we return it as it came.
            got, want = got[:1], want[1:]
        elif name == f"transformer_blocks.{last}.attn":
            assert got[1] is None  # And the peer returns unprojected what we drop.
            got, want = got[:1], want[:1]
        elif name in {f"transformer_blocks.{i}" for i in range(last)}:
            want = want[::-1]
        elif name.split(".")[-1] in ("norm1", "norm1_context", "norm_out"):
            continue  # Theirs apply the norm, ours return what it is scaled and shifted by.
        assert len(got) == len(want), name
        for a, b in zip(got, want, strict=True):
            assert error(a, b.view_as(a)) <= 1e-4, name
        compared.add(name)
    dual = {f"transformer_blocks.{i}.attn2" for i in ours.config.dual_attention_layers}
    blocks = {f"transformer_blocks.{i}{part}" for i in range(last + 1) for part in ("", ".attn", ".ff")}
    assert blocks | dual | {"pos_embed", "time_text_embed", "context_embedder", "proj_out"} <= compared


@pytest.mark.peer
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_residuals_are_spread_as_a_controlnet_s_are(count, randomise):
    ours, theirs = pair("large", randomise)
    given = inputs(ours.config, batch=2, rows=4, columns=6)
    g = torch.Generator().manual_seed(count)
    residuals = tuple(torch.randn(2, 24, 24, generator=g) for _ in range(count))
    kept = [residual.clone() for residual in residuals]
    want = ask(theirs, given, block_controlnet_hidden_states=residuals)
    assert error(ours(*more(given, residuals)), want) <= 1e-4
    assert error(want, ours(*given)) > 0.1
    assert all(torch.equal(a, b) for a, b in zip(residuals, kept, strict=True))


@pytest.mark.peer
def test_residuals_land_where_the_peer_s_rounding_puts_them(randomise):
    # 18 blocks and 14 residuals: block 9 would have residual 7, were it not for a last bit.
    changes = {
        "num_layers": 18,
        "attention_head_dim": 4,
        "num_attention_heads": 2,
        "caption_projection_dim": 8,
    }
    theirs = randomise(SD3Transformer2DModel(**SMALL | changes))
    ours = MMDiT(MMDIT.read(theirs.config)).eval().requires_grad_(False)
    ours.load_state_dict(theirs.state_dict())
    given = inputs(ours.config, batch=1, rows=2, columns=3)
    residuals = tuple(torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(i)) for i in range(14))
    want = ask(theirs, given, block_controlnet_hidden_states=residuals)
    assert error(ours(*more(given, residuals)), want) <= 1e-4


@pytest.mark.peer
@pytest.mark.parametrize("skip", [(0,), (1, 2), (3,), range(4)])
@pytest.mark.parametrize("controlled", [False, True])
def test_blocks_are_skipped_as_the_peer_skips_them(skip, controlled, randomise):
    ours, theirs = pair("large", randomise)
    given = inputs(ours.config, batch=1, rows=3, columns=4)
    residuals = tuple(torch.randn(2, 1, 12, 24, generator=torch.Generator().manual_seed(0)))
    residuals = residuals if controlled else None
    want = ask(theirs, given, skip_layers=list(skip), block_controlnet_hidden_states=residuals)
    told = more(given, residuals)
    with altered(ours, given[0], [Without("blocks", tuple(skip))]):
        assert error(ours(*told), want) <= 1e-4
    assert error(want, ours(*more(given, residuals))) > 0.01


@pytest.mark.peer
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("assign", [False, True])
def test_a_file_without_the_table_of_places_has_it_computed(variant, assign, randomise):
    theirs = randomise(SD3Transformer2DModel(**SMALL | VARIANTS[variant]))
    state = theirs.state_dict()
    table = state.pop("pos_embed.pos_embed")
    with torch.device("meta" if assign else "cpu"):
        ours = MMDiT(MMDIT.read(theirs.config))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(state, strict=True, assign=assign)
    assert torch.equal(ours.pos_embed.pos_embed, table)
    half = {key: value.half() for key, value in state.items()}
    with torch.device("meta"):
        ours = MMDiT(MMDIT.read(theirs.config))
        ours.load_state_dict(half, strict=True, assign=True)
    assert torch.equal(ours.pos_embed.pos_embed, table.half())


@pytest.mark.peer
def test_a_table_in_the_file_is_taken(randomise):
    theirs = randomise(SD3Transformer2DModel(**SMALL))
    plain = MMDiT(MMDIT.read(theirs.config))
    plain.load_state_dict(theirs.state_dict())
    theirs.pos_embed.pos_embed = torch.randn(1, 144, 24, generator=torch.Generator().manual_seed(5))
    ours = MMDiT(MMDIT.read(theirs.config))
    ours.load_state_dict(theirs.state_dict())
    given = inputs(ours.config, batch=1, rows=3, columns=5)
    with torch.no_grad():
        want = ask(theirs, given)
        assert error(ours(*given), want) <= 1e-4
        assert error(plain(*given), want) > 0.01


def small(randomise: Any, **changes: Any) -> MMDiT:
    return randomise(MMDiT(MMDiTConfig(**SMALL | changes)))


def test_attention_argument_sees_every_layer_and_replaces_it(randomise):
    network = small(randomise, dual_attention_layers=(0, 1), qk_norm="rms_norm")
    given = inputs(network.config, batch=2, rows=3, columns=4)
    names = []

    def spy(q, k, v, name):
        names.append(name)
        tokens = 12 if name.endswith("attn2") else 12 + 7
        assert q.shape == k.shape == v.shape == (2, 3, tokens, 8)
        return attend(q, k, v, name)

    plain = network(*given)
    assert torch.equal(network(*more(given, attention=spy)), plain)
    layers = {key.removesuffix(".to_q.weight") for key in network.state_dict() if key.endswith("to_q.weight")}
    assert set(names) == layers
    assert len(names) == len(layers) == 5
    assert error(network(*more(given, attention=lambda q, k, v, name: v)), plain) > 0.01


def test_an_attend_sees_the_picture_s_tokens_first(randomise):
    network = small(randomise, num_layers=1)
    x, time, told = inputs(network.config, batch=1, rows=3, columns=4)
    values = []

    def keep(q, k, v, name):
        values.append(v)
        return attend(q, k, v, name)

    for context in (told.context, -told.context):
        network(x, time, dataclasses.replace(told, context=context, attention=keep))
    before, after = values
    assert torch.equal(before[:, :, :12], after[:, :, :12])
    assert not torch.isclose(before[:, :, 12:], after[:, :, 12:]).any()


def test_half_precision_and_autocast(randomise):
    network = small(randomise, dual_attention_layers=(0,), qk_norm="rms_norm")
    given = inputs(network.config, batch=2, rows=4, columns=5)
    residuals = (torch.randn(2, 20, 24, generator=torch.Generator().manual_seed(0)),)
    exact = network(*more(given, residuals))
    with torch.autocast("cpu", torch.bfloat16):
        assert error(network(*more(given, residuals)).float(), exact) < 0.05
    half = network.to(torch.bfloat16)(*more(given, residuals))
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()
    assert error(half.float(), exact) < 0.05


@pytest.mark.parametrize("half", [False, True])
def test_a_new_network_predicts_nothing_and_learns(half):
    torch.manual_seed(0)
    network = MMDiT(MMDiTConfig(**SMALL | {"dual_attention_layers": (0,), "qk_norm": "rms_norm"}))
    given = inputs(network.config, batch=2, rows=4, columns=4)
    residuals = (torch.randn(2, 16, 24),)
    assert not network(*given).any()
    target = torch.randn(given[0].shape)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.3)
    losses = []
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = (network(*more(given, residuals)) - target).square().mean()
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 5), (26, 8), (8, 28)])
def test_sizes_that_do_not_fit_are_named(height, width, randomise):
    network = small(randomise)
    _, time, told = inputs(network.config, batch=1, rows=1, columns=1)
    with pytest.raises(ModelError, match=f"latents of {height}x{width} do not fit .* of 2, at most 24"):
        network(torch.zeros(1, 4, height, width), time, told)


def test_dimensions_that_do_not_fit_are_named():
    with pytest.raises(ModelError, match=r"caption_projection_dim = 1536 must equal .* = 1472"):
        MMDiTConfig(num_attention_heads=23)
    with pytest.raises(ModelError, match=r"attention_head_dim = 6 must be a multiple of 4"):
        MMDiTConfig(num_attention_heads=1, attention_head_dim=6, caption_projection_dim=6)


WIDE = {
    "medium": MMDiTConfig(num_layers=2),
    "large": MMDiTConfig(
        num_layers=2, num_attention_heads=38, caption_projection_dim=2432, qk_norm="rms_norm"
    ),
    "medium_3_5": MMDiTConfig(
        num_layers=2, pos_embed_max_size=384, dual_attention_layers=(0,), qk_norm="rms_norm"
    ),
}


@pytest.mark.peer
@pytest.mark.wide
@pytest.mark.parametrize("name", WIDE)
def test_full_width(name, randomise):
    config = WIDE[name]
    with torch.device("meta"):
        theirs, ours = SD3Transformer2DModel.from_config(MMDIT.to_json(config)), MMDiT(config)
    theirs = theirs.to_empty(device="cpu")
    state = randomise(theirs).state_dict()
    del state["pos_embed.pos_embed"]
    ours.load_state_dict(state, strict=True, assign=True)
    table = get_2d_sincos_pos_embed(config.width, config.pos_embed_max_size, base_size=64)
    theirs.pos_embed.pos_embed = table.float()[None]
    assert error(ours.pos_embed.pos_embed, theirs.pos_embed.pos_embed) <= 1e-6
    given = inputs(config, batch=1, rows=16, columns=24, tokens=154)
    with torch.inference_mode():
        wrong = error(ours(*given), ask(theirs, given))
    print(f"{name}: relative error {wrong:.1e}")
    assert wrong <= 1e-4
