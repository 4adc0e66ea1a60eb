"""What a pipeline writes, read by diffusers and by us."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.compat.test_loops import a_lora
from tests.compat.test_pipelines import PROMPT, SIZE, pipes, relative_error, seeded
from tests.families import absent
from tests.tables import wide

from darkroom.compat import diffusers as compat
from darkroom.errors import InvalidRequest

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::FutureWarning")]


def drawn(pipe):
    pipe.set_progress_bar_config(disable=True)
    made = pipe(PROMPT, num_inference_steps=2, generator=seeded(3), output_type="np", **SIZE)
    return torch.as_tensor(np.asarray(made.images))


@pytest.mark.parametrize("name", ["sd1", wide("sd2"), "sdxl", "sd3-clips"])
def test_what_is_saved_is_read_by_both(folder, name, tmp_path):
    _, pipe = pipes(folder(name))
    if name != "sd3-clips":
        pipe.scheduler = compat.UniPCMultistepScheduler.from_config(pipe.scheduler.config, solver_order=1)
    expected = drawn(pipe)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    for _ in range(2):  # Over what is there already.
        pipe.save_pretrained(tmp_path / "out")
    assert (tmp_path / "out/notes.txt").read_text() == "mine"
    assert not [*tmp_path.glob("out/.saving*")]
    ours = compat.DiffusionPipeline.from_pretrained(tmp_path / "out")
    theirs = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out", **absent(tmp_path / "out"))
    if name == "sd1":  # It asks for the version, which the others do not.
        diffusers.StableDiffusionInpaintPipeline.from_pretrained(tmp_path / "out", **absent(tmp_path / "out"))
    assert type(ours.scheduler).__name__ == type(theirs.scheduler).__name__ == type(pipe.scheduler).__name__
    assert torch.equal(drawn(ours), expected)
    assert relative_error(drawn(theirs), expected) <= 1e-4


def test_networks_are_saved_as_they_are_in_memory(folder, tmp_path):
    _, pipe = pipes(folder("sd1"), own=True)
    before = drawn(pipe)
    pipe.load_lora_weights(a_lora(pipe))
    pipe.fuse_lora()
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight.mul_(1.5)
    changed = drawn(pipe)
    assert not torch.equal(changed, before)
    pipe.save_pretrained(tmp_path / "out")
    assert torch.equal(drawn(compat.DiffusionPipeline.from_pretrained(tmp_path / "out")), changed)
    pipe.to(torch.float16)
    pipe.save_pretrained(tmp_path / "half")
    saved = load_file(tmp_path / "half/unet/diffusion_pytorch_model.safetensors")
    assert {each.dtype for each in saved.values()} == {torch.float16}


def test_weights_that_come_and_go_are_saved_from_disk(folder, tmp_path):
    _, pipe = pipes(folder("sd1"), own=True)
    pipe.enable_sequential_cpu_offload(device="cpu")
    pipe.save_pretrained(tmp_path / "out")
    assert torch.equal(drawn(compat.DiffusionPipeline.from_pretrained(tmp_path / "out")), drawn(pipe))


def test_what_is_refused(toy_folder, tmp_path):
    pipe = compat.StableDiffusionPipeline.from_pretrained(toy_folder)
    (tmp_path / "file").write_text("")
    for words, settings in (
        ("variant is not there", {"variant": "fp16"}),
        ("push_to_hub is not there", {"push_to_hub": True}),
        ("safetensors alone", {"safe_serialization": False}),
        ("cannot write", {"save_directory": tmp_path / "file"}),
    ):
        with pytest.raises(InvalidRequest, match=words):
            pipe.save_pretrained(**{"save_directory": tmp_path / "out", **settings})
    assert not (tmp_path / "out").exists()
