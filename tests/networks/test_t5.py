from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from darkroom.checkpoint.components import T5
from darkroom.errors import ModelError
from darkroom.networks import T5Config, T5Encoder
from darkroom.networks.t5 import FeedForward, relative_buckets

SMALL = {"vocab_size": 99, "d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 3, "num_heads": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "gated": {"feed_forward_proj": "gated-gelu"},
    "first": {"feed_forward_proj": "relu"},
    "silu": {"feed_forward_proj": "gated-silu", "layer_norm_epsilon": 1e-3},
    "wide_heads": {"feed_forward_proj": "gated-gelu", "d_kv": 11, "num_heads": 5},
    "few_buckets": {
        "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": 10,
        "relative_attention_max_distance": 17,
    },
    "one_layer": {"feed_forward_proj": "gated-gelu", "num_layers": 1},
}


def error(ours: Tensor, theirs: Tensor) -> float:
    """The greatest difference beside the greatest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def peer(config: dict[str, Any], randomise: Any, seed: int = 0) -> nn.Module:
    with torch.device("meta"):
        theirs = transformers.T5EncoderModel(transformers.T5Config(**config))
    theirs = theirs.to_empty(device="cpu")
    theirs.set_input_embeddings(theirs.shared)  # One tensor under two names, as it was on the meta device.
    randomise(theirs, seed)
    table = theirs.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    nn.init.normal_(table, generator=torch.Generator().manual_seed(seed))  # Distance must matter.
    return theirs


def loaded(config: T5Config, state: dict[str, Tensor]) -> T5Encoder:
    with torch.device("meta"):
        ours = T5Encoder(config)
    ours.load_state_dict(state, strict=True, assign=True)
    return ours.eval().requires_grad_(False)


def some_ids(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 99, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.peer
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("batch", "length", "seed"), [(2, 13, 0), (1, 1, 1), (1, 300, 2)])
def test_every_module_gives_what_its_peer_gives(variant, batch, length, seed, randomise, compare_modules):
    theirs = peer(SMALL | VARIANTS[variant], randomise, seed)
    ours = loaded(T5.read(theirs.config.to_dict()), theirs.state_dict())
    ids = some_ids(batch, length, seed)
    out: dict[str, Tensor] = {}
    names = compare_modules(
        ours,
        lambda: out.update(ours=ours(ids)),
        theirs,
        lambda: out.update(theirs=theirs(ids).last_hidden_state),
    )
    assert error(out["ours"], out["theirs"]) <= 1e-4
    containers = (nn.ModuleList, nn.ModuleDict)
    uncompared = {
        name for name, module in ours.named_modules() if name and not isinstance(module, containers)
    } - names
    assert uncompared <= {"encoder"}


@pytest.mark.peer
def test_padding_is_masked_as_the_peer_masks_it(randomise):
    theirs = peer(SMALL | VARIANTS["gated"], randomise)
    ours = loaded(T5.read(theirs.config.to_dict()), theirs.state_dict())
    ids = some_ids(4, 9)
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [0] * 3 + [1] * 6, [0] * 9])
    expected = theirs(ids, attention_mask=mask).last_hidden_state
    assert error(ours(ids, mask), expected) <= 1e-4
    assert torch.equal(ours(ids, mask), ours(ids, mask.bool()))
    assert error(ours(ids, torch.ones_like(ids)), ours(ids)) <= 1e-6
    changed = ids.clone()
    changed[1, 5:] = 7
    torch.testing.assert_close(ours(changed, mask)[1, :5], ours(ids, mask)[1, :5])
    assert error(ours(changed)[1, :5], ours(ids)[1, :5]) > 0.01


@pytest.mark.peer
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (32, 100), (10, 17), (4, 2), (64, 513)])
def test_distances_fall_into_the_peer_s_buckets(buckets, furthest):
    from transformers.models.t5.modeling_t5 import T5Attention

    config = T5Config(relative_attention_num_buckets=buckets, relative_attention_max_distance=furthest)
    places = torch.arange(700)
    expected = T5Attention._relative_position_bucket(
        places - places[:, None], num_buckets=buckets, max_distance=furthest
    )
    ours = relative_buckets(config, 700, torch.device("cpu"))
    assert torch.equal(ours, expected)
    assert set(ours.unique().tolist()) <= set(range(buckets))


def test_a_file_may_hold_the_embedding_under_either_name_or_both(randomise):
    config = T5Config(**SMALL)
    whole = randomise(T5Encoder(config)).state_dict()
    assert "shared.weight" in whole
    assert "encoder.embed_tokens.weight" not in whole
    other = dict(whole)
    other["encoder.embed_tokens.weight"] = other.pop("shared.weight")
    both = other | {"shared.weight": whole["shared.weight"]}
    ids = some_ids(1, 5)
    first, *others = (loaded(config, state)(ids) for state in (whole, other, both))
    assert all(torch.equal(first, again) for again in others)
    with pytest.raises(RuntimeError, match=r"shared\.weight"):
        loaded(config, {key: value for key, value in whole.items() if key != "shared.weight"})


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@pytest.mark.parametrize("variant", ["gated", "first"])
def test_half_precision(dtype, limit, variant, randomise, relative_error):
    ours = randomise(T5Encoder(T5Config(**SMALL | VARIANTS[variant])))
    ids = some_ids(2, 11)
    exact = ours(ids)
    half = ours.to(dtype)(ids)
    assert half.dtype == dtype
    assert relative_error(half, exact) < limit


@pytest.mark.parametrize("variant", ["gated", "first"])
def test_float16_holds_states_beyond_its_range(variant, randomise, relative_error):
    """As in T5-XXL: a few inner states are so large that their products and sums leave float16's range."""
    ours = randomise(T5Encoder(T5Config(**SMALL | VARIANTS[variant])))
    for module in ours.modules():
        if isinstance(module, FeedForward):
            inner = (module.wi_0, module.wi_1) if module.gated else (module.wi, module.wo)
            for layer in inner:
                layer.weight[:3] *= 1000
    seen: list[float] = []
    for block in ours.encoder.block:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output.abs().max().item()))
    ids = some_ids(2, 11)
    exact = ours(ids)
    assert min(seen) > 65504
    half = ours.half()(ids)
    assert half.isfinite().all()
    assert relative_error(half, exact) < 0.05


def test_training_reaches_every_weight(randomise):
    ours = randomise(T5Encoder(T5Config(**SMALL))).requires_grad_(True)
    ours(some_ids(2, 11)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in ours.parameters())


def test_buckets_that_tell_no_distances_apart_are_refused():
    for buckets, furthest in ((3, 128), (0, 128), (32, 8), (32, 0)):
        with pytest.raises(ModelError, match=f"relative_attention_num_buckets = {buckets}"):
            T5Config(relative_attention_num_buckets=buckets, relative_attention_max_distance=furthest)


@pytest.mark.peer
@pytest.mark.wide
def test_full_width(randomise):
    config = T5.to_json(T5Config(num_layers=2))
    theirs = peer(config, randomise)
    ours = loaded(T5.read(config), theirs.state_dict())
    ids = torch.randint(0, 32128, (1, 77))
    with torch.inference_mode():
        got, want = ours(ids), theirs(ids).last_hidden_state
    print(f"relative error {error(got, want):.1e}")
    assert error(got, want) <= 1e-4
