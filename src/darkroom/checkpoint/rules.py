"""The names that single files use, and ours: rules that work both ways.

A single file keeps the names of the code its model was trained with; ours are those of the Hugging Face folders. Each
network is a row of blocks, and a block of one sort always differs in the same few words. So a rule for every tensor is
*generated*: where its block lies in either layout (from the network's dimensions), then what its leaf is called. A rule
knows its inverse, which makes writing a single file free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darkroom.networks import VAE, CLIPText, MMDiT, TinyVAE, UNet, UNetConfig, VAEConfig


@dataclass(frozen=True)
class Change:
    """What happens to a tensor on the way: `read` makes ours of theirs, `write` theirs of ours."""

    name: str
    read: Callable[[Tensor, int], Tensor]
    write: Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Rule:
    """One tensor of theirs and the one, or the parts in order, that we keep of it."""

    theirs: str
    ours: tuple[str, ...]
    change: Change

    def read(self, tensor: Tensor) -> dict[str, Tensor]:
        """Ours by name; views of the tensor where they can be."""
        return {name: self.change.read(tensor, i) for i, name in enumerate(self.ours)}

    def write(self, tensors: Sequence[Tensor]) -> Tensor:
        """Theirs, from ours in the order of `ours`."""
        return self.change.write(tensors)


def _halves_swapped(tensor: Tensor) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1])


SAME = Change("same", lambda t, i: t, lambda ts: ts[0])
SPLIT = Change("split", lambda t, i: t.chunk(3)[i], torch.cat)  # type: ignore[arg-type]
SWAP = Change("swap", lambda t, i: _halves_swapped(t), lambda ts: _halves_swapped(ts[0]))
TRANSPOSE = Change("transpose", lambda t, i: t.T, lambda ts: ts[0].T.contiguous())
SQUEEZE = Change("squeeze", lambda t, i: t.flatten(1), lambda ts: ts[0][:, :, None, None])

Leaf = tuple[str, str, Change]
"""Our name in a block, theirs, and the change. A leaf may be a tensor's name or the start of one."""
Block = tuple[str, str, Sequence[Leaf]]
"""Where a block begins in our names and in theirs, and its leaves."""

AS_IT_IS: Sequence[Leaf] = (("", "", SAME),)
UNET_RESNET: Sequence[Leaf] = (
    ("norm1", "in_layers.0", SAME),
    ("conv1", "in_layers.2", SAME),
    ("time_emb_proj", "emb_layers.1", SAME),
    ("norm2", "out_layers.0", SAME),
    ("conv2", "out_layers.3", SAME),
    ("conv_shortcut", "skip_connection", SAME),
)
VAE_RESNET: Sequence[Leaf] = (("conv_shortcut", "nin_shortcut", SAME), *AS_IT_IS)
VAE_ATTENTION: Sequence[Leaf] = (
    ("group_norm", "norm", SAME),
    *(
        (f"{ours}.{leaf}", f"{theirs}.{leaf}", SQUEEZE if leaf == "weight" else SAME)
        for ours, theirs in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"))
        for leaf in ("weight", "bias")
    ),
)
OPENCLIP_LAYER: Sequence[Leaf] = (
    ("layer_norm1", "ln_1", SAME),
    ("layer_norm2", "ln_2", SAME),
    ("mlp.fc1", "mlp.c_fc", SAME),
    ("mlp.fc2", "mlp.c_proj", SAME),
    ("self_attn.out_proj", "attn.out_proj", SAME),
    *(
        (f"self_attn.{part}_proj.{leaf}", f"attn.in_proj_{leaf}", SPLIT)
        for leaf in ("weight", "bias")
        for part in "qkv"
    ),
)


def _unet(config: UNetConfig) -> Iterator[Block]:
    yield "time_embedding.linear_1", "time_embed.0", AS_IT_IS
    yield "time_embedding.linear_2", "time_embed.2", AS_IT_IS
    yield "time_embedding.cond_proj", "time_embed.cond_proj", AS_IT_IS
    for ours in ("add_embedding", "class_embedding"):
        yield f"{ours}.linear_1", "label_emb.0.0", AS_IT_IS
        yield f"{ours}.linear_2", "label_emb.0.2", AS_IT_IS
    yield "class_embedding.weight", "label_emb.weight", AS_IT_IS
    yield "conv_in", "input_blocks.0.0", AS_IT_IS
    yield "conv_norm_out", "out.0", AS_IT_IS
    yield "conv_out", "out.2", AS_IT_IS
    levels = range(len(config.block_out_channels))
    number = 0
    for i in levels:
        for j in range(len(config.level(i).down)):
            number += 1
            yield f"down_blocks.{i}.resnets.{j}", f"input_blocks.{number}.0", UNET_RESNET
            yield f"down_blocks.{i}.attentions.{j}", f"input_blocks.{number}.1", AS_IT_IS
        number += 1
        yield f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{number}.0.op", AS_IT_IS
    yield "mid_block.resnets.0", "middle_block.0", UNET_RESNET
    yield "mid_block.attentions.0", "middle_block.1", AS_IT_IS
    yield "mid_block.resnets.1", "middle_block.2", UNET_RESNET
    number = 0
    for k, i in enumerate(reversed(levels)):
        depths = config.level(i).up
        for j in range(len(depths)):
            theirs = f"output_blocks.{number + j}"
            yield f"up_blocks.{k}.resnets.{j}", f"{theirs}.0", UNET_RESNET
            yield f"up_blocks.{k}.attentions.{j}", f"{theirs}.1", AS_IT_IS
        number += len(depths)
        place = f"output_blocks.{number - 1}.{2 if any(depths) else 1}"
        yield f"up_blocks.{k}.upsamplers.0.conv", f"{place}.conv", AS_IT_IS


def _vae(config: VAEConfig) -> Iterator[Block]:
    levels = len(config.block_out_channels)
    for part, sort, layers in (("encoder", "down", 0), ("decoder", "up", 1)):
        for i in range(levels):
            theirs = f"{part}.{sort}.{i if sort == 'down' else levels - 1 - i}"
            for j in range(config.layers_per_block + layers):
                yield f"{part}.{sort}_blocks.{i}.resnets.{j}", f"{theirs}.block.{j}", VAE_RESNET
            yield f"{part}.{sort}_blocks.{i}.{sort}samplers.0", f"{theirs}.{sort}sample", AS_IT_IS
        yield f"{part}.mid_block.resnets.0", f"{part}.mid.block_1", VAE_RESNET
        yield f"{part}.mid_block.attentions.0", f"{part}.mid.attn_1", VAE_ATTENTION
        yield f"{part}.mid_block.resnets.1", f"{part}.mid.block_2", VAE_RESNET
        yield f"{part}.conv_norm_out", f"{part}.norm_out", AS_IT_IS
    yield "", "", AS_IT_IS


def _tiny(layers: int = 40) -> Iterator[Block]:
    """Of as many layers as no tiny autoencoder has."""
    for i in range(layers):
        yield f"encoder.layers.{i}", f"encoder.{i}", AS_IT_IS
        yield f"decoder.layers.{i}", f"decoder.{i + 1}", AS_IT_IS  # Theirs counts the limiter before it.


def _openclip(layers: int) -> Iterator[Block]:
    for i in range(layers):
        yield f"text_model.encoder.layers.{i}", f"transformer.resblocks.{i}", OPENCLIP_LAYER
    yield "text_model.embeddings.token_embedding", "token_embedding", AS_IT_IS
    yield "text_model.embeddings.position_embedding.weight", "positional_embedding", AS_IT_IS
    yield "text_model.final_layer_norm", "ln_final", AS_IT_IS
    yield "text_projection.weight", "text_projection", (("", "", TRANSPOSE),)


def _mmdit(layers: int) -> Iterator[Block]:
    yield "pos_embed.proj", "x_embedder.proj", AS_IT_IS
    yield "pos_embed.pos_embed", "pos_embed", AS_IT_IS
    for ours, theirs in (("timestep", "t"), ("text", "y")):
        for k in (1, 2):
            place = f"time_text_embed.{ours}_embedder.linear_{k}"
            yield place, f"{theirs}_embedder.mlp.{2 * k - 2}", AS_IT_IS
    for i in range(layers):
        yield f"transformer_blocks.{i}", f"joint_blocks.{i}", tuple(_joint_block(last=i == layers - 1))
    yield "norm_out.linear", "final_layer.adaLN_modulation.1", (("", "", SWAP),)
    yield "proj_out", "final_layer.linear", AS_IT_IS
    yield "", "", AS_IT_IS


def _joint_block(last: bool) -> Iterator[Leaf]:
    yield "norm1.linear", "x_block.adaLN_modulation.1", SAME
    # The last block keeps nothing of the text: its norm has a shift and a scale only, in the other order.
    yield "norm1_context.linear", "context_block.adaLN_modulation.1", SWAP if last else SAME
    for attention in ("attn", "attn2"):
        for ours, theirs, added in (("to_{}", "x_block", ""), ("add_{}_proj", "context_block", "added_")):
            for leaf in ("weight", "bias"):
                for part in "qkv":
                    name = f"{attention}.{ours.format(part)}.{leaf}"
                    yield name, f"{theirs}.{attention}.qkv.{leaf}", SPLIT
            for part in "qk":
                yield f"{attention}.norm_{added}{part}", f"{theirs}.{attention}.ln_{part}", SAME
        yield f"{attention}.to_out.0", f"x_block.{attention}.proj", SAME
        yield f"{attention}.to_add_out", f"context_block.{attention}.proj", SAME
    for ours, theirs in (("ff", "x_block"), ("ff_context", "context_block")):
        yield f"{ours}.net.0.proj", f"{theirs}.mlp.fc1", SAME
        yield f"{ours}.net.2", f"{theirs}.mlp.fc2", SAME


def original_rules(network: nn.Module) -> list[Rule]:
    """A rule for every tensor of a network, to the names it has in its authors' files, without the prefix that a file
    gives the component.

    U-Net, VAE: CompVis' and Stability's latent diffusion; CLIP text: OpenCLIP (OpenAI's CLIP is kept under
    transformers' own names in every file); MMDiT: Stability's.
    """
    match network:
        case UNet():
            blocks = _unet(network.config)
        case TinyVAE():
            blocks = _tiny()
        case VAE():
            blocks = _vae(network.config)
        case CLIPText():
            blocks = _openclip(network.config.num_hidden_layers)
        case MMDiT():
            blocks = _mmdit(network.config.num_layers)
        case _:
            raise AssertionError(f"no original names are known for {type(network).__name__}")
    return _generated(list(blocks), network.state_dict())


def _generated(blocks: Sequence[Block], names: Iterator[str] | dict[str, Tensor]) -> list[Rule]:
    table = {ours: (theirs, leaves) for ours, theirs, leaves in blocks}
    found: dict[str, Rule] = {}
    for name in names:
        theirs, change = _translated(table, name)
        ours = (*found[theirs].ours, name) if theirs in found else (name,)
        found[theirs] = Rule(theirs, ours, change)
    return [_in_order(rule) for rule in found.values()]


def _translated(table: dict[str, tuple[str, Sequence[Leaf]]], name: str) -> tuple[str, Change]:
    """Their name for a tensor of ours: that of its block, then that of the leaf."""
    words = name.split(".")
    for cut in range(len(words), -1, -1):
        block = ".".join(words[:cut])
        if block not in table:
            continue
        theirs, leaves = table[block]
        rest = ".".join(words[cut:])
        for ours, leaf, change in leaves:
            if rest == ours or not ours or rest.startswith(f"{ours}."):
                whole = ".".join(filter(None, (theirs, leaf + rest.removeprefix(ours) if ours else rest)))
                return whole, change
    raise AssertionError(f"no rule for {name}")


def _in_order(rule: Rule) -> Rule:
    """Queries, keys, values: the order in which files stack them, whatever the network's own."""
    if rule.change is not SPLIT:
        return rule
    return Rule(rule.theirs, tuple(sorted(rule.ours, key=_query_key_value)), SPLIT)


def _query_key_value(name: str) -> int:
    words = name.split(".")
    letter = next(word for word in words[-2].split("_") if word in ("q", "k", "v"))
    return "qkv".index(letter)
