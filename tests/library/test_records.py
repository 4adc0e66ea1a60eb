"""The library: what is recorded, by which names it is found, versions, locks, and what verifying finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoint.test_source import AUTOENCODER, ours, single_file

import darkroom
from darkroom.errors import InvalidRequest, ModelError
from darkroom.library.kinds import identify
from darkroom.library.locate import available, locate
from darkroom.library.lock import LOCK, lock_of, write_lock
from darkroom.library.records import Library, changing, home, line, version_of
from darkroom.library.verify import verify
from darkroom.networks import VAE


def add(path, name=None, hashed=True, aliases=(), **facts):
    found = identify(path)
    version = version_of(path, found.root, found.files, family=found.family, **facts)
    with changing() as library:
        return library.record(found.kind, name or path.stem, version.hashed() if hashed else version, aliases)


def vae(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(ours(VAE(AUTOENCODER), seed), path)
    return path


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "dream.safetensors"
    save_file(single_file("Stable Diffusion 1"), path)
    return path


def other(sd1, folder, seed=1):
    """Another model of the same shapes and size."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(sd1)
    tensors["betas"] = torch.full((1000,), float(seed))
    save_file(tensors, folder / "dream.safetensors")
    return folder / "dream.safetensors"


# The record


def test_what_is_recorded_is_read_again(sd1, toy_folder, empty_library):
    add(sd1, aliases=["ds", "acme/dream"])
    add(toy_folder, "toy-folder", hashed=False, origin="hf://acme/toy@abc")
    first, second = Library.read().entries
    assert (first.name, first.kind, first.aliases) == ("dream", "model", ["ds", "acme/dream"])
    assert first.version.path == sd1
    assert first.version.family == "Stable Diffusion 1"
    assert first.version.size == sd1.stat().st_size
    assert second.version.digest == ""
    assert set(second.version.files) >= {"model_index.json", "unet/config.json", "tokenizer/vocab.json"}
    assert second.version.hashed().digest != ""
    assert json.loads((empty_library / "library.json").read_text())["format"] == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "entries": [{"name": "x"}]}']
)
def test_a_damaged_record_is_said_and_left_alone(text, sd1, empty_library):
    empty_library.mkdir()
    (empty_library / "library.json").write_text(text)
    for action in (Library.read, lambda: locate("dream"), lambda: add(sd1)):
        with pytest.raises(ModelError, match=r"library\.json is damaged.*mend it"):
            action()
    assert (empty_library / "library.json").read_text() == text
    # Neither an embedded model nor a path needs it.
    assert locate("pocket").name == "pocket"
    assert locate(sd1) == sd1


def test_a_record_of_a_newer_darkroom_is_left_alone(empty_library):
    empty_library.mkdir()
    (empty_library / "library.json").write_text('{"format": 99, "entries": {}}')
    with pytest.raises(ModelError, match="newer Darkroom"):
        Library.read()


ADD_MANY = """
import sys
from pathlib import Path
from darkroom.library.records import changing, version_of
for number in range(15):
    path = Path(f"{sys.argv[1]}-{number}")
    path.write_text("x")
    with changing() as library:
        library.record("lora", path.name, version_of(path, path.parent, [path.name]))
"""


def test_processes_that_add_at_once_lose_nothing(tmp_path):
    workers = [subprocess.Popen([sys.executable, "-c", ADD_MANY, tmp_path / name]) for name in "abc"]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    names = {f"{name}-{number}" for name in "abc" for number in range(15)}
    assert {entry.name for entry in Library.read().entries} == names
    assert {path.name for path in home().iterdir()} <= {"library.json", "library.json.lock"}


def test_a_change_that_fails_changes_nothing(sd1):
    add(sd1)

    def fail():
        with changing() as library:
            library.entries.clear()
            library.find("nothing")

    with pytest.raises(ModelError, match="nothing"):
        fail()
    assert Library.read().find("dream").version.path == sd1


# Names


def test_names_aliases_and_hashes(sd1, tmp_path, monkeypatch):
    digest = add(sd1, aliases=["ds", "acme/dream"]).version.digest
    add(vae(tmp_path / "dream.safetensors"))
    for name in ("dream", "ds", "acme/dream", "Dream", digest, digest[:10], digest[:8].upper()):
        assert locate(name) == sd1
    assert locate("dream", "vae") == tmp_path / "dream.safetensors"
    assert Library.read().find("dream", kind="vae").kind == "vae"
    with pytest.raises(ModelError, match="several things: model dream, vae dream"):
        Library.read().find("dream")
    for unknown in (digest[:7], "f" * 10, "nothing"):
        with pytest.raises(ModelError, match=f"there is no model '{unknown}'"):
            locate(unknown)
    assert available()["dream"] == sd1


def test_messages_say_what_to_do(sd1, tmp_path):
    add(sd1, "DreamShaper")
    for name, kind, words in (
        ("dreamshapr", "model", "there is no model 'dreamshapr': did you mean 'DreamShaper'?"),
        (
            "zzz",
            "model",
            "no model 'zzz': give a name that `darkroom models` lists, or the path of a file or folder",
        ),
        ("gone.ckpt", "model", "there is no file or folder gone.ckpt"),
        ("x", "lora", "there is no lora 'x': give a name"),
    ):
        with pytest.raises(ModelError) as raised:
            locate(name, kind)
        assert words in str(raised.value)


def test_names_are_of_one_thing(sd1, toy_folder, tmp_path):
    add(sd1)
    add(toy_folder, "toy-folder")
    for name in ("", " x", "-x", ".x", "a\nb", "pocket", "dream"):
        with pytest.raises(InvalidRequest), changing() as library:
            library.alias(library.find("toy-folder"), name)
    with pytest.raises(InvalidRequest, match="slash"):
        add(other(sd1, tmp_path), "a/b")


def test_a_file_that_is_gone_is_said(sd1, tmp_path):
    add(path := other(sd1, tmp_path))
    path.unlink()
    assert Library.read().find("dream").version.state() == "missing"
    assert "dream" not in available()
    with pytest.raises(ModelError, match="known as 'dream', is gone"):
        locate("dream")


# Versions


def test_another_file_of_a_name_is_a_version(sd1, tmp_path):
    paths = [sd1, other(sd1, tmp_path / "a"), other(sd1, tmp_path / "b", 2)]
    assert [add(path, "dream").news for path in paths] == ["new", "version", "version"]
    assert locate("dream") == paths[2]
    entry = Library.read().find("dream")
    for path, version in zip(paths, entry.versions, strict=True):
        assert locate(version.digest[:10]) == path
    # What was recorded stays what it is, whoever records it again.
    assert add(paths[0], "dream").news == "known"
    assert locate("dream") == paths[2]


def test_a_pinned_entry_stays_at_its_version(sd1, tmp_path):
    add(sd1)
    with changing() as library:
        library.find("dream").pinned = True
    recorded = add(other(sd1, tmp_path))
    assert (recorded.number, recorded.entry.current) == (1, 0)
    assert locate("dream") == sd1


def test_the_same_bytes_elsewhere_are_the_same_version(sd1, tmp_path):
    copy = tmp_path / sd1.name
    copy.write_bytes(sd1.read_bytes())
    add(copy)
    assert add(sd1).news == "known"
    copy.unlink()
    assert add(sd1).news == "moved"
    assert locate("dream") == sd1
    assert len(Library.read().find("dream").versions) == 1


def test_a_file_that_changed_in_place_is_recorded_anew_by_add(sd1, tmp_path):
    path = other(sd1, tmp_path)
    before = add(path).version.digest
    other(sd1, tmp_path, 3)
    assert add(path).news == "changed"
    assert Library.read().find("dream").version.digest != before


def test_origins_without_revisions():
    assert line("hf://a/b@c") == "hf://a/b"
    assert line("hf://a/b@c/d/e.bin") == "hf://a/b/d/e.bin"
    assert line("civitai:1@2") == "civitai:1"
    assert line("https://user@host/x") == "https://user@host/x"


# Verifying


def wrong(entry, number=0):
    return verify(entry, number)[1]


@pytest.mark.parametrize(
    ("dtype", "value", "what"),
    [
        (torch.float32, float("nan"), "1 NaN"),
        (torch.float32, float("-inf"), "1 infinite"),
        (torch.float16, float("inf"), "1 infinite"),
        (torch.bfloat16, float("nan"), "1 NaN"),
        (torch.float8_e4m3fn, float("nan"), "1 NaN"),
        (torch.float8_e5m2, float("inf"), "1 infinite"),
    ],
)
def test_bad_numbers_are_found_and_named(dtype, value, what, tmp_path):
    tensors = {name: tensor.to(dtype) for name, tensor in ours(VAE(AUTOENCODER)).items()}
    weight = tensors["decoder.conv_in.weight"].float()
    weight[0, 0, 0, 0] = value
    tensors["decoder.conv_in.weight"] = weight.to(dtype)
    save_file(tensors, tmp_path / "v.safetensors")
    entry = add(tmp_path / "v.safetensors").entry
    assert wrong(entry) == [
        f"{tmp_path}/v.safetensors: decoder.conv_in.weight holds {what} of {weight.numel()} numbers"
    ]


def test_bad_numbers_of_a_whole_model(sd1, tmp_path):
    tensors = load_file(sd1)
    name = "model.diffusion_model.out.2.bias"
    tensors[name][1] = float("nan")
    # Nothing uses these.
    tensors["betas"][:] = float("inf")
    save_file(tensors, tmp_path / "m.safetensors")
    assert wrong(add(sd1).entry) == []
    assert [words.split(": ")[1] for words in wrong(add(tmp_path / "m.safetensors").entry)] == [
        f"{name} holds 1 NaN of {tensors[name].numel()} numbers"
    ]
    del tensors[name]
    save_file(tensors, tmp_path / "n.safetensors")
    assert "lacks" in wrong(add(tmp_path / "n.safetensors").entry)[0]


def test_a_folder_that_changed_is_found_file_by_file(tmp_path):
    from toys import write_model

    folder = write_model(tmp_path / "toy")
    entry = add(folder, "mine").entry
    assert wrong(entry) == []
    weights = folder / "vae/diffusion_pytorch_model.safetensors"
    stat, data = weights.stat(), bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    # However well it is hidden.
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (folder / "unet/config.json").write_text("{}")
    (folder / "tokenizer/merges.txt").unlink()
    problems = wrong(entry)
    assert len(problems) == 3
    for word in ("merges.txt: is missing", "unet/config.json: has 2 bytes", "has the SHA-256"):
        assert sum(word in problem for problem in problems) == 1


def test_hashes_that_were_unknown_are_computed(sd1):
    entry = add(sd1, hashed=False).entry
    version, problems = verify(entry, 0)
    assert problems == []
    assert version == entry.version.hashed()


# Locks


@pytest.fixture
def project(sd1, tmp_path, monkeypatch):
    """A folder with a lock of one model."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_lock(folder / LOCK, [lock_of(add(sd1).entry, folder / LOCK)])
    return folder


def test_a_lock_picks_its_version(project, sd1, tmp_path):
    assert locate("dream") == sd1
    newer = other(sd1, tmp_path / "newer")
    add(newer, aliases=["ds"])
    assert locate("dream") == locate("ds") == sd1
    (project / LOCK).unlink()
    assert locate("dream") == newer


def test_a_lock_refuses_other_weights(project, sd1, tmp_path):
    with changing() as library:
        library.entries.clear()
    with pytest.raises(ModelError, match=r"lists the model 'dream', which is not there: .*pull --locked"):
        locate("dream")
    # As large, and recorded with the hash that is locked.
    path = tmp_path / "dream.safetensors"
    path.write_bytes(sd1.read_bytes())
    add(path)
    assert locate("dream") == path
    other(sd1, tmp_path)
    assert path.stat().st_size == sd1.stat().st_size
    with pytest.raises(ModelError, match=r"is not the 'dream' that models\.lock lists: .* has the SHA-256"):
        darkroom.load("dream", device="cpu")
    # A path says which file is meant.
    assert locate(path) == path


def test_embedded_models_are_locked_too(tmp_path, monkeypatch, toy_folder):
    from darkroom.library.locate import embedded
    from toys import write_model

    folder = write_model(tmp_path / "models" / "toy")
    monkeypatch.setenv("DARKROOM_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DARKROOM_LOCK", str(tmp_path / "a.lock"))
    with pytest.raises(ModelError, match=r"a\.lock cannot be read"):
        locate("toy")
    entry = next(each for each in embedded() if each.name == "toy")
    entry.versions[0] = entry.version.hashed()
    write_lock(tmp_path / "a.lock", [lock_of(entry, tmp_path)])
    assert locate("toy") == folder
    assert locate("pocket").name == "pocket"
    (folder / "scheduler/scheduler_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"scheduler_config\.json has 2 bytes"):
        locate("toy")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 1, "models": [{}]}'])
def test_a_damaged_lock_is_said(text, project):
    (project / LOCK).write_text(text)
    with pytest.raises(ModelError, match="is no lock of models"):
        locate("dream")
