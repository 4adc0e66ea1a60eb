"""`darkroom prompt` and `darkroom guides`: what they print, and what scripts read of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.adapters.test_requests import record, write_lora

import darkroom
from darkroom.cli import main


def read(capsys: Any, *words: str, status: int = 0) -> Any:
    assert main(["prompt", *words, "--json"]) == status
    (found,) = json.loads(capsys.readouterr().out)
    return found


def tokens(phase: Any, encoder: int = 0) -> list[tuple[str, float]]:
    ((text,),) = phase["encoders"][encoder]["blends"]
    return [
        (each["text"].removesuffix("</w>"), each["weight"])
        for chunk in text["chunks"]
        for each in chunk["tokens"]
    ]


def test_weights_and_steps(capsys: Any) -> None:
    found = read(capsys, "a (red:1.5) boat [at sea:at night:0.5]", "--steps", "10", "--negative", "[rain]")
    positive, negative = found["rows"]
    assert [phase["steps"] for phase in positive["phases"]] == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10]]
    assert tokens(positive["phases"][0]) == [("a", 1), ("red", 1.5), ("boat", 1), ("at", 1), ("sea", 1)]
    assert tokens(positive["phases"][1])[-1] == ("night", 1)
    assert tokens(negative["phases"][0]) == [("rain", pytest.approx(1 / 1.1))]


def test_chunks_and_parts(capsys: Any) -> None:
    found = read(capsys, "boat " * 80 + "AND a sea :0.25")
    first, second, _ = found["rows"]
    chunks = first["phases"][0]["encoders"][0]["blends"][0][0]["chunks"]
    assert [(len(chunk["tokens"]), chunk["room"]) for chunk in chunks] == [(75, 75), (5, 75)]
    assert (first["weight"], second["row"], second["weight"]) == (1.0, "positive 1", 0.25)


def test_what_it_names(toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    model = darkroom.load(toy_folder, device="cpu", precision="float32")
    record("lora", "ink", write_lora(tmp_path / "ink.safetensors", model))
    save_file({"emb_params": torch.zeros(3, 16)}, tmp_path / "inky.safetensors")
    record("embedding", "inky", tmp_path / "inky.safetensors")
    words = ["a inky boat <lora:ink:0.5:te=0>", "--model", str(toy_folder)]
    found = read(capsys, *words)
    assert found["adapters"] == [{"name": "ink:0.5:te=0", "what": "LoRA of rank 2", "problem": None}]
    assert found["embeddings"][0]["name"] == "inky"
    assert [text for text, _ in tokens(found["rows"][0]["phases"][0])][:5] == [
        "a",
        *(f"<inky {n}>" for n in (1, 2, 3)),
        "boat",
    ]
    found = read(capsys, "a boat <lora:ink:1> <lora:nobody:1>", status=1)
    problems = [each["problem"] for each in found["adapters"]]
    assert "does not fit pocket" in problems[0]
    assert "there is no lora 'nobody'" in problems[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a boat", "--negative", "<lora:x:1>"], "<lora:x:1> in the negative prompt is text"),
        (["a {red|blue} boat"], "--dynamic random draws from them"),
        (["a red++ boat"], "--dialect compel reads them"),
        (["a boat AND a sea", "--dialect", "comfy"], "AND and [from:to:when] are text in the dialect comfy"),
        (["a (boat:2)", "--emphasis", "ignore"], "weights are read and left out"),
    ],
)
def test_what_has_no_effect(words: list[str], said: str, capsys: Any) -> None:
    assert main(["prompt", *words]) == 0
    assert said in capsys.readouterr().err


@pytest.mark.peer
def test_three_encoders(folder: Callable[[str], Path], capsys: Any) -> None:
    found = read(
        capsys, "a boat", "--prompt-2", "a sea", "--prompt-3", "night " * 300, "--model", str(folder("sd3"))
    )
    (phase,) = found["rows"][0]["phases"]
    assert phase["texts"] == ["a boat", "a sea", "night " * 300]
    assert [each["encoder"] for each in phase["encoders"]] == [
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
    ]
    assert tokens(phase, 1) == [("a", 1), ("sea", 1)]
    assert phase["encoders"][2]["blends"][0][0]["cut"] > 0
    assert any("of the positive row are left out" in note for note in found["notes"])


def test_all_that_may_be_drawn(capsys: Any) -> None:
    assert main(["prompt", "a {red|blue} boat", "--dynamic", "all"]) == 0
    said = capsys.readouterr().out
    assert "a red boat" in said
    assert "a blue boat" in said


def test_mistakes(capsys: Any) -> None:
    assert main(["prompt", "a (boat:1.2.3)"]) == 2
    assert "1.2.3" in capsys.readouterr().err
    assert main(["prompt", "a boat", "--prompt-2", "x"]) == 2


def test_guides(capsys: Any) -> None:
    assert main(["guides"]) == 0
    assert "pag:scale=3,layers=mid,start=0,stop=1" in capsys.readouterr().out
