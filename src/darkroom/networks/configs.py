"""The dimensions of every network, as plain data: files are looked into without importing torch.

Names are those of the published `config.json` where they fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from darkroom.errors import ModelError


def require_divisor(what: str, divisor: int, width: int) -> None:
    """ModelError unless `divisor` parts a number of channels evenly, as heads and norm groups must."""
    if divisor < 1 or width % divisor:
        raise ModelError(f"{what} = {divisor} must divide {width}, the number of channels")


Depths = tuple[int, ...]
"""The transformer blocks after each ResNet block of a level."""

FEED_FORWARDS = ("relu", "gated-gelu", "gated-silu")
"""The feed-forward layers of T5 that there are, as `feed_forward_proj` names them."""

TIME_WIDTH = 256
"""Of the sinusoids by which an MMDiT is told the time."""

MOST_SCALE = 16
"""How many times larger an upscaler makes pictures at most."""


class Level(NamedTuple):
    """One resolution: width, heads, and the transformer depth after each ResNet block, down and up."""

    width: int
    heads: int
    only_cross: bool
    down: Depths
    up: Depths


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """Dimensions of a U-Net; the defaults are Stable Diffusion 1's. Names are `config.json`'s where they fit.

    Tuples have one entry per level, the finest first; `level` says what each comes to.
    `transformer_layers_per_block` counts transformer blocks after each ResNet block, 0 where a level
    has none; an entry may list them ResNet block by ResNet block. `up_transformer_layers_per_block`
    (finest first too) is for networks whose way up differs from the way down. The middle has
    `mid_transformer_layers`: 0 leaves one ResNet block, None no middle at all.
    `num_attention_heads` is what `config.json` calls `attention_head_dim`.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    transformer_layers_per_block: tuple[int | Depths, ...] = (1, 1, 1, 0)
    up_transformer_layers_per_block: tuple[int | Depths, ...] | None = None
    mid_transformer_layers: int | None = 1
    num_attention_heads: int | tuple[int, ...] = 8
    cross_attention_dim: int = 768
    only_cross_attention: bool | tuple[bool, ...] = False
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    time_cond_proj_dim: int | None = None
    sample_size: int = 64

    def __post_init__(self) -> None:
        for index in range(len(self.block_out_channels)):
            self.level(index)

    @property
    def time_width(self) -> int:
        return 4 * self.block_out_channels[0]

    def level(self, index: int) -> Level:
        """What the level of that index comes to; ModelError names a field that makes no sense."""
        width, layers, heads, down, up, only_cross = (
            self._at(name, index)
            for name in (
                "block_out_channels",
                "layers_per_block",
                "num_attention_heads",
                "transformer_layers_per_block",
                "up_transformer_layers_per_block",
                "only_cross_attention",
            )
        )
        down, up = _per_resnet(down, layers), _per_resnet(down if up is None else up, layers + 1)
        require_divisor("U-Net config: num_attention_heads", heads, width)
        require_divisor("U-Net config: norm_num_groups", self.norm_num_groups, width)
        return Level(width, heads, only_cross, down, up)

    def _at(self, name: str, index: int) -> Any:
        value, levels = getattr(self, name), len(self.block_out_channels)
        if isinstance(value, tuple) and len(value) != levels:
            raise ModelError(f"U-Net config: {name} = {value} needs {levels} entries, one per level")
        return value[index] if isinstance(value, tuple) else value


def _per_resnet(depth: int | Depths, layers: int) -> Depths:
    depths = depth if isinstance(depth, tuple) else (depth,) * layers
    if len(depths) != layers:
        raise ModelError(f"U-Net config: transformer layers {depths} of one level need {layers} entries")
    return depths


@dataclass(frozen=True, slots=True)
class VAEConfig:
    """Dimensions of an autoencoder; the defaults are Stable Diffusion 1's. Names are `config.json`'s.

    The U-Net's latents are (z - shift_factor) * scaling_factor for the encoder's z. `sample_size` is
    the side in pixels of the pictures it was trained on; `force_upcast` says that half precision
    overflows in it.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    force_upcast: bool = True
    sample_size: int = 512

    def __post_init__(self) -> None:
        for width in self.block_out_channels:
            require_divisor("VAE config: norm_num_groups", self.norm_num_groups, width)

    @property
    def factor(self) -> int:
        """How many pixels, each way, one latent pixel stands for."""
        return 1 << (len(self.block_out_channels) - 1)


@dataclass(frozen=True, slots=True)
class TinyVAEConfig:
    """Dimensions of a tiny autoencoder; the defaults are TAESD's and TAESDXL's. Names are `config.json`'s.

    It was trained on latents as the U-Net has them, so `scaling_factor` and `shift_factor` change nothing.
    `latent_magnitude` and `latent_shift` say how to store a latent in [0, 1], z / (2 * magnitude) + shift;
    neither network uses them.
    """

    in_channels: int = 3
    out_channels: int = 3
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    latent_channels: int = 4
    upsampling_scaling_factor: int = 2
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    latent_magnitude: float = 3.0
    latent_shift: float = 0.5
    scaling_factor: float = 1.0
    shift_factor: float = 0.0
    # Of `VAEConfig`, and the same in every tiny one.
    sample_size: ClassVar[int] = 512
    force_upcast: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for side in ("encoder", "decoder"):
            widths, blocks = getattr(self, f"{side}_block_out_channels"), getattr(self, f"num_{side}_blocks")
            if len(set(widths)) != 1 or len(widths) != len(blocks):
                raise ModelError(
                    f"tiny autoencoder config: {side}_block_out_channels = {widths} must be one number, "
                    f"as often as num_{side}_blocks = {blocks} has levels"
                )
        growth = self.upsampling_scaling_factor ** (len(self.num_decoder_blocks) - 1)
        if growth != self.factor:
            raise ModelError(
                f"tiny autoencoder config: upsampling_scaling_factor = {self.upsampling_scaling_factor} makes a "
                f"picture {growth} times the size of its latent, the encoder one of 1/{self.factor}"
            )

    @property
    def factor(self) -> int:
        """How many pixels, each way, one latent pixel stands for."""
        return 1 << (len(self.num_encoder_blocks) - 1)


@dataclass(frozen=True, slots=True)
class CLIPTextConfig:
    """Dimensions of a text encoder; the defaults are Stable Diffusion 1's. Names are `config.json`'s.

    `projection_dim` is None where the file holds no projection (`CLIPTextModel`). `hidden_act` is
    "quick_gelu" (OpenAI's weights) or "gelu" (OpenCLIP's).
    """

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int | None = None
    eos_token_id: int = 49407

    def __post_init__(self) -> None:
        require_divisor("CLIP text config: num_attention_heads", self.num_attention_heads, self.hidden_size)


@dataclass(frozen=True, slots=True)
class CLIPVisionConfig:
    """Dimensions of an image encoder; the defaults are ViT-L/14's. Names are `config.json`'s.

    `projection_dim` is None where the file holds no projection (`CLIPVisionModel`).
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 14
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int | None = 768

    def __post_init__(self) -> None:
        require_divisor("CLIP vision config: num_attention_heads", self.num_attention_heads, self.hidden_size)


CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""What CLIP's image encoders are shown is shifted and scaled by: of red, green and blue in [0, 1]."""


@dataclass(frozen=True, slots=True)
class NormalizerConfig:
    """Dimensions of the statistics of picture embeddings: how wide these are."""

    embedding_dim: int = 768


@dataclass(frozen=True, slots=True)
class T5Config:
    """Dimensions of a T5 encoder; the defaults are T5 v1.1 XXL's. Names are `config.json`'s.

    `d_kv` is the width of a head: all heads together may be wider or narrower than `d_model`.
    `feed_forward_proj` is one of `FEED_FORWARDS`.
    """

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "gated-gelu"

    def __post_init__(self) -> None:
        buckets, furthest = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if not 1 <= buckets // 4 < furthest:
            raise ModelError(
                f"T5 config: relative_attention_num_buckets = {buckets} must be at least 4, and a quarter of it "
                f"less than relative_attention_max_distance = {furthest}"
            )


@dataclass(frozen=True, slots=True)
class MMDiTConfig:
    """Dimensions of an MMDiT; the defaults are Stable Diffusion 3 medium's. Names are `config.json`'s.

    `sample_size` is the native side of a latent, `pos_embed_max_size` the largest, in patches. Blocks in
    `dual_attention_layers` attend to the picture a second time. `qk_norm` is None or "rms_norm".
    """

    sample_size: int = 128
    patch_size: int = 2
    in_channels: int = 16
    num_layers: int = 24
    attention_head_dim: int = 64
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    caption_projection_dim: int = 1536
    pooled_projection_dim: int = 2048
    out_channels: int = 16
    pos_embed_max_size: int = 192
    dual_attention_layers: tuple[int, ...] = ()
    qk_norm: str | None = None

    def __post_init__(self) -> None:
        product = f"num_attention_heads * attention_head_dim = {self.width}"
        if self.caption_projection_dim != self.width:
            raise ModelError(
                f"MMDiT config: caption_projection_dim = {self.caption_projection_dim} must equal {product}"
            )
        if self.width % 4:  # Sine and cosine of column and row.
            raise ModelError(f"MMDiT config: {product} must be a multiple of 4")

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True, slots=True)
class RRDBNetConfig:
    """Dimensions of an RRDBNet; the defaults are ESRGAN's. `scale`: how many times larger its pictures are;
    `unshuffle`: by how much it folds them first, pixels into channels. `growth`: the channels that each convolution of
    a dense block adds. `plus`: ESRGAN+'s shortcuts within a block."""

    in_channels: int = 3
    out_channels: int = 3
    features: int = 64
    growth: int = 32
    blocks: int = 23
    scale: int = 4
    unshuffle: int = 1
    plus: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= MOST_SCALE or self.doublings < 0 or 1 << self.doublings != self._growing:
            raise ModelError(f"RRDBNet: scale = {self.scale} must be 1, 2, 4, 8 or 16")

    @property
    def _growing(self) -> int:
        return self.scale * self.unshuffle

    @property
    def doublings(self) -> int:
        """How often it makes a picture twice as large behind its blocks."""
        return self._growing.bit_length() - 1


@dataclass(frozen=True, slots=True)
class CompactConfig:
    """Dimensions of a compact upscaler; the defaults are those of `realesr-general-x4v3`, but for its 32 layers."""

    in_channels: int = 3
    out_channels: int = 3
    features: int = 64
    layers: int = 16
    scale: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= MOST_SCALE:
            raise ModelError(f"compact upscaler: scale = {self.scale} must be 1 to {MOST_SCALE}")
