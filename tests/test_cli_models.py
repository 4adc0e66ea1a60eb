"""`darkroom models`, as a user meets it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.library.services import serving

from darkroom.cli import main
from darkroom.cli.models.shared import size_of
from toys import write_model

LORA = {"x.lora_down.weight": torch.ones(4, 8), "x.lora_up.weight": torch.ones(8, 4)}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs `darkroom models ...` in an empty folder; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DARKROOM_MODELS", raising=False)

    def call(*arguments):
        try:
            status = main(["models", *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def service(monkeypatch):
    with serving() as service:
        monkeypatch.setenv("CIVITAI_ENDPOINT", service.url)
        yield service


def lora(path, scale=1.0):
    save_file({name: tensor * scale for name, tensor in LORA.items()}, path)
    return path


def test_names_of_files_that_cannot_be_names(run, tmp_path):
    for name, called in (("a\nb", "a-b"), ("-dash", "dash"), (" spaced  out", "spaced out")):
        status, out, _ = run("add", lora(tmp_path / f"{name}.safetensors", len(name)))
        assert (status, out.partition(":")[0]) == (0, called)
    assert run("add", write_model(tmp_path / "toy-1.5"))[1].startswith("toy-1.5: model")
    assert len(run("list")[1].splitlines()) == 7
    for name in ("", " x", "a\nb", ".x"):
        status, _, err = run("add", lora(tmp_path / "other.safetensors", 9), f"--name={name}")
        assert status == 2
        assert "cannot be a name" in err


def test_the_list(run, tmp_path):
    assert run()[1].splitlines()[1].startswith("pocket")
    run("add", write_model(tmp_path / "toy"), "--alias", "t")
    run("add", lora(tmp_path / "style.safetensors"))
    for arguments in ((), ("list",)):
        status, out, err = run(*arguments)
        assert (status, err) == (0, "")
        head, *rows = out.splitlines()
        assert head.split() == ["name", "kind", "what", "version", "size", "where"]
        assert [row.split()[0].strip(",") for row in rows] == ["pocket", "pocket-x4", "toy", "style"]
    assert "style" not in run("list", "--kind", "model")[1]
    (tmp_path / "style.safetensors").unlink()
    assert "(MISSING)" in run()[1]
    rows = [json.loads(line) for line in run("list", "--json")[1].splitlines()]
    assert run("--json")[1] == run("list", "--json")[1]
    assert [(row["name"], row["versions"][0]["state"]) for row in rows] == [
        ("pocket", "ok"),
        ("pocket-x4", "ok"),
        ("toy", "ok"),
        ("style", "missing"),
    ]
    assert rows[2]["aliases"] == ["t"]
    assert len(rows[2]["versions"][0]["sha256"]) == 64


def test_versions_and_going_back(run, tmp_path):
    for number in (1, 2, 3):
        path = lora(tmp_path / f"style-{number}.safetensors", number)
        status, out, _ = run("add", path, "--name", "style")
        assert status == 0
    assert out == "style: lora, 416 B, version 3 (current)\n"
    assert run("rollback", "style")[1].startswith("style: version 3 -> 2, ")
    assert run("rollback", "style")[1].startswith("style: version 2 -> 1, ")
    status, _, err = run("rollback", "style")
    assert status == 2
    assert "first version" in err
    listed = run("list", "style")[1].splitlines()
    assert listed[0] == "style: lora"
    assert [line.split()[0] for line in listed[1:]] == ["*", "2", "3"]
    digest = listed[3].split()[1]
    assert run("rollback", "style", "--to", digest)[1].startswith("style: version 1 -> 3, ")
    assert run("rollback", "style", "--to", "2")[0] == 0
    assert run("rollback", "style", "--to", "9")[0] == 2
    assert run("pin", "style")[1] == "style: pinned to version 2\n"
    out = run("add", lora(tmp_path / "style-4.safetensors", 4), "--name", "style")[1]
    assert out == "style: lora, 416 B, version 4 (2 stays current)\n"
    assert "2 of 4, pinned" in run()[1]
    assert run("unpin", "style")[0] == 0
    (tmp_path / "style-1.safetensors").unlink()
    status, _, err = run("rollback", "style")
    assert status == 1
    assert "version 1 of style is gone" in err
    assert run("remove", "style", "--version", "1")[1] == "style, version 1: forgotten\n"
    assert "1 of 3" in run()[1]
    assert run("remove", "style")[0] == 0
    assert (tmp_path / "style-2.safetensors").exists()
    assert "style" not in run()[1]


def test_names(run, tmp_path):
    run("add", lora(tmp_path / "a.safetensors"))
    assert run("alias", "a", "b", "acme/c")[1] == "a: also b, acme/c\n"
    assert run("alias", "b", "b", "--remove")[1] == "a: also acme/c\n"
    assert run("alias", "a", "zzz", "--remove")[0] == 2
    status, _, err = run("add", tmp_path / "a.safetensors", "--name", "z")
    assert status == 2
    assert "darkroom models alias a z" in err
    assert run("add", tmp_path / "a.safetensors")[1].startswith("a: already in the library")
    assert "did you mean 'acme/c'" in run("pin", "acme/d")[2]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["add", "gone.safetensors"], 1, "no file or folder gone.safetensors"),
        (["scan", "gone"], 1, "gone is no folder"),
        (["remove", "nothing"], 1, "no entry 'nothing'"),
        (["remove", "pocket"], 2, "comes with Darkroom"),
        (["list", "--kind", "modle"], 2, "did you mean 'model'"),
        (["list", "nothing"], 1, "no entry 'nothing'"),
        (["verify", "nothing"], 1, "no entry 'nothing'"),
        (["rollback", "nothing"], 1, "no entry 'nothing'"),
        (["pull"], 2, "pull what?"),
        (["pull", "nothing"], 2, "no id, no address"),
        (["pull", "--lock", "x", "a/b"], 2, "--locked"),
        (["pull", "--locked"], 1, "models.lock cannot be read"),
        (["burn"], 2, "burn"),
    ],
)
def test_mistakes_are_one_line(run, arguments, status, words):
    found, out, err = run(*arguments)
    assert (found, out) == (status, "")
    assert words in err
    assert len([line for line in err.splitlines() if not line.endswith(": folder")]) == 1


@pytest.mark.parametrize(
    "command",
    ["", "list", "add", "scan", "pull", "remove", "alias", "pin", "unpin", "rollback", "verify", "lock"],
)
def test_help(run, command):
    status, out, _ = run(*command.split(), "--help")
    assert status == 0
    assert f"usage: darkroom models {command}".strip() in out


def test_scanning(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "INVOKEAI_ROOT"):
        monkeypatch.delenv(name, raising=False)
    assert run("scan")[0] == 1
    folder = tmp_path / "ComfyUI/models/checkpoints"
    folder.mkdir(parents=True)
    lora(folder / "style.safetensors")
    (folder / "broken.safetensors").write_text("x")
    status, out, err = run("scan", tmp_path / "ComfyUI", "--hash")
    assert (status, out) == (0, "style: lora, 416 B\n")
    told = err.splitlines()
    assert told[0] == f"{tmp_path}/ComfyUI: ComfyUI"
    assert told[1].startswith("skipped: ")
    assert told[-1] == "1 recorded"
    assert run("scan", "ComfyUI")[2].splitlines()[-1] == "0 recorded, 1 known already"
    lora(folder / "style.safetensors", 2)
    status, out, err = run("scan", "ComfyUI", "--hash")
    assert "has changed since it was recorded" in out
    assert f"`darkroom models add {folder}/style.safetensors`" in err


def test_verifying(run, tmp_path):
    folder = write_model(tmp_path / "toy")
    run("add", folder)
    run("add", lora(tmp_path / "style.safetensors"))
    status, out, _ = run("verify")
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["ok", f"{n}:"] for n in ("pocket", "pocket-x4", "toy", "style")
    ]
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"][3] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    status, out, _ = run("verify", "toy")
    assert status == 1
    assert "BAD  toy" in out
    assert "has the SHA-256" in out
    run("add", folder)
    status, out, _ = run("verify", "toy", "style")
    assert status == 1
    assert f"{weights}: conv_in.bias holds 1 NaN of 16 numbers" in out
    assert "ok   style: 1 file, 416 B" in out


def test_locking_a_project(run, service, tmp_path):
    data = lora(tmp_path / "s.safetensors").read_bytes()
    newer = lora(tmp_path / "s.safetensors", 2).read_bytes()
    service.add_civitai(12, 34, "Style", {"s.safetensors": data})
    assert run("pull", "civitai:12")[1] == "Style: lora, 416 B\n"
    run("add", write_model(tmp_path / "toy"))
    assert run("lock", "Style")[1] == "models.lock: lists 1\n"
    assert run("lock", "toy", "pocket")[1] == "models.lock: lists 3\n"
    lock = json.loads((tmp_path / "models.lock").read_text())
    assert [(row["name"], row["origin"]) for row in lock["models"]] == [
        ("Style", "civitai:12@34"),
        ("pocket", ""),
        ("toy", ""),
    ]
    status, out, _ = run("verify")
    assert (status, out.count("ok ")) == (0, 4)
    # A newer version does not disturb the project.
    service.add_civitai(12, 35, "Style", {"s.safetensors": newer})
    assert "version 2 (current)" in run("pull", "Style")[1]
    assert run("verify")[0] == 0
    # Another machine: nothing is there but the lock.
    run("remove", "Style", "toy")
    status, out, err = run("verify", "pocket")
    assert status == 0
    status, out, _ = run("verify")
    assert (status, out.count("BAD")) == (1, 2)
    status, out, err = run("pull", "--locked")
    assert status == 1
    assert out.splitlines() == ["Style: lora, 416 B", "pocket: is there as locked"]
    assert "toy cannot be fetched: it was locked from a file of somebody's own" in err
    assert service.bodies()[-1][0] == "/api/download/models/34?file=0"
    assert run("pull", "--locked", "Style")[1] == "Style: is there as locked\n"
    # The service has other bytes under that version now.
    run("remove", "Style")
    service.add_civitai(12, 34, "Style", {"s.safetensors": newer})
    status, out, err = run("pull", "--locked", "Style")
    assert status == 1
    assert "is locked with the SHA-256" in err


def test_a_lock_by_another_name_than_here(run, service, tmp_path):
    data = lora(tmp_path / "s.safetensors").read_bytes()
    service.add_civitai(12, 34, "Style", {"s.safetensors": data})
    run("pull", "civitai:12", "--name", "theirs")
    run("lock")
    run("remove", "theirs")
    run("pull", "civitai:12")
    assert run("pull", "--locked", "theirs")[0] == 0
    assert "also theirs" in run("list", "Style")[1]
    assert run("pull", "--locked", "theirs")[1] == "theirs: is there as locked\n"
    assert run("verify", "Style")[0] == 0


def test_removing_what_was_pulled(run, service, tmp_path, empty_library):
    data = lora(tmp_path / "s.safetensors").read_bytes()
    service.files["/s.safetensors"] = data
    run("pull", f"{service.url}/s.safetensors")
    kept = next((empty_library / "models/lora").rglob("*.safetensors"))
    assert run("remove", "s", "--keep-files")[1] == "s: forgotten\n"
    assert kept.read_bytes() == data
    run("pull", f"{service.url}/s.safetensors")
    assert run("remove", "s")[1] == "s: forgotten, 416 B deleted\n"
    assert not kept.exists()


def test_sizes_are_short():
    assert [size_of(n) for n in (0, 999, 1000, 4_300_000, 1_990_000_000)] == [
        "0 B",
        "999 B",
        "1 kB",
        "4.3 MB",
        "1.99 GB",
    ]
