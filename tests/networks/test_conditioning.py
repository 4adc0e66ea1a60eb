"""What rows are told, one by one and together."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.networks.conftest import randomise
from tests.networks.test_mmdit import SMALL

from darkroom.networks import Conditioning, MMDiT, MMDiTConfig, Residuals, UNet, UNetConfig, attend
from darkroom.networks.conditioning import each_its_own, together

SMALL_UNET = UNetConfig(
    block_out_channels=(16, 32),
    transformer_layers_per_block=(1, 1),
    cross_attention_dim=12,
    norm_num_groups=8,
    layers_per_block=1,
)
TEXT_TIME = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 10 + 5 * 8,
}
UNETS = {
    "plain": SMALL_UNET,
    "sizes": dataclasses.replace(SMALL_UNET, **TEXT_TIME),
    "guidance": dataclasses.replace(SMALL_UNET, time_cond_proj_dim=16),
}


def unet(name="plain"):
    return randomise(UNet(UNETS[name])).eval().requires_grad_(False)


def mmdit():
    return randomise(MMDiT(MMDiTConfig(**SMALL))).eval().requires_grad_(False)


def filled(network, seed, sizes=5):
    """What a row of a network is told, at random."""
    g = torch.Generator().manual_seed(seed)
    blank = network.blank(7, sizes)
    parts = {
        name: None if part is None else torch.randn(part.shape, generator=g)
        for name in ("context", "pooled", "sizes", "guidance")
        for part in [getattr(blank, name)]
    }
    return Conditioning(**parts)


def residuals(network, x, seed):
    """A ControlNet's, for one row."""
    g = torch.Generator().manual_seed(seed)
    if network.joint:
        shape = 1, network.tokens(x), network.config.width
        return Residuals(tuple(torch.randn(shape, generator=g) for _ in range(2)))
    skips = []
    for block in network.down_blocks:
        block.register_forward_hook(lambda module, given, made: skips.extend(made))
    with torch.no_grad():
        network(x, torch.zeros(1), network.blank(7))
    shapes = [(1, network.config.block_out_channels[0], *x.shape[2:]), *(each.shape for each in skips)]
    for block in network.down_blocks:
        block._forward_hooks.clear()
    made = tuple(torch.randn(shape, generator=g) for shape in shapes)
    return Residuals(made, torch.randn(made[-1].shape, generator=g))


def halved(q, k, v, name):
    return attend(q, k, v) / 2


@pytest.mark.parametrize(
    "make", [unet, lambda: unet("sizes"), lambda: unet("guidance"), mmdit], ids=[*UNETS, "mmdit"]
)
def test_rows_together_are_told_what_each_is(make, relative_error):
    network = make()
    x, time = torch.randn(2, 4, 8, 8), torch.tensor([7.0, 402.0])
    rows = [filled(network, seed) for seed in (1, 2)]
    assert rows[0].key == rows[1].key
    both = network(x, time, together(rows))
    for number, row in enumerate(rows):
        own = network(x[number : number + 1], time[number : number + 1], row)
        assert relative_error(both[number : number + 1], own) < 1e-5
    swapped = network(x, time, together(rows[::-1]))
    assert relative_error(swapped, both) > 1e-3


@pytest.mark.parametrize("make", [unet, mmdit])
def test_each_row_has_its_own_residuals(make, relative_error):
    network = make()
    x, time = torch.randn(2, 4, 8, 8), torch.tensor([7.0, 402.0])
    rows = [
        dataclasses.replace(filled(network, seed), residuals=residuals(network, x[:1], seed))
        for seed in (1, 2)
    ]
    both = network(x, time, together(rows))
    for number, row in enumerate(rows):
        own = network(x[number : number + 1], time[number : number + 1], row)
        assert relative_error(both[number : number + 1], own) < 1e-5
    assert rows[0].key != filled(network, 1).key


@pytest.mark.parametrize("make", [unet, mmdit])
@pytest.mark.parametrize("order", [(None, halved), (halved, None), (halved, halved)])
def test_each_row_has_its_own_attention(make, order):
    """To the bit what it is beside rows of the same attention."""
    network = make()
    x, time = torch.randn(2, 4, 8, 8), torch.tensor([7.0, 402.0])
    rows = [filled(network, seed) for seed in (1, 2)]
    same = {
        own: network(x, time, together([dataclasses.replace(row, attention=own) for row in rows]))
        for own in (None, halved)
    }
    mixed = network(
        x,
        time,
        together([dataclasses.replace(row, attention=own) for row, own in zip(rows, order, strict=True)]),
    )
    for number, own in enumerate(order):
        assert torch.equal(mixed[number], same[own][number])
    assert not torch.equal(same[None], same[halved])


def test_one_attention_of_all_is_called_as_it_is():
    assert each_its_own([None, None]) is None
    assert each_its_own([halved, halved]) is halved


def test_keys_tell_what_goes_together():
    context = torch.zeros(1, 7, 12)
    plain = Conditioning(context)
    assert plain.key == Conditioning(torch.ones(1, 7, 12), attention=halved).key
    others = [
        Conditioning(torch.zeros(1, 14, 12)),
        Conditioning(context, pooled=torch.zeros(1, 3)),
        Conditioning(context, guidance=torch.zeros(1)),
        Conditioning(context, residuals=Residuals((context,))),
        Conditioning(context, residuals=Residuals((context,), context)),
    ]
    assert len({plain.key, *(other.key for other in others)}) == 6


def test_numbers_keep_their_precision_on_a_device():
    told = Conditioning(
        torch.zeros(1, 7, 12),
        torch.zeros(1, 3),
        torch.tensor([[1023.0, 513.0]]),
        torch.tensor([7]),
        torch.tensor([6.4999]),
        Residuals((torch.zeros(1, 2),), torch.zeros(1, 2)),
    ).to(torch.device("cpu"), torch.bfloat16)
    assert told.sizes.tolist() == [[1023.0, 513.0]]
    assert (told.labels.dtype, told.guidance.dtype) == (torch.int64, torch.float32)
    half = [told.context, told.pooled, *told.residuals.blocks, told.residuals.mid]
    assert {each.dtype for each in half} == {torch.bfloat16}
