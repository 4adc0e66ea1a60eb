"""Settings that are always to be so: what goes before what, what `doctor` says of it, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.test_cli_asked import QUICK

from darkroom.cli.settings import KNOWN, Said, said, user_file, variable
from darkroom.errors import InvalidRequest


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Writes settings: of the folder and of the user; the environment's are set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(folder="", user="", **environment):
        (tmp_path / "darkroom.toml").write_text(folder)
        user_file().parent.mkdir(parents=True, exist_ok=True)
        user_file().write_text(user)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return write


def test_what_is_nearer_goes_before(places):
    places(
        "[generate]\nsteps = 2\nseed = 2\n[generate.canvas]\nwidth = 64\n",
        "[generate]\nsteps = 3\nseed = 3\nguidance = 3\nmodel = 'toy'\n",
        DARKROOM_STEPS="1",
    )
    user = str(user_file())
    assert said() == {
        "steps": [Said(1, "DARKROOM_STEPS"), Said(2, "darkroom.toml"), Said(3, user)],
        "seed": [Said(2, "darkroom.toml"), Said(3, user)],
        "width": [Said(64, "darkroom.toml")],
        "guidance": [Said(3, user)],
        "model": [Said("toy", user)],
    }


def test_what_counts_is_what_is_made_and_what_the_doctor_says(run, places, tmp_path):
    places("[generate]\nseed = 2\n", "[generate]\nseed = 3\noutput = 'mine'\n", DARKROOM_STEPS="1")
    quick = ("generate", "a", "--model", "toy", "--device", "cpu", "--json")
    made = json.loads(run(*quick)[1])
    assert (made["path"], made["metadata"]["request"]["sampling"]["steps"]) == ("mine/2-a.png", 1)
    assert json.loads(run(*quick, "--seed", "4")[1])["path"] == "mine/4-a.png"
    (tmp_path / "other.toml").write_text("[generate]\nseed = 5\n")
    assert json.loads(run(*quick, "--settings", "other.toml")[1])["path"] == "mine/5-a.png"
    status, out, _ = run("doctor")
    assert status == 0
    user = str(user_file())
    assert f"  seed         2 in darkroom.toml, instead of 3 in {user}" in out
    assert "  steps        1 in DARKROOM_STEPS" in out
    found = json.loads(run("doctor", "--json")[1])["settings"]
    assert found["seed"]["value"] == 2
    assert found["seed"]["instead_of"] == [{"value": 3, "where": user}]


def test_the_environment_says_every_kind(places):
    places(
        DARKROOM_ADAPTER='["a", "b:0.5"]',
        DARKROOM_STYLE="[ink] wash",
        DARKROOM_WITH="clip.safetensors",
        DARKROOM_GUIDANCE="4.5",
        DARKROOM_GUIDANCE_RESCALE="1",
        DARKROOM_T5="no",
        DARKROOM_METADATA="FALSE",
        DARKROOM_SAMPLER="euler:s_churn=10",
        DARKROOM_SEED="",
    )
    assert {name: each[0].value for name, each in said().items()} == {
        "adapters": ("a", "b:0.5"),
        "styles": ("[ink] wash",),
        "others": ("clip.safetensors",),
        "guidance": 4.5,
        "guidance_rescale": 1,
        "t5": False,
        "metadata": False,
        "sampler": "euler:s_churn=10",
    }
    names = [variable(name) for name in KNOWN]
    assert len(set(names)) == len(names)
    assert not {"DARKROOM_HOME", "DARKROOM_MODELS", "DARKROOM_STYLES", "DARKROOM_LOCK"} & set(names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[generat]\nsteps = 2", "has an unknown table [generat]: did you mean [generate]?"),
        ("[sampling]\nsteps = 2", "write [generate.sampling]"),
        ("[generate.samplng]\nsteps = 2", "unknown setting 'samplng'"),
        ("[generate]\nsteps = 0", "steps is 0: choose 1 to 1,000"),
        ("[generate]\nsampler = 'eulr'", "did you mean 'euler'?"),
        ("[generate]\nformat = 'bmp'", "unknown picture format 'bmp'"),
        ("[generate]\nvae = ''", "vae is empty"),
        ("[generate]\nguides = 'apg'", "give a list of texts"),
        ("[generate]\nsize = '64x64'", "it is called width and height here"),
        ("[generate", "cannot read the settings file"),
        ("[generate]\nno_metadata = true", "write metadata = false"),
        ("[generate]\nquiet = true", "it is for the command line alone"),
    ],
)
def test_mistakes_name_their_file(run, places, text, words):
    """Also where the command line says otherwise: a file is right, or it is mended."""
    for folder, user, where in ((text, "", "darkroom.toml"), ("", text, str(user_file()))):
        places(folder, user)
        status, _, err = run("generate", "a boat", *QUICK)
        assert (status, len(err.splitlines())) == (2, 1)
        assert where in err
        assert words in err


def test_the_doctor_tells_of_what_is_wrong_and_of_the_rest(run, places):
    user = "[generate]\nsteps = 3\nstepz = 3\nseed = 'x'\ndevice = 'warp'\nmodel = 'tooy'\n"
    places("[generat]\n", user, DARKROOM_GRID="perhaps", DARKROOM_COUNT="x")
    status, out, _ = run("doctor")
    problems = [line for line in out.splitlines() if line.startswith("problem")]
    told = (
        "COUNT: count is 'x'",
        "GRID: grid is 'perhaps'",
        "[generat]",
        "'stepz'",
        "seed is 'x'",
        "'warp'",
        "'tooy'",
    )
    assert (status, len(problems)) == (1, len(told))
    for line, words in zip(problems, told, strict=True):
        assert words in line
    assert f"  steps        3 in {user_file()}" in out
    assert run("generate", "a")[2].count("\n") == 5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("model = 'tooy'", "there is no model 'tooy'"),
        ("device = 'warp'", "unknown device 'warp'"),
        ("memory = 'ful'", "'ful'"),
        ("name = '{nope}'", "name template '{nope}'"),
    ],
)
def test_what_is_found_later_names_its_file_too(run, places, line, words):
    places(f"[generate]\n{line}\n")
    pairs = zip(QUICK[:-1:2], QUICK[1:-1:2], strict=True)
    own = [word for pair in pairs if pair[0] != f"--{line.split()[0]}" for word in pair]
    status, _, err = run("generate", "a", *own)
    assert status in (1, 2)
    assert err.startswith("darkroom: darkroom.toml: ")
    assert words in err


def test_files_that_cannot_be_read(places, tmp_path, monkeypatch):
    """A folder in their place, a name that is too long; a user's file that is the folder's counts once."""
    places()
    (tmp_path / "darkroom.toml").unlink()
    (tmp_path / "darkroom.toml").mkdir()
    with pytest.raises(InvalidRequest, match=r"cannot read the settings file darkroom\.toml: Is a directory"):
        said()
    with pytest.raises(InvalidRequest, match=r"file gone\.toml: No such file or directory$"):
        said(Path("gone.toml"))
    (tmp_path / "darkroom.toml").rmdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", "/" + "a" * 400)
    with pytest.raises(InvalidRequest, match="File name too long"):
        said()
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")  # Relative: not to be heeded.
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert said() == {}
    user_file().parent.mkdir(parents=True)
    user_file().write_text("[generate]\nsteps = 3\n")
    monkeypatch.chdir(user_file().parent)
    assert said() == {"steps": [Said(3, "darkroom.toml")]}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DARKROOM_STEPS", "many", "DARKROOM_STEPS: steps is 'many': give a whole number"),
        ("DARKROOM_STEPS", "0", "DARKROOM_STEPS: steps is 0: choose 1 to 1,000"),
        ("DARKROOM_GRID", "perhaps", "say true or false"),
        ("DARKROOM_ADAPTER", "[1, 2]", "DARKROOM_ADAPTER: adapters is"),
        ("DARKROOM_ADAPTER", '["a", "b"', "give a list of texts"),
        ("DARKROOM_ADAPTER", "a:start=2", "DARKROOM_ADAPTER: "),
    ],
)
def test_mistakes_name_their_variable(places, name, value, words):
    places(**{name: value})
    with pytest.raises(InvalidRequest) as raised:
        said()
    assert words in str(raised.value)


def test_the_doctor_knows_variables_that_nothing_reads(run, places):
    places(DARKROOM_STEPZ="3", DARKROOM_NO_METADATA="1", DARKROOM_ZZZZZZ="y")
    status, out, _ = run("doctor")
    assert status == 0
    assert (
        "DARKROOM_STEPZ is read by nothing: did you mean DARKROOM_STEPS?"
        in run("prompt", "a", "--model", "toy")[2]
    )
    assert "DARKROOM_STEPZ is read by nothing: did you mean DARKROOM_STEPS?" in out
    assert "DARKROOM_NO_METADATA is read by nothing: did you mean DARKROOM_METADATA=no?" in out
    assert "DARKROOM_ZZZZZZ is read by nothing\n" in out
