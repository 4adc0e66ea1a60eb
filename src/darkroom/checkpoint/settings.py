"""What a model's settings say of how it is used: scheduler_config.json and darkroom.json, read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from darkroom.checkpoint.family import Family
from darkroom.checkpoint.foreign import OTHER_NOISE
from darkroom.checkpoint.preferences import COMPOSE, GUIDANCE, SECOND_STRENGTH, STEPS
from darkroom.checkpoint.source import Source
from darkroom.diffusion import (
    Discrete,
    FlowSchedule,
    NoiseSchedule,
    Within,
    betas,
    parse_sampler,
    process,
    schedule_info,
)
from darkroom.errors import InvalidRequest, ModelError, UnsupportedModel
from darkroom.files import read_text
from darkroom.numeric import integer, real


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or ModelError."""
    try:
        value = json.loads(read_text(path))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: the model folder is incomplete") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object")
    return value


def with_extra(family: Family, extra: Mapping[str, Any]) -> Family:
    """The family with what darkroom.json says. Raises ModelError, TypeError or ValueError for what it cannot say."""
    native = integer(extra.get("native_size", family.native))
    if native is None or not 0 < native <= _LARGEST or native % family.factor:
        raise ModelError(
            f"native_size is {extra['native_size']!r}: it must be a multiple of {family.factor}, {_LARGEST} at most"
        )
    preferences = replace(family.preferences, **extra.get("preferences", {}))
    for name, fits, wanted in _PREFERENCES:
        if not fits(value := getattr(preferences, name)):
            raise ModelError(f"the preferred {name} is {value!r}: it must be {wanted}")
    sampler, schedule = parse_sampler(preferences.sampler)[0], schedule_info(preferences.schedule).name
    preferences = replace(preferences, sampler=sampler, schedule=schedule)
    if not isinstance(judge := extra.get("judge", family.judge), str):
        raise ModelError(f"its judge is {judge!r}: it must be the name of one")
    preview = _rows(extra.get("preview")) or family.preview
    return replace(family, native=native, preferences=preferences, preview=preview, judge=judge)


_LARGEST = 8192


def _known(find: Callable[[str], object]) -> Callable[[Any], bool]:
    def knows(value: Any) -> bool:
        try:
            return isinstance(value, str) and find(value) is not None
        except InvalidRequest:
            return False

    return knows


def _in(limits: Within, read: Callable[[Any], float | None] = real) -> Callable[[Any], bool]:
    return lambda value: (number := read(value)) is not None and number in limits


_PREFERENCES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("steps", _in(STEPS, integer), f"a whole number, {STEPS}"),
    ("guidance", _in(GUIDANCE), f"a number, {GUIDANCE}"),
    ("sampler", _known(parse_sampler), "the name of a sampler"),
    ("schedule", _known(schedule_info), "the name of a schedule"),
    ("second_strength", _in(SECOND_STRENGTH), f"a number, {SECOND_STRENGTH}"),
    ("compose", lambda value: value in COMPOSE, " or ".join(COMPOSE)),
    ("upscaler", lambda value: isinstance(value, str) and bool(value.strip()), "the name of an upscaler"),
)


# Schedulers of models that were trained on noise of another kind.
_SCHEDULERS_OF_IT = re.compile(r"EDM|Cosine|CMStochastic|ScoreSde|KarrasVe|VQDiffusion|DDPMWuerstchen|Amused")


def scheduled(family: Family, config: Mapping[str, Any]) -> Family:
    """The family with what a scheduler_config.json says of noise and prediction, and of how to sample."""
    if _SCHEDULERS_OF_IT.match(name := str(config.get("_class_name"))):
        raise UnsupportedModel(f"was trained for {name}, {OTHER_NOISE}")
    config = {name: value for name, value in config.items() if value is not None}
    schedule = noise_schedule(config)
    default = "flow" if isinstance(schedule, FlowSchedule) else "epsilon"
    family = replace(family, process=process(config.get("prediction_type", default)), schedule=schedule)
    preferences = family.preferences
    if str(config.get("_class_name")) in ("LCMScheduler", "TCDScheduler"):
        scale = preferences.guidance if family.embeds_guidance else 1.0
        sampler = parse_sampler(str(config["_class_name"]))[0]
        preferences = replace(preferences, steps=4, guidance=scale, sampler=sampler, schedule="lcm")
    elif config.get("timestep_spacing") == "trailing" and not isinstance(schedule, FlowSchedule):
        preferences = replace(preferences, schedule="trailing")
    return replace(family, preferences=preferences)


def noise_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """The noise schedule of a scheduler_config.json."""
    count = int(config.get("num_train_timesteps", 1000))
    flow = str(config.get("_class_name", "")).startswith("FlowMatch") or config.get("use_flow_sigmas")
    if flow or config.get("prediction_type") == "flow_prediction":
        return FlowSchedule(float(config.get("flow_shift", config.get("shift", 1.0))), count)
    if (trained := config.get("trained_betas")) is not None:
        levels = tuple(map(float, trained))
    else:
        start, end = float(config.get("beta_start", 0.00085)), float(config.get("beta_end", 0.012))
        levels = betas(config.get("beta_schedule", "scaled_linear"), start, end, count)
    zero_snr = config.get("rescale_betas_zero_snr", False)
    if not isinstance(zero_snr, bool):
        raise ModelError(f"rescale_betas_zero_snr is {zero_snr!r}: it must be true or false")
    return Discrete(levels, zero_terminal_snr=zero_snr)


def augmented(family: Family, config: Mapping[str, Any], most: object) -> Family:
    """The family with what a folder says of the noise that is laid over what its network is shown: by a
    scheduler_config.json, at so many levels. Raises ModelError for what is no such noise."""
    if (usual := family.augmentation) is None:
        return family
    schedule = noise_schedule(config) if config else usual.schedule
    levels = min(usual.most, schedule.last) if most is None else integer(most)
    if not isinstance(schedule, Discrete) or levels is None or not 0 <= levels <= schedule.last:
        raise ModelError(
            f"max_noise_level is {most!r}, of a {config.get('_class_name')}: it must be a whole number, a time of a "
            "schedule that is not a flow's"
        )
    own = replace(
        usual, schedule=schedule, usual=min(usual.usual, levels), most=levels, config=config or usual.config
    )
    return replace(family, augmentation=own)


def scheduler_json(source: Source) -> dict[str, Any]:
    """The scheduler_config.json that the model came with, else its family's usual one."""
    family, schedule = source.family, source.family.schedule
    if source.scheduler:
        kept = dict(source.scheduler)
        if isinstance(schedule, Discrete):  # Either may have been overridden.
            kept |= {
                "prediction_type": family.process.name,
                "rescale_betas_zero_snr": schedule.zero_terminal_snr,
            }
        return kept
    if isinstance(schedule, FlowSchedule):
        return {
            "_class_name": family.scheduler,
            "num_train_timesteps": schedule.count,
            "shift": schedule.shift,
        }
    assert isinstance(schedule, Discrete)
    common = {
        "_class_name": family.scheduler,
        "beta_schedule": "scaled_linear",
        "beta_start": round(schedule.betas[0], 12),
        "beta_end": round(schedule.betas[-1], 12),
        "num_train_timesteps": 1000,
        "prediction_type": family.process.name,
        "steps_offset": 1,
        "rescale_betas_zero_snr": schedule.zero_terminal_snr,
    }
    if family.sizes:
        return {**common, "timestep_spacing": "leading"}
    if common["rescale_betas_zero_snr"] or family.scheduler == "DDIMScheduler":  # PNDM has no such setting.
        return {**common, "_class_name": "DDIMScheduler", "set_alpha_to_one": False, "clip_sample": False}
    del common["rescale_betas_zero_snr"]
    return {**common, "skip_prk_steps": True, "set_alpha_to_one": False}


def _rows(matrix: Any) -> tuple[tuple[float, ...], ...] | None:
    return None if matrix is None else tuple(tuple(float(x) for x in row) for row in matrix)
