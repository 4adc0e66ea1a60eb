"""What people type at first: nothing, a prompt alone, words that there are not, options of other programs."""

from __future__ import annotations

import io
import json
import os
import sys
from types import SimpleNamespace

import pytest
from tests.test_cli import GENERATE
from tests.test_cli_asked import QUICK, prompts_in

import darkroom
from darkroom.cli import parser
from darkroom.cli.words import in_options
from darkroom.generation import open_picture


def made(folder):
    (path,) = (folder / "out").glob("*.png")
    return open_picture(path)[1]["request"]


@pytest.mark.parametrize(("command", "name"), [((), "darkroom"), (("lora",), "lora"), (("train",), "train")])
def test_what_holds_commands_prints_its_help(run, command, name):
    status, out, err = run(*command)
    assert (status, err) == (0, "")
    assert "usage: darkroom" in out
    assert name in out.splitlines()[0]
    assert run("--debug", *command)[1] == out


@pytest.mark.parametrize(
    "command",
    [
        ["a red boat", *QUICK],
        ["--debug", "a red boat", *QUICK],
        [*QUICK, "a red boat"],
        [*QUICK, "-p", "a red boat"],
        ["generate", *QUICK, "--prompt=a red boat", "--debug"],
        ["generate", *QUICK, "--", "a red boat"],
        [*QUICK, "--", "a red boat"],
    ],
)
def test_a_prompt_alone_is_generated(run, tmp_path, command):
    status, _, err = run(*command)
    assert (status, err) == (0, "")
    assert prompts_in(tmp_path / "out") == ["a red boat"]


def test_short_forms_are_those_of_stable_diffusion_cpp(run, tmp_path):
    short = ["-m", "toy", "-n", "night", "-W", "40", "-H", "48", "-s", "5", "-b", "2", "-o", "made"]
    status, out, _ = run("generate", "-p", "a red boat", *short, "--steps", "1", "--device", "cpu", "--quiet")
    assert (status, out.split()) == (0, ["made/5-a-red-boat.png", "made/6-a-red-boat.png"])
    assert run("-p", "train", "-o", "models", *QUICK)[1].split() == ["models/7-train.png"]
    request = open_picture(tmp_path / "made/6-a-red-boat.png")[1]["request"]
    assert (request["negative"], request["canvas"]["width"], request["canvas"]["height"]) == ("night", 40, 48)
    assert run("again", "-m", "toy", "-o", "once more/", "made/5-a-red-boat.png")[0] == 0


@pytest.mark.parametrize(("size", "sides"), [("40x48", (40, 48)), ("40", (40, 40)), ("48 × 40", (48, 40))])
def test_a_size_is_width_and_height(run, tmp_path, size, sides):
    assert run("generate", "a", *QUICK, "--size", size)[0] == 0
    assert (made(tmp_path)["canvas"]["width"], made(tmp_path)["canvas"]["height"]) == sides


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("generat", "darkroom: unknown command 'generat': did you mean 'generate'?"),
        ("boat", "unknown command 'boat': as a prompt: darkroom generate boat; known: again, attention, "),
        ("generate a --stepz 5", "unknown option --stepz: did you mean --steps? (see 'darkroom generate --help')"),
        ("generate a --step 5", "unknown option --step: did you mean --steps?"),
        ("generate a --stepz=5", "unknown option --stepz: did you mean --steps?"),
        ("generate a -steps 5", "unknown option -steps: did you mean --steps?"),
        ("generate -negativ blurry", "unknown option -negativ: did you mean --negative?"),
        ("generate -sd 1", "unknown option -sd"),
        ("generate a --others b", "it is called --with here"),
        ("a red boat --steps 1", "as a prompt: darkroom generate 'a red boat'; known: again"),
        ("--versio", "darkroom: unknown option --versio: did you mean --version? (see 'darkroom --help')"),
        ("generate a -- --steps 1", "unexpected '--steps': a text of several words stands in quotes, options before"),
        ("generate a -x 5", "darkroom generate: unknown option -x"),
        ("generate a --cfg-scale 5", "it is called --guidance here"),
        ("generate a --negative-prompt b", "it is called --negative here"),
        ("generate a --lora b", "it is called --adapter here"),
        ("generate a --scheduler b", "it is called --sampler and --schedule here"),
        ("generate a --eta 1", "it is an option of the sampler, written as in --sampler euler_ancestral:eta=1"),
        ("generate a --momentum 1", "written as in --guide apg:momentum=-0.5"),
        ("generate a --qqqqq", "darkroom generate: unknown option --qqqqq (see 'darkroom generate --help')"),
        ("generate a red boat", "darkroom generate: unexpected 'red': a text of several words stands in quotes"),
        ("generate a -p b", "there are two prompts, 'a' and 'b'"),
        ("generate a --size 64 --width 64", "--size says width and height, and so does --width"),
        ("generate a --size 64y", "'64y': give a side in pixels, or WIDTHxHEIGHT"),
        ("generate a --steps many", "'many' is no whole number"),
        ("generate - --prompts b", "the prompt is -, standard input, and --prompts is b"),
        ("--steps 4 generate a", "--steps stands before its command: write darkroom generate ... --steps"),
        ("--json models", "--json stands before its command: write darkroom models ... --json"),
        ("models --jsn", "darkroom models: unknown option --jsn: did you mean --json?"),
        ("models lst", "darkroom models: unknown subcommand 'lst': did you mean 'list'?"),
        ("lora inspekt", "darkroom lora: unknown action 'inspekt': did you mean 'inspect'?"),
        ("lora bake --outptu x", "unknown option --outptu: did you mean --output? (see 'darkroom lora bake --help')"),
        ("doctor --jsn", "(see 'darkroom doctor --help')"),
        ("prompt", "no prompt: say what the picture should show"),
    ],
)  # fmt: skip
def test_words_that_there_are_not_are_told_the_nearest(run, command, words):
    status, out, err = run(*command.split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert words in err


@pytest.mark.parametrize(
    "words",
    [
        ["a.png", "a boat", "--mask", "m.png", "--steps", "3", "--only-masked", "-W64"],
        ["a.png", "--mask", "m.png", "--steps", "3", "--only-masked", "-W64", "a boat"],
        ["--mask", "m.png", "a.png", "--only-masked", "a boat", "--steps=3", "-W64"],
        ["-W64", "--only-masked", "a.png", "--steps", "3", "--mask", "m.png", "--", "a boat"],
        ["--mask=m.png", "-W", "64", "--steps=3", "--only-masked", "--", "a.png", "a boat"],
    ],
)
def test_options_stand_anywhere(words):
    args = parser("edit").parse_args(["edit", *words])
    assert (str(args.picture), args.prompt, args.steps, args.width) == ("a.png", "a boat", 3, 64)
    assert (args.mask, args.only_masked) == ("m.png", True)


def test_several_values_end_at_the_next_option():
    words = ["interpolate", "a boat", "--seeds", "1", "-2", "3", "--steps", "4", "-5 cats"]
    args = parser("interpolate").parse_args(words)
    assert (args.prompts, args.seeds, args.steps) == (["a boat", "-5 cats"], [1, -2, 3], 4)


@pytest.mark.parametrize("command", [("generate",), ("generate", "-"), ("-",)])
def test_prompts_are_piped_in(run, tmp_path, monkeypatch, command):
    """A pipe or a file where no prompt is given, or whatever there is where one is called -."""
    (tmp_path / "piped").write_text("a red boat\n# no\n")
    reading, writing = os.pipe()
    os.write(writing, b"a blue boat\n")
    os.close(writing)
    for file in (tmp_path / "piped", reading):
        with open(file) as piped:
            monkeypatch.setattr(sys, "stdin", piped)
            assert run(*command, *QUICK)[0] == 0
    assert prompts_in(tmp_path / "out") == ["a blue boat", "a red boat"]
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        words = "standard input holds no prompt" if "-" in command else "or give --prompts FILE"
        assert words in run(*command, *QUICK)[2]


def test_generate_tells_a_program_what_it_made(run, tmp_path):
    status, out, _ = run(*GENERATE, "--count", "2", "--grid", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, len(lines)) == (0, 3)
    for line, seed in zip(lines, (7, 8), strict=False):
        assert (line["path"], line["seed"]) == (f"out/{seed}-a-red-boat.png", seed)
        assert line["metadata"] == open_picture(tmp_path / line["path"])[1]
    assert lines[2] == {"path": "out/7-grid.png", "grid": True}


def test_lists_are_told_to_programs(run):
    found = {name: json.loads(run(name, "--json")[1]) for name in ("samplers", "guides")}
    euler = found["samplers"]["samplers"]["euler"]
    assert (euler["label"], euler["stochastic"]) == ("Euler", False)
    assert euler["options"]["s_noise"]["default"] == 1
    assert euler["options"]["s_tmax"] == {"default": "inf", "least": 0}
    assert found["samplers"]["schedules"]["karras"]["options"]["rho"] == {
        "default": 7,
        "least": 0.1,
        "most": 100,
    }
    assert found["guides"]["guides"]["pag"]["options"]["scale"]["default"] == 3


def test_again_is_offered_where_it_can_be_done(run):
    assert "make it again: darkroom again out/7-a-red-boat.png" in run(*GENERATE)[2]
    for option in (["--no-metadata"], ["--format", "jpeg"]):
        assert "again" not in run(*GENERATE, *option)[2]


def test_help_and_inspect_say_what_a_model_has_unless_asked(run):
    text = " ".join(run("generate", "--help")[1].split())
    assert "for pocket 128x128 pixels, steps 20, guidance 4.0, sampler dpmpp_2m, schedule simple" in text
    assert "how many pictures (default: 1)" in text
    out = run("inspect", "toy")[1]
    assert "native size      32x32 pixels; sides are multiples of " in out
    found = json.loads(run("inspect", "toy", "--json")[1])
    assert found["native_size"] == 32
    assert f"defaults         steps {found['defaults']['steps']}, guidance " in out


def test_what_users_hold_says_what_it_is(toy_folder, monkeypatch):
    from PIL import ImageShow

    model = darkroom.load(toy_folder, device="cpu", precision="float32")
    (picture,) = model.generate("a red boat " * 20, steps=1, seed=5)
    assert repr(model) == f"<Model toy: {model.family.name}, on cpu in float32>"
    assert repr(picture) == f"<Picture 32x32, seed 5: '{('a red boat ' * 20)[:57]}...'>"
    request = darkroom.Request("a", steps=9, guides=["apg"], width=None)
    assert repr(request) == "Request('a', steps=9, guides=('apg',))"
    assert eval(repr(request), {"Request": darkroom.Request}) == request
    assert open_picture(io.BytesIO(picture._repr_png_()))[1] == picture.metadata
    shown = []
    monkeypatch.setattr(ImageShow, "show", lambda image, title: shown.append(image) or len(shown) < 2)
    picture.show()
    with pytest.raises(darkroom.DarkroomError, match=r"no program here .* save\(\)"):
        picture.show()
    notebook = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1))
    notebook.display = SimpleNamespace(display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    picture.show()
    assert shown == [picture.image, picture.image, picture]


def test_the_version_and_help_are_told_whoever_asks(run):
    for option in ("--version", "-V"):
        assert run(option)[:2] == (0, f"darkroom {darkroom.__version__}\n")
    assert run("help")[:2] == run("--help")[:2] == run()[:2]
    assert run("help", "plan")[:2] == run("plan", "--help")[:2]
    assert run("--help", "plan")[1] == run()[1]


def test_a_prompt_may_begin_as_an_option(run, tmp_path):
    status, _, err = run("generate", "-n night", *QUICK)
    assert (status, "'-n night' begins as an option: a prompt that does stands behind --" in err) == (2, True)
    assert run("generate", *QUICK, "--", "-n night")[0] == 0
    assert run("generate", *QUICK, "--prompt=--debug")[0] == 0
    assert sorted(prompts_in(tmp_path / "out")) == ["--debug", "-n night"]


def test_switches_are_undone_on_the_command_line(run, tmp_path):
    (tmp_path / "darkroom.toml").write_text("[generate]\nmetadata = false\ngrid = true\n")
    assert run("generate", "a", *QUICK, "--metadata", "--no-grid")[1].split() == ["out/7-a.png"]
    assert prompts_in(tmp_path / "out") == ["a"]


def test_settings_in_messages_are_options_here(run, tmp_path):
    """The library names them as Python has them."""
    for message, words in (
        ('try `precision="float32"`', "try --precision float32"),
        ("give one (`refiner=`), or none", "give one (--refiner), or none"),
        ("`adapters=`, `others=`, `guidance_rescale=`", "--adapter, --with, --guidance-rescale"),
        ("leave it out (`metadata=False`), `core=True`", "leave it out (--no-metadata), --core"),
        ("`darkroom models scan` of `x = y`, `x=y`", "`darkroom models scan` of `x = y`, `x=y`"),
    ):
        assert in_options(message) == words
    assert "give one (--refiner)" in run(*GENERATE, "--refiner-switch", "0.5")[2]
    with pytest.raises(darkroom.InvalidRequest, match="give one \\(`refiner=`\\)"):
        darkroom.load("toy", device="cpu").generate("a", refiner_switch=0.5)
    err = run("prompt", "a <lora:ink:1>", "--model", "toy", "--dialect", "plain")[2]
    assert "name it in --adapter" in err
