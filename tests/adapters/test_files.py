"""How files spell a layer, and what they say of it: keys as trainers write them, values by their papers' formulas."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import darkroom
from darkroom.adapters.adapter import Adapter, deltas, read_adapter
from darkroom.adapters.applied import applied
from darkroom.adapters.describe import describe_adapter
from darkroom.adapters.dose import Dose
from darkroom.adapters.merged import Merged
from darkroom.errors import ModelError
from darkroom.networks import UNet

pytestmark = pytest.mark.peer
Q, K, V, OUT = "to_q", "to_k", "to_v", "to_out.0"


@pytest.fixture(scope="module")
def networks(folder: Callable[[str], Path]) -> Callable[[str], dict[str, nn.Module]]:
    loaded: dict[str, dict[str, nn.Module]] = {}

    def get(name: str) -> dict[str, nn.Module]:
        if name not in loaded:
            model = darkroom.load(folder(name), device="cpu", precision="float32")
            loaded[name] = model._networks.experts[0].networks
        return loaded[name]

    return get


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def read(
    path: Path, tensors: Mapping[str, Tensor], networks: Mapping[str, nn.Module], **metadata: str
) -> Adapter:
    save_file(
        {key: tensor.clone() for key, tensor in tensors.items()},
        path / "it.safetensors",
        metadata or None,
    )
    return read_adapter(path / "it.safetensors", networks, "the model")


def found(adapter: Adapter, networks: Mapping[str, nn.Module], leaf: str = "weight") -> dict[str, Tensor]:
    """What an adapter adds, by network and layer."""
    changes = {}
    for role, by_place in adapter.patches.items():
        for place, layered in by_place.items():
            patch = layered.weight if leaf == "weight" else layered.bias
            if patch is not None:
                for layer, delta in zip(
                    place.layers, deltas(patch, place, networks[role], leaf), strict=True
                ):
                    changes[f"{role}.{layer}"] = delta
    return changes


LORA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
TEXT = "text_model.encoder.layers.1"
SPELLINGS = [
    # kohya, LyCORIS and OneTrainer: underscores, the layers as in diffusers.
    ("sd1", f"lora_unet_{ATTENTION.replace('.', '_')}_attn1_to_q", LORA, f"unet.{ATTENTION}.attn1.to_q"),
    ("sd1", "lora_unet_mid_block_attentions_0_proj_in", LORA, "unet.mid_block.attentions.0.proj_in"),
    ("sd1", "lora_unet_down_blocks_0_resnets_0_conv1", LORA, "unet.down_blocks.0.resnets.0.conv1"),
    ("sd1", "lycoris_up_blocks_0_upsamplers_0_conv", LORA, "unet.up_blocks.0.upsamplers.0.conv"),
    ("sd1", "lora_unet_conv_in", LORA, "unet.conv_in"),
    ("sd1", "lora_unet_time_embedding_linear_1", LORA, "unet.time_embedding.linear_1"),
    ("sd1", "lora_te_text_model_encoder_layers_1_mlp_fc1", LORA, f"text_encoder.{TEXT}.mlp.fc1"),
    (
        "sd1",
        "lora_te1_text_model_encoder_layers_1_self_attn_out_proj",
        LORA,
        f"text_encoder.{TEXT}.self_attn.out_proj",
    ),
    (
        "sd2",
        "lora_te_text_model_encoder_layers_1_self_attn_k_proj",
        LORA,
        f"text_encoder.{TEXT}.self_attn.k_proj",
    ),
    (
        "sdxl",
        "lora_te2_text_model_encoder_layers_1_self_attn_v_proj",
        LORA,
        f"text_encoder_2.{TEXT}.self_attn.v_proj",
    ),
    ("sdxl", "lora_te2_text_projection", LORA, "text_encoder_2.text_projection"),
    # diffusers of all ages, PEFT.
    ("sd1", f"unet.{ATTENTION}.attn2.to_k", PEFT, f"unet.{ATTENTION}.attn2.to_k"),
    ("sd1", f"base_model.model.{ATTENTION}.attn2.to_v", PEFT, f"unet.{ATTENTION}.attn2.to_v"),
    ("sd1", f"base_model.model.{TEXT}.self_attn.q_proj", PEFT, f"text_encoder.{TEXT}.self_attn.q_proj"),
    (
        "sd1",
        f"unet.{ATTENTION}.attn1.processor.to_out_lora",
        (".down.weight", ".up.weight"),
        f"unet.{ATTENTION}.attn1.to_out.0",
    ),
    (
        "sd1",
        f"{ATTENTION}.attn1.processor.to_q_lora",
        (".down.weight", ".up.weight"),
        f"unet.{ATTENTION}.attn1.to_q",
    ),
    (
        "sd1",
        f"text_encoder.{TEXT}.self_attn.q_proj.lora_linear_layer",
        (".down.weight", ".up.weight"),
        f"text_encoder.{TEXT}.self_attn.q_proj",
    ),
    (
        "sd1",
        f"text_encoder.{TEXT}.self_attn.to_out_lora",
        (".down.weight", ".up.weight"),
        f"text_encoder.{TEXT}.self_attn.out_proj",
    ),
    (
        "sd1",
        f"unet.{ATTENTION}.attn1.to_out.0.lora",
        (".down.weight", ".up.weight"),
        f"unet.{ATTENTION}.attn1.to_out.0",
    ),
    (
        "sd1",
        f"unet.{ATTENTION}.ff.net.2",
        (".lora_A.default_0.weight", ".lora_B.default_0.weight"),
        f"unet.{ATTENTION}.ff.net.2",
    ),
    # Stability's layout, with underscores as kohya's XL files have it, with dots as ComfyUI's.
    (
        "sdxl",
        "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k",
        LORA,
        "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
    ),
    ("sdxl", "lora_unet_middle_block_1_proj_out", LORA, "unet.mid_block.attentions.0.proj_out"),
    ("sdxl", "lora_unet_output_blocks_0_0_in_layers_2", LORA, "unet.up_blocks.0.resnets.0.conv1"),
    ("sdxl", "lora_unet_input_blocks_1_0_emb_layers_1", LORA, "unet.down_blocks.0.resnets.0.time_emb_proj"),
    ("sdxl", "lora_unet_time_embed_0", LORA, "unet.time_embedding.linear_1"),
    ("sdxl", "lora_unet_label_emb_0_0", LORA, "unet.add_embedding.linear_1"),
    ("sdxl", "lora_unet_out_2", LORA, "unet.conv_out"),
    ("sdxl", "lora_unet_input_blocks_2_0_op", LORA, "unet.down_blocks.0.downsamplers.0.conv"),
    ("sdxl", "diffusion_model.middle_block.1.proj_in", LORA, "unet.mid_block.attentions.0.proj_in"),
    # Kohya's OFT, OneTrainer's OMI names, LyCORIS's own wrapper, OpenCLIP's layers, bare PEFT.
    ("sd1", f"oft_unet_{ATTENTION.replace('.', '_')}_attn1_to_q", LORA, f"unet.{ATTENTION}.attn1.to_q"),
    ("sdxl", "unet.middle_block.1.proj_in", LORA, "unet.mid_block.attentions.0.proj_in"),
    ("sdxl", f"clip_g.{TEXT}.mlp.fc1", LORA, f"text_encoder_2.{TEXT}.mlp.fc1"),
    ("sd1", f"clip_l.{TEXT}.mlp.fc2", LORA, f"text_encoder.{TEXT}.mlp.fc2"),
    ("sd1", f"lycoris_{TEXT.replace('.', '_')}_mlp_fc2", LORA, f"text_encoder.{TEXT}.mlp.fc2"),
    ("sd2", "lora_te_model_transformer_resblocks_1_mlp_c_fc", LORA, f"text_encoder.{TEXT}.mlp.fc1"),
    ("sd1", f"unet.base_model.model.{ATTENTION}.attn2.to_v", PEFT, f"unet.{ATTENTION}.attn2.to_v"),
    ("sd1", f"unet.{ATTENTION}.attn2.to_v", (".lora_A", ".lora_B"), f"unet.{ATTENTION}.attn2.to_v"),
    # Stable Diffusion 3.
    (
        "sd3",
        "lycoris_transformer_blocks_0_attn_to_k",
        LORA,
        "transformer.transformer_blocks.0.attn.to_k",
    ),
    (
        "sd3",
        "t5.encoder.block.0.layer.1.DenseReluDense.wi_0",
        LORA,
        "text_encoder_3.encoder.block.0.layer.1.DenseReluDense.wi_0",
    ),
    (
        "sd35-medium",
        "lora_unet_joint_blocks_0_x_block_attn2_proj",
        LORA,
        "transformer.transformer_blocks.0.attn2.to_out.0",
    ),
    (
        "sd3",
        "transformer.transformer_blocks.1.attn.add_k_proj",
        PEFT,
        "transformer.transformer_blocks.1.attn.add_k_proj",
    ),
    (
        "sd3",
        "lora_transformer_transformer_blocks_0_ff_net_0_proj",
        LORA,
        "transformer.transformer_blocks.0.ff.net.0.proj",
    ),
    ("sd3", "lora_unet_joint_blocks_0_x_block_mlp_fc2", LORA, "transformer.transformer_blocks.0.ff.net.2"),
    (
        "sd3",
        "lora_unet_joint_blocks_1_context_block_attn_proj",
        LORA,
        "transformer.transformer_blocks.1.attn.to_add_out",
    ),
    ("sd3", "diffusion_model.context_embedder", LORA, "transformer.context_embedder"),
    (
        "sd3",
        "lora_te1_text_model_encoder_layers_0_mlp_fc2",
        LORA,
        "text_encoder.text_model.encoder.layers.0.mlp.fc2",
    ),
    (
        "sd3",
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
        LORA,
        "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q",
    ),
    (
        "sd3",
        "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1",
        LORA,
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
    ),
]


@pytest.mark.parametrize(("name", "key", "suffixes", "layer"), SPELLINGS, ids=[each[1] for each in SPELLINGS])
def test_spellings(
    networks: Any, name: str, key: str, suffixes: tuple[str, str], layer: str, tmp_path: Path
) -> None:
    own = networks(name)
    role, _, rest = layer.partition(".")
    weight = own[role].get_submodule(rest).weight
    kernel = weight.shape[2:]
    down, up = noise(2, weight.shape[1], *kernel), noise(weight.shape[0], 2, *(1 for _ in kernel), seed=1)
    adapter = read(tmp_path, {key + suffixes[0]: down, key + suffixes[1]: up}, own)
    ((at, delta),) = found(adapter, own).items()
    assert at == layer
    torch.testing.assert_close(delta, (up.flatten(1) @ down.flatten(1)).reshape(weight.shape))


@pytest.mark.parametrize(
    "key", ["lora_unet_joint_blocks_0_x_block_attn_qkv", "diffusion_model.joint_blocks.0.x_block.attn.qkv"]
)
def test_fused_queries_keys_and_values(networks: Any, key: str, tmp_path: Path) -> None:
    own = networks("sd3")
    down, up = noise(2, 128), noise(384, 2, seed=1)
    adapter = read(tmp_path, {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, own)
    changes = found(adapter, own)
    names = [f"transformer.transformer_blocks.0.attn.{each}" for each in (Q, K, V)]
    assert list(changes) == names
    torch.testing.assert_close(torch.cat([changes[name] for name in names]), up @ down)


def test_halves_that_stability_keeps_the_other_way_round(networks: Any, tmp_path: Path) -> None:
    """The last modulation: shift, then scale there; scale, then shift here."""
    own = networks("sd3")
    key = "lora_unet_final_layer_adaLN_modulation_1"
    down, up = noise(2, 128), noise(256, 2, seed=1)
    adapter = read(tmp_path, {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, own)
    shift, scale = (up @ down).chunk(2)
    torch.testing.assert_close(found(adapter, own)["transformer.norm_out.linear"], torch.cat([scale, shift]))


LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "unet.down_blocks.0.resnets.0.conv1"


def formula(networks: Any, path: Path, layer: str, parts: Mapping[str, Tensor], leaf: str = "weight") -> Any:
    own = networks("sd1")
    key = f"lora_unet_{layer.removeprefix('unet.').replace('.', '_')}"
    adapter = read(path, {f"{key}.{part}": tensor for part, tensor in parts.items()}, own)
    return found(adapter, own, leaf)[layer], own["unet"].get_submodule(layer.removeprefix("unet.")).weight


def test_alpha(networks: Any, tmp_path: Path) -> None:
    down, up = noise(4, 64), noise(64, 4, seed=1)
    parts = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.0)}
    torch.testing.assert_close(formula(networks, tmp_path, LAYER, parts)[0], up @ down / 4)


def test_a_convolution_of_three(networks: Any, tmp_path: Path) -> None:
    """LoCon's Tucker decomposition: 1x1, then 3x3 between few channels, then 1x1."""
    x = noise(1, 32, 6, 6, seed=7)
    down, mid, up = noise(4, 32, 1, 1), noise(4, 4, 3, 3, seed=1), noise(32, 4, 1, 1, seed=2)
    parts = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
    delta, _ = formula(networks, tmp_path, CONV, parts)
    conv = torch.nn.functional.conv2d
    torch.testing.assert_close(
        conv(x, delta, padding=1), conv(conv(conv(x, down), mid, padding=1), up), atol=1e-3, rtol=1e-4
    )


def test_a_weight_s_difference_and_its_bias(networks: Any, tmp_path: Path) -> None:
    parts = {"diff": noise(32, 32, 3, 3), "diff_b": noise(32, seed=1)}
    assert torch.equal(formula(networks, tmp_path, CONV, parts)[0], parts["diff"])
    assert torch.equal(formula(networks, tmp_path, CONV, parts, "bias")[0], parts["diff_b"])


def test_a_norm_s_difference(networks: Any, tmp_path: Path) -> None:
    parts = {"w_norm": noise(32), "b_norm": noise(32, seed=1)}
    layer = "unet.down_blocks.0.resnets.0.norm1"
    assert torch.equal(formula(networks, tmp_path, layer, parts)[0], parts["w_norm"])
    assert torch.equal(formula(networks, tmp_path, layer, parts, "bias")[0], parts["b_norm"])


@pytest.mark.parametrize("per_input", [False, True])
def test_dora_of_lycoris(networks: Any, per_input: bool, tmp_path: Path) -> None:
    """`dora_scale` has a number for each output, or, in older files, for each input."""
    down, up = noise(4, 64), 0.1 * noise(64, 4, seed=1)
    scale = noise(1, 64, seed=2).abs() if per_input else noise(64, 1, seed=2).abs()
    parts = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": scale}
    delta, weight = formula(networks, tmp_path, LAYER, parts)
    changed = weight + up @ down
    lengths = changed.norm(dim=0, keepdim=True) if per_input else changed.norm(dim=1, keepdim=True)
    torch.testing.assert_close(weight + delta, changed * scale / lengths, atol=1e-5, rtol=1e-4)


def test_kronecker_products(networks: Any, tmp_path: Path) -> None:
    """LyCORIS scales only where a factor is low-rank."""
    w1, w2 = noise(8, 8), noise(8, 8, seed=1)
    parts = {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(3.0)}
    torch.testing.assert_close(formula(networks, tmp_path, LAYER, parts)[0], torch.kron(w1, w2))
    a, b = noise(8, 2), noise(2, 8, seed=1)
    parts = {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}
    torch.testing.assert_close(formula(networks, tmp_path, LAYER, parts)[0], torch.kron(w1, a @ b) / 2)


def test_ia3_of_lycoris(networks: Any, tmp_path: Path) -> None:
    factor = noise(64)
    for on_input in (False, True):
        parts = {
            "weight": factor.reshape(1, -1) if on_input else factor.reshape(-1, 1),
            "on_input": torch.tensor(on_input),
        }
        delta, weight = formula(networks, tmp_path, LAYER, parts)
        torch.testing.assert_close(delta, weight * (factor[None] if on_input else factor[:, None]))


def test_factors_that_were_stacked_on_one_side(networks: Any, tmp_path: Path) -> None:
    down, up = noise(8, 64), noise(64, 4, seed=1)
    delta, _ = formula(networks, tmp_path, LAYER, {"lora_down.weight": down, "lora_up.weight": up})
    torch.testing.assert_close(delta, up @ (down[:4] + down[4:]))
    down, up = noise(2, 64), noise(64, 4, seed=1)
    delta, _ = formula(networks, tmp_path, LAYER, {"lora_down.weight": down, "lora_up.weight": up})
    torch.testing.assert_close(delta, (up[:, :2] + up[:, 2:]) @ down)


def test_what_is_added_beside_a_product(networks: Any, tmp_path: Path) -> None:
    """A1111's `scale` and `bias`, which is scaled as the rest is there; the few numbers that extraction by LyCORIS
    kept."""
    down, up, rest = noise(4, 64), noise(64, 4, seed=1), noise(64, 64, seed=2)
    parts = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.0)}
    delta, _ = formula(networks, tmp_path, LAYER, parts | {"scale": torch.tensor(0.5), "bias": rest})
    torch.testing.assert_close(delta, 0.5 * (up @ down + rest))
    sparse = {
        "bias_indices": torch.tensor([[0, 3], [2, 63]], dtype=torch.int16),
        "bias_values": torch.tensor([1.5, -2.0]),
        "bias_size": torch.tensor([64, 64], dtype=torch.int16),
    }
    delta, _ = formula(networks, tmp_path, LAYER, parts | sparse)
    expected = up @ down
    expected[0, 2] += 1.5
    expected[3, 63] -= 2
    torch.testing.assert_close(delta, expected / 4)
    delta, _ = formula(networks, tmp_path, LAYER, {"diff": rest, "scale": torch.tensor(0.5)})
    assert torch.equal(delta, 0.5 * rest)


def test_lengths_under_ai_toolkit_s_name(networks: Any, tmp_path: Path) -> None:
    parts = {"lora_A.weight": noise(4, 64), "lora_B.weight": 0.1 * noise(64, 4, seed=1)}
    lengths = noise(64, seed=2).abs()
    delta, _ = formula(networks, tmp_path, LAYER, parts | {"magnitude": lengths})
    expected, _ = formula(networks, tmp_path, LAYER, parts | {"lora_magnitude_vector": lengths})
    assert torch.equal(delta, expected)


def test_glora_under_its_old_names(networks: Any, tmp_path: Path) -> None:
    """Before LyCORIS 2 the names were the other way round. Of square weights both readings fit: the smaller side is the
    rank. Of others one alone does."""
    thin, wide = [noise(64, 4, seed=n) for n in (0, 1)], [noise(4, 64, seed=n) for n in (2, 3)]
    today = dict(zip(("a1.weight", "b1.weight"), thin, strict=True)) | dict(
        zip(("a2.weight", "b2.weight"), wide, strict=True)
    )
    old = dict(zip(("a2.weight", "b2.weight"), thin, strict=True)) | dict(
        zip(("a1.weight", "b1.weight"), wide, strict=True)
    )
    delta, weight = formula(networks, tmp_path, LAYER, today | {"alpha": torch.tensor(2.0)})
    expected = 0.5 * (thin[1] @ wide[1] + weight @ thin[0] @ wide[0])
    torch.testing.assert_close(delta, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(formula(networks, tmp_path, LAYER, old | {"alpha": torch.tensor(2.0)})[0], delta)
    wider = "unet.down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2"
    a1, a2, b1, b2 = noise(256, 4), noise(4, 256, seed=1), noise(64, 4, seed=2), noise(4, 256, seed=3)
    today = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2}
    old = {"a1.weight": a2, "a2.weight": a1, "b1.weight": b2, "b2.weight": b1}
    delta, weight = formula(networks, tmp_path, wider, today)
    torch.testing.assert_close(delta, b1 @ b2 + weight @ a1 @ a2, atol=1e-3, rtol=1e-3)
    assert torch.equal(formula(networks, tmp_path, wider, old)[0], delta)


@pytest.mark.parametrize("scaled", [False, True])
def test_oft_of_onetrainer(networks: Any, scaled: bool, tmp_path: Path) -> None:
    """Its convolutions are turned the other way round than its linear layers."""
    block = 8
    rows, columns = torch.triu_indices(block, block, 1)
    marked = {"oft_R.scaled_oft": torch.tensor(True)} if scaled else {}
    for layer, inputs in ((LAYER, 64), (CONV, 32 * 9)):
        given = 0.1 * noise(inputs // block, len(rows))
        skew = torch.zeros(len(given), block, block)
        skew[:, rows, columns] = given / (2 * 7**0.5 if scaled else 1)
        skew = skew - skew.mT
        turns = torch.eye(block) + 2 * (skew + skew @ skew + skew @ skew @ skew) + skew @ skew @ skew @ skew
        whole = torch.block_diag(*turns)
        delta, weight = formula(networks, tmp_path, layer, {"oft_R.weight": given} | marked)
        flat = weight.flatten(1)
        turned = flat @ (whole if layer == CONV else whole.T)
        torch.testing.assert_close((weight + delta).flatten(1), turned, atol=1e-5, rtol=1e-4)
        assert float(delta.abs().max()) > 1e-3


def test_what_diffusers_says_of_it(networks: Any, tmp_path: Path) -> None:
    """Alpha, ranks and rs-LoRA from a file's metadata."""
    own = networks("sd1")
    down, up = noise(4, 64), noise(64, 4, seed=1)
    said = {
        "unet.r": 4,
        "unet.lora_alpha": 6,
        "unet.use_rslora": True,
        "unet.alpha_pattern": {"attn2.to_v": 2},
    }
    for layer, scale in ((LAYER, 6 / 2), (LAYER.replace("to_k", "to_v"), 2 / 2)):
        tensors = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
        adapter = read(tmp_path, tensors, own, lora_adapter_metadata=json.dumps(said))
        torch.testing.assert_close(found(adapter, own)[layer], up @ down * scale)


# Files that do not fit


def refused(networks: Any, path: Path, name: str, tensors: Mapping[str, Tensor], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        read(path, tensors, networks(name))


KEY = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def test_refusals(networks: Any, tmp_path: Path) -> None:
    down, up = noise(2, 64), noise(64, 2)
    good = {f"{KEY}.lora_down.weight": down, f"{KEY}.lora_up.weight": up}
    for tensors, match in (
        (
            good | {f"{KEY}2.lora_down.weight": down, f"{KEY}2.lora_up.weight": up},
            rf"1 of its 2 layers are none.*{KEY}2",
        ),
        (
            good | {f"{KEY}.lora_down.weight": noise(2, 70)},
            r"1 of 1 have other shapes.*\(64, 70\).*\(64, 64\)",
        ),
        ({f"{KEY}.lora_down.weight": down}, r"1 of 1 cannot be read.*has no up"),
        (good | {"something.else": down}, r"something\.else: the key is of no kind that is known"),
        ({f"{KEY}.lora_down.weight": down * float("nan"), f"{KEY}.lora_up.weight": up}, "damaged"),
        (good | {f"{KEY}.oft_diag": down}, "cannot be read|no kind that is known"),
        (good | {f"{KEY}.rescale": noise(64)}, "there is no kind of adapter with rescale"),
        (good | {f"{KEY}.oft_R.scaled_oft": noise(1)}, "there is no kind of adapter with scaled_oft"),
        ({f"{KEY}.oft_R.weight": noise(8, 27)}, r"not of \(k, b \(b - 1\) / 2\)"),
        ({f"{KEY}.oft_R.weight": noise(8, 10)}, r"8 blocks of 5 for a weight of \(64, 64\)"),
        ({f"{KEY}.oft_blocks": noise(2, 7, 7)}, r"2 blocks of 7 for a weight"),
        ({f"{KEY}.oft_blocks": noise(64, 64)}, r"not of \(k, b, b\)"),
        ({f"{KEY}.oft_blocks": noise(2, 8, 9)}, r"not of \(k, b, b\)"),
        ({f"{KEY}.boft_R": noise(8, 8, 8), f"{KEY}.boft_s": noise(64, 1)}, r"not of \(m, k, b, b\)"),
        ({f"{KEY}.lora_down.weight": torch.tensor(1.0), f"{KEY}.lora_up.weight": up}, "are no matrices"),
        ({f"{KEY}.lora_down.weight": noise(0, 64), f"{KEY}.lora_up.weight": noise(64, 0)}, "are no matrices"),
        ({f"{KEY}.diff": torch.tensor(1.0)}, r"\(\) for a weight of"),
        ({"lora_unet_conv_norm_out.diff": noise(7)}, r"\(7,\) for a weight of \(32,\)"),
        ({f"{KEY}.{name}.weight": noise(3) for name in ("a1", "a2", "b1", "b2")}, "make no sense"),
        (
            good
            | {
                f"{KEY}.bias_indices": torch.tensor([[64], [0]]),
                f"{KEY}.bias_values": noise(1),
                f"{KEY}.bias_size": torch.tensor([64, 64]),
            },
            "lie outside",
        ),
        (
            {f"{KEY}.boft_R": noise(9, 8, 8, 8), f"{KEY}.boft_s": noise(64, 1)},
            "turn 5 in blocks of 8 needs a multiple of 128 rows, not 64",
        ),
        ({f"{KEY}.a1.weight": noise(64, 2)}, "has no a2 and no b1 and no b2"),
        (
            {
                f"{KEY}.{name}.weight": noise(64, rank)
                for rank, name in enumerate(("a1", "a2", "b1", "b2"), 1)
            },
            "are not of one rank",
        ),
        (
            {f"{KEY}.q_layer.weight": down, f"{KEY}.p_layer.weight": up, f"{KEY}.lambda_layer": noise(2)},
            "T-LoRA",
        ),
        ({"lora_controlnet": noise(1), "input_blocks.1.1.proj_in.up": up}, "is a ControlNet, no LoRA"),
        ({"lllite_unet_input_blocks_4_1.conditioning1.0.weight": up}, "is a ControlNet, no LoRA"),
    ):
        refused(networks, tmp_path, "sd1", tensors, match)
        with suppress(ModelError):  # Whatever it holds can be described.
            describe_adapter(tmp_path / "it.safetensors")


def test_another_kind_of_peft_s_is_refused(networks: Any, tmp_path: Path) -> None:
    save_file({"base_model.model.mid_block.vera_lambda_b": noise(4)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "VERA"}))
    with pytest.raises(ModelError, match="is an adapter of PEFT's kind VERA: LORA,"):
        read_adapter(tmp_path, networks("sd1"), "it")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"alpha_pattern": [1]}, "PEFT's configuration"),
        ({"alpha_pattern": {"(": 3}}, "PEFT's configuration"),
        ({"lora_alpha": [4]}, "PEFT's configuration"),
        ({"init_lora_weights": "lora_ga"}, "begun with lora_ga"),
    ],
)
def test_configurations_of_peft_s_that_make_no_sense(
    networks: Any, said: dict[str, Any], match: str, tmp_path: Path
) -> None:
    tensors = {f"base_model.model.{LAYER.removeprefix('unet.')}{part}": noise(64, 64) for part in PEFT}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 64, **said}))
    with pytest.raises(ModelError, match=match):
        read_adapter(tmp_path, networks("sd1"), "it")
    describe_adapter(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_precisions(networks: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    own, down, up = networks("sd1"), noise(2, 64).to(dtype), noise(64, 2, seed=1).to(dtype)
    adapter = read(tmp_path, {f"{KEY}.lora_down.weight": down, f"{KEY}.lora_up.weight": up}, own)
    torch.testing.assert_close(found(adapter, own)[LAYER], up.float() @ down.float())
    damaged = {
        f"{KEY}.lora_down.weight": (noise(2, 64) * float("nan")).to(dtype),
        f"{KEY}.lora_up.weight": up,
    }
    refused(networks, tmp_path, "sd1", damaged, "damaged")


@pytest.mark.parametrize("name", ["sd1", "sd3"])
@torch.no_grad()
def test_every_parameter_can_be_changed(networks: Any, name: str, tmp_path: Path) -> None:
    """Applied, as it is in the weights: no network goes by a layer."""
    own = networks(name)
    tensors = {}
    for number, (role, network) in enumerate(own.items()):
        for layer, module in network.named_modules():
            for leaf, parameter in module.named_parameters(recurse=False):
                if leaf in ("weight", "bias"):
                    change = 0.05 * noise(*parameter.shape, seed=number)
                    tensors[f"{role}.{layer}.{'diff' if leaf == 'weight' else 'diff_b'}"] = change
    adapter = read(tmp_path, tensors, own)
    for role, network in own.items():
        if role.reads_text:
            ids = torch.tensor([[3, 5, 7, 9]])
            call = partial(network, ids)
        else:
            config = network.config
            x, time = noise(1, config.in_channels, 8, 8), torch.tensor([300.0])
            call = partial(network, x, time, network.blank(5, ()))
        with applied(network, role, [[Dose(adapter)]]):
            beside = call()
        merged = Merged({role: network}, {role: [Dose(adapter)]})
        within = call()
        merged.undo()
        for one, other in zip(flat(beside), flat(within), strict=True):
            assert float((one - other).abs().max()) <= 1e-3 * float(other.abs().max()), role


def flat(found: Any) -> list[Tensor]:
    """All tensors of what a network gives."""
    if isinstance(found, Tensor):
        return [found]
    values = found if isinstance(found, list | tuple) else vars(found).values()
    return [tensor for each in values if each is not None for tensor in flat(each)]


def test_what_fits_of_one_that_does_not(networks: Any, tmp_path: Path) -> None:
    own, down, up = networks("sd1"), noise(2, 64), noise(64, 2)
    tensors = {f"{KEY}{end}{part}": t for end in ("", "2") for part, t in zip(LORA, (down, up), strict=True)}
    file = tmp_path / "it.safetensors"
    refused(networks, tmp_path, "sd1", tensors, "1 of its 2 layers are none")
    adapter = read_adapter(file, own, "it", partial=True)
    assert list(found(adapter, own)) == [LAYER]
    (note,) = adapter.notes
    assert note.startswith("it is used in part: 1 of its 2 layers are none of this model's")
    assert f"{KEY}2" in note
    save_file({f"{KEY}2{part}": t for part, t in zip(LORA, (down, up), strict=True)}, file)
    with pytest.raises(ModelError, match="1 of its 1 layers are none"):
        read_adapter(file, own, "it", partial=True)


def test_a_layer_that_is_there_twice(networks: Any, tmp_path: Path) -> None:
    """The first counts, where one of them may be left out."""
    own, down, up = networks("sd1"), noise(2, 64), noise(64, 2)
    tensors = dict(zip((f"{KEY}{part}" for part in LORA), (down, up), strict=True))
    tensors |= dict(zip((f"{LAYER}{part}" for part in PEFT), (down, -up), strict=True))
    refused(networks, tmp_path, "sd1", tensors, "under another name as well")
    adapter = read_adapter(tmp_path / "it.safetensors", own, "it", partial=True)
    torch.testing.assert_close(found(adapter, own)[LAYER], up @ down)


@pytest.mark.parametrize("kind", ["lora", "diff", "dora"])
def test_a_wider_first_layer(networks: Any, kind: str, tmp_path: Path) -> None:
    """Models for inpainting are told a mask and a picture besides: what is for the latent stays for the latent."""
    own = dict(networks("sd1"))
    config = dataclasses.replace(own["unet"].config, in_channels=9)
    own["unet"] = UNet(config)
    down, up = noise(2, 4, 3, 3), noise(32, 2, 1, 1, seed=1)
    product = (up.flatten(1) @ down.flatten(1)).reshape(32, 4, 3, 3)
    parts = {"diff": product} if kind == "diff" else {"lora_down.weight": down, "lora_up.weight": up}
    if kind == "dora":
        parts["dora_scale"] = noise(32, 1, 1, 1).abs()
    adapter = read(tmp_path, {f"lora_unet_conv_in.{part}": tensor for part, tensor in parts.items()}, own)
    delta = found(adapter, own)["unet.conv_in"]
    assert delta.shape == (32, 9, 3, 3)
    assert not bool(delta[:, 4:].any())
    if kind == "dora":
        weight = own["unet"].conv_in.weight[:, :4]
        changed = weight + product
        lengths = changed.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        torch.testing.assert_close(weight + delta[:, :4], changed * parts["dora_scale"] / lengths)
    else:
        torch.testing.assert_close(delta[:, :4], product)


def test_another_family_is_named(networks: Any, tmp_path: Path) -> None:
    for key, width, family in (
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048, "Stable Diffusion XL"),
        ("lora_unet_down_blocks_9_attentions_0_transformer_blocks_0_attn2_to_k", 768, "Stable Diffusion 1"),
        ("lora_unet_double_blocks_0_img_attn_qkv", 64, "FLUX"),
    ):
        tensors = {f"{key}.lora_down.weight": noise(2, width), f"{key}.lora_up.weight": noise(64, 2)}
        refused(networks, tmp_path, "sd1", tensors, f"looks like one for {family}")


def test_what_may_be_left_out(networks: Any, tmp_path: Path) -> None:
    """T5's layers where the model was loaded without it."""
    down, up = noise(2, 128), noise(128, 2)
    layer = "lora_transformer_transformer_blocks_0_attn_to_q"
    t5 = "lora_te3_encoder_block_0_layer_0_SelfAttention_q"
    tensors = {
        f"{key}{suffix}": value for key in (layer, t5) for suffix, value in zip(LORA, (down, up), strict=True)
    }
    adapter = read(tmp_path, tensors, networks("sd3-clips"))
    assert adapter.notes == ("it: 1 layers are not used: the model was loaded without T5",)
