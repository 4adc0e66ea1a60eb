"""What people ask for in files of theirs: settings, prompts, names; and what is said before the first picture."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import struct
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tables import wide
from tests.test_cli import GENERATE

import darkroom
from darkroom.cli import main
from darkroom.cli.files import Files, slug
from darkroom.errors import InvalidRequest
from darkroom.files import AlreadyThere, replacing, shortened, write_bytes, write_json
from darkroom.generation import Picture, open_picture
from darkroom.generation.picture import metadata_of
from darkroom.numeric import integer, real

QUICK = ("--model", "toy", "--device", "cpu", "--steps", "1", "--seed", "7", "--quiet")


def prompts_in(folder):
    return [open_picture(path)[1]["request"]["prompt"] for path in sorted(folder.glob("*.png"))]


# Files of prompts and settings


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_prompts_files_of_every_editor(run, tmp_path, ending, coding):
    lines = ["# boats", "a red boat", "", "a blue\u2028boat", " #1 dad mug", "a\x85b"]
    (tmp_path / "p.txt").write_bytes(ending.join(lines).encode(coding))
    assert run("generate", "--prompts", "p.txt", *QUICK)[0] == 0
    made = ["#1 dad mug", "a blue\u2028boat", "a red boat", "a\x85b"]  # Signs that are no end of a line.
    assert sorted(prompts_in(tmp_path / "out")) == made


def test_settings_and_jsonl_with_a_byte_order_mark(run, tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a red boat"}\r\n')
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbf[generate]\r\nsteps = 1\r\n")
    assert run("generate", "--prompts", "p.jsonl", "--settings", "s.toml", *QUICK)[0] == 0
    assert prompts_in(tmp_path / "out") == ["a red boat"]


def test_parts_and_options_come_in_everywhere(run, tmp_path):
    """What is nearest to the picture goes before: its own line, the command line, the settings file."""
    (tmp_path / "darkroom.toml").write_text(
        "[generate]\nheight = 64\n[generate.sampling]\nsampler = 'heun'\nsteps = 3\n[generate.guidance]\nscale = 2\n"
    )
    lines = [
        {"prompt": "a", "sampling": {"sampler": "ddim:eta=0.5", "steps": 2}, "seed": 1},
        {"version": 2, "prompt": "b", "width": 40, "seed": 2},
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = ["generate", "--prompts", "p.jsonl", "--model", "toy", "--device", "cpu", "--quiet"]
    status, _, err = run(*command, "--schedule", "Karras:rho=5", "--width", "32")
    assert status == 0, err
    made = [open_picture(path)[1]["request"] for path in sorted((tmp_path / "out").iterdir())]
    assert [each["canvas"]["width"] for each in made] == [32, 40]
    assert {each["canvas"]["height"] for each in made} == {64}
    assert made[0]["sampling"] == {"sampler": "ddim:eta=0.5", "schedule": "karras:rho=5", "steps": 2}
    assert made[1]["sampling"] == {"sampler": "heun", "schedule": "karras:rho=5", "steps": 3}
    assert {each["guidance"]["scale"] for each in made} == {2}
    assert run("again", str(min((tmp_path / "out").iterdir())), "--model", "toy")[0] == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            '{"prompt": "a", "sampling": {"setps": 2}}',
            "unknown setting 'setps' in sampling: did you mean 'steps'?",
        ),
        ('{"prompt": "a", "sampling": {"steps": 2}, "steps": 3}', "steps is given twice"),
        ('{"prompt": "a", "canvas": [64, 64]}', "canvas is [64, 64]: give an object of settings"),
        ('{"prompt": "a", "sampler": "euler:eta=1"}', "sampler euler has no option 'eta'"),
        ('{"prompt": "a", "version": 3}', "the request is of version 3, up to 2 is read: update Darkroom"),
    ],
)
def test_mistakes_in_parts_are_told_with_their_line(run, tmp_path, line, words):
    (tmp_path / "p.jsonl").write_text(line)
    status, _, err = run("generate", "--prompts", "p.jsonl", *QUICK)
    assert status == 2
    assert f"item 1: {words}" in err


@pytest.mark.parametrize("text", ["", "\n\n", "#1 dad mug on a table\n"])
def test_a_file_without_prompts_is_refused(run, tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    status, _, err = run("generate", "--prompts", "p.txt", *QUICK)
    assert (status, "holds no prompt" in err, "#" in err) == (2, True, True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("output = 5", ["output is 5", '"']),
        ("precision = 16", ["precision is 16", "float16"]),
        ("memory = 8", ['"8GB"']),
        ("vae = 5", ["vae is 5"]),
        ("name = true", ["name is True"]),
        ('others = "clip.safetensors"', ["list of texts"]),
        ('grid = "no"', ["grid is 'no'", "true or false"]),
        ('metadata = "no"', ["true or false"]),
        ('t5 = "no"', ["true or false"]),
        ("zero_snr = 1", ["true or false"]),
        ('steps = "many"', ["steps is 'many'"]),
        ('prompt = "a boat"', ["--prompts"]),
        ("guidance_scale = 7", ["it is called guidance here"]),
        ("num_inference_steps = 7", ["it is called steps here"]),
        ("stepz = 7", ["did you mean 'steps'"]),
        ("sampling = 5", ["darkroom.toml: sampling is 5: give an object of settings"]),
        (
            "sampling = {stepz = 5}",
            ["darkroom.toml: unknown setting 'stepz' in sampling: did you mean 'steps'"],
        ),
        ("sampling = {steps = 5}\nsteps = 4", ["darkroom.toml: steps is given twice"]),
    ],
)
def test_settings_of_the_wrong_type_are_one_line(run, tmp_path, line, words):
    (tmp_path / "darkroom.toml").write_text(f"[generate]\n{line}\n")
    arguments = [each for each in QUICK if each not in ("--steps", "1")] if "steps" in line else QUICK
    status, _, err = run("generate", "a boat", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("generate = 5", "write [generate]"),
        ("steps = 5", "put it below a line [generate]"),
        ("[generte]\nsteps = 5", "[generate]"),
    ],
)
def test_settings_stand_in_their_table(run, tmp_path, text, words):
    (tmp_path / "darkroom.toml").write_text(f"{text}\n")
    status, _, err = run("generate", "a boat", *QUICK)
    assert (status, words in err) == (2, True)


def test_every_mistake_is_told_before_the_first_picture(run, tmp_path):
    rows = [
        {"prompt": "first"},
        {"prompt": "second", "schedule": "lcm", "steps": 100},
        {"prompt": "third", "refiner_switch": 0.5},
        {"prompt": "fourth <lora:nothing:1>"},
        {"prompt": "fifth {a|<lora:never:1>}", "dynamic": "all"},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, err = run("generate", "--prompts", "p.jsonl", *QUICK[:4], "--seed", "7", "--quiet")
    assert (status, out, os.listdir(tmp_path / "out")) == (2, "", [])
    for line in (2, 3, 4, 5):
        assert f"p.jsonl, line {line}: " in err
    (tmp_path / "p.jsonl").write_text('{"prompt": 5}\n{"prompt": "a"}\n{"promt": "a"}\n[]\n')
    _, _, err = run("generate", "--prompts", "p.jsonl", *QUICK)
    assert [f"line {line}" in err for line in (1, 2, 3, 4)] == [True, False, True, True]
    assert "line 4: '[]' is no JSON object" in err


def test_a_json_list_of_prompts(run, tmp_path):
    rows = ["a red boat", {"prompt": "a blue boat", "seed": 9}]
    (tmp_path / "p.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "one.JSON").write_text(json.dumps(rows[1], indent=2))
    assert run("generate", "--prompts", "p.json", *QUICK)[0] == 0
    assert run("generate", "--prompts", "one.JSON", *QUICK)[0] == 0
    assert prompts_in(tmp_path / "out") == ["a red boat", "a blue boat", "a blue boat"]
    (tmp_path / "p.json").write_text(json.dumps([*rows, 5, {"promt": "a"}]))
    status, _, err = run("generate", "--prompts", "p.json", *QUICK)
    assert (status, "item 3: '5' is no JSON object" in err, "item 4: " in err) == (2, True, True)
    (tmp_path / "p.json").write_text("[]")
    assert "holds no prompt" in run("generate", "--prompts", "p.json", *QUICK)[2]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a red boat\n# no\n{red|blue} boat\n", ["a red boat", "{red|blue} boat"]),
        ('{"prompt": "x"}\n{"prompt": "y"}\n', ["x", "y"]),
    ],
)
def test_prompts_from_standard_input(run, tmp_path, monkeypatch, text, made):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8-sig"))))
    assert run("generate", "--prompts", "-", *QUICK)[0] == 0
    assert sorted(prompts_in(tmp_path / "out")) == made
    monkeypatch.setattr(sys, "stdin", None)
    status, _, err = run("generate", "--prompts", "-", *QUICK)
    assert (status, "nothing comes in" in err) == (2, True)


@pytest.mark.parametrize(
    "option", ["model", "vae", "refiner", "with", "output", "format", "prompts", "settings", "memory"]
)
def test_what_is_empty_is_not_the_folder_one_is_in(run, option):
    status, out, err = run("generate", "a boat", f"--{option}", "")
    assert (status, out, f"--{option}" in err, "empty" in err) == (2, "", True, True)


@pytest.mark.parametrize("name", ["again", "info", "convert"])
def test_no_command_takes_an_empty_path(run, name):
    assert run(name, *(["toy", ""] if name == "convert" else [""]))[0] == 2


def test_decimal_commas_are_told(run):
    assert "'7,5' is no number: write 7.5" in run("generate", "a boat", "--guidance", "7,5")[2]
    assert "'x' is no number" in run("generate", "a boat", "--guidance", "x")[2]


@pytest.mark.parametrize("format", ["PNG", ".png", " Png"])
def test_formats_in_any_case(run, tmp_path, format):
    assert run(*GENERATE, "--format", format)[0] == 0
    assert (tmp_path / "out/7-a-red-boat.png").is_file()


def test_prompts_of_a_terminal_in_another_encoding(toy_folder, tmp_path):
    """Python takes an argument's bytes for what the locale says; prompts that people type are UTF-8."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {**os.environ, **plain, "DARKROOM_MODELS": str(toy_folder.parent)}
    command = [sys.executable, "-m", "darkroom", "generate", "ein Bär, 赤い", "--model", toy_folder.name]
    command += [*QUICK[2:], "--negative", "ü"]
    subprocess.run(command, env=environment, check=True, cwd=tmp_path)
    (path,) = (tmp_path / "out").iterdir()
    request = open_picture(path)[1]["request"]
    assert (path.name, request["prompt"], request["negative"]) == ("7-ein-bar.png", "ein Bär, 赤い", "ü")
    (tmp_path / "s.toml").write_text('[generate]\noutput = "Bücher"\n')
    done = subprocess.run(
        [*command, "--settings", "s.toml"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "use UTF-8 (LC_ALL=C.UTF-8)" in done.stderr
    assert "Traceback" not in done.stderr


# Names of files


def test_slugs_keep_the_marks_of_letters():
    for text, name in (
        ("हिन्दी किताब", "हिन्दी-किताब"),
        ("เสื้อสีแดง", "เสื้อสีแดง"),
        ("নীল শাড়ি", "নীল-শাড়ি"),
        ("cafe\u0301 noir", "café-noir"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\u0301 a", "a"),
        ("\u200d!", "picture"),
    ):
        assert slug(text) == unicodedata.normalize("NFC", name)
    long = slug("नि" * 500)
    assert len(long.encode()) <= 180
    assert long.endswith("नि")


def test_names_are_cut_by_their_bytes():
    assert shortened("型" * 80, 180) == "型" * 60
    assert shortened("e\u0301" * 10, 4) == "e\u0301"
    assert shortened(os.fsdecode(b"\xc4\xa3" * 200), 100) == os.fsdecode(b"\xc4\xa3" * 50)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{seed}", "7.png"),
        ("{index:03}", "000.png"),
        ("{model}/{prompt}", "toy/a-red-boat.png"),
        ("a\\{seed:>5}", "a/7.png"),
        ("--{seed}", "7.png"),
        ("...", "picture.png"),
        ("/abs/{seed}", "abs/7.png"),
        ("{guidance:.1f}", None),
        ("型" * 100 + "{seed}", "型" * 60 + ".png"),
    ],
)
def test_templates_of_names(run, tmp_path, template, path):
    status, out, _ = run(*GENERATE, f"--name={template}", "--quiet")
    made = [each.relative_to(tmp_path / "out") for each in (tmp_path / "out").rglob("*.png")]
    assert (status, len(made)) == (0, 1)
    if path is not None:
        assert made[0] == Path(path)
    assert out.strip() == f"out/{made[0]}"


@pytest.mark.parametrize(("template", "words"), [("{sed}", "seed"), ("{prompt:d}", "{index:03}"), ("{", "{")])
def test_templates_that_cannot_be(run, template, words):
    status, _, err = run(*GENERATE, "--name", template)
    assert (status, words in err) == (2, True)


def test_a_model_whose_name_is_no_text(toy_folder, tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "lib"))
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/\xc4\xa3\xd0\xcd")
    os.symlink(toy_folder, bad)
    for arguments in (
        ["generate", "a boat", "--model", bad, "--seed", "1", "--steps", "1", "--name", "{model}"],
        ["models", "scan", str(tmp_path)],
        ["models", "list"],
        ["inspect", bad, "--json"],
    ):
        assert main([*arguments]) == 0
    (picture,) = (tmp_path / "out").iterdir()
    assert metadata_of(picture)["model"]["paths"]["model"] == bad
    assert main(["again", str(picture)]) == 0
    assert b"the same, pixel for pixel" in capfdbinary.readouterr().out


def test_only_one_process_gets_a_name(tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    each = [context.Process(target=saving, args=(str(tmp_path), start)) for _ in range(2)]
    for process in each:
        process.start()
    for process in each:
        process.join()
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 40
    assert not any(name.endswith(".part") for name in names)


def saving(folder, start):
    files = Files(folder, "png", "{seed}-{prompt}", False)
    picture = Picture(Image.new("RGB", (8, 8)), 1, {"request": {"seed": 1, "prompt": "a red boat"}}, "")
    start.wait()
    for index in range(20):
        files.save(picture, index, "pocket")


def test_a_new_file_takes_nobody_s_place(tmp_path, monkeypatch):
    path = tmp_path / "file"
    for _ in range(2):
        path.unlink(missing_ok=True)
        write_bytes(path, b"one", new=True)
        with pytest.raises(AlreadyThere):
            write_bytes(path, b"two", new=True)
        assert (path.read_bytes(), os.listdir(tmp_path)) == (b"one", ["file"])
        # The same on a file system without links.
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "not permitted")))


def test_a_part_that_cannot_be_written_is_called_by_its_lasting_name(tmp_path):
    def part():
        with replacing(tmp_path / "model") as folder:
            (folder / "unet").mkdir(parents=True)
            (folder / "unet/config.json").mkdir()
            write_json(folder / "unet/config.json", {})

    with pytest.raises(InvalidRequest, match=r"model/unet/config\.json") as raised:
        part()
    assert ".part" not in str(raised.value)
    assert os.listdir(tmp_path) == []


# Metadata


def chunks(data):
    at, found = 8, {}
    while at < len(data):
        size, kind = struct.unpack(">I", data[at : at + 4])[0], data[at + 4 : at + 8].decode()
        found[data[at + 8 : at + 8 + size].split(b"\0")[0]] = kind
        at += 12 + size
    return found


def picture_of(prompt, parameters=None):
    metadata = {"request": {"prompt": prompt}}
    return Picture(Image.new("RGB", (8, 8)), 1, metadata, prompt if parameters is None else parameters)


@pytest.mark.parametrize(
    ("prompt", "kind"), [("a café", "tEXt"), ("红船", "iTXt"), ("a\nb \U0001f30a", "iTXt")]
)
def test_parameters_stand_where_other_programs_read_them(prompt, kind):
    assert chunks(picture_of(prompt).encoded("png"))[b"parameters"] == kind


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("prompt", ["a café", "红船" * 4500, os.fsdecode(b"\xc4\xa3")])
def test_metadata_survives_every_format(tmp_path, format, prompt):
    path = tmp_path / "picture"
    path.write_bytes(picture_of(prompt).encoded(format))
    assert open_picture(path)[1]["request"]["prompt"] == prompt
    assert metadata_of(path) == open_picture(path)[1]


def test_what_a_jpeg_has_no_room_for_is_said_before_the_work(run, tmp_path):
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"prompt": "a"})
        + "\n"
        + json.dumps({"prompt": "红" * 19_000, "negative": "船" * 19_000})
        + "\n"
    )
    status, out, err = run("generate", "--prompts", "p.jsonl", "--format", "jpeg", *QUICK)
    assert (status, out) == (2, "")
    assert "line 2: the request is too long" in err
    assert run("generate", "--prompts", "p.jsonl", "--format", "jpeg", "--no-metadata", *QUICK)[0] == 0


def test_a_sheet_that_is_too_large_for_its_format(run):
    status, out, err = run(*GENERATE, "--count", "9000", "--grid", "--format", "webp", "--width", "512")
    assert (status, out) == (2, "")
    assert "16,383" in err


def test_very_large_pictures_tell_how_they_were_made(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    path.write_bytes(picture_of("a sea").encoded("png"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert metadata_of(path)["request"]["prompt"] == "a sea"
    assert Image.MAX_IMAGE_PIXELS == 10


def test_again_writes_into_a_folder(run, tmp_path):
    run(*GENERATE)
    (tmp_path / "there").mkdir()
    for folder in ("there", "new"):
        assert run("again", "out/7-a-red-boat.png", "--output", folder)[0] == 0
        assert (tmp_path / folder / "7-a-red-boat.png").is_file()


def test_memory_does_not_grow_with_the_count(run, monkeypatch):
    import gc

    def pictures():
        gc.collect()
        return sum(type(each) is Picture for each in gc.get_objects())

    alive, save, before = [], Files.save, pictures()

    def counting(self, *arguments):
        path = save(self, *arguments)
        alive.append(pictures() - before)
        return path

    monkeypatch.setattr(Files, "save", counting)
    assert run(*GENERATE, "--count", "6")[0] == 0
    assert max(alive) <= 2


# Numbers


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_whole_numbers_of_others(value):
    assert integer(value) == 3
    assert type(integer(value)) is int


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), torch.tensor(True), 3.0, np.float32(3), "3", None, [3]]
)
def test_what_is_no_whole_number(value):
    assert integer(value) is None


def test_real_numbers_of_others():
    from decimal import Decimal
    from fractions import Fraction

    for value in (1.5, np.float32(1.5), np.float16(1.5), torch.tensor(1.5), Decimal("1.5"), Fraction(3, 2)):
        assert real(value) == 1.5
    for value in (True, np.bool_(False), "1.5", None, [1.5], np.zeros(2), 1j):
        assert real(value) is None


def test_requests_take_them_everywhere(toy_folder):
    model = darkroom.load(toy_folder, device="cpu")
    given = {
        "steps": np.int64(2),
        "seed": np.random.default_rng(0).integers(2**31),
        "guidance": np.float32(3),
        "count": np.int8(2),
        "width": np.uint16(64),
        "height": torch.tensor(64),
        "guidance_rescale": np.float16(0.5),
        "variation_strength": np.float64(0.25),
        "variation_seed": np.int32(4),
    }
    plain = {name: value.item() for name, value in given.items()}
    ours, theirs = (model.generate("a boat", **each) for each in (plain, given))
    for one, other in zip(ours, theirs, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert other.encoded("png")  # They are plain numbers in its metadata.


# Terminals


CODE = """
import os, sys
if sys.argv[1] == "none":
    sys.stdout = sys.stderr = None
    # As in a container whose user the system does not know.
    import pwd
    def unknown(number): raise KeyError(number)
    pwd.getpwuid = unknown
    os.environ.pop("HOME", None)
from darkroom.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("how", ["cp1252", wide("none")])
def test_pictures_are_made_on_any_terminal_or_none(toy_folder, tmp_path, how):
    arguments = ["generate", "红船", "--model", "toy", "--steps", "1", "--seed", "1", "--output", "out"]
    environment = {**os.environ, "DARKROOM_MODELS": str(toy_folder.parent), "HOME": str(tmp_path)}
    environment |= {"PYTHONIOENCODING": "cp1252"} if how == "cp1252" else {}
    for command in (arguments, ["info", "out/1-红船.png"]):
        done = subprocess.run(
            [sys.executable, "-c", CODE, how, *command], cwd=tmp_path, env=environment, capture_output=True
        )
        assert (done.returncode, done.stderr if done.returncode else b"") == (0, b"")
    assert os.listdir(tmp_path / "out") == ["1-红船.png"]


def test_a_pipeline_draws_without_a_terminal(toy_folder, monkeypatch):
    from darkroom.compat.diffusers import DiffusionPipeline

    monkeypatch.setattr(sys, "stderr", None)
    pipe = DiffusionPipeline.from_pretrained(toy_folder)
    assert len(pipe("a boat", num_inference_steps=1).images) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"request": None},
        {"numerics": 5},
        *({"model": {"name": "toy", part: 5}} for part in ("paths", "others", "vae", "fuse", "weights")),
    ],
)
def test_damaged_metadata_is_one_line(run, tmp_path, changed):
    metadata = {"request": {"prompt": "a"}, "model": {"name": "toy"}, **changed}
    path = tmp_path / "odd.png"
    path.write_bytes(Picture(Image.new("RGB", (8, 8)), 1, metadata, "").encoded("png"))
    status, _, err = run("again", path)
    assert (status, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "template", ["{index:{foo}}", "{index:9999999999}", "{seed:c}", "/".join(["d" * 100] * 60)]
)
def test_templates_that_lead_nowhere(run, template):
    status, _, err = run(*GENERATE, "--name", template)
    assert (status, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("p.jsonl", b'{"prompt":' + b"[" * 100_000, "nested too deeply"),
        ("p.txt", b"caf\xe9", "save it as UTF-8"),
    ],
)
def test_prompts_that_cannot_be_read(run, tmp_path, name, raw, words):
    (tmp_path / name).write_bytes(raw)
    status, _, err = run("generate", "--prompts", name, *QUICK)
    assert (status, words in err) == (2, True)


def test_prompts_of_dos_and_of_utf_32(run, tmp_path):
    (tmp_path / "dos.txt").write_bytes(b"a boat\r\n\x1a")
    (tmp_path / "wide.txt").write_bytes("a boat".encode("utf-32"))
    for name in ("dos.txt", "wide.txt"):
        assert run("generate", "--prompts", name, *QUICK)[0] == 0
    assert prompts_in(tmp_path / "out") == ["a boat"] * 2


def test_a_full_standard_output_is_said(toy_folder, tmp_path):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "darkroom", "samplers"], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path
        )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
