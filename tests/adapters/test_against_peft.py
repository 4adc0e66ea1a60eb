"""Adapters made by PEFT: what they do to a U-Net, to the numbers that PEFT's own layers give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers import UNet2DConditionModel
from tests.networks.test_unet import THREE
from torch import Tensor, nn

from darkroom.adapters.adapter import read_adapter
from darkroom.adapters.applied import applied
from darkroom.adapters.dose import Dose
from darkroom.adapters.merged import Merged
from darkroom.checkpoint.components import UNET
from darkroom.errors import ModelError
from darkroom.networks import Conditioning, UNet

pytestmark = [
    pytest.mark.peer,
    # PEFT's own check of shapes does not know its own biases.
    pytest.mark.filterwarnings("ignore:Adapter 'default'"),
]
LINEAR = r".*(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|time_emb_proj)"
ALL = rf"{LINEAR}|.*(conv1|conv2|conv_shortcut|downsamplers\.0\.conv|upsamplers\.0\.conv|conv_in|conv_out|linear_1)"
PATTERNS: dict[str, Any] = {"rank_pattern": {"attn2.to_k": 2}, "alpha_pattern": {r"mid_block.*to_v": 3}}
CONFIGS: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=LINEAR),
    "locon": lambda: peft.LoraConfig(r=3, lora_alpha=2, target_modules=ALL),
    "patterns": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=LINEAR, **PATTERNS),
    "rs-lora": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=LINEAR, use_rslora=True, **PATTERNS),
    "bias": lambda: peft.LoraConfig(r=4, target_modules=r".*to_out\.0", lora_bias=True),
    "dora": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=ALL, use_dora=True),
    "loha": lambda: peft.LoHaConfig(r=4, alpha=6, target_modules=ALL),
    "loha-core": lambda: peft.LoHaConfig(r=4, alpha=6, target_modules=ALL, use_effective_conv2d=True),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=3, target_modules=ALL),
    "lokr-core": lambda: peft.LoKrConfig(r=2, alpha=3, target_modules=ALL, use_effective_conv2d=True),
    "lokr-both": lambda: peft.LoKrConfig(r=1, alpha=3, target_modules=ALL, decompose_both=True),
    "ia3": lambda: peft.IA3Config(
        target_modules=r".*(to_k|to_v|ff\.net\.2|conv1)", feedforward_modules=r".*ff\.net\.2"
    ),
    "oft": lambda: peft.OFTConfig(oft_block_size=4, target_modules=LINEAR),
    "oft-shared": lambda: peft.OFTConfig(
        oft_block_size=2, block_share=True, coft=True, eps=0.2, target_modules=LINEAR
    ),
    "oft-exact": lambda: peft.OFTConfig(oft_block_size=4, use_cayley_neumann=False, target_modules=LINEAR),
    "boft": lambda: peft.BOFTConfig(
        boft_block_size=4,
        boft_n_butterfly_factor=3,
        target_modules=r".*(attn1\.to_q|attn1\.to_out\.0|ff\.net\.2|conv1)",
    ),
    "boft-odd": lambda: peft.BOFTConfig(boft_block_size=3, target_modules=r".*attn2\.to_k"),
}


class BlockDiagonals:
    """In place of PEFT's kernel for GPUs, without which it does butterflies of one turn only."""

    @staticmethod
    def apply(blocks: Tensor) -> Tensor:
        return torch.stack([torch.block_diag(*each) for each in blocks])


@pytest.fixture(scope="module", autouse=True)
def butterflies() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("peft.tuners.boft.layer.get_fbd_cuda", lambda: True)
        patched.setattr("peft.tuners.boft.layer.FastBlockDiag", BlockDiagonals)
        yield


@pytest.fixture(scope="module")
def unet() -> UNet:
    torch.manual_seed(0)
    peer = UNet2DConditionModel(**THREE)
    ours = UNet(UNET.read(dict(peer.config)))
    ours.load_state_dict(peer.state_dict())
    return ours.eval().requires_grad_(False)


@pytest.fixture
def peer(unet: UNet) -> UNet2DConditionModel:
    peer = UNet2DConditionModel(**THREE)
    peer.load_state_dict(unet.state_dict())
    return peer.eval()


def randomised(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if any(word in name for word in ("lora_", "hada_", "lokr_", "ia3_", "oft_")):
            noise = torch.randn(parameter.shape, generator=generator)
            lengths = any(word in name for word in ("magnitude", "ia3", "boft_s"))
            parameter.data = parameter.data * (1 + 0.2 * noise) if lengths else 0.1 * noise


def inputs(rows: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(rows, 4, 8, 8, generator=generator),
        torch.tensor([7.0, 402.0])[:rows],
        torch.randn(rows, 5, 12, generator=generator),
    )


def told() -> tuple[Tensor, Tensor, Conditioning]:
    x, time, context = inputs()
    return x, time, Conditioning(context)


def close(ours: Tensor, theirs: Tensor) -> None:
    assert float((ours - theirs).abs().max()) <= 2e-4 * float(theirs.abs().max())


WIDE = ("locon", "rs-lora", "loha", "lokr", "lokr-both", "oft-exact", "boft-odd")
"""Those that say little beside the others; all of them with `make test-all`."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.wide] if name in WIDE else []) for name in CONFIGS],
)
def case(request: pytest.FixtureRequest, unet: UNet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An adapter's folder, and what PEFT's model makes of the inputs, with it and without."""
    peer = UNet2DConditionModel(**THREE)
    peer.load_state_dict(unet.state_dict())
    model = peft.get_peft_model(peer, CONFIGS[request.param]()).eval()
    randomised(model)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    with torch.no_grad():
        return folder, model(*inputs()).sample


@torch.no_grad()
def test_applied(unet: UNet, case: tuple[Path, Tensor]) -> None:
    folder, theirs = case
    dose = Dose(read_adapter(folder, {"unet": unet}, "it"))
    without = unet(*told())
    with applied(unet, "unet", [[dose], [dose]]):
        close(unet(*told()), theirs)
    with applied(unet, "unet", [[dose], []]):
        mixed = unet(*told())
    close(mixed[:1], theirs[:1])
    assert torch.equal(mixed[1], without[1])
    assert torch.equal(unet(*told()), without)
    assert float((theirs - without).abs().max()) > 1e-3 * float(theirs.abs().max())


@torch.no_grad()
def test_merged(unet: UNet, case: tuple[Path, Tensor]) -> None:
    folder, theirs = case
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    merged = Merged({"unet": unet}, {"unet": [Dose(read_adapter(folder, {"unet": unet}, "it"))]})
    close(unet(*told()), theirs)
    merged.undo()
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


@pytest.fixture(scope="module")
def locon(unet: UNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter with convolutions."""
    model = peft.get_peft_model(UNet2DConditionModel(**THREE), CONFIGS["locon"]())
    randomised(model)
    folder = tmp_path_factory.mktemp("locon")
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_a_row_is_what_it_is_alone(unet: UNet, case: tuple[Path, Tensor], locon: Path) -> None:
    networks = {"unet": unet}
    one, other = (Dose(read_adapter(path, networks, "it"), 0.7) for path in (case[0], locon))
    found = []
    for rows in ([[one], [one, other]], [[one], []], [[], [one, other]], [[other], [other, one]]):
        with applied(unet, "unet", rows):
            x, _, context = inputs(1)
            found.append(
                unet(x.repeat(2, 1, 1, 1), torch.tensor([7.0, 7.0]), Conditioning(context.repeat(2, 1, 1)))
            )
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[2][1])
    assert torch.equal(found[0][1], found[3][1])


@torch.no_grad()
def test_turned_convolutions(unet: UNet, peer: UNet2DConditionModel, tmp_path: Path) -> None:
    """As PEFT merges them: beside the weights it turns patches that overlap, which is something else."""
    model = peft.get_peft_model(peer, peft.OFTConfig(oft_block_size=4, target_modules=r".*conv1")).eval()
    randomised(model)
    model.save_pretrained(tmp_path)
    model.merge_adapter()
    expected = {name.replace("base_layer.", ""): tensor for name, tensor in peer.state_dict().items()}
    merged = Merged({"unet": unet}, {"unet": [Dose(read_adapter(tmp_path, {"unet": unet}, "it"))]})
    found = unet.state_dict()
    merged.undo()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name])
    assert not torch.equal(found["mid_block.resnets.0.conv1.weight"], unet.mid_block.resnets[0].conv1.weight)


def test_another_model_s_is_refused(case: tuple[Path, Tensor]) -> None:
    other = UNet2DConditionModel(**{**THREE, "cross_attention_dim": 20, "layers_per_block": 1})
    ours = UNet(UNET.read(dict(other.config)))
    with pytest.raises(ModelError, match=r"does not fit mine: .*layers are none of this model's \("):
        read_adapter(case[0], {"unet": ours}, "mine")


def test_an_adapter_that_changed_the_model_is_refused(
    unet: UNet, peer: UNet2DConditionModel, tmp_path: Path
) -> None:
    peft.get_peft_model(peer, CONFIGS["lora"]()).save_pretrained(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(
        config.read_text().replace('"init_lora_weights": true', '"init_lora_weights": "pissa_niter_4"')
    )
    with pytest.raises(ModelError, match="begun with pissa_niter_4"):
        read_adapter(tmp_path, {"unet": unet}, "it")
