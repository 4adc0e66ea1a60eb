"""Samplers against k-diffusion's, in float64, with the same network and the same noises.

k-diffusion moves y = x / alpha at sigma / alpha. Given the levels t of a flow and its denoiser instead,
the same functions are what ComfyUI runs on flow models.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from darkroom.diffusion import Discrete, FlowSchedule, Point, Run, points_for, sampler

pytestmark = pytest.mark.peer

VP = Discrete()
FLOW = FlowSchedule(shift=2.0)


def peer_model(mixture: Any, schedule: Any) -> Any:
    def model(y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = float(sigma[0])
        if isinstance(schedule, FlowSchedule):
            return mixture(y, Point(1 - level, level, 0))
        alpha = 1 / math.hypot(1, level)
        return mixture(y * alpha, Point(alpha, level * alpha, 0))

    return model


def compare(
    k_diffusion: Any,
    mixture: Any,
    drive: Any,
    noises: Any,
    schedule: Any,
    ours: str,
    theirs: str,
    **kwargs: Any,
) -> None:
    steps = kwargs.pop("steps", 9)
    spacing = kwargs.pop("spacing", "karras")
    peer_only = kwargs.pop("peer", {})
    points = points_for(schedule, steps, "euler", spacing)
    run = Run.begin(noises, points[0])
    start = run.x / schedule.scale(points[0])
    x, _ = drive(sampler(ours, **kwargs), run, points, mixture)
    sigmas = torch.tensor([schedule.level(p) for p in points], dtype=torch.float64)
    draws = itertools.count(1)
    if "noise_sampler" in getattr(k_diffusion, theirs).__wrapped__.__code__.co_varnames:
        peer_only["noise_sampler"] = lambda a, b: noises(next(draws))
    y = getattr(k_diffusion, theirs)(
        peer_model(mixture, schedule), start, sigmas, disable=True, **kwargs, **peer_only
    )
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "lms"])
def test_deterministic(
    k_diffusion: Any, mixture: Any, drive: Any, noises: Any, schedule: Any, name: str, steps: int
) -> None:
    compare(k_diffusion, mixture, drive, noises, schedule, name, f"sample_{name}", steps=steps)


@pytest.mark.parametrize("spacing", ["normal", "exponential", "simple"])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_dpmpp_2m(k_diffusion: Any, mixture: Any, drive: Any, noises: Any, steps: int, spacing: str) -> None:
    compare(
        k_diffusion, mixture, drive, noises, VP, "dpmpp_2m", "sample_dpmpp_2m", steps=steps, spacing=spacing
    )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_lms_order(k_diffusion: Any, mixture: Any, drive: Any, noises: Any, order: int) -> None:
    compare(k_diffusion, mixture, drive, noises, VP, "lms", "sample_lms", order=order)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("s_noise", [1.0, 1.1])
@pytest.mark.parametrize(
    "name",
    [
        "euler_ancestral",
        "dpm_2_ancestral",
        "dpmpp_2s_ancestral",
        "dpmpp_sde",
        "dpmpp_2m_sde",
        "dpmpp_3m_sde",
    ],
)
def test_stochastic(
    k_diffusion: Any, mixture: Any, drive: Any, noises: Any, name: str, s_noise: float, eta: float
) -> None:
    compare(
        k_diffusion, mixture, drive, noises, VP, name, f"sample_{name}", eta=eta, s_noise=s_noise, steps=8
    )


def test_dpmpp_2m_sde_heun(k_diffusion: Any, mixture: Any, drive: Any, noises: Any) -> None:
    theirs = {"peer": {"solver_type": "heun"}}
    compare(
        k_diffusion, mixture, drive, noises, VP, "dpmpp_2m_sde_heun", "sample_dpmpp_2m_sde", eta=0.7, **theirs
    )


def test_dpmpp_sde_r(k_diffusion: Any, mixture: Any, drive: Any, noises: Any) -> None:
    compare(k_diffusion, mixture, drive, noises, VP, "dpmpp_sde", "sample_dpmpp_sde", r=1 / 3)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_churn(
    k_diffusion: Any, mixture: Any, drive: Any, noises: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """k-diffusion draws at every step even where it does not churn, we only where we do: with one noise
    for all draws the two can be compared on a part of the levels."""
    same = noises(0)
    monkeypatch.setattr(k_diffusion.torch, "randn_like", lambda x: same)
    options = {"s_churn": 3.0, "s_tmin": 0.3, "s_tmax": 9.0, "s_noise": 1.007}
    compare(k_diffusion, mixture, drive, lambda draw: same, VP, name, f"sample_{name}", **options)


# Samplers that choose their points


COPIES = pytest.mark.filterwarnings("ignore:To copy construct from a tensor")


@COPIES
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 5, 6, 20])
def test_dpm_fast(k_diffusion: Any, mixture: Any, drive: Any, noises: Any, steps: int, eta: float) -> None:
    points = points_for(VP, steps, "dpm_fast", "normal")
    run = Run.begin(noises, points[0])
    start = run.x / points[0].alpha
    x, asked = drive(sampler("dpm_fast", eta=eta), run, points, mixture)
    assert len(asked) == steps
    draws = itertools.count(1)
    y = k_diffusion.sample_dpm_fast(
        peer_model(mixture, VP),
        start,
        torch.tensor(VP.lowest, dtype=torch.float64),
        torch.tensor(VP.level(points[0]), dtype=torch.float64),
        steps,
        disable=True,
        eta=eta,
        noise_sampler=lambda a, b: noises(next(draws)),
    )
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)  # Its points are in single precision.


@COPIES
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("rtol", [0.05, 0.005])
def test_dpm_adaptive(
    k_diffusion: Any, mixture: Any, drive: Any, noises: Any, order: int, rtol: float, eta: float
) -> None:
    points = points_for(VP, 10, "dpm_adaptive", "normal")
    run = Run.begin(noises, points[0])
    start = run.x / points[0].alpha
    x, asked = drive(sampler("dpm_adaptive", order=order, rtol=rtol, eta=eta), run, points, mixture)
    draws = itertools.count(1)
    y, info = k_diffusion.sample_dpm_adaptive(
        peer_model(mixture, VP),
        start,
        torch.tensor(VP.lowest, dtype=torch.float64),
        torch.tensor(VP.level(points[0]), dtype=torch.float64),
        disable=True,
        order=order,
        rtol=rtol,
        eta=eta,
        noise_sampler=lambda a, b: noises(next(draws)),
        return_info=True,
    )
    assert len(asked) == info["nfe"]
    torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


# Samplers of ComfyUI and A1111, written out once more as they are there: on y = x / alpha at sigmas


def sigmas_of(points: Any) -> list[float]:
    return [p.sigma / p.alpha for p in points]


def on_sigmas(mixture: Any) -> Any:
    return lambda y, s: mixture(y / math.hypot(1, s), Point(1 / math.hypot(1, s), s / math.hypot(1, s), 0))


def agree(
    drive: Any, noises: Any, mixture: Any, name: str, steps: int, reference: Any, **kwargs: Any
) -> None:
    points = points_for(VP, steps, "euler", "karras")
    run = Run.begin(noises, points[0])
    y = reference(run.x / points[0].alpha, sigmas_of(points), on_sigmas(mixture), itertools.count(1))
    x, _ = drive(sampler(name, **kwargs), run, points, mixture)
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 3, 12])
def test_heunpp2(mixture: Any, drive: Any, noises: Any, steps: int) -> None:
    def reference(y: Any, sigmas: Any, model: Any, draws: Any) -> Any:
        def slope(y: Any, s: float) -> Any:
            return (y - model(y, s)) / s

        for i in range(len(sigmas) - 1):
            now, then = sigmas[i], sigmas[i + 1]
            d = slope(y, now)
            y2 = y + d * (then - now)
            if then == 0:
                y = y2
                continue
            d2, far = slope(y2, then), sigmas[i + 2]
            if far == 0:
                w2 = then / (2 * sigmas[0])
                d = (1 - w2) * d + w2 * d2
            else:
                d3 = slope(y2 + d2 * (far - then), far)
                w2, w3 = then / (3 * sigmas[0]), far / (3 * sigmas[0])
                d = (1 - w2 - w3) * d + w2 * d2 + w3 * d3
            y = y + d * (then - now)
        return y

    agree(drive, noises, mixture, "heunpp2", steps, reference)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 12])
def test_ipndm(mixture: Any, drive: Any, noises: Any, steps: int) -> None:
    factors = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]

    def reference(y: Any, sigmas: Any, model: Any, draws: Any) -> Any:
        past: list[Any] = []
        for now, then in itertools.pairwise(sigmas):
            d = model(y, now)
            past = [(y - d) / now, *past][:4]
            step = sum(f * s for f, s in zip(factors[len(past) - 1], past, strict=True))
            y = y + (then - now) * step if then else d
        return y

    agree(drive, noises, mixture, "ipndm", steps, reference)


def ancestral(now: float, then: float, eta: float) -> tuple[float, float]:
    up = min(then, eta * math.sqrt(then**2 * (now**2 - then**2) / now**2))
    return math.sqrt(then**2 - up**2), up


@pytest.mark.parametrize("eta", [0.0, 0.8])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_res_multistep(mixture: Any, drive: Any, noises: Any, steps: int, eta: float) -> None:
    def reference(y: Any, sigmas: Any, model: Any, draws: Any) -> Any:
        before = down_before = None
        for i, (now, then) in enumerate(itertools.pairwise(sigmas)):
            d = model(y, now)
            down, up = ancestral(now, then, eta)
            if down == 0 or before is None:
                y = y + (y - d) / now * (down - now)
            else:
                t, t_next = -math.log(now), -math.log(down)
                h = t_next - t
                c2 = (-math.log(sigmas[i - 1]) + math.log(down_before)) / h
                phi1 = math.expm1(-h) / -h
                phi2 = (phi1 - 1) / -h
                y = math.exp(-h) * y + h * ((phi1 - phi2 / c2) * d + phi2 / c2 * before)
            if then:
                y = y + noises(next(draws)) * up if up else y
            before, down_before = d, down
        return y

    agree(drive, noises, mixture, "res_multistep", steps, reference, eta=eta)


@pytest.mark.parametrize("steps", [5, 19, 20, 40])
def test_restart(mixture: Any, drive: Any, noises: Any, steps: int) -> None:
    def karras(n: int, low: float, high: float) -> list[float]:
        ramp = [i / max(n - 1, 1) for i in range(n)]
        return [(high ** (1 / 7) + r * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for r in ramp] + [0.0]

    def reference(y: Any, sigmas: Any, model: Any, draws: Any) -> Any:
        n = len(sigmas) - 1
        loops = {}
        if n >= 20:
            again, times = (n // 4, 2) if n >= 36 else (9, 1)
            sigmas = karras(n - again * times, sigmas[-2], sigmas[0])
            loops = {min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - 0.1)): (again + 1, times, 2)}
        pairs = []
        for i in range(len(sigmas) - 1):
            pairs.append((sigmas[i], sigmas[i + 1]))
            if i + 1 in loops:
                count, times, top = loops[i + 1]
                high = min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - top))
                down = karras(count, sigmas[i + 1], sigmas[high])[:-1]
                pairs += list(itertools.pairwise(down)) * times
        last = None
        for now, then in pairs:
            if last is not None and last < now:
                y = y + noises(next(draws)) * math.sqrt(now**2 - last**2)
            d = (y - model(y, now)) / now
            end = y + d * (then - now)
            if then:
                end = y + (d + (end - model(end, then)) / then) / 2 * (then - now)
            y, last = end, then
        return y

    agree(drive, noises, mixture, "restart", steps, reference)


# CFG++: the network's unguided estimate is another one


def answers(mixture: Any) -> Any:
    def both(x: Any, point: Point) -> tuple[Any, Any]:
        d = mixture(x, point)
        return d, 0.8 * d - 0.1

    return both


def plus(name: str, noises: Any, mixture: Any, points: Any, **kwargs: Any) -> Any:
    """Runs a sampler whose questions are answered with two estimates."""
    from darkroom.diffusion import Estimate

    run = Run.begin(noises, points[0])
    start = run.x / points[0].alpha
    steps = sampler(name, **kwargs)(run, points)
    try:
        question = next(steps)
        while True:
            question = steps.send(Estimate(*answers(mixture)(*question)))
    except StopIteration:
        return start, run.x


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("name", ["ddim_cfgpp", "euler_ancestral_cfgpp"])
def test_euler_and_ddim_plusplus(mixture: Any, noises: Any, name: str, eta: float) -> None:
    points = points_for(VP, 7, "euler", "normal")
    y, x = plus(name, noises, mixture, points, eta=eta)
    draws = itertools.count(1)
    for now, then in itertools.pairwise(sigmas_of(points)):
        d, u = answers(lambda y, p, s=now: on_sigmas(mixture)(y, s))(y, None)
        down, up = ancestral(now, then, eta)
        y = d + (y - u) / now * down
        y = y + noises(next(draws)) * up if up else y
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


def test_dpmpp_2m_plusplus(mixture: Any, noises: Any) -> None:
    points = points_for(VP, 7, "euler", "karras")
    y, x = plus("dpmpp_2m_cfgpp", noises, mixture, points)
    sigmas, before = sigmas_of(points), None
    for i, (now, then) in enumerate(itertools.pairwise(sigmas)):
        d, u = answers(lambda y, p, s=now: on_sigmas(mixture)(y, s))(y, None)
        kept = then / now
        mix = -kept * u
        if before is not None and then:
            r = math.log(sigmas[i - 1] / now) / math.log(now / then)
            mix = mix + (1 - kept) / (2 * r) * (d - before)
        y, before = d + mix + kept * y, u
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_dpmpp_2s_plusplus(mixture: Any, noises: Any, eta: float) -> None:
    points = points_for(VP, 7, "euler", "karras")
    y, x = plus("dpmpp_2s_ancestral_cfgpp", noises, mixture, points, eta=eta)
    draws = itertools.count(1)
    for now, then in itertools.pairwise(sigmas_of(points)):
        d, u = answers(lambda y, p, s=now: on_sigmas(mixture)(y, s))(y, None)
        down, up = ancestral(now, then, eta)
        if down == 0:
            y = d
        else:
            middle = math.sqrt(now * down)
            half = middle / now * (y + d - u) + (1 - middle / now) * d
            d2 = on_sigmas(mixture)(half, middle)
            y = down / now * (y + d - u) + (1 - down / now) * d2
        y = y + noises(next(draws)) * up if up else y
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)
