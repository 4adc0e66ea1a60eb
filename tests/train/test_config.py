"""Settings files: every mistake named."""

from __future__ import annotations

import pytest

from darkroom.errors import InvalidRequest
from darkroom.train.config import LoopConfig, load_config, parse
from darkroom.train.pocket.clip import CLIPSettings
from darkroom.train.pocket.data import WorldConfig
from darkroom.train.pocket.latents import LatentSettings
from darkroom.train.pocket.unet import UNetSettings
from darkroom.train.pocket.vae import VAESettings


@pytest.mark.parametrize(
    ("name", "kind"),
    [("vae", VAESettings), ("clip", CLIPSettings), ("unet", UNetSettings), ("latents", LatentSettings)],
)
def test_the_shipped_settings_are_whole(name, kind):
    assert isinstance(load_config(kind, f"pocket/{name}"), kind)


def test_values_of_every_type_are_read(tmp_path):
    file = tmp_path / "u.toml"
    file.write_text(
        "text_rate = 1\n[network]\nblock_out_channels = [32, 64]\nlayers_per_block = [1, 2]\n"
        "transformer_layers_per_block = [0, 1]\nup_transformer_layers_per_block = [0, [1, 1, 1]]\n"
        "[loop]\nbetas = [0.9, 0.95]\n"
    )
    settings = load_config(UNetSettings, file, ["loop.batch=8", "vae=somewhere"])
    assert settings.text_rate == 1.0
    assert settings.network.up_transformer_layers_per_block == (0, (1, 1, 1))
    assert settings.loop.betas == (0.9, 0.95)
    assert (settings.loop.batch, settings.vae) == (8, "somewhere")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"bach": 3}, r"f\.toml: unknown setting 'bach'; did you mean 'batch'\?"),
        ({"batch": "many"}, "batch is 'many': it must be of type int"),
        ({"batch": True}, "batch is True: it must be of type int"),
        ({"batch": 0}, "batch is 0: it must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0: it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: it must be finite"),
        ({"betas": [0.9]}, r"betas is \(0.9,\): it must be two"),
        ({"ema": "powr"}, "ema is 'powr'; did you mean 'power'"),
        ({"ema_value": 0.5}, "ema_value is 0.5: it must be between 0 and 0.28"),
        ({"steps": 5, "decay": 6}, "decay is 6: it must be at most `steps`"),
    ],
)
def test_mistakes_are_named(table, message):
    with pytest.raises(InvalidRequest, match=message):
        parse(LoopConfig, table, "f.toml")


def test_mistakes_in_tables_and_files_are_named(tmp_path):
    with pytest.raises(InvalidRequest, match="size is 100: it must be a multiple of 8"):
        parse(WorldConfig, {"size": 100}, "f.toml")
    with pytest.raises(InvalidRequest, match="world is 3: it must be a table"):
        parse(LatentSettings, {"world": 3}, "f.toml")
    with pytest.raises(InvalidRequest, match=r"missing.*'network'"):
        parse(VAESettings, {}, "f.toml")
    with pytest.raises(InvalidRequest, match="did you mean 'pocket/vae'"):
        load_config(VAESettings, "pocket/vea")
    with pytest.raises(InvalidRequest, match="is not a setting"):
        load_config(VAESettings, "pocket/vae", ["loop"])
    (tmp_path / "bad.toml").write_text("[loop")
    with pytest.raises(InvalidRequest, match="cannot read the settings"):
        load_config(VAESettings, tmp_path / "bad.toml")
