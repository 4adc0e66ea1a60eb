from __future__ import annotations

import pytest
from safetensors.torch import save_file
from tests.upscaling.test_reading import filled

from darkroom.networks.configs import CompactConfig
from darkroom.networks.upscaler import Compact


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """The file of a small upscaler."""
    path = tmp_path_factory.mktemp("upscaler") / "sharp.safetensors"
    save_file(filled(Compact(CompactConfig(features=8, layers=1, scale=4))).state_dict(), path)
    return path
