"""A1111's options, of which a request or an owner may have others (its `modules/shared_options.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from darkroom.errors import InvalidRequest, nearest
from darkroom.serve.database import put_row
from darkroom.serve.schema import options


class Option(NamedTuple):
    """What stands where nothing is said, and what A1111 calls it in pictures, where it does so in numbers or words that
    are read there (`darkroom.recipes.a1111`)."""

    usual: Any
    word: str = ""


OPTIONS: Mapping[str, Option] = {
    "sd_model_checkpoint": Option(""),
    "sd_checkpoint_hash": Option(""),
    "sd_vae": Option("Automatic", "VAE"),
    "CLIP_stop_at_last_layers": Option(1, "Clip skip"),
    "samples_format": Option("png"),
    "jpeg_quality": Option(80),
    "randn_source": Option("GPU", "RNG"),
    "eta_noise_seed_delta": Option(0, "ENSD"),
    "eta_ancestral": Option(1.0, "Eta"),
    "eta_ddim": Option(0.0, "Eta DDIM"),
    "s_churn": Option(0.0, "Sigma churn"),
    "s_tmin": Option(0.0, "Sigma tmin"),
    "s_tmax": Option(0.0, "Sigma tmax"),
    "s_noise": Option(1.0, "Sigma noise"),
    "sigma_min": Option(0.0, "Schedule min sigma"),
    "sigma_max": Option(0.0, "Schedule max sigma"),
    "rho": Option(0.0, "Schedule rho"),
    "beta_dist_alpha": Option(0.6, "Beta schedule alpha"),
    "beta_dist_beta": Option(0.6, "Beta schedule beta"),
    "always_discard_next_to_last_sigma": Option(False, "Discard penultimate sigma"),
    "sgm_noise_multiplier": Option(False, "SGM noise multiplier"),
    "uni_pc_variant": Option("bh1", "UniPC variant"),
    "uni_pc_order": Option(3, "UniPC order"),
    "uni_pc_lower_order_final": Option(True, "UniPC lower order final"),
    "s_min_uncond": Option(0.0, "NGMS"),
    "s_min_uncond_all": Option(False, "NGMS all steps"),
    "skip_early_cond": Option(0.0, "Skip Early CFG"),
    "emphasis": Option("Original", "Emphasis"),
    "sd_noise_schedule": Option("Default", "Noise Schedule"),
    "initial_noise_multiplier": Option(1.0),
    "img2img_color_correction": Option(False),
    "upscaler_for_img2img": Option("None"),
}
"""Those that decide pixels and are heeded here."""
_FIXED: Mapping[str, Any] = {
    "img2img_fix_steps": False,
    "img2img_extra_noise": 0.0,
    "use_old_emphasis_implementation": False,
    "use_old_karras_scheduler_sigmas": False,
    "use_old_hires_fix_width_height": False,
    "use_old_scheduling": False,
    "use_downcasted_alpha_bar": False,
    "no_dpmpp_sde_batch_determinism": False,
    "enable_quantization": False,
    "comma_padding_backtrack": 20,
    "face_restoration": False,
    "sd_hypernetwork": "None",
    "sd_vae_encode_method": "Full",
    "sd_vae_decode_method": "Full",
    "tiling": False,
    "token_merging_ratio": 0.0,
    "token_merging_ratio_img2img": 0.0,
    "token_merging_ratio_hr": 0.0,
    "upcast_attn": False,
    "refiner_switch_by_sample_steps": False,
}
"""Those that decide pixels and cannot be otherwise here."""
FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}


def check(said: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are heeded, of those that are said. Raises InvalidRequest for what cannot be honoured; those that
    decide no pixel (where files go, how a page looks) are passed over."""
    found: dict[str, Any] = {}
    for name, value in said.items():
        if name in OPTIONS:
            found[name] = _like(name, value, OPTIONS[name].usual)
        elif name in _FIXED and not _same(value, _FIXED[name]):
            raise InvalidRequest(
                f"the option {name} is {value!r}, which is not here: leave it at {_FIXED[name]!r}"
            )
    format = str(found.get("samples_format", "png")).lower()
    if format not in FORMATS:
        raise InvalidRequest(f"samples_format is {format!r}: {nearest(format, FORMATS)}")
    return found


def _like(name: str, value: Any, usual: Any) -> Any:
    if isinstance(usual, bool):
        if not isinstance(value, bool):
            raise InvalidRequest(f"the option {name} is {value!r}: give true or false")
        return value
    if isinstance(usual, int | float):
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
            raise InvalidRequest(f"the option {name} is {value!r}: give a number")
        return value
    if value is None:
        return usual
    if not isinstance(value, str):
        raise InvalidRequest(f"the option {name} is {value!r}: give a text")
    return value


def _same(value: Any, usual: Any) -> bool:
    return (
        value == usual
        or (not usual and value in (None, 0, "", False))
        or str(value).lower() == str(usual).lower()
    )


def words(said: Mapping[str, Any]) -> dict[str, str]:
    """Options in A1111's words for pictures, but for those that are as usual."""
    return {
        option.word: str(said[name])
        for name, option in OPTIONS.items()
        if option.word and name in said and said[name] != option.usual
    }


def of_owner(connection: Connection, owner: str) -> dict[str, Any]:
    """The options that an owner has said to hold."""
    rows = connection.execute(select(options).where(options.c.owner == owner))
    return {row.name: row.value for row in rows}


def put(connection: Connection, owner: str, said: Mapping[str, Any]) -> None:
    """Have options hold for an owner from now on."""
    for name, value in said.items():
        put_row(connection, options, {"owner": owner, "name": name}, value=value)
