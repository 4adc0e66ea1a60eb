"""LoRAs and textual inversions by diffusers' names: the latents that diffusers makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.adapters.test_against_diffusers import adapted
from tests.compat.test_pipelines import SIZE, compare, pipes, seeded
from tests.families import peer
from tests.tables import wide

from darkroom.errors import InvalidRequest, ModelError

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

SETTINGS: dict[str, Any] = {"prompt": "a red boat", "negative_prompt": "rain"}


@pytest.fixture(scope="module")
def loras(
    folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Path]]:
    made: dict[str, list[Path]] = {}

    def get(name: str) -> list[Path]:
        if name not in made:
            made[name] = [tmp_path_factory.mktemp(f"{name}-{number}") for number in range(2)]
            for number, path in enumerate(made[name]):
                loaded = peer(folder(name), own=True)
                type(loaded).save_lora_weights(path, **adapted(loaded, 2 + number))
        return made[name]

    return get


@pytest.mark.parametrize("name", ["sd1", wide("sdxl"), wide("sd3-clips")])
def test_two_with_weights(folder: Any, loras: Any, name: str) -> None:
    first, second = loras(name)

    def change(pipe: Any, library: Any) -> None:
        pipe.load_lora_weights(first, adapter_name="ink")
        pipe.load_lora_weights(second, adapter_name="oil", weight_name="pytorch_lora_weights.safetensors")
        assert pipe.get_active_adapters() == ["oil"]
        pipe.set_adapters(["ink", "oil"], [0.7, 0.4])

    both = compare(folder(name), change=change, own=True, **SETTINGS)
    assert not torch.equal(both, compare(folder(name), **SETTINGS))


def test_one_after_another(folder: Any, loras: Any) -> None:
    """What diffusers says and does at each step of a session."""
    first, second = loras("sd1")
    theirs, ours = pipes(folder("sd1"), own=True)

    def same(**settings: Any) -> torch.Tensor:
        made = [
            torch.as_tensor(
                pipe(
                    generator=seeded(3),
                    output_type="latent",
                    num_inference_steps=2,
                    **SIZE,
                    **SETTINGS,
                    **settings,
                ).images
            )
            for pipe in (theirs, ours)
        ]
        assert float((made[0] - made[1]).norm()) <= 1e-4 * float(made[0].norm())
        return made[1]

    def both(call: Callable[[Any], Any]) -> None:
        for pipe in (theirs, ours):
            call(pipe)
        assert ours.get_active_adapters() == theirs.get_active_adapters()

    plain = same()
    both(lambda pipe: pipe.load_lora_weights(first))
    whole = same()
    both(lambda pipe: pipe.load_lora_weights(second))
    assert ours.get_list_adapters() == {
        role: sorted(names) for role, names in theirs.get_list_adapters().items()
    }
    other = same()
    both(lambda pipe: pipe.set_adapters("default_0", {"unet": 0.5, "text_encoder": 0.3}))
    same()
    both(lambda pipe: pipe.set_adapters("default_0"))
    assert torch.equal(same(), whole)
    both(lambda pipe: pipe.disable_lora())
    assert torch.equal(same(), plain)
    both(lambda pipe: pipe.enable_lora())
    both(lambda pipe: pipe.fuse_lora(lora_scale=0.5))
    assert ours.num_fused_loras == theirs.num_fused_loras == 1
    half = same()
    both(lambda pipe: pipe.unfuse_lora())
    theirs.set_adapters("default_0")  # Until it is told again, diffusers keeps to the half.
    assert torch.equal(same(), whole)
    both(lambda pipe: pipe.delete_adapters("default_0"))
    ours.unload_lora_weights()
    theirs.unload_lora_weights()
    assert torch.equal(same(), plain)
    assert len({each.numpy().tobytes() for each in (plain, whole, half, other)}) == 4


def test_a_scale_for_one_call(folder: Any, loras: Any) -> None:
    def change(pipe: Any, library: Any) -> None:
        pipe.load_lora_weights(loras("sd1")[0])

    scale = {"cross_attention_kwargs": {"scale": 0.5}}
    assert not torch.equal(
        compare(folder("sd1"), change=change, own=True, **SETTINGS, **scale),
        compare(folder("sd1"), change=change, own=True, **SETTINGS),
    )


def test_tensors_and_another_device(folder: Any, loras: Any) -> None:
    """A LoRA given as tensors outlives the networks that it was read for, and so do fused ones."""
    file = loras("sd1")[0] / "pytorch_lora_weights.safetensors"
    settings = {"num_inference_steps": 2, "output_type": "latent", **SIZE, **SETTINGS}
    _, pipe = pipes(folder("sd1"), own=True)
    pipe.load_lora_weights(load_file(file))
    first = pipe(generator=seeded(3), **settings).images
    pipe.to(torch.bfloat16)
    pipe.to(torch.float32)
    assert torch.equal(pipe(generator=seeded(3), **settings).images, first)
    pipe.fuse_lora()
    pipe.to(torch.bfloat16)
    pipe.to(torch.float32)
    torch.testing.assert_close(pipe(generator=seeded(3), **settings).images, first, atol=1e-3, rtol=1e-3)


def test_words(folder: Any, tmp_path: Path) -> None:
    vectors = 0.5 * torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    torch.save({"<cat>": vectors}, tmp_path / "cat.bin")
    torch.save(
        {"string_to_param": {"*": vectors[:1]}, "string_to_token": {"*": 265}, "name": "dog"},
        tmp_path / "dog.pt",
    )

    def change(pipe: Any, library: Any) -> None:
        pipe.load_textual_inversion(tmp_path / "cat.bin")
        pipe.load_textual_inversion(tmp_path / "dog.pt", token="<dog>")

    told = compare(
        folder("sd1"), change=change, own=True, prompt="a <cat> and a <dog>", negative_prompt="<cat>"
    )
    assert not torch.equal(
        told, compare(folder("sd1"), prompt="a <cat> and a <dog>", negative_prompt="<cat>")
    )


def test_words_of_two_encoders(folder: Any, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    arrays = {
        "clip_l": torch.randn(2, 64, generator=generator),
        "clip_g": torch.randn(2, 64, generator=generator),
    }
    save_file(arrays, tmp_path / "cat.safetensors")

    def one_by_one(pipe: Any, library: Any) -> None:
        for key, number in (("clip_l", ""), ("clip_g", "_2")):
            pipe.load_textual_inversion(
                arrays[key] if library.__name__ != "diffusers" else {"<cat>": arrays[key]},
                token="<cat>",
                text_encoder=getattr(pipe, f"text_encoder{number}"),
                tokenizer=getattr(pipe, f"tokenizer{number}"),
            )

    expected = compare(folder("sdxl"), change=one_by_one, own=True, prompt="a <cat> at sea")
    _, pipe = pipes(folder("sdxl"), own=True)
    pipe.load_textual_inversion(tmp_path / "cat.safetensors", token="<cat>")
    settings = {"num_inference_steps": 3, "output_type": "latent", **SIZE}
    found = pipe(prompt="a <cat> at sea", generator=seeded(42), **settings).images
    assert torch.equal(found, expected)
    pipe.unload_textual_inversion("<cat>")
    assert not torch.equal(pipe(prompt="a <cat> at sea", generator=seeded(42), **settings).images, expected)


def test_mistakes(folder: Any, loras: Any, tmp_path: Path) -> None:
    _, pipe = pipes(folder("sd1"), own=True)
    with pytest.raises(ModelError, match="does not fit"):
        pipe.load_lora_weights(loras("sdxl")[0])
    pipe.load_lora_weights(loras("sd1")[0], adapter_name="ink")
    save_file({"emb_params": torch.ones(1, 32)}, tmp_path / "x.safetensors")
    for call, said in (
        (
            lambda: pipe.load_lora_weights(loras("sd1")[0], adapter_name="ink"),
            "there is an adapter 'ink' already",
        ),
        (lambda: pipe.set_adapters("inc"), "did you mean 'ink'"),
        (lambda: pipe.set_adapters(["ink"], [1.0, 2.0]), "2 entries for 1 adapters"),
        (lambda: pipe.set_adapters("ink", {"unet": {"down": 1.0}}), "a number for each network"),
        (lambda: pipe("a", cross_attention_kwargs={"scale": "much"}), "the scale of LoRAs is 'much'"),
        (lambda: pipe.unload_textual_inversion("<x>"), "stands for no vectors"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            call()
    with pytest.raises(ModelError, match="vectors of 32 numbers"):
        pipe.load_textual_inversion(tmp_path / "x.safetensors", token="<x>")
