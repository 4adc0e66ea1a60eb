"""All samplers, as users know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from darkroom.diffusion import multistep, plusplus, samplers, solvers
from darkroom.diffusion.options import Option, options_of
from darkroom.diffusion.run import Steps


@dataclass(frozen=True)
class SamplerInfo:
    """A sampler as users know it.

    `label` is A1111's name for it, `aliases` those of ComfyUI and diffusers; `schedule` is used when
    none is asked for; `order` is that of its steps on the probability-flow ODE, once
    it remembers enough;
    `skips_last` says that the peers give it one step more and leave out the last but one point; `brownian` that its
    noise is of one path (`darkroom.diffusion.brownian`); `guidance_share` is what of a guidance scale it is guided by,
    other than 1 for CFG++; `adaptive`: how many calls it takes is not known beforehand.
    """

    name: str
    label: str
    function: Callable[..., Steps]
    description: str
    aliases: tuple[str, ...] = ()
    schedule: str = "normal"
    order: int = 1
    stochastic: bool = False
    skips_last: bool = False
    brownian: bool = False
    guidance_share: float = 1.0
    adaptive: bool = False

    @property
    def options(self) -> Mapping[str, Option]:
        return options_of(self.function)


PLUS_PLUS = 1 / 12.5
"""Of a guidance scale as users are used to, what CFG++ takes: A1111's convention, by which 12.5 is the whole of it."""

_INFOS = (
    SamplerInfo(
        "euler",
        "Euler",
        samplers.euler,
        "The plainest: straight to where the estimate points.",
        ("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    ),
    SamplerInfo(
        "euler_ancestral",
        "Euler a",
        samplers.euler_ancestral,
        "Euler with fresh noise at every step: varied, never settles.",
        ("EulerAncestralDiscreteScheduler",),
        stochastic=True,
    ),
    SamplerInfo(
        "heun",
        "Heun",
        samplers.heun,
        "Two calls a step, the second corrects the first: accurate, slow.",
        ("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
        order=2,
    ),
    SamplerInfo(
        "dpm_2",
        "DPM2",
        samplers.dpm_2,
        "Two calls a step, the second from its middle.",
        ("KDPM2DiscreteScheduler",),
        "karras",
        order=2,
        skips_last=True,
    ),
    SamplerInfo(
        "dpm_2_ancestral",
        "DPM2 a",
        samplers.dpm_2_ancestral,
        "DPM2 with fresh noise at every step.",
        ("KDPM2AncestralDiscreteScheduler",),
        "karras",
        order=2,
        stochastic=True,
        skips_last=True,
    ),
    SamplerInfo(
        "lms",
        "LMS",
        multistep.lms,
        "Linear multistep: a curve through the last four slopes.",
        ("LMSDiscreteScheduler",),
        order=4,
    ),
    SamplerInfo(
        "dpmpp_2s_ancestral",
        "DPM++ 2S a",
        samplers.dpmpp_2s_ancestral,
        "DPM-Solver++ with a middle call and fresh noise at every step.",
        (),
        "karras",
        order=2,
        stochastic=True,
    ),
    SamplerInfo(
        "dpmpp_2m",
        "DPM++ 2M",
        multistep.dpmpp_2m,
        "DPM-Solver++ from the last two estimates: a good picture in few steps.",
        ("DPMSolverMultistepScheduler",),
        "karras",
        order=2,
    ),
    SamplerInfo(
        "dpmpp_sde",
        "DPM++ SDE",
        samplers.dpmpp_sde,
        "DPM-Solver++ with noise, two calls a step: detailed, slow.",
        ("DPMSolverSDEScheduler",),
        "karras",
        order=2,
        stochastic=True,
        brownian=True,
    ),
    SamplerInfo(
        "dpmpp_2m_sde",
        "DPM++ 2M SDE",
        multistep.dpmpp_2m_sde,
        "DPM-Solver++ 2M with noise: detailed.",
        (),
        "exponential",
        order=2,
        stochastic=True,
        brownian=True,
    ),
    SamplerInfo(
        "dpmpp_2m_sde_heun",
        "DPM++ 2M SDE Heun",
        partial(multistep.dpmpp_2m_sde, solver_type="heun"),
        "DPM++ 2M SDE that integrates the change of the estimate exactly.",
        (),
        "exponential",
        order=2,
        stochastic=True,
        brownian=True,
    ),
    SamplerInfo(
        "dpmpp_3m_sde",
        "DPM++ 3M SDE",
        multistep.dpmpp_3m_sde,
        "DPM-Solver++ with noise from the last three estimates: best with many steps.",
        (),
        "exponential",
        order=2,
        stochastic=True,
        brownian=True,
    ),
    SamplerInfo(
        "ddim",
        "DDIM",
        samplers.ddim,
        "Euler's step on DDIM's points; its eta adds noise.",
        ("DDIMScheduler",),
        "ddim_uniform",
    ),
    SamplerInfo(
        "ddpm",
        "DDPM",
        samplers.ddpm,
        "The trained chain run backwards, noise and all: wants many steps.",
        ("DDPMScheduler",),
        "ddim_uniform",
        stochastic=True,
    ),
    SamplerInfo(
        "plms",
        "PLMS",
        multistep.plms,
        "Pseudo linear multistep, what Stable Diffusion 1 ships with.",
        ("PNDMScheduler",),
        "leading",
        order=2,
    ),
    SamplerInfo(
        "pndm", "PNDM", multistep.pndm, "PLMS after three Runge-Kutta steps.", (), "leading", order=2
    ),
    SamplerInfo(
        "deis",
        "DEIS",
        multistep.deis,
        "Exponential integrator: a curve in log noise through the last slopes.",
        ("DEISMultistepScheduler", "DEISMultistep"),
        order=3,
    ),
    SamplerInfo(
        "unipc",
        "UniPC",
        multistep.unipc,
        "Unified predictor-corrector: good in very few steps.",
        ("uni_pc", "uni_pc_bh2", "UniPCMultistepScheduler"),
        order=3,
    ),
    SamplerInfo(
        "dpm_fast",
        "DPM fast",
        solvers.dpm_fast,
        "DPM-Solver of third order, in as many calls as steps.",
        order=1,
        stochastic=True,
    ),
    SamplerInfo(
        "dpm_adaptive",
        "DPM adaptive",
        solvers.dpm_adaptive,
        "DPM-Solver that chooses its steps by their error: accurate, slow; the steps asked for do not count.",
        order=3,
        stochastic=True,
        adaptive=True,
    ),
    SamplerInfo(
        "restart",
        "Restart",
        solvers.restart,
        "Heun's steps, of which some are gone again from fresh noise: from 20 steps on.",
        (),
        "karras",
        order=2,
        stochastic=True,
    ),
    SamplerInfo(
        "heunpp2",
        "HeunPP2",
        samplers.heunpp2,
        "Heun with a third call, two points ahead: accurate, slow.",
        ("Heun++2",),
        order=1,
    ),
    SamplerInfo(
        "ipndm",
        "IPNDM",
        multistep.ipndm,
        "Improved PNDM: four slopes, one call a step from the first on.",
        order=2,
    ),
    SamplerInfo(
        "res_multistep",
        "Res multistep",
        multistep.res_multistep,
        "Refined exponential solver from the last two estimates.",
        (),
        "karras",
        order=2,
    ),
    SamplerInfo(
        "res_multistep_ancestral",
        "Res multistep a",
        multistep.res_multistep_ancestral,
        "Res multistep with fresh noise at every step.",
        (),
        "karras",
        order=2,
        stochastic=True,
    ),
    SamplerInfo(
        "ddim_cfgpp",
        "DDIM CFG++",
        plusplus.ddim_cfgpp,
        "DDIM along the noise of the unguided estimate: soft at any guidance.",
        ("DDIM CFG PP",),
        "ddim_uniform",
        guidance_share=PLUS_PLUS,
    ),
    SamplerInfo(
        "euler_cfgpp",
        "Euler CFG++",
        plusplus.euler_cfgpp,
        "Euler along the noise of the unguided estimate.",
        ("euler_cfg_pp",),
        guidance_share=PLUS_PLUS,
    ),
    SamplerInfo(
        "euler_ancestral_cfgpp",
        "Euler a CFG++",
        plusplus.euler_ancestral_cfgpp,
        "Euler CFG++ with fresh noise at every step.",
        ("euler_ancestral_cfg_pp",),
        stochastic=True,
        guidance_share=PLUS_PLUS,
    ),
    SamplerInfo(
        "dpmpp_2s_ancestral_cfgpp",
        "DPM++ 2S a CFG++",
        plusplus.dpmpp_2s_ancestral_cfgpp,
        "DPM++ 2S a along the noise of the unguided estimate.",
        ("dpmpp_2s_ancestral_cfg_pp",),
        "karras",
        order=2,
        stochastic=True,
        guidance_share=PLUS_PLUS,
    ),
    SamplerInfo(
        "dpmpp_2m_cfgpp",
        "DPM++ 2M CFG++",
        plusplus.dpmpp_2m_cfgpp,
        "DPM++ 2M along the noise of the unguided estimate.",
        ("dpmpp_2m_cfg_pp",),
        "karras",
        order=2,
        guidance_share=PLUS_PLUS,
    ),
    SamplerInfo(
        "lcm",
        "LCM",
        samplers.lcm,
        "For latent consistency models: four to eight steps.",
        ("LCMScheduler", "FlowMatchLCMScheduler"),
        "lcm",
        stochastic=True,
    ),
    SamplerInfo(
        "tcd",
        "TCD",
        samplers.tcd,
        "For trajectory consistency models: less noise than LCM's, more detail.",
        ("TCDScheduler",),
        "lcm",
        stochastic=True,
    ),
)

SAMPLERS: dict[str, SamplerInfo] = {info.name: info for info in _INFOS}
