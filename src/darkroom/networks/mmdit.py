"""The multimodal diffusion transformer of Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206).

Picture and text are two streams of tokens with weights of their own that meet in the attention of every
block. A vector made of time and pooled text shifts, scales and gates each layer: the adaptive norm
"adaLN-Zero" of Peebles & Xie 2022 (arXiv 2212.09748).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.errors import ModelError
from darkroom.networks.conditioning import Conditioning
from darkroom.networks.configs import TIME_WIDTH, MMDiTConfig
from darkroom.networks.denoiser import Denoiser
from darkroom.networks.layers import (
    Attend,
    Attention,
    TimestepEmbedding,
    attend,
    merge_heads,
    split_heads,
    timestep_embedding,
    to_image,
    zeroed,
)
from darkroom.networks.roles import Role

EPS = 1e-6  # Of every norm.


def position_table(config: MMDiTConfig, dtype: torch.dtype = torch.float32) -> Tensor:
    """A vector for each place of the largest picture, (1, pos_embed_max_size ** 2, width).

    Half of it tells the column, half the row: sines, then cosines, of falling frequency (Vaswani et al.
    2017, section 3.5). Places are scaled so that the whole table spans as many units as a native picture
    has patches.
    """
    size, quarter = config.pos_embed_max_size, config.width // 4
    places = torch.arange(size, dtype=torch.float32) / (size / (config.sample_size // config.patch_size))
    angles = places[:, None] * 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1).float().to(dtype)
    columns, rows = axis.expand(size, -1, -1), axis[:, None].expand(-1, size, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)[None]


class PatchEmbed(nn.Module):
    """Latents (B, in_channels, h, w) to tokens (B, N, width), one a patch, row by row, with their places.

    The table is cut about its centre. Published files hold it; where one lacks it, it is computed.
    """

    pos_embed: Tensor

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.proj = nn.Conv2d(config.in_channels, config.width, config.patch_size, stride=config.patch_size)
        weight, places = self.proj.weight, config.pos_embed_max_size**2
        # On the meta device without computing it: it would be the largest tensor of all.
        table = weight.new_empty(1, places, config.width) if weight.is_meta else position_table(config)
        self.register_buffer("pos_embed", table)
        self.register_load_state_dict_pre_hook(_supply_table)  # type: ignore[no-untyped-call]

    def computed(self, dtype: torch.dtype) -> Tensor:
        """The table, on the CPU whatever device the module is on."""
        with torch.device("cpu"):
            return position_table(self.config, dtype)

    def forward(self, x: Tensor) -> Tensor:
        size, patch = self.config.pos_embed_max_size, self.config.patch_size
        height, width = x.shape[-2:]
        rows, columns = height // patch, width // patch
        if height % patch or width % patch or max(rows, columns) > size:
            raise ModelError(
                f"latents of {height}x{width} do not fit this MMDiT: both sides must be multiples of {patch}, "
                f"at most {size * patch}"
            )
        top, left = (size - rows) // 2, (size - columns) // 2
        table = self.pos_embed.view(size, size, -1)[top : top + rows, left : left + columns]
        # Channels-last, where pixels are tokens without a copy.
        tokens: Tensor = self.proj(x.to(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        tokens += table.to(tokens.dtype)
        return tokens.flatten(1, 2)


def _supply_table(module: PatchEmbed, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give a state dict without a table the computed one, before it is loaded."""
    if prefix + "pos_embed" not in state:
        weight = state.get(prefix + "proj.weight", module.proj.weight)
        state[prefix + "pos_embed"] = module.computed(weight.dtype).to(weight.device)


class TimeTextEmbedding(nn.Module):
    """Times (B,) and pooled text (B, pooled_projection_dim) to one vector (B, width)."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(TIME_WIDTH, config.width)
        self.text_embedder = TimestepEmbedding(config.pooled_projection_dim, config.width)

    def forward(self, time: Tensor, pooled: Tensor) -> Tensor:
        time = timestep_embedding(time, TIME_WIDTH).to(pooled.dtype)
        return self.timestep_embedder(time) + self.text_embedder(pooled)


class Modulation(nn.Module):
    """The vector (B, width) to `parts` shifts, scales and gates (B, 1, width), all zero at first."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = zeroed(nn.Linear(width, parts * width))

    def forward(self, vector: Tensor) -> tuple[Tensor, ...]:
        return self.linear(vector)[:, None].chunk(self.parts, dim=-1)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The layer norm of tokens (B, N, width), scaled by 1 + `scale` and shifted."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)


class SelfAttention(Attention):
    """Attention of tokens (B, N, width) to themselves, each head's queries and keys normed if so configured."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__(config.width, config.width, config.num_attention_heads, bias=True)
        self.norm_q, self.norm_k = _qk_norm(config), _qk_norm(config)

    def forward(self, x: Tensor, context: Tensor | None = None, attention: Attend = attend) -> Tensor:
        return self.to_out[0](merge_heads(attention(*self.heads_of(x), self.name)))

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, N, d)."""
        q = self.norm_q(split_heads(self.to_q(x), self.heads))
        k = self.norm_k(split_heads(self.to_k(x), self.heads))
        return q, k, split_heads(self.to_v(x), self.heads)


class JointAttention(SelfAttention):
    """Attention among the tokens of picture (B, N, width) and text (B, T, width), as if of one sequence.

    An `Attend` sees the picture's tokens first. The last block gives no text, as nothing would read it.
    """

    def __init__(self, config: MMDiTConfig, last: bool) -> None:
        super().__init__(config)
        width = config.width
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(width, width) for _ in range(3))
        self.norm_added_q, self.norm_added_k = _qk_norm(config), _qk_norm(config)
        self.to_add_out = None if last else nn.Linear(width, width)

    def forward(  # type: ignore[override] # Two streams in, two out.
        self, x: Tensor, context: Tensor, attention: Attend = attend
    ) -> tuple[Tensor, Tensor | None]:
        both = merge_heads(attention(*self.joined(x, context), self.name))
        seen, read = both[:, : x.shape[1]], both[:, x.shape[1] :]
        return self.to_out[0](seen), None if self.to_add_out is None else self.to_add_out(read)

    def joined(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of both streams (B, heads, N + T, d)."""
        text_q = self.norm_added_q(split_heads(self.add_q_proj(context), self.heads))
        text_k = self.norm_added_k(split_heads(self.add_k_proj(context), self.heads))
        text_v = split_heads(self.add_v_proj(context), self.heads)
        q, k, v = self.heads_of(x)
        return torch.cat([q, text_q], dim=2), torch.cat([k, text_k], dim=2), torch.cat([v, text_v], dim=2)


def _qk_norm(config: MMDiTConfig) -> nn.Module:
    return nn.RMSNorm(config.attention_head_dim, EPS) if config.qk_norm else nn.Identity()


class GELU(nn.Module):
    """A linear layer through the tanh form of GELU (Hendrycks & Gimpel 2016)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class MLP(nn.Module):
    """Tokens (B, N, width) through an inner layer four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The files number a dropout between the two layers.
        self.net = nn.Sequential(GELU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class JointBlock(nn.Module):
    """Attention and an MLP for each stream; the last block reads the text but leaves it as it is."""

    def __init__(self, config: MMDiTConfig, index: int) -> None:
        super().__init__()
        width = config.width
        last, dual = index == config.num_layers - 1, index in config.dual_attention_layers
        self.norm1 = Modulation(width, 9 if dual else 6)
        self.norm1_context = Modulation(width, 2 if last else 6)
        self.attn = JointAttention(config, last)
        self.attn2 = SelfAttention(config) if dual else None
        self.ff = MLP(width)
        self.ff_context = None if last else MLP(width)

    def forward(self, x: Tensor, context: Tensor, vector: Tensor, attention: Attend) -> tuple[Tensor, Tensor]:
        """x (B, N, width), context (B, T, width) and vector (B, width), through SiLU, to x and context."""
        shift, scale, gate, shift_ff, scale_ff, gate_ff, *dual = self.norm1(vector)
        text = self.norm1_context(vector)
        # Where there are but two, the files have the scale first.
        text_shift, text_scale = text[::-1] if self.ff_context is None else text[:2]
        text_in = modulated(context, text_shift, text_scale)
        seen, read = self.attn(modulated(x, shift, scale), text_in, attention)
        seen = torch.addcmul(x, gate, seen)
        if self.attn2 is not None:
            shift, scale, gate = dual
            seen = torch.addcmul(seen, gate, self.attn2(modulated(x, shift, scale), attention=attention))
        x = torch.addcmul(seen, gate_ff, self.ff(modulated(seen, shift_ff, scale_ff)))
        if self.ff_context is not None:
            gate, shift_ff, scale_ff, gate_ff = text[2:]
            context = torch.addcmul(context, gate, read)
            context = torch.addcmul(context, gate_ff, self.ff_context(modulated(context, shift_ff, scale_ff)))
        return x, context


class MMDiT(Denoiser):
    """The denoising network: x (B, in_channels, h, w) to (B, out_channels, h, w).

    h and w are multiples of `patch_size`, at most `pos_embed_max_size` patches, else ModelError. `time` (B,) is 0 to
    1000, the flow's noise level times 1000. It is told a context (B, T, joint_attention_dim) and `pooled`
    (B, pooled_projection_dim). Inputs are cast to the weights' dtype, in which the result is.
    """

    role: ClassVar[Role] = Role.TRANSFORMER
    joint: ClassVar[bool] = True

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_embed = PatchEmbed(config)
        self.time_text_embed = TimeTextEmbedding(config)
        self.context_embedder = nn.Linear(config.joint_attention_dim, config.width)
        self.transformer_blocks = nn.ModuleList(JointBlock(config, i) for i in range(config.num_layers))
        self.norm_out = Modulation(config.width, 2)
        self.proj_out = zeroed(nn.Linear(config.width, config.patch_size**2 * config.out_channels))
        self.name_layers()

    @property
    def middle(self) -> str:
        return f"transformer_blocks.{self.config.num_layers // 2}"

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.transformer_blocks)

    def tokens(self, x: Tensor) -> int:
        return int(x.shape[-2] * x.shape[-1] // self.config.patch_size**2)

    def blank(self, tokens: int, sizes: int = 0) -> Conditioning:
        config = self.config
        return Conditioning(
            torch.zeros(1, tokens, config.joint_attention_dim), torch.zeros(1, config.pooled_projection_dim)
        )

    def forward(self, x: Tensor, time: Tensor, told: Conditioning) -> Tensor:
        dtype, layers = self.proj_out.weight.dtype, self.config.num_layers
        attention = told.attention or attend
        residuals = None if told.residuals is None else told.residuals.blocks
        tokens = self.pos_embed(x.to(dtype))
        vector = F.silu(self.time_text_embed(time, told.needed("pooled").to(dtype)))
        context = self.context_embedder(told.context.to(dtype))
        for index, block in enumerate(self.transformer_blocks):
            tokens, context = block(tokens, context, vector, attention)
            if residuals and index < layers - 1:
                # Not `index * len(residuals) // layers`: for some counts diffusers' rounding differs.
                tokens += residuals[int(index / (layers / len(residuals)))].to(dtype)
        scale, shift = self.norm_out(vector)
        return self.to_latents(self.proj_out(modulated(tokens, shift, scale)), x.shape[-2])

    def to_latents(self, tokens: Tensor, height: int) -> Tensor:
        """Tokens (B, N, patch * patch * out_channels) to a channels-last (B, out_channels, height, w)."""
        batch, patch, channels = len(tokens), self.config.patch_size, self.config.out_channels
        pixels = tokens.view(batch, height // patch, -1, patch, patch, channels).transpose(2, 3)
        return to_image(pixels.reshape(batch, -1, channels), height)
