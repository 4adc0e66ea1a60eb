"""What is no model that Darkroom can run, by the names of its tensors: what goes beside a model, and other kinds of
models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from darkroom.errors import UnsupportedModel

# A ControlNet may hold a whole U-Net besides, so that names are asked before networks.
BESIDE: Mapping[str, str] = {
    "controlnet": r"control_model\.|controlnet_|lllite_|.*\b(input_hint_block|lora_controlnet)\b",
    "t2i-adapter": r"(adapter\.)?body\.\d+\.(in_conv|block1|resnets)\.",
    "ip-adapter": r"(image_proj|ip_adapter)\.",
    "lora": r"(lora|oft)_(unet|te\d?|transformer|prior)_|lycoris_|bundle_emb\."
    r"|.*(?:\b|_)(lora_(down|up|A|B|mid)|lora\.(down|up)|hada_w1_a|lokr_w[12]|b?oft_(blocks|diag|R)|dora_scale|ia3_l)\b"
    r"|.*\.(b[12]\.weight|diff|w_norm|on_input)$",
    "embedding": r"(emb_params|string_to_param\..+|clip_[gl]|<[^>]+>)$",
    "hypernetwork": r"\d+\.[kv]\.linear\.?\d+\.(weight|bias)$",
    "upscaler": r".*\b(rdb1\.conv1|RDB1\.conv1|residual_group\.blocks)\b|model\.1\.sub\.0\."
    r"|((module|params|params_ema)\.)?body\.0\.(weight|bias)$",
}
"""What goes beside a model, by the library's kind of it."""
_MOST_VECTORS = 200

BESIDE_SETTINGS: Mapping[str, str] = {
    "lora": "adapters",
    "hypernetwork": "adapters",
    "embedding": "embeddings",
}
"""The settings of a request in which they are given, as far as there is one."""

_OTHERS: Mapping[str, str] = {
    "a motion module (AnimateDiff)": r"(.*\.)?motion_modules\.",
    "Stable Video Diffusion": r".*\.(time_stack|temporal_transformer_blocks|temporal_res_block)\.",
    "Chroma": r"(.*\.)?distilled_guidance_layer\.",
    "HunyuanVideo": r"(.*\.)?txt_in\.individual_token_refiner\.",
    "Flux": r"(.*\.)?(double_blocks\.0\.|single_transformer_blocks\.0\.)",
    "Qwen-Image": r"(.*\.)?transformer_blocks\.0\.img_mod\.",
    "AuraFlow": r"(.*\.)?(double_layers\.0\.|joint_transformer_blocks\.0\.|cond_seq_linear\.)",
    "HunyuanDiT": r"(.*\.)?(mlp_t5\.|pooler\.positional_embedding$)",
    "Wan": r"(.*\.)?(blocks\.0\.(self_attn|attn1)\.norm_q\.|head\.modulation$)",
    "HiDream": r"(.*\.)?double_stream_blocks\.",
    "CogVideoX": r"(.*\.)?patch_embed\.text_proj\.",
    "Mochi": r"(.*\.)?(t5_y_embedder\.|pos_frequencies$)",
    "PixArt, Sana or LTX-Video": r"(.*\.)?(blocks|transformer_blocks)\.0\.scale_shift_table$",
    "Lumina or Z-Image": r"(.*\.)?(cap_embedder|noise_refiner|context_refiner)\.",
    "Stable Cascade": r"(.*\.)?(clip_txt_mapper|clip_txt_pooled_mapper|effnet_mapper)\.",
    "Kandinsky": r"(.*\.)?(add_embedding\.image_norm|encoder_hid_proj\.image_embeds)\.",
    "DeepFloyd IF": r"(.*\.)?add_embedding\.norm1\.",
    "Kolors": r"(.*\.)?encoder_hid_proj\.weight$",
    "GLIGEN": r"(.*\.)?position_net\.",
}

OTHER_NOISE = "which Darkroom has no noise schedule for: it would draw noise or washed-out pictures"
UNKNOWN = "which Darkroom does not run: get a model of Stable Diffusion 1, 2, XL or 3"


def kind_beside(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The kind of what goes beside a model, by its tensors; None where they tell of none."""
    return _first(BESIDE, list(shapes)) or ("embedding" if _is_word(shapes) else None)


def _is_word(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether there is nothing but a few vectors as wide as text encoders are, named by the word they stand for."""
    if len(shapes) != 1:
        return False
    name, shape = next(iter(shapes.items()))
    rows = shape[0] if len(shape) == 2 else len(shape)
    return "." not in name and 1 <= rows <= _MOST_VECTORS and shape[-1] > 0 and shape[-1] % 64 == 0


def a_kind(kind: str) -> str:
    """A kind in words, with its article."""
    words = {
        "lora": "LoRA",
        "controlnet": "ControlNet",
        "t2i-adapter": "T2I-Adapter",
        "ip-adapter": "IP-Adapter",
    }
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {words.get(kind, kind)}"


def refuse_foreign(path: Path, names: Iterable[str]) -> None:
    """Raises UnsupportedModel, saying what it is, where a file with tensors of these names is another kind
    of model."""
    if other := _first(_OTHERS, list(names)):
        raise UnsupportedModel(f"{path} is {other}, {UNKNOWN}")


def _first(marks: Mapping[str, str], names: list[str]) -> str | None:
    return next((what for what, mark in marks.items() if any(map(re.compile(mark).match, names))), None)
