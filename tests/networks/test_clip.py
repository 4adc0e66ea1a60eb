from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from darkroom.checkpoint.components import CLIP_TEXT, CLIP_VISION
from darkroom.networks import CLIPText, CLIPTextConfig, CLIPVision, CLIPVisionConfig

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "projection_dim": 10,
}
TEXTS: dict[str, dict[str, Any]] = {
    "sd1": {"vocab_size": 99, "eos_token_id": 98},
    "legacy_end": {"vocab_size": 99, "eos_token_id": 2},
    "gelu": {"vocab_size": 99, "eos_token_id": 98, "hidden_act": "gelu", "layer_norm_eps": 1e-3},
    "end_not_highest": {"vocab_size": 99, "eos_token_id": 50},
}
IDS = torch.tensor([[97, 5, 50, 8, 98, 98, 98, 98], [97, 50, 98, 0, 0, 0, 0, 0], [97, 1, 2, 3, 4, 5, 50, 98]])


def published_keys(peer: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """A state dict as published folders have it: newer transformers leave the tower's name out."""
    return {
        key if key.startswith((prefix, "text_projection", "visual_projection")) else prefix + key: value
        for key, value in peer.state_dict().items()
        if not key.endswith("position_ids")
    }


def pair(peer: nn.Module, ours: type[nn.Module], config: Any, prefix: str, randomise: Any) -> nn.Module:
    randomise(peer)
    with torch.device("meta"):
        network = ours(config)
    network.load_state_dict(published_keys(peer, prefix), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def as_published(config: Any, name: str) -> dict[str, Any]:
    return config.to_dict() | {"architectures": [name]}


@pytest.mark.peer
@pytest.mark.parametrize("variant", TEXTS)
@pytest.mark.parametrize("projected", [False, True])
def test_text(variant, projected, randomise, close):
    name = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
    config = transformers.CLIPTextConfig(**SMALL, **TEXTS[variant], max_position_embeddings=8)
    theirs = getattr(transformers, name)(config)
    ours = pair(theirs, CLIPText, CLIP_TEXT.read(as_published(config, name)), "text_model.", randomise)
    for ids in (IDS, IDS[:1, :6]):
        got, want = ours(ids), theirs(ids, output_hidden_states=True)
        assert len(got.hidden_states) == len(want.hidden_states) == 4
        for mine, peers in zip(got.hidden_states, want.hidden_states, strict=True):
            close(mine, peers)
        close(got.last, want.last_hidden_state)
        close(got.last, ours.final_norm(got.hidden_states[-1]))
        if projected:
            close(got.projected, want.text_embeds)
        else:
            close(got.pooled, want.pooler_output)
            assert got.projected is None


def test_the_first_end_token_is_the_end():
    config = {k: v for k, v in SMALL.items() if k != "projection_dim"}
    assert CLIPText(CLIPTextConfig(**config, eos_token_id=98)).end(IDS).tolist() == [4, 2, 7]
    assert CLIPText(CLIPTextConfig(**config, eos_token_id=2)).end(IDS).tolist() == [4, 2, 7]
    assert CLIPText(CLIPTextConfig(**config, eos_token_id=50)).end(IDS).tolist() == [2, 1, 6]


def test_later_tokens_do_not_change_earlier_states(randomise):
    config = CLIPTextConfig(**SMALL, vocab_size=99, eos_token_id=98)
    ours = randomise(CLIPText(config))
    changed = IDS.clone()
    changed[:, 5:] = 7
    for trained in (False, True):  # Training takes another path through attention.
        ours.requires_grad_(trained)
        before, after = ours(IDS).last, ours(changed).last
        torch.testing.assert_close(before[:, :5], after[:, :5])
        assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.peer
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("projected", [False, True])
def test_vision(act, projected, randomise, close):
    name = "CLIPVisionModelWithProjection" if projected else "CLIPVisionModel"
    config = transformers.CLIPVisionConfig(**SMALL, hidden_act=act, image_size=20, patch_size=4)
    theirs = getattr(transformers, name)(config)
    ours = pair(theirs, CLIPVision, CLIP_VISION.read(as_published(config, name)), "vision_model.", randomise)
    pixels = torch.randn(3, 3, 20, 20)
    got, want = ours(pixels), theirs(pixels, output_hidden_states=True)
    assert len(got.hidden_states) == len(want.hidden_states) == 4
    for mine, peers in zip(got.hidden_states, want.hidden_states, strict=True):
        close(mine, peers)
    close(got.last, want.last_hidden_state)
    if projected:
        close(got.projected, want.image_embeds)
    else:
        close(got.pooled, want.pooler_output)
        assert got.projected is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision(layout, randomise, relative_error):
    text = randomise(CLIPText(CLIPTextConfig(**SMALL, vocab_size=99, eos_token_id=98)))
    vision = randomise(CLIPVision(CLIPVisionConfig(**SMALL, image_size=8, patch_size=4)))
    pixels = torch.randn(2, 3, 8, 8)
    for network, given in ((text, IDS), (vision, pixels)):
        exact = network(given).projected
        half = network.to(torch.bfloat16, memory_format=layout)(given).projected
        assert half.dtype == torch.bfloat16
        assert relative_error(half, exact) < 0.05


WIDE = {
    "clip_l_text": CLIPTextConfig(),
    "openclip_h_text": CLIPTextConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        hidden_act="gelu",
    ),
    "openclip_g_text": CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        hidden_act="gelu",
        projection_dim=1280,
        eos_token_id=2,
    ),
    "clip_l_vision": CLIPVisionConfig(),
}


@pytest.mark.peer
@pytest.mark.wide
@pytest.mark.parametrize("name", WIDE)
def test_full_width(name, randomise, relative_error):
    config = WIDE[name]
    text = isinstance(config, CLIPTextConfig)
    data = CLIP_TEXT.to_json(config) if text else CLIP_VISION.to_json(config)
    kind = transformers.CLIPTextConfig if text else transformers.CLIPVisionConfig
    with torch.device("meta"):
        theirs = getattr(transformers, data["architectures"][0])(kind(**data))
    theirs = theirs.to_empty(device="cpu")
    for module in theirs.modules():  # Buffers that no file holds.
        if hasattr(module, "position_ids"):
            module.position_ids.copy_(torch.arange(module.position_ids.shape[-1]))
    prefix = "text_model." if text else "vision_model."
    ours = pair(theirs, CLIPText if text else CLIPVision, config, prefix, randomise)
    given = torch.randint(0, 49406, (2, 77)) if text else torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        got, want = ours(given), theirs(given, output_hidden_states=True)
    projected = want.text_embeds if text and config.projection_dim else getattr(want, "image_embeds", None)
    pairs = [*zip(got.hidden_states, want.hidden_states, strict=True), (got.last, want.last_hidden_state)]
    pairs.append((got.pooled, want.pooler_output) if projected is None else (got.projected, projected))
    error = max(relative_error(a, b) for a, b in pairs)
    print(f"{name}: relative error {error:.1e}")
    assert error <= 1e-4
