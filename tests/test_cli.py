"""The command line, as a user meets it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.cli import main
from darkroom.cli.files import slug
from darkroom.generation import open_picture

GENERATE = ("generate", "a red boat", "--model", "toy", "--device", "cpu", "--steps", "3", "--seed", "7")


def test_pictures_are_files_counted_by_seed(run, tmp_path):
    status, out, err = run(*GENERATE, "--count", "3", "--output", "pictures", "--grid")
    assert status == 0
    names = [f"{seed}-a-red-boat.png" for seed in (7, 8, 9)]
    assert out.split() == [f"pictures/{name}" for name in (*names, "7-grid.png")]
    assert sorted(os.listdir(tmp_path / "pictures")) == sorted([*names, "7-grid.png"])
    assert "load" in err
    assert "denoise" in err


def test_a_file_that_is_there_is_never_overwritten(run, tmp_path):
    for expected in ("7-a-red-boat.png", "7-a-red-boat-2.png", "7-a-red-boat-3.png"):
        assert run(*GENERATE)[0] == 0
        assert (tmp_path / "out" / expected).exists()


def test_again_makes_the_same_pixels(run, tmp_path):
    run(*GENERATE, "--sampler", "euler_ancestral", "--width", "48", "--negative", "night")
    status, out, _ = run("again", "out/7-a-red-boat.png", "--output", "again.png")
    assert status == 0
    assert "the same, pixel for pixel" in out
    first, second = (np.asarray(open_picture(tmp_path / n)[0]) for n in ("out/7-a-red-boat.png", "again.png"))
    np.testing.assert_array_equal(first, second)


def test_again_says_what_differs(run, tmp_path):
    run(*GENERATE)
    path = tmp_path / "out/7-a-red-boat.png"
    status, out, err = run("again", path, "--precision", "float32")
    if status:
        assert "differs" in out
    image, metadata = open_picture(path)
    metadata["model"]["weights"]["unet"] = "0" * 64
    pixels = np.asarray(image).copy()
    pixels[0, 0] ^= 8
    from darkroom.generation import Picture

    Picture(Image.fromarray(pixels), 7, metadata, "").save(path)
    status, out, err = run("again", path)
    assert status == 1
    assert "1 of" in out
    assert "weights unet: was 0000000000" in err


def test_no_metadata_leaves_none(run, tmp_path):
    run(*GENERATE, "--no-metadata")
    status, _, err = run("again", "out/7-a-red-boat.png")
    assert status == 2
    assert "no Darkroom metadata" in err


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_formats_and_names(run, tmp_path, format):
    run(*GENERATE, "--format", format, "--name", "{model}-{width}x{height}-{index}-{seed}")
    suffix = {"png": "png", "jpeg": "jpg", "webp": "webp"}[format]
    assert os.listdir(tmp_path / "out") == [f"toy-32x32-0-7.{suffix}"]


def test_prompts_from_a_text_file(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("# two pictures\na red boat\n\ntwo trees\n")
    status, out, _ = run("generate", "--prompts", "prompts.txt", *GENERATE[2:])
    assert status == 0
    assert out.split() == ["out/7-a-red-boat.png", "out/7-two-trees.png"]


def test_prompts_from_a_jsonl_file(run, tmp_path):
    rows = [{"prompt": "a red boat", "seed": 1}, {"prompt": "two trees", "seed": 2, "width": 48, "count": 2}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status, out, _ = run("generate", "--prompts", "p.jsonl", *GENERATE[2:])
    assert status == 0
    assert out.split() == ["out/1-a-red-boat.png", "out/2-two-trees.png", "out/3-two-trees.png"]
    assert open_picture(tmp_path / "out/2-two-trees.png")[0].size == (48, 32)


def test_a_mistake_in_a_prompts_file_names_its_line(run, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "stepps": 3}\n')
    status, _, err = run("generate", "--prompts", "p.jsonl", "--model", "toy")
    assert status == 2
    assert "line 2" in err
    assert "steps" in err


def test_settings_file_and_command_line_together(run, tmp_path):
    (tmp_path / "darkroom.toml").write_text(
        '[generate]\nsteps = 3\nmodel = "toy"\noutput = "kept"\nseed = 5\n'
    )
    assert run("generate", "a")[1].split() == ["kept/5-a.png"]
    assert run("generate", "a", "--seed", "6")[1].split() == ["kept/6-a.png"]
    (tmp_path / "darkroom.toml").write_text("[generate]\nstpes = 3\n")
    status, _, err = run("generate", "a")
    assert status == 2
    assert "did you mean 'steps'" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sampler", "eulr"], ["eulr", "euler"]),
        (["--model", "tooy"], ["tooy", "toy"]),
        (["--model", "/nowhere/at/all"], ["/nowhere/at/all"]),
        (["--width", "100"], ["100", "96 or 104"]),
        (["--steps", "0"], ["steps", "0"]),
        (["--steps", "many"], ["--steps", "many"]),
        (["--guidance", "nan"], ["guidance", "NaN"]),
        (["--format", "gif"], ["gif"]),
        (["--name", "{sed}"], ["sed", "seed"]),
        (["--name", "{seed.real}"], ["seed.real"]),
        (["--name", "{seed"], ["{seed"]),
        (["--device", "warp"], ["warp"]),
        (["--precision", "int3"], ["int3"]),
        (["--output", "/proc/no"], ["/proc/no"]),
        (["--prompts", "missing.txt"], ["missing.txt"]),
        (["--settings", "missing.toml"], ["missing.toml"]),
        (["--flavour", "x"], ["--flavour"]),
    ],
)
def test_mistakes_are_one_line_with_the_value(run, arguments, words):
    status, out, err = run(*GENERATE, *arguments)
    assert status in (1, 2)
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize("prompt", ["x" * 20_001, "bell\x07"])
def test_prompts_that_cannot_be(run, prompt):
    status, _, err = run("generate", prompt, "--model", "toy")
    assert status == 2
    assert len(err) < 300


def test_an_empty_prompt_is_fine_and_none_is_not(run):
    assert run("generate", "", *GENERATE[2:])[1].split() == ["out/7-picture.png"]
    status, _, err = run("generate")
    assert status == 2
    assert "no prompt" in err


def test_a_template_cannot_leave_the_folder(run, tmp_path):
    run("generate", "../../x", *GENERATE[2:], "--name", "../../{prompt}")
    assert os.listdir(tmp_path / "out") == ["x.png"]
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_lists_and_doctor(run):
    for command, word in (("models", "toy"), ("samplers", "dpmpp_2m"), ("doctor", "chosen")):
        status, out, _ = run(command)
        assert status == 0
        assert word in out


def test_every_command_in_the_help_has_its_own(run):
    words = re.findall(r"^    (\w+)  ", run("--help")[1], re.MULTILINE)
    assert len(words) > 10
    for word in words:
        status, out, _ = run(word, "--help")
        assert (status, out.split()[:3]) == (0, ["usage:", "darkroom", word])


def test_info_prints_the_metadata(run):
    run(*GENERATE)
    status, out, _ = run("info", "out/7-a-red-boat.png")
    assert status == 0
    assert json.loads(out)["request"]["prompt"] == "a red boat"


def test_interrupting_keeps_finished_pictures(toy_folder, tmp_path):
    command = [sys.executable, "-m", "darkroom", *GENERATE, "--count", "1000", "--output", str(tmp_path)]
    command[command.index("toy")] = str(toy_folder)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    told = [process.stdout.readline() for _ in range(2)]  # A line for each picture that is finished.
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "interrupted" in err
    assert all(Path(line.rstrip()).is_file() for line in told)
    assert "Traceback" not in err
    kept = list(tmp_path.iterdir())
    assert len(kept) >= 2
    for path in kept:
        with Image.open(path) as image:
            image.load()


def test_slugs_are_file_names_in_any_script():
    assert slug("A red boat, on: a/calm\\sea!") == "a-red-boat-on-a-calm-sea"
    assert slug("赤い 船") == "赤い-船"
    assert slug("!!!") == "picture"
    assert len(slug("船" * 300).encode()) <= 180
    assert len(slug("word " * 100)) <= 60


@pytest.mark.peer
def test_again_loads_a_model_as_it_was_loaded(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DARKROOM_MODELS", str(folder("sd3").parent))
    monkeypatch.chdir(tmp_path)
    size = ("--steps", "2", "--width", "64", "--height", "64", "--device", "cpu", "--quiet")
    other = str(folder("sd2") / "vae")
    for seed, model, given, more in (
        (1, "sd3", ("--no-t5", "--memory", "low"), ()),
        (2, "sd1", ("--vae", other, "--prediction", "v_prediction", "--zero-snr"), ("--vae", other)),
    ):
        folder(model)
        assert main(["generate", "a boat", "--model", model, "--seed", str(seed), *given, *size]) == 0
        assert main(["again", f"out/{seed}-a-boat.png", *more]) == 0
        assert "the same, pixel for pixel" in capsys.readouterr().out
    # A part that was given by its path is found from anywhere.
    monkeypatch.chdir("/")
    assert main(["again", str(tmp_path / "out/2-a-boat.png")]) == 0
    assert "the same, pixel for pixel" in capsys.readouterr().out
