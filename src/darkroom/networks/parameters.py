"""How many parameters each network has, from its dimensions: what a file should hold is known without importing torch.

A function for each network, in the order in which that builds its layers.
"""

from __future__ import annotations

from itertools import pairwise

from darkroom.networks.configs import (
    TIME_WIDTH,
    CLIPTextConfig,
    CLIPVisionConfig,
    Depths,
    MMDiTConfig,
    NormalizerConfig,
    T5Config,
    TinyVAEConfig,
    UNetConfig,
    VAEConfig,
)

# The layers that all are made of


def _linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + outputs * bias


def _conv(inputs: int, outputs: int, side: int = 3, bias: bool = True) -> int:
    return inputs * outputs * side**2 + outputs * bias


def _norm(width: int) -> int:
    return 2 * width


def _mlp(width: int, inner: int, outputs: int) -> int:
    return _linear(width, inner) + _linear(inner, outputs)


def _resnet(inputs: int, outputs: int, time: int = 0) -> int:
    shortcut = _conv(inputs, outputs, 1) if inputs != outputs else 0
    told = _linear(time, outputs) if time else 0
    return _norm(inputs) + _conv(inputs, outputs) + told + _norm(outputs) + _conv(outputs, outputs) + shortcut


def _attention(width: int, context: int, bias: bool = False) -> int:
    return _linear(width, width, bias) + 2 * _linear(context, width, bias) + _linear(width, width)


# The denoising networks


def unet(config: UNetConfig) -> int:
    """Of `darkroom.networks.unet.UNet`."""
    widths, time = config.block_out_channels, config.time_width
    levels = [config.level(i) for i in range(len(widths))]
    total = _conv(config.in_channels, widths[0]) + _mlp(widths[0], time, time)
    total += (config.time_cond_proj_dim or 0) * widths[0]
    if config.class_embed_type == "timestep":
        total += _mlp(widths[0], time, time)
    elif config.class_embed_type == "projection":
        total += _mlp(config.projection_class_embeddings_input_dim or 0, time, time)
    else:
        total += (config.num_class_embeds or 0) * time
    if config.addition_embed_type == "text_time":
        total += _mlp(config.projection_class_embeddings_input_dim or 0, time, time)
    for i, level in enumerate(levels):
        above, below = widths[max(i - 1, 0)], widths[min(i + 1, len(widths) - 1)]
        down = [above] + [level.width] * (len(level.down) - 1)
        skips = [level.width] * (len(level.up) - 1) + [above]
        up = [a + b for a, b in zip([below] + [level.width] * (len(level.up) - 1), skips, strict=True)]
        total += sum(_resnet(inputs, level.width, time) for inputs in down + up)
        total += _transformers(config, level.width, level.down, level.only_cross)
        total += _transformers(config, level.width, level.up, level.only_cross)
        samplers = (i < len(levels) - 1) + (i > 0)
        total += samplers * _conv(level.width, level.width)
    if (depth := config.mid_transformer_layers) is not None:
        total += (2 if depth else 1) * _resnet(widths[-1], widths[-1], time)
        total += _transformers(config, widths[-1], (depth,), only_cross=False)
    return total + _norm(widths[0]) + _conv(widths[0], config.out_channels)


def _transformers(config: UNetConfig, width: int, depths: Depths, only_cross: bool) -> int:
    if not any(depths):
        return 0
    context = config.cross_attention_dim
    block = (
        _attention(width, context if only_cross else width) + _attention(width, context) + 3 * _norm(width)
    )
    block += _linear(width, 8 * width) + _linear(4 * width, width)  # A gate beside the inner layer.
    ends = _norm(width) + 2 * _linear(width, width)
    return sum(ends + depth * block for depth in depths)


def mmdit(config: MMDiTConfig) -> int:
    """Of `darkroom.networks.mmdit.MMDiT`, whose table of positions is none."""
    width, layers = config.width, config.num_layers
    heads = 2 * config.attention_head_dim if config.qk_norm else 0
    attention, mlp = _attention(width, width, bias=True) + heads, _mlp(width, 4 * width, width)
    total = _conv(config.in_channels, width, config.patch_size) + _mlp(TIME_WIDTH, width, width)
    total += _mlp(config.pooled_projection_dim, width, width) + _linear(config.joint_attention_dim, width)
    # Two streams through every block, but the last does nothing to the text except reading it.
    total += 2 * layers * (_linear(width, 6 * width) + attention + mlp)
    total -= _linear(width, 4 * width) + _linear(width, width) + mlp
    total += len(set(config.dual_attention_layers)) * (_linear(width, 3 * width) + attention)
    return total + _linear(width, 2 * width) + _linear(width, config.patch_size**2 * config.out_channels)


# Autoencoders


def vae(config: VAEConfig) -> int:
    """Of `darkroom.networks.vae.VAE`."""
    widths, latent = config.block_out_channels, config.latent_channels
    deepest, layers = widths[-1], config.layers_per_block
    mid = 2 * _resnet(deepest, deepest)
    if config.mid_block_add_attention:
        mid += _norm(deepest) + _attention(deepest, deepest, bias=True)
    samplers = sum(_conv(width, width) for width in widths)

    def side(order: tuple[int, ...], layers: int) -> int:
        return sum(
            _resnet(inputs, width) + (layers - 1) * _resnet(width, width)
            for inputs, width in pairwise((order[0], *order))
        )

    encoder = _conv(config.in_channels, widths[0]) + side(widths, layers) + samplers - _conv(deepest, deepest)
    encoder += mid + _norm(deepest) + _conv(deepest, 2 * latent)
    decoder = _conv(latent, deepest) + side(widths[::-1], layers + 1) + samplers - _conv(widths[0], widths[0])
    decoder += mid + _norm(widths[0]) + _conv(widths[0], config.out_channels)
    quant = config.use_quant_conv * _conv(2 * latent, 2 * latent, 1)
    return encoder + decoder + quant + config.use_post_quant_conv * _conv(latent, latent, 1)


def tiny(config: TinyVAEConfig) -> int:
    """Of `darkroom.networks.tiny.TinyVAE`."""

    def side(width: int, blocks: tuple[int, ...], inputs: int, outputs: int) -> int:
        between = (len(blocks) - 1) * _conv(width, width, bias=False)
        return _conv(inputs, width) + sum(blocks) * 3 * _conv(width, width) + between + _conv(width, outputs)

    encoder, decoder = config.encoder_block_out_channels[0], config.decoder_block_out_channels[0]
    latent = config.latent_channels
    return side(encoder, config.num_encoder_blocks, config.in_channels, latent) + side(
        decoder, config.num_decoder_blocks, latent, config.out_channels
    )


# Encoders


def clip_text(config: CLIPTextConfig) -> int:
    """Of `darkroom.networks.clip.CLIPText`."""
    tables = (config.vocab_size + config.max_position_embeddings) * config.hidden_size
    return tables + _clip_layers(config) + _norm(config.hidden_size)


def clip_vision(config: CLIPVisionConfig) -> int:
    """Of `darkroom.networks.clip.CLIPVision`."""
    width, patch = config.hidden_size, config.patch_size
    places = (config.image_size // patch) ** 2 + 1
    embeddings = width + _conv(config.num_channels, width, patch, bias=False) + places * width
    return embeddings + _clip_layers(config) + 2 * _norm(width)


def normalizer(config: NormalizerConfig) -> int:
    """Of `darkroom.networks.clip.EmbeddingNormalizer`."""
    return 2 * config.embedding_dim


def _clip_layers(config: CLIPTextConfig | CLIPVisionConfig) -> int:
    """The layers and the projection behind them."""
    width = config.hidden_size
    layer = (
        2 * _norm(width) + _attention(width, width, bias=True) + _mlp(width, config.intermediate_size, width)
    )
    return config.num_hidden_layers * layer + (config.projection_dim or 0) * width


def t5(config: T5Config) -> int:
    """Of `darkroom.networks.t5.T5Encoder`."""
    width, inner = config.d_model, config.num_heads * config.d_kv
    matrices = 3 if config.feed_forward_proj.startswith("gated") else 2
    block = 4 * width * inner + matrices * width * config.d_ff + 2 * width
    table = config.relative_attention_num_buckets * config.num_heads
    return config.vocab_size * width + table + config.num_layers * block + width
