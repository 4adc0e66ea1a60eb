"""How near latents come to those of ComfyUI's own code, sampler by sampler and schedule by schedule.

    git clone --depth 1 https://github.com/comfyanonymous/ComfyUI
    pip install psutil aiohttp pyyaml
    python benchmarks/comfyui.py ComfyUI

Runs `comfy/k_diffusion/sampling.py` and `comfy/samplers.py` of a checkout beside Darkroom's samplers, on the noise
schedule of Stable Diffusion, in float32 on the CPU, with a small function in the place of the network, and prints the
relative difference of the latents, and of the sigmas of each schedule. Modules that ComfyUI imports besides are empty.
"""

from __future__ import annotations

import argparse
import inspect
import math
import sys
import types
from typing import Any

import torch

from darkroom.checkpoint.families import SD1
from darkroom.diffusion import Estimate, Run, Seeding, points_for, sampler, sampler_info
from darkroom.diffusion.noise import SeededNoise
from darkroom.errors import InvalidRequest
from darkroom.recipes.stage import OPTIONS

SHAPE, STEPS, SEED = (1, 4, 16, 16), 12, 7
EMPTY = (
    *("torchvision", "torchvision.transforms", "av", "torchaudio", "comfy.model_base", "comfy.model_patcher"),
    *(
        "comfy.lora",
        "comfy.hooks",
        "comfy.sampler_helpers",
        "comfy.patcher_extension",
        "comfy.context_windows",
    ),
    *("comfy.controlnet", "comfy.sd"),
)
DROPS_LAST = ("dpm_2", "dpm_2_ancestral")
MIX = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) * 0.4


class Empty(types.ModuleType):
    """A module in which everything is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def network(x: torch.Tensor, time: float) -> torch.Tensor:
    """What stands for the network: smooth, of every channel, and of the time."""
    mixed = torch.einsum("oc,bchw->bohw", MIX, x)
    return torch.tanh(mixed + 0.3 * x.roll(1, -1)) + 0.1 * math.sin(time / 200)


class Theirs:
    """ComfyUI's samplers, from a checkout."""

    def __init__(self, path: str) -> None:
        sys.path.insert(0, path)
        sys.argv = [sys.argv[0], "--cpu"]
        sys.modules.update({name: Empty(name) for name in EMPTY})
        import comfy  # type: ignore[import-not-found] # What the command line names.

        for name in EMPTY:
            if name.startswith("comfy."):
                setattr(comfy, name.partition(".")[2], sys.modules[name])
        import comfy.options  # type: ignore[import-not-found]

        comfy.options.enable_args_parsing()
        import comfy.k_diffusion.sampling  # type: ignore[import-not-found]
        import comfy.model_sampling  # type: ignore[import-not-found]
        import comfy.samplers  # type: ignore[import-not-found]

        self.functions, self.samplers = comfy.k_diffusion.sampling, comfy.samplers
        kind = type("Sampling", (comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS), {})
        self.levels = kind(None)

    def sigmas(self, schedule: str, steps: int) -> torch.Tensor:
        found: torch.Tensor = self.samplers.calculate_sigmas(self.levels, schedule, steps)
        return found

    def latent(self, name: str, schedule: str) -> torch.Tensor:
        """What a sampler comes to, noise and all."""
        drops = name in DROPS_LAST
        sigmas = self.sigmas(schedule, STEPS + drops)
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]]) if drops else sigmas
        noise = torch.randn(SHAPE, generator=torch.manual_seed(SEED))
        largest = math.isclose(float(self.levels.sigma_max), float(sigmas[0]), rel_tol=1e-5)
        x = self.levels.noise_scaling(sigmas[0], noise, torch.zeros(SHAPE), largest)
        draws = iter(range(1, 10_000))
        source = SeededNoise(SEED, SHAPE, seeding=Seeding("comfy"))
        more: dict[str, Any] = {"extra_args": {"seed": SEED, "model_options": {}}, "disable": True}
        function = getattr(self.functions, f"sample_{'euler' if name == 'ddim' else name}")
        if "noise_sampler" in inspect.signature(function).parameters and "sde" not in name:
            more["noise_sampler"] = lambda sigma, following: source(next(draws))
        if name == "dpm_fast":
            found = function(self.model(sigmas), x, sigmas[-2], sigmas[0], STEPS, **more)
        elif name == "dpm_adaptive":
            found = function(self.model(sigmas), x, sigmas[-2], sigmas[0], **more)
        else:
            found = function(self.model(sigmas), x, sigmas, **more)
        assert isinstance(found, torch.Tensor)
        return found

    def model(self, sigmas: torch.Tensor) -> Any:
        """The network as its samplers call it."""
        levels = self.levels

        class Model:
            def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **more: Any) -> Any:
                output = network(levels.calculate_input(sigma, x), float(levels.timestep(sigma)[0]))
                return levels.calculate_denoised(sigma, output, x)

        model, patcher = Model(), types.SimpleNamespace(get_model_object=lambda name: levels)
        within = types.SimpleNamespace(model_sampling=levels)
        model.inner_model = types.SimpleNamespace(model_patcher=patcher, inner_model=within)  # type: ignore[attr-defined]
        model.sigmas = sigmas  # type: ignore[attr-defined]
        return model


def ours(name: str, schedule: str) -> torch.Tensor:
    """The same by Darkroom, as a recipe has it."""
    options = ",".join(f"{option}={value}" for option, value in OPTIONS.get(name, {}).items())
    text = f"{name}:{options}" if options else name
    points = points_for(SD1.schedule, STEPS, text, schedule)
    source = SeededNoise(SEED, SHAPE, seeding=Seeding("comfy"))
    run = Run.begin(source, points[0], full=True)
    run.path = source.path(points) if sampler_info(text).brownian else None
    steps = sampler(text)(run, points)
    try:
        x, point = next(steps)
        while True:
            shown, time = SD1.process.network_input(x, point)
            x, point = steps.send(Estimate(SD1.process.denoised(network(shown, float(time)), x, point)))
    except StopIteration:
        return torch.as_tensor(run.x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", help="a folder with ComfyUI's code")
    theirs = Theirs(parser.parse_args().checkout)
    print("schedules, sigmas of 20 steps")
    for schedule in theirs.samplers.SCHEDULER_NAMES:
        try:
            points = points_for(SD1.schedule, 20, "euler", schedule)
        except InvalidRequest:
            print(f"  {schedule:28} none of that name here")
            continue
        expected = theirs.sigmas(schedule, 20)
        found = torch.tensor([point.sigma / point.alpha for point in points])
        print(f"  {schedule:28} {float((found - expected).abs().max() / expected.max()):.1e}")
    print(f"samplers, latents after {STEPS} steps on normal and karras")
    for name in theirs.samplers.SAMPLER_NAMES:
        if name.endswith(("_cfg_pp", "_gpu")) or name.startswith("uni_pc"):
            continue
        try:
            sampler_info(name)
        except InvalidRequest:
            print(f"  {name:28} none of that name here")
            continue
        gaps = []
        for schedule in ("normal", "karras"):
            expected = theirs.latent(name, schedule)
            gaps.append(float((ours(name, schedule) - expected).norm() / expected.norm()))
        print(f"  {name:28} {gaps[0]:.1e} {gaps[1]:.1e}")


if __name__ == "__main__":
    main()
