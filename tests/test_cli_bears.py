"""What a command line bears: files in the way, streams that are closed, templates without end, damaged files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.tables import wide
from tests.test_cli import GENERATE

from darkroom.cli.files import slug
from darkroom.errors import InvalidRequest
from darkroom.generation import Picture

QUICK = (*GENERATE[2:], "--quiet", "--width", "32", "--height", "32")


def shell(command, toy_folder, tmp_path, **options):
    """Runs a shell command in which `darkroom` is ours."""
    made = f'darkroom() {{ "{sys.executable}" -m darkroom "$@"; }}; {command}'
    environment = {**os.environ, "DARKROOM_MODELS": str(toy_folder.parent)}
    return subprocess.run(
        ["bash", "-c", made],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_again_writes_over_no_picture(run, tmp_path):
    run(*GENERATE)
    before = (tmp_path / "out/7-a-red-boat.png").read_bytes()
    for number in (2, 3):
        status, out, _ = run("again", "out/7-a-red-boat.png", "--output", "out")
        assert (status, out.split()[0]) == (0, f"out/7-a-red-boat-{number}.png")
    assert run("again", "out/7-a-red-boat.png", "--output", "out/7-a-red-boat.png")[0] == 0
    assert (tmp_path / "out/7-a-red-boat.png").read_bytes() == before
    (tmp_path / "file").touch()
    status, _, err = run("again", "out/7-a-red-boat.png", "--output", "file/x.png")
    assert (status, "cannot write to the folder file" in err) == (2, True)


def test_a_file_where_a_template_makes_a_folder(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/7").touch()
    status, out, err = run(*GENERATE, "--name", "{seed}/{prompt}")
    assert (status, out) == (2, "")
    assert "out/7 is a file; choose another --output or --name" in err


@pytest.mark.parametrize("streams", [wide("1</dev/null"), wide("2>&-"), "1>&- 2>&-"])
def test_streams_that_nothing_can_be_written_to(toy_folder, tmp_path, streams):
    done = shell(f"darkroom generate a {' '.join(QUICK[:-4])} --count 2 {streams}", toy_folder, tmp_path)
    assert (done.returncode, len(list((tmp_path / "out").iterdir()))) == (0, 2), done.stderr


def test_help_that_nobody_reads(toy_folder, tmp_path):
    for command in ("darkroom --help", "darkroom generate --help"):
        for end in ("| true", "> /dev/full"):
            assert "Traceback" not in shell(f"{command} {end}", toy_folder, tmp_path).stderr


@pytest.mark.parametrize("prompt", ["__loop__", "a {red|__loop__} boat", "__grows__"])
def test_wildcards_that_lead_to_themselves(run, prompt):
    folder = Path(os.environ["DARKROOM_HOME"]) / "wildcards"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loop.txt").write_text("__loop__\n")
    (folder / "grows.txt").write_text("x\n__grows__ y\n")
    status, _, err = run("generate", prompt, "--dynamic", "all", *QUICK)
    assert (status, "does a wildcard lead to itself?" in err) == (2, True)


def test_what_styles_and_wildcards_bring_is_checked(run):
    home = Path(os.environ["DARKROOM_HOME"])
    (home / "wildcards").mkdir(parents=True, exist_ok=True)
    (home / "wildcards/nul.txt").write_bytes(b"a\x00b\n")
    (home / "styles.csv").write_text('name,prompt,negative_prompt\nlong,"{prompt} ' + "x" * 20_000 + '",\n')
    status, _, err = run("generate", "a __nul__", "--dynamic", "random", *QUICK)
    assert (status, "stand for, prompt holds the control character" in err) == (2, True)
    status, _, err = run("generate", "a", "--style", "long", *QUICK)
    assert (status, "with its styles, prompt has 20,00" in err) == (2, True)
    status, _, err = run("generate", "a __**__", "--dynamic", "random", *QUICK)
    assert (status, "__**__ names no wildcard" in err) == (2, True)


@pytest.mark.parametrize(
    "damage",
    [
        {"ensemble": [5]},
        {"others": [5]},
        {"weights": {"unet": [1]}},
        {"weights": {"unet": ["1"]}},
        {"weights": {"unet": {"a": 1}}},
        {"paths": {"vae": 3}},
    ],
)
def test_damaged_words_of_a_picture(run, tmp_path, damage):
    metadata = {"request": {"prompt": "x", "steps": 1, "seed": 1, "width": 32, "height": 32}}
    metadata["model"] = {"name": "toy", **damage}
    Picture(Image.new("RGB", (32, 32)), 1, metadata, "").save(tmp_path / "x.png")
    assert json.loads(Image.open(tmp_path / "x.png").text["darkroom"]) == metadata
    status, _, err = run("again", "x.png")
    assert (status, "its metadata is damaged (model, " in err) == (2, True)


def test_names_without_end_and_without_letters(run, tmp_path):
    assert slug("a" + "\u0301" * 500)
    assert slug("क" * 100).startswith("क")
    (tmp_path / "darkroom.toml").write_text('[generate]\noutput = "\\u0000"\n')
    status, _, err = run(*GENERATE)
    assert (status, "cannot write to the folder '\\x00'" in err) == (2, True)


def test_json_is_json_whatever_its_file_is_called(run, tmp_path):
    for text, names in (
        (
            '{"prompt": "a boat", "seed": 3}\n{"prompt": "a tree", "seed": 4}\n',
            ["3-a-boat.png", "4-a-tree.png"],
        ),
        ('{\n  "prompt": "a boat",\n  "seed": 5\n}\n', ["5-a-boat.png"]),
        ("{a|b} boat\n[red] tree\n", ["7-a-b-boat.png", "7-red-tree.png"]),
    ):
        (tmp_path / "p.txt").write_text(text)
        status, out, _ = run("generate", "--prompts", "p.txt", *QUICK)
        assert (status, [Path(line).name for line in out.split()]) == (0, names)


def test_what_was_made_before_an_error_is_told(run, tmp_path, monkeypatch):
    made = []

    def full(files, picture, index, model):
        if made:
            raise InvalidRequest("cannot write it: No space left on device")
        made.append(index)
        return files.folder / "first.png"

    monkeypatch.setattr("darkroom.cli.files.Files.save", full)
    status, _, err = run(*GENERATE, "--count", "3")
    assert status == 2
    assert err.splitlines()[-2:] == [
        "darkroom: 1 of 3 pictures are in out",
        "darkroom: cannot write it: No space left on device",
    ]


def test_memory_is_a_size_with_its_unit(run):
    status, _, err = run(*GENERATE, "--memory", "8")
    assert (status, "write the unit, as in 8GB" in err) == (2, True)
    assert run(*GENERATE, "--memory", "8,5 GB")[0] == 0


def test_a_file_named_as_output(run, tmp_path):
    for asked, written in (
        (("out/x.png",), ["out/x.png"]),
        (("out/x.png", "--count", "2"), ["out/x-2.png", "out/x-3.png"]),
        (("new/a{b}.JPEG",), ["new/a{b}.jpg"]),
        (("y.webp", "--format", ".WEBP"), ["y.webp"]),
        (("v1.5", "--name", "{seed}"), ["v1.5/7.png"]),
        (("sub.png/",), ["sub.png/7-a-red-boat.png"]),
    ):
        status, out, err = run("generate", "a red boat", *QUICK, "--output", *asked)
        assert (status, out.split()) == (0, written), err
        assert all((tmp_path / each).is_file() for each in written)
    for asked, why in (
        (("x.gif",), "unknown picture format '.gif' of x.gif: use png"),
        (("x.png", "--format", "jpg"), "--output x.png is a PNG file, --format is jpg: leave one out"),
        (("x.png", "--name", "y"), "--output x.png names the file, so does --name y: leave one out"),
        (("a" * 5000,), "has too long a path: choose another --output"),
        (("a/" * 2500,), "has too long a path: choose another --output"),
    ):
        status, out, err = run("generate", "a red boat", *QUICK, "--output", *asked)
        assert (status, out, why in err) == (2, "", True), err
    for asked, written in (("o.png/", "o.png/x.png"), ("z.webp", "z.webp"), ("v2.5", "v2.5/x.png")):
        status, out, err = run("again", "out/x.png", "--output", asked)
        assert (status, out.split()[0]) == (0, written), err
    assert run("again", "out/x.png", "--output", "")[0] == 2


def test_names_that_are_devices_elsewhere(run, tmp_path):
    for name, own in (
        ("con", "con_"),
        ("LPT1.x", "LPT1_.x"),
        ("nul/aux", "nul_/aux_"),
        ("console", "console"),
    ):
        status, out, err = run("generate", "a red boat", *QUICK, "--name", name)
        assert (status, out.split()) == (0, [f"out/{own}.png"]), err


def test_words_in_any_case(run):
    settings = ("--device", " CPU", "--precision", "FP32", "--compose", "Own", "--dialect", "Comfy")
    assert run("generate", "a red boat", *QUICK, *settings)[0] == 0


def test_models_that_lie_elsewhere(run):
    for name, told in (
        ("someone/a-model", "darkroom models pull someone/a-model)"),
        (
            "https://huggingface.co/a/b?token=hf_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "pull https://huggingface.co/a/b)",
        ),
    ):
        status, out, err = run("generate", "a red boat", *QUICK, "--model", name)
        assert (status, out, told in err) == (1, "", True), err
        assert "hf_" not in err


def test_a_model_that_was_moved_and_found_again(run, caplog, toy_folder, tmp_path):
    assert run("convert", toy_folder, "first.safetensors")[0] == 0
    run("generate", "a red boat", *QUICK, "--model", "first.safetensors", "--output", "x.png")
    (tmp_path / "shelf").mkdir()
    (tmp_path / "first.safetensors").rename(tmp_path / "shelf/other.safetensors")
    assert run("again", "x.png")[0] == 1
    assert run("models", "scan", "shelf")[0] == 0
    status, out, err = run("again", "x.png")
    assert (status, "the same, pixel for pixel" in out) == (0, True), err
    assert f"first is not where it was: reading {tmp_path}/shelf/other.safetensors" in caplog.text
