"""What a model's settings say of how it is used: scheduler_config.json and darkroom.json, read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from darkroom.checkpoint.family import Family
from darkroom.checkpoint.foreign import OTHER_NOISE
from darkroom.checkpoint.source import Source
from darkroom.diffusion import Discrete, FlowSchedule, NoiseSchedule, betas, parse_sampler, process
from darkroom.errors import ModelError, UnsupportedModel
from darkroom.files import read_text


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
    """The family with what darkroom.json says."""
    return replace(
        family,
        native=int(extra.get("native_size", family.native)),
        preferences=replace(family.preferences, **extra.get("preferences", {})),
        preview=_rows(extra.get("preview")) or family.preview,
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
    return Discrete(levels, zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)))


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
    common = {
        "_class_name": family.scheduler,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "prediction_type": family.process.name,
        "steps_offset": 1,
        "rescale_betas_zero_snr": isinstance(schedule, Discrete) and schedule.zero_terminal_snr,
    }
    if family.sizes:
        return {**common, "timestep_spacing": "leading"}
    if common["rescale_betas_zero_snr"]:  # PNDM, the usual one, has no such setting.
        return {**common, "_class_name": "DDIMScheduler", "set_alpha_to_one": False, "clip_sample": False}
    del common["rescale_betas_zero_snr"]
    return {**common, "skip_prk_steps": True, "set_alpha_to_one": False}


def _rows(matrix: Any) -> tuple[tuple[float, ...], ...] | None:
    return None if matrix is None else tuple(tuple(float(x) for x in row) for row in matrix)
