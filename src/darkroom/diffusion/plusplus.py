"""CFG++ samplers: to the guided estimate along the noise of the unguided one.

Plain guidance extrapolates, and its steps leave the paths that the network knows; here the noise that is put back is
what the network sees without the prompt (Chung et al. 2024, https://arxiv.org/abs/2406.08070, algorithm 2). The scale
that is right for them lies between 0 and 1: `SamplerInfo.guidance_share` makes that of what users are used to.
"""

from __future__ import annotations

from darkroom.diffusion.options import Amount
from darkroom.diffusion.points import Point, Points
from darkroom.diffusion.process import Array
from darkroom.diffusion.run import Estimate, Run, Steps
from darkroom.diffusion.samplers import between, noised, posterior


def without(answer: Estimate) -> Array:
    """The estimate without the prompt; the guided one where guidance is off."""
    return answer.denoised if answer.unconditional is None else answer.unconditional


def aside(x: Array, d: Array, u: Array, p: Point, q: Point) -> Array:
    """x moved from p to q: to the estimate d, with the noise that x has if u is what is under it."""
    return q.alpha * d + (q.sigma / p.sigma) * (x - p.alpha * u)


def ddim_cfgpp(run: Run, points: Points, *, eta: Amount = 0.0, s_noise: Amount = 1.0) -> Steps:
    """DDIM's step, and Euler's, with noise at eta > 0."""
    for p, q in run.steps(points):
        answer = yield run.x, p
        below = posterior(p, q, eta)
        x = aside(run.x, answer.denoised, without(answer), p, below)
        run.x = noised(run, x, below, q, s_noise)


def euler_cfgpp(run: Run, points: Points) -> Steps:
    """The same without noise, as ComfyUI calls it."""
    return ddim_cfgpp(run, points)


def euler_ancestral_cfgpp(run: Run, points: Points, *, eta: Amount = 1.0, s_noise: Amount = 1.0) -> Steps:
    """The same with as much noise as the learned chain, as ComfyUI calls it."""
    return ddim_cfgpp(run, points, eta=eta, s_noise=s_noise)


def dpmpp_2s_ancestral_cfgpp(run: Run, points: Points, *, eta: Amount = 1.0, s_noise: Amount = 1.0) -> Steps:
    """DPM-Solver++(2S) with fresh noise at every step (ComfyUI)."""
    for p, q in run.steps(points):
        answer = yield run.x, p
        d, u = answer.denoised, without(answer)
        below = points.schedule.below(p, q, eta)
        if below.sigma:
            middle = between(points.schedule, p, below, 1 / 2)
            d2 = (yield aside(run.x, d, u, p, middle), middle).denoised
            d, u = d2, u - d + d2
        run.x = noised(run, aside(run.x, d, u, p, below), below, q, s_noise)


def dpmpp_2m_cfgpp(run: Run, points: Points) -> Steps:
    """DPM-Solver++(2M), its correction towards the unguided estimate of the step before (ComfyUI)."""
    for p, q in run.steps(points):
        answer = yield run.x, p
        d, u = answer.denoised, without(answer)
        x = aside(run.x, d, u, p, q)
        if run.history and q.sigma:
            before, lam = run.history[0]
            h = q.lam - p.lam
            gone = q.alpha - q.sigma * p.alpha / p.sigma
            x = x + (gone * h / (2 * (p.lam - lam))) * (d - before)
        run.x = x
        run.history = [(u, p.lam)]
