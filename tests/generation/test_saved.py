"""What is written down of a job that is on its way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import darkroom
from darkroom.diffusion import Snapshot
from darkroom.errors import InvalidRequest
from darkroom.generation import Request
from darkroom.generation.job import Job
from darkroom.generation.saved import Saved, mark_of


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_it_is_what_it_was_to_the_bit() -> None:
    x = torch.randn(1, 4, 3, 5).transpose(2, 3)
    half = x.to(torch.bfloat16)
    run = Snapshot(x, 7, ((x, 0.1, None), half, (x[:, :2], -1e-300)), 3, 9, (("guidance", "mean", x + 1),))
    saved = Saved(1, run, 12, "ab" * 32)
    content = saved.to_bytes()
    again = Saved.from_bytes(content)
    assert same(tuple(again.run), tuple(run))
    assert again._replace(run=run) == saved
    assert Saved.from_bytes(again.to_bytes()).request == saved.request
    # Any reader of safetensors reads it.
    assert torch.equal(safetensors.torch.load(content)["tensor 0"], x)


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_what_is_damaged_is_told(cut: int) -> None:
    content = Saved(0, Snapshot(torch.zeros(1, 4, 2, 2), 1, (), 1), 1, "a").to_bytes()
    with pytest.raises(InvalidRequest, match=r"no saved job .*begin the job again"):
        Saved.from_bytes(content[:cut])
    with pytest.raises(InvalidRequest, match="no saved job"):
        Saved.from_bytes(safetensors.torch.save({"a": torch.zeros(1)}))


def test_what_another_version_wrote_is_told() -> None:
    told = {"darkroom.saved": json.dumps({"version": 9})}
    with pytest.raises(InvalidRequest, match="version 9, 1 is read"):
        Saved.from_bytes(safetensors.torch.save({"a": torch.zeros(1)}, told))
    told = {"darkroom.saved": json.dumps({"version": 1, "run": {"x": {"tensor": "b"}}, "stage": 0})}
    with pytest.raises(InvalidRequest, match="damaged"):
        Saved.from_bytes(safetensors.torch.save({"a": torch.zeros(1)}, told))


def test_a_picture_goes_on_from_bytes_in_another_model(toy_folder: Path) -> None:
    """As a service has it: the process that began is gone, another loads the model and reads what was written."""
    asked = {"steps": 4, "width": 32, "height": 32, "seed": 5, "sampler": "dpmpp_2m_sde", "guides": ["apg"]}
    model, other = (darkroom.load(toy_folder, device="cpu", precision="float32") for _ in range(2))
    request = model.settle(Request.from_dict({"prompt": "a boat", **asked}))
    (whole,) = model.generate(request)
    task = model.engine.submit(Job(request, model.family))
    while task.job.done < 3:
        model.engine.tick()
    saved = task.job.snapshot()
    assert saved is not None
    content, told = saved.to_bytes(), json.dumps(request.to_dict())
    job = Job(Request.from_dict(json.loads(told)), other.family, Saved.from_bytes(content))
    again = other.engine.submit(job)
    other.engine.run()
    np.testing.assert_array_equal(again.result(), np.asarray(whole.image))
    with pytest.raises(InvalidRequest, match="of another request"):
        Job(request.replace(seed=6), model.family, saved)


def test_it_belongs_to_its_request() -> None:
    one, other = (Request("a", seed=seed, steps=3) for seed in (1, 2))
    assert mark_of(one) == mark_of(other.replace(seed=1)) != mark_of(other)
