"""The text and vision transformers of CLIP (Radford et al. 2021, arXiv 2103.00020) and OpenCLIP."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darkroom.networks.configs import CLIPTextConfig, CLIPVisionConfig, NormalizerConfig
from darkroom.networks.layers import attend, merge_heads, split_heads

LEGACY_EOS = 2  # What early configs claim the end token to be; it means "the token with the highest id".


class CLIPOutput(NamedTuple):
    """What a tower returns; B pictures or texts, T tokens, D `hidden_size`, P `projection_dim`.

    hidden_states: what enters the first layer and what leaves each, (B, T, D), without the final norm.
    last: the last of them; for texts through the final norm.
    pooled: the normed state of the end token or of the class token, (B, D).
    projected: `pooled` in the space that texts and pictures share, (B, P); None without a projection.
    """

    hidden_states: tuple[Tensor, ...]
    last: Tensor
    pooled: Tensor
    projected: Tensor | None


class MLP(nn.Module):
    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig) -> None:
        super().__init__()
        self.quick = config.hidden_act == "quick_gelu"
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.q_proj, self.k_proj, self.v_proj))
        if seen is None:
            return self.out_proj(merge_heads(attend(q, k, v, causal=self.causal)))
        allowed = seen[:, None, None, :]
        if self.causal:
            allowed = allowed & seen.new_ones(seen.shape[1], seen.shape[1]).tril()
        return self.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)))


class Layer(nn.Module):
    """One pre-norm transformer layer on tokens (B, T, D)."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, causal: bool) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.self_attn = SelfAttention(width, config.num_attention_heads, causal)
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), seen)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """The stack of layers; returns every state, the input's first."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, causal: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, causal) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, ...]:
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], seen))
        return tuple(states)


class TextEmbeddings(nn.Module):
    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        # Radford et al.'s initial values; torch's are fifty times larger.
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.01)

    def forward(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        size = self.token_embedding.num_embeddings
        states = self.token_embedding(ids if vectors is None else ids.clamp(max=size - 1))
        if vectors is not None:
            own = vectors.to(states)[(ids - size).clamp(min=0)]
            states = torch.where((ids >= size)[..., None], own, states)
        return states + self.position_embedding(torch.arange(ids.shape[1], device=ids.device))


class TextTransformer(nn.Module):
    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config, causal=True)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self, ids: Tensor, seen: Tensor | None = None, vectors: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return self.encoder(self.embeddings(ids, vectors), seen)


class CLIPText(nn.Module):
    """Token ids (B, T), T at most `max_position_embeddings`, to `CLIPOutput`.

    `seen` (B, T), bool, tells which tokens the others attend to; `vectors` (n, D) are what the ids from `vocab_size` on
    stand for (textual inversion).
    """

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextTransformer(config)
        self.text_projection = (
            nn.Linear(config.hidden_size, config.projection_dim, bias=False)
            if config.projection_dim
            else None
        )

    def forward(self, ids: Tensor, seen: Tensor | None = None, vectors: Tensor | None = None) -> CLIPOutput:
        states = self.text_model(ids, seen, vectors)
        last = self.final_norm(states[-1])
        pooled = last[torch.arange(len(ids), device=ids.device), self.end(ids)]
        projected = None if self.text_projection is None else self.text_projection(pooled)
        return CLIPOutput(states, last, pooled, projected)

    def final_norm(self, state: Tensor) -> Tensor:
        """The final norm, for those who take an earlier layer's state ("clip skip")."""
        return self.text_model.final_layer_norm(state)

    def end(self, ids: Tensor) -> Tensor:
        """Where each row's end token is, (B,): the first one, as texts may be padded with it."""
        eos = self.config.eos_token_id
        if eos == LEGACY_EOS:
            words = ids.masked_fill(ids >= self.config.vocab_size, 0)
            return words.argmax(dim=1)
        return (ids == eos).int().argmax(dim=1)


class VisionEmbeddings(nn.Module):
    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.patch_embedding = nn.Conv2d(config.num_channels, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding((config.image_size // patch) ** 2 + 1, width)
        nn.init.normal_(self.position_embedding.weight, std=width**-0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1).to(patches.dtype)
        states = torch.cat([first, patches], dim=1)
        return states + self.position_embedding(torch.arange(states.shape[1], device=states.device))


class VisionTransformer(nn.Module):
    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)  # Spelt so in the files.
        self.encoder = Encoder(config, causal=False)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self.encoder(self.pre_layrnorm(self.embeddings(pixels)))


class CLIPVision(nn.Module):
    """Pictures (B, 3, image_size, image_size), normalised as CLIP's are, to `CLIPOutput`."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionTransformer(config)
        self.visual_projection = (
            nn.Linear(config.hidden_size, config.projection_dim, bias=False)
            if config.projection_dim
            else None
        )

    def forward(self, pixels: Tensor) -> CLIPOutput:
        states = self.vision_model(pixels.to(self.vision_model.embeddings.patch_embedding.weight.dtype))
        pooled = self.vision_model.post_layernorm(states[-1][:, 0])
        projected = None if self.visual_projection is None else self.visual_projection(pooled)
        return CLIPOutput(states, states[-1], pooled, projected)


class EmbeddingNormalizer(nn.Module):
    """The mean and the spread of what an image encoder makes of pictures, (1, embedding_dim) each: noise over
    embeddings is laid where these are 0 and 1 (unCLIP: Ramesh et al. 2022, https://arxiv.org/abs/2204.06125)."""

    def __init__(self, config: NormalizerConfig) -> None:
        super().__init__()
        self.config = config
        self.mean = nn.Parameter(torch.zeros(1, config.embedding_dim))
        self.std = nn.Parameter(torch.ones(1, config.embedding_dim))
