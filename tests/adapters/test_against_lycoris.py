"""Adapters made by LyCORIS: what they do to a U-Net, to the numbers that LyCORIS's own layers give."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from tests.adapters.test_against_peft import close, inputs, told
from tests.networks.test_unet import THREE
from torch import Tensor

from darkroom.adapters.adapter import read_adapter
from darkroom.adapters.applied import applied
from darkroom.adapters.describe import describe_adapter
from darkroom.adapters.dose import Dose
from darkroom.adapters.merged import Merged
from darkroom.checkpoint.components import UNET
from darkroom.networks import UNet

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
CONFIGS: dict[str, dict[str, Any]] = {
    "lora": {"algo": "lora"},
    "locon-core": {"algo": "locon", "use_tucker": True, "use_scalar": True},
    "dora": {"algo": "lora", "dora_wd": True},
    "dora-per-input": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "loha": {"algo": "loha"},
    "loha-core-dora": {"algo": "loha", "use_tucker": True, "dora_wd": True},
    "lokr": {"algo": "lokr", "factor": 4},
    "lokr-full": {"algo": "lokr", "full_matrix": True},
    "lokr-both-dora": {"algo": "lokr", "decompose_both": True, "use_tucker": True, "dora_wd": True},
    "glora": {"algo": "glora"},
    "full-norms": {"algo": "full", "train_norm": True},
    "ia3": {"algo": "ia3", "preset": "ia3"},
    "diag-oft": {"algo": "diag-oft"},
    "diag-oft-constrained": {"algo": "diag-oft", "constraint": 0.02, "rescaled": True},
    "boft": {"algo": "boft", "linear_dim": 8, "conv_dim": 8},
    "boft-rescaled": {"algo": "boft", "linear_dim": 6, "conv_dim": 6, "constraint": 0.05, "rescaled": True},
}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return UNet2DConditionModel(**THREE).state_dict()


@pytest.fixture(scope="module")
def unet(weights: dict[str, Tensor]) -> UNet:
    ours = UNet(UNET.read(dict(UNet2DConditionModel(**THREE).config)))
    ours.load_state_dict(weights)
    return ours.eval().requires_grad_(False)


QUICK = ("loha-core-dora", "lokr-both-dora", "glora", "full-norms", "diag-oft-constrained", "boft-rescaled")
"""Those that nothing else is compared with; all of them with `make test-all`."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in QUICK else [pytest.mark.wide]) for name in CONFIGS],
)
def case(
    request: pytest.FixtureRequest, weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[float, Tensor]]:
    """An adapter's file, and what LyCORIS's network makes of the inputs at some strengths."""
    logging.disable()
    import lycoris

    peer = UNet2DConditionModel(**THREE)
    peer.load_state_dict(weights)
    config = {"linear_dim": 4, "linear_alpha": 3, "conv_dim": 3, "conv_alpha": 2} | CONFIGS[request.param]
    network = lycoris.create_lycoris(peer.eval(), 1.0, warn_on_unmatched=False, **config)
    network.apply_to()
    generator = torch.Generator().manual_seed(3)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        lengths = name.endswith(("dora_scale", "rescale", "scalar"))
        parameter.data = (
            parameter.data * (1 + 0.2 * noise) + 0.3 * (name.endswith("scalar")) if lengths else 0.1 * noise
        )
    network.eval()
    found = {}
    with torch.no_grad():
        for strength in (1.0, 0.6):
            network.set_multiplier(strength)
            found[strength] = peer(*inputs()).sample
    file = tmp_path_factory.mktemp("lycoris") / f"{request.param}.safetensors"
    save_file(
        {key: tensor.detach().contiguous().clone() for key, tensor in network.state_dict().items()}, file
    )
    logging.disable(logging.NOTSET)
    return file, found


@torch.no_grad()
def test_applied_and_merged(unet: UNet, case: tuple[Path, dict[float, Tensor]]) -> None:
    file, theirs = case
    adapter = read_adapter(file, {"unet": unet}, "it")
    without = unet(*told())
    whole = Dose(adapter)
    with applied(unet, "unet", [[whole], []]):
        mixed = unet(*told())
    close(mixed[:1], theirs[1.0][:1])
    assert torch.equal(mixed[1], without[1])
    assert float((theirs[1.0] - without).abs().max()) > 1e-2 * float(without.abs().max())
    merged = Merged({"unet": unet}, {"unet": [whole]})
    close(unet(*told()), theirs[1.0])
    merged.undo()
    assert torch.equal(unet(*told()), without)
    if not describe_adapter(file).rules:  # Which say where the programs disagree.
        with applied(unet, "unet", [[Dose(adapter, 0.6)]] * 2):
            close(unet(*told()), theirs[0.6])
