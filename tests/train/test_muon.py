"""Muon: orthogonal steps, and runs that go on with their momentum."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from tests.train.toys import SETTINGS, ToyStage
from torch import nn

from darkroom.train.loop import Trainer, continue_from, shares_by_shape
from darkroom.train.muon import Muon, orthogonal
from darkroom.train.saved import NAME

MUON = dataclasses.replace(SETTINGS, optimiser="muon")


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5)])
def test_a_step_is_the_nearest_orthogonal_matrix(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    step = orthogonal(matrix)
    assert torch.linalg.svdvals(step).sub(1).abs().max() < 0.4
    # The polynomial leaves singular values between 0.7 and 1.2, but the directions are those of U V^T.
    assert (step * (u @ v)).sum() / (step.norm() * (u @ v).norm()) > 0.97


def test_kernels_are_stepped_as_matrices_of_the_size_of_adams_steps():
    kernel = nn.Parameter(torch.zeros(16, 8, 3, 3))
    optimiser = Muon([{"params": [kernel]}], lr=0.1)
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    optimiser.step()
    assert kernel.square().mean().sqrt().item() == pytest.approx(0.1 * 0.2, rel=0.25)


def test_embeddings_and_vectors_are_not_matrices():
    network = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    matrices = [p for share in shares_by_shape([network]) if share.matrices for p in share.parameters]
    assert [p is network[1].weight for p in matrices] == [True]


@pytest.mark.parametrize("step", [1, 6, 11])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, step):
    assert Trainer(ToyStage(), MUON, tmp_path / "whole").run()
    assert Trainer(ToyStage(), MUON, tmp_path / "parts").run(until=step)
    assert Trainer(ToyStage(), MUON, tmp_path / "parts").run()
    whole, parts = load_file(tmp_path / "whole" / NAME), load_file(tmp_path / "parts" / NAME)
    assert any(name.startswith("optimiser.momentum.") for name in whole)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_of_the_other_optimiser_can_be_gone_on_from(tmp_path):
    Trainer(ToyStage(), SETTINGS, tmp_path / "adam").run(until=6)
    branch = Trainer(ToyStage(), MUON, tmp_path / "muon")
    continue_from(branch, tmp_path / "adam" / NAME)
    assert branch.step == 6
    assert branch.run()
