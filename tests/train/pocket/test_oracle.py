from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom.oracle.judging import truth
from darkroom.oracle.oracle import STRIDE, Maps, Oracle, OracleConfig, cell_centres, decode
from darkroom.train.config import LoopConfig, load_config
from darkroom.train.loop import Trainer
from darkroom.train.pocket.artefacts import compressed, degraded, haunted, moved, noisy, softened, tinted
from darkroom.train.pocket.data import WorldConfig
from darkroom.train.pocket.judged import ABSENT, SLOTS, UNSURE, Judged, drawn, joined, with_spoiled_things
from darkroom.train.pocket.oracle import OracleSettings, OracleStage, detection_loss, shares_right, targets
from darkroom.world import KINDS

TINY = OracleConfig(size=64, widths=(4, 8, 8, 8), depths=(0, 0, 0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The data


def test_sample_i_is_a_function_of_seed_and_i() -> None:
    source = Judged(WorldConfig(size=64), seed=3)
    whole, parts = source(0, 12), [source(0, 5), source(5, 7)]
    for name, values in whole.items():
        assert np.array_equal(values, np.concatenate([part[name] for part in parts])), name
    assert whole["pictures"].shape == (12, 64, 64, 3)
    assert whole["boxes"].shape == (12, SLOTS, 4)
    assert not np.array_equal(whole["pictures"], Judged(WorldConfig(size=64), seed=4)(0, 12)["pictures"])


def test_spoiled_things_lose_their_labels_and_the_others_stay_as_they_are() -> None:
    rng = random.Random(0)
    for index in range(30):
        sample = drawn(128, 5, index)
        spoiled = with_spoiled_things(sample, rng)
        assert len(spoiled.labels) < max(len(sample.labels), 1)
        changed = (spoiled.pixels != sample.pixels).any(-1)
        for label in sample.labels:
            x0, y0, x1, y1 = (round(edge * 128) for edge in label.edges)
            inside = changed[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].mean()
            assert inside == 0 if label in spoiled.labels else inside > 0.05


def test_joined_scenes_keep_what_is_seen_of_their_things() -> None:
    rng = random.Random(1)
    for index in range(30):
        a, b = drawn(64, 6, index), drawn(64, 6, index + 1)
        both = joined(a, b, rng)
        assert set(both.setting) == {-1}
        areas = {
            label: (label.edges[2] - label.edges[0]) * (label.edges[3] - label.edges[1])
            for label in both.labels
        }
        assert all(0 < area < 0.3 for area in areas.values())
        assert len(both.labels) <= len(a.labels) + len(b.labels)


# The artefacts


@pytest.mark.parametrize("artefact", [tinted, haunted, softened, compressed, noisy])
def test_artefacts_are_mild(artefact) -> None:
    images = (
        torch.from_numpy(np.stack([drawn(64, 1, k).pixels for k in range(8)])).permute(0, 3, 1, 2) / 127.5 - 1
    )
    touched = artefact(images, generator())
    error = (touched - images).square().mean().sqrt()
    assert 0.002 < error < 0.2


def test_artefacts_come_from_the_generator_and_leave_some_pictures_alone() -> None:
    images = torch.rand(64, 3, 32, 32, generator=generator(1)) * 2 - 1
    one, two = degraded(images, generator(2)), degraded(images, generator(2))
    assert torch.equal(one, two)
    same = (one == images).flatten(1).all(1).float().mean()
    assert 0.1 < same < 0.5


def test_boxes_move_with_their_pictures() -> None:
    """A white rectangle on black is found where its box says, within two pixels of bending."""
    images, boxes = (
        torch.full((24, 3, 128, 128), -1.0),
        torch.tensor([[[0.35, 0.4, 0.6, 0.55]]]).repeat(24, 1, 1),
    )
    images[:, :, 51:70, 45:77] = 1
    result, where = moved(images, boxes, generator())
    for picture, box in zip(result, where[:, 0], strict=True):
        rows, columns = (picture[0] > 0).nonzero().T
        found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 128
        assert torch.allclose(found, box, atol=0.03)
    assert not torch.allclose(where, boxes, atol=0.02)


# Targets and loss


def batch_of(size: int = 64) -> dict[str, torch.Tensor]:
    arrays = Judged(WorldConfig(size=size), 0, spoiled=0, joined=0, mush=0, views=1)(0, 6)
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def perfect_maps(batch: dict[str, torch.Tensor], cells: int) -> Maps:
    """The maps that a network without fault would give."""
    aim = targets(batch["boxes"], batch["kinds"], cells)
    owned = batch["boxes"].gather(1, aim.owner.flatten(1)[..., None].expand(-1, -1, 4))
    at = cell_centres(cells)
    here = torch.stack([at.expand(cells, cells), at[:, None].expand(cells, cells)]).flatten(1).T
    edges = torch.cat([here - owned[..., :2], owned[..., 2:] - here], -1).mT.reshape(-1, 4, cells, cells)
    colours = torch.nn.functional.one_hot(batch["colours"].gather(1, aim.owner.flatten(1)), 11).mT.float()
    kinds = torch.where(aim.heat == 1, 12.0, -12.0)
    names = (9, 4, 5, 6)
    setting = {
        name: 20.0 * torch.nn.functional.one_hot(batch["setting"][:, k].clamp_min(0), names[k])
        for k, name in enumerate(("place", "time", "weather", "style"))
    }
    return Maps(kinds, 20 * colours.reshape(-1, 11, cells, cells), edges, setting)


def test_perfect_maps_decode_to_the_truth_and_cost_nothing() -> None:
    batch = batch_of()
    maps = perfect_maps(batch, 16)
    loss, terms = detection_loss(maps, batch, OracleSettings().loss)
    assert loss < 0.01, terms
    for k, found in enumerate(decode(maps, 0.5)):
        kinds = sorted(KINDS[i] for i in batch["kinds"][k].tolist() if i >= 0)
        assert sorted(thing.kind for thing in found.things) == kinds
        boxes = sorted(tuple(round(v, 3) for v in row) for row in batch["boxes"][k].tolist() if any(row))
        seen = sorted(tuple(round(v, 3) for v in (t.x0, t.y0, t.x1, t.y1)) for t in found.things)
        assert np.allclose(boxes, seen, atol=2e-3)


@pytest.mark.parametrize("term", ["kinds", "colours", "edges", "setting"])
def test_each_mistake_costs_its_term(term: str) -> None:
    batch = batch_of()
    maps = perfect_maps(batch, 16)
    wrong = {
        "kinds": maps._replace(kinds=maps.kinds.roll(1, 1)),
        "colours": maps._replace(colours=maps.colours.roll(1, 1)),
        "edges": maps._replace(edges=maps.edges + 0.05),
        "setting": maps._replace(setting={name: value.roll(1, 1) for name, value in maps.setting.items()}),
    }[term]
    before = detection_loss(maps, batch, OracleSettings().loss)[1]
    after = detection_loss(wrong, batch, OracleSettings().loss)[1]
    assert {name for name in after if after[name] > before[name] + 0.01} == {term}


def test_nothing_is_learned_where_a_thing_is_cut_in_two() -> None:
    boxes = torch.tensor([[[0.2, 0.2, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0.0, 0.0, 0.0, 0.0]]])
    aim = targets(boxes, torch.tensor([[UNSURE, 3, ABSENT]]), 16)
    assert aim.heat.amax((2, 3))[0].nonzero().flatten().tolist() == [3]
    assert (aim.heat == 1).sum() == 1
    masked = aim.learn[0] == 0
    assert masked[3:8, 3:8].all()
    assert masked.sum() == 25


def test_a_thing_pushed_out_of_the_frame_is_no_target() -> None:
    boxes = torch.tensor([[[-0.3, 0.2, 0.1, 0.5]]])
    assert targets(boxes, torch.tensor([[3]]), 16).heat.sum() == 0


# The stage


def settings(**loop: object) -> OracleSettings:
    config = LoopConfig(
        batch=4, steps=2, workers=0, warmup=0, validate_every=2, sample_every=2, log_every=1, **loop
    )
    return OracleSettings(network=TINY, loop=config, unseen=6)


def test_the_stage_trains_and_leaves_an_oracle(tmp_path: Path) -> None:
    trainer = Trainer(OracleStage(settings()), settings().loop, tmp_path)
    assert trainer.run()
    oracle = Oracle.load(tmp_path / "result/oracle")
    assert oracle.config == TINY
    assert (tmp_path / "samples/step-00000002.png").exists()
    assert len(oracle(drawn(64, 0, 0).pixels[None])) == 1


def test_it_learns(tmp_path: Path) -> None:
    """Twelve steps on one batch make its loss fall by half."""
    stage = OracleStage(replace(settings(), network=replace(TINY, widths=(8, 16, 16, 16))))
    batch = batch_of()
    optimiser = torch.optim.Adam(stage.network.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss, _ = stage.loss(batch, generator())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_shares_right_count_only_what_is_asked() -> None:
    scenes = OracleStage(settings())._scenes
    assert set(shares_right([truth(scene) for scene in scenes], scenes).values()) <= {1.0, 0.0}


def test_the_shipped_settings_can_be_read() -> None:
    config = load_config(OracleSettings, "pocket/oracle")
    assert config.network.size % STRIDE == 0
