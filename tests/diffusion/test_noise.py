"""Noise as A1111 and k-diffusion have it: sources, variations, other sizes, one path."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch

from darkroom.diffusion import (
    SAMPLERS,
    Discrete,
    FlowSchedule,
    Run,
    SeededNoise,
    Seeding,
    points_for,
    sampler,
)
from darkroom.diffusion.brownian import BrownianTree
from darkroom.diffusion.philox import normal, philox

SHAPE = (1, 4, 6, 8)


def drawn(seed: int, shape: tuple[int, ...] = SHAPE, count: int = 1) -> torch.Tensor:
    """The last of so many draws of torch's generator."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)][-1]


# What a GPU draws


def test_philox_on_the_authors_vectors() -> None:
    """Those that come with Random123."""
    for counter, key, expected in (
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ):
        assert tuple(philox(np.array(counter, np.uint32)[:, None], key)[:, 0]) == expected


def test_what_torch_draws_on_a_gpu() -> None:
    """torch.randn(3, 4, device="cuda") of seed 0, as A1111 publishes it."""
    expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    np.testing.assert_allclose(normal(0, 0, (3, 4)), expected, atol=2e-6)
    noise = SeededNoise(7, SHAPE, seeding=Seeding("nv"))
    assert noise(0).dtype == torch.float32
    np.testing.assert_array_equal(noise(3), normal(7, 3, SHAPE))
    assert not torch.equal(noise(0), noise(1))
    large = SeededNoise(2**33 + 5, (1, 4, 64, 64), seeding=Seeding("nv"))(0)
    assert abs(float(large.mean())) < 0.03
    assert abs(float(large.std()) - 1) < 0.03


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_itself() -> None:
    ours = SeededNoise(3, SHAPE, seeding=Seeding("gpu"))
    theirs = torch.Generator("cuda").manual_seed(3)
    torch.testing.assert_close(ours(0), torch.randn(SHAPE, generator=theirs, device="cuda").cpu())
    torch.testing.assert_close(torch.from_numpy(normal(3, 0, SHAPE)), ours(0), atol=1e-5, rtol=1e-5)


# Variations, other sizes, ENSD


def test_comfy_draws_on_both() -> None:
    """The first noise is the CPU's, the later ones are an NVIDIA GPU's from the first on."""
    comfy, cpu, nv = (SeededNoise(7, (1, 4, 8, 8), seeding=Seeding(each)) for each in ("comfy", "cpu", "nv"))
    torch.testing.assert_close(comfy(0), cpu(0), rtol=0, atol=0)
    for draw in (1, 3, 2):
        torch.testing.assert_close(comfy(draw), nv(draw - 1), rtol=0, atol=0)
    delta = SeededNoise(7, (1, 4, 8, 8), seeding=Seeding("comfy", 5))
    torch.testing.assert_close(
        delta(1), SeededNoise(12, (1, 4, 8, 8), seeding=Seeding("nv"))(0), rtol=0, atol=0
    )


@pytest.mark.parametrize("source", ["cpu", "nv", "comfy"])
def test_the_largest_seed(source: str) -> None:
    largest = SeededNoise(2**64 - 1, (1, 4, 8, 8), seeding=Seeding(source, 5))
    assert largest(0).isfinite().all()
    # Seeds go round.
    after = SeededNoise(4, (1, 4, 8, 8), seeding=Seeding("cpu" if source == "cpu" else "nv"))
    torch.testing.assert_close(largest(1), after(0), rtol=0, atol=0)


def test_a_delta_for_all_but_the_first() -> None:
    noise = SeededNoise(5, SHAPE, seeding=Seeding(delta=31337))
    assert torch.equal(noise(0), drawn(5))
    assert torch.equal(noise(1), drawn(5 + 31337))
    assert torch.equal(noise(2), drawn(5 + 31337, count=2))
    assert torch.equal(noise(1), drawn(5 + 31337))


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_variations(strength: float) -> None:
    """Between two noises along the arc of each of their columns."""
    a, b = drawn(5), drawn(9)
    found = SeededNoise(5, SHAPE, seeding=Seeding(variation=(9, strength)))(0)
    for channel in range(4):
        for column in range(8):
            x, y = (each[0, channel, :, column].double() for each in (a, b))
            angle = math.acos(float((x / x.norm() * y / y.norm()).sum()))
            expected = (math.sin((1 - strength) * angle) * x + math.sin(strength * angle) * y) / math.sin(
                angle
            )
            torch.testing.assert_close(found[0, channel, :, column].double(), expected, atol=1e-5, rtol=1e-4)
    same = SeededNoise(5, SHAPE, seeding=Seeding(variation=(5, strength)))(0)
    torch.testing.assert_close(same, a)
    assert torch.equal(SeededNoise(5, SHAPE, seeding=Seeding(variation=(9, strength)))(1), drawn(5, count=2))


@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 12), (10, 6), (6, 8), (5, 11)])
def test_from_another_size(height: int, width: int) -> None:
    """The known noise is in the middle, cut where it is larger; around it is the picture's own."""
    small, own = drawn(5, (1, 4, height, width)), drawn(5)
    found = SeededNoise(5, SHAPE, seeding=Seeding(resized=(height, width)))(0)
    expected = own.clone()
    top, left = (6 - height) // 2, (8 - width) // 2
    for row in range(height):
        for column in range(width):
            # What A1111 keeps of a larger noise is symmetric, one less on odd differences.
            inside_row = -top <= row < height + top if top < 0 else True
            inside_column = -left <= column < width + left if left < 0 else True
            if inside_row and inside_column:
                expected[..., row + top, column + left] = small[..., row, column]
    assert torch.equal(found, expected)
    both = SeededNoise(5, SHAPE, seeding=Seeding(resized=(height, width), variation=(5, 0.4)))(0)
    torch.testing.assert_close(both, found)


# One path


@pytest.mark.peer
def test_the_tree_is_torchsde_s() -> None:
    import torchsde

    draw = np.random.default_rng(0)
    for seed, (start, end) in ((7, (0.03, 14.6)), (2**31 + 3, (0.0, 1.0)), (0, (0.029167, 157.4))):
        theirs = torchsde.BrownianTree(start, torch.zeros(1, 4, 3, 5), end, entropy=seed)
        ours = BrownianTree(start, end, seed, lambda key: drawn(key, (1, 4, 3, 5)))
        for _ in range(12):
            a, b = sorted(draw.uniform(start, end, 2))
            torch.testing.assert_close(ours(a, b), theirs(a, b), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(ours(start, end), theirs(start, end))


@pytest.mark.peer
@pytest.mark.parametrize("spacing", ["karras", "exponential"])
def test_noise_of_a_way_is_k_diffusions(
    k_diffusion: Any, monkeypatch: pytest.MonkeyPatch, spacing: str
) -> None:
    monkeypatch.setattr(k_diffusion, "torchsde", importlib.import_module("torchsde"))
    schedule = Discrete()
    points = points_for(schedule, 9, "euler", spacing)
    path = SeededNoise(11, SHAPE).path(points)
    sigmas = torch.tensor([schedule.level(p) for p in points], dtype=torch.float32)
    theirs = k_diffusion.BrownianTreeNoiseSampler(
        torch.zeros(SHAPE), sigmas[sigmas > 0].min(), sigmas.max(), seed=11
    )
    for step in range(8):
        ours = path(points[step], points[step + 1])
        torch.testing.assert_close(ours, theirs(sigmas[step], sigmas[step + 1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("schedule", [Discrete(), Discrete(zero_terminal_snr=True), FlowSchedule(shift=3.0)])
def test_more_steps_come_nearer_to_one_picture(mixture: Any, drive: Any, schedule: Any) -> None:
    """With one path the sampler of the SDE settles; with fresh noise at every step it does not."""

    def made(steps: int, brownian: bool) -> torch.Tensor:
        points = points_for(
            schedule, steps, "dpmpp_2m_sde", "karras" if not isinstance(schedule, FlowSchedule) else "simple"
        )
        source = SeededNoise(3, (1, 4, 16, 16), dtype=torch.float64)
        run = Run.begin(source, points[0])
        run.path = source.path(points) if brownian else None
        found, _ = drive(sampler("dpmpp_2m_sde"), run, points, mixture)
        assert bool(found.isfinite().all())
        return found

    def gap(steps: int, brownian: bool) -> float:
        return float((made(steps, brownian) - made(2 * steps, brownian)).abs().mean())

    assert gap(80, True) < 0.6 * gap(10, True)
    assert gap(80, False) > 2 * gap(80, True)


def test_who_has_a_path() -> None:
    assert {name for name, info in SAMPLERS.items() if info.brownian} == {
        "dpmpp_sde",
        "dpmpp_2m_sde",
        "dpmpp_2m_sde_heun",
        "dpmpp_3m_sde",
    }
