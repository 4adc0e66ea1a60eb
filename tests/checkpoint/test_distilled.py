"""Models whose names say that they are distilled."""

from __future__ import annotations

import pytest
from safetensors.torch import save_file
from tests.checkpoint.test_source import single_file

from darkroom.checkpoint.distilled import with_speed
from darkroom.checkpoint.families import SD35_LARGE, SDXL
from darkroom.checkpoint.opening import open_source

# (steps, guidance, sampler)
PLAIN = (25, 6.0, "dpmpp_2m")
LCM = (4, 1.0, "lcm")
MERGE = (6, 2.0, "dpmpp_sde")


@pytest.mark.parametrize(
    ("name", "settings"),
    {
        "sd_xl_turbo_1.0_fp16": (1, 1.0, "euler_ancestral"),
        "sdxl-turbo": (1, 1.0, "euler_ancestral"),
        "sdxlturbo": (1, 1.0, "euler_ancestral"),
        "TurboVisionXL_v4": MERGE,
        "dreamshaperXL_v21TurboDPMSDE": MERGE,
        "wildcardxXLTURBO_V10": MERGE,
        "juggernautXL_notTurbo": PLAIN,
        "non-turbo_v1": PLAIN,
        "turbo-free": PLAIN,
        "turbocharged_v2": PLAIN,
        "sdxl_lightning_8step": (8, 1.0, "euler"),
        "sdxl_2-step_lightning": (2, 1.0, "euler"),
        "realvisxlV40_v40LightningBakedvae": (4, 1.0, "euler"),
        "nonLightning_mix": PLAIN,
        "Hyper-SDXL-1step": (1, 1.0, "euler"),
        "Hyper-SDXL-12steps-CFG": (12, 5.0, "euler"),
        "model_hyper": (8, 1.0, "euler"),
        "HyperRealisticXL": PLAIN,
        "hyper_detail_v3": PLAIN,
        "dmd2_sdxl_4step_unet_fp16": LCM,
        "cyberrealisticXL_dmd2": LCM,
        "photonLCM_v10": LCM,
        "dreamshaper_lcm_v2": LCM,
        "lcmix": PLAIN,
    }.items(),
)
def test_names_are_read_as_words(name, settings):
    family, notes = with_speed(SDXL, [name])
    found = family.preferences
    assert (found.steps, found.guidance, found.sampler) == settings
    assert bool(notes) == (settings != PLAIN)


def test_flow_models_keep_their_sampler():
    family, _ = with_speed(SD35_LARGE, ["sd3.5_large_turbo"])
    assert (family.preferences.steps, family.preferences.guidance, family.preferences.sampler) == (
        4,
        1.0,
        "euler",
    )


def test_a_file_is_run_by_its_name_or_title(tmp_path):
    tensors = single_file("Stable Diffusion XL")
    for name, metadata in (
        ("sdxl_lightning_8step", {}),
        ("model", {"modelspec.title": "XL Lightning 8 Steps"}),
    ):
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path, metadata)
        with open_source(path) as source:
            assert (source.family.preferences.steps, source.family.preferences.schedule) == (8, "trailing")
            assert any("distilled (Lightning)" in note for note in source.notes)
    path = path.with_name("sdxl_lightning_1step_x0.safetensors")
    save_file(tensors, path)
    with open_source(path) as source:
        assert source.family.process.name == "sample"
