"""What is said of an adapter, by whoever says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from darkroom.adapters.describe import describe_adapter
from darkroom.cli import main
from darkroom.library.about import About, about


def lora(path: Path, **metadata: str) -> Path:
    save_file(
        {"x.lora_down.weight": torch.ones(4, 8), "x.lora_up.weight": torch.ones(8, 4)}, path, metadata or None
    )
    return path


SAID: dict[str, tuple[str, Any, About]] = {
    "Civitai's record": (
        ".civitai.info",
        {
            "baseModel": "SDXL 1.0",
            "trainedWords": ["inky, bold", " "],
            "name": "v2",
            "model": {"name": "Ink"},
        },
        About("Ink", "SDXL 1.0", ("inky, bold",)),
    ),
    "Stability Matrix": (
        ".cm-info.json",
        {"ModelName": "Ink", "BaseModel": "SD 1.5", "TrainedWords": ["inky"]},
        About("Ink", "SD 1.5", ("inky",)),
    ),
    "the LoRA manager": (
        ".metadata.json",
        {"model_name": "Ink", "base_model": "Pony", "civitai": {"trainedWords": ["inky", "bold", "inky"]}},
        About("Ink", "Pony", ("inky", "bold")),
    ),
    "A1111": (
        ".json",
        {"activation text": "inky,\n bold", "sd version": "SD1", "preferred weight": 0.7},
        About("", "SD1", ("inky, bold",), strength=0.7),
    ),
    "no signs": (".json", {"activation text": "a \ud83d\x1b[31m b\x00"}, About(triggers=("a [31m b",))),
    "nobody said": (".json", {"sd version": "Unknown", "preferred weight": 0}, About()),
    "numbers that are none": (
        ".json",
        {"preferred weight": float("inf"), "activation text": [True]},
        About(),
    ),
    "a truth": (".json", {"preferred weight": True}, About()),
    "a number without end": (".json", {"preferred weight": 10**400}, About()),
    "nonsense": (".civitai.info", [1, 2], About()),
    "other types": (".json", {"activation text": 7, "preferred weight": "a", "civitai": [3]}, About()),
}


@pytest.mark.parametrize("name", SAID)
def test_files_beside_it(name: str, tmp_path: Path) -> None:
    ending, said, expected = SAID[name]
    file = lora(tmp_path / "it.v1.safetensors")
    file.with_name(f"it.v1{ending}").write_text(json.dumps(said))
    assert about(file) == expected


def test_its_header(tmp_path: Path) -> None:
    tags = {"10_boats": {"boat ": 4, "sea": 9}, "5_more": {"boat": 6}}
    header = {
        "modelspec.title": "Ink",
        "modelspec.trigger_phrase": "inky",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "ss_tag_frequency": json.dumps(tags),
    }
    file = lora(tmp_path / "it.safetensors", **header)
    assert about(file) == About("Ink", "stable-diffusion-v1/lora", ("inky",), ("boat", "sea"))
    assert (
        about(lora(file, ss_tag_frequency="[1", ss_base_model_version="sdxl_base_v1-0")).base
        == "sdxl_base_v1-0"
    )
    assert about(lora(file, ss_tag_frequency='{"a": {"boat": Infinity}}')).tags == ()
    assert about(tmp_path / "gone.safetensors") == About()
    file.with_name("it.civitai.info").write_bytes(b"\xff{")
    assert about(file).triggers == ()


def test_a_folder_of_peft_s(tmp_path: Path) -> None:
    folder = tmp_path / "ink.v1"
    folder.mkdir()
    lora(folder / "adapter_model.safetensors", **{"modelspec.title": "Ink"})
    (tmp_path / "ink.v1.civitai.info").write_text(json.dumps({"trainedWords": ["inky"]}))
    Image.new("RGB", (2, 2)).save(tmp_path / "ink.v1.png")
    assert about(folder) == About("Ink", "", ("inky",), preview=tmp_path / "ink.v1.png")
    assert describe_adapter(folder).about == about(folder)


def test_inspect_and_the_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lora(tmp_path / "ink.safetensors")
    (tmp_path / "ink.civitai.info").write_text(json.dumps(SAID["Civitai's record"][1]))
    Image.new("RGB", (2, 2)).save(tmp_path / "ink.preview.png")
    assert main(["models", "add", str(file)]) == 0
    capsys.readouterr()
    for words in (["lora", "inspect", "ink"], ["models", "list", "ink"], ["models", "--json"]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert "inky, bold" in said
        assert "ink.preview.png" in said
    assert main(["models"]) == 0
    assert "SDXL 1.0; inky, bold" in capsys.readouterr().out
