"""Scanning the folders of other programs, in place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3

import pytest
import torch
from safetensors.torch import save_file
from tests.checkpoint.test_source import AUTOENCODER, ours, single_file

from darkroom.checkpoint import components
from darkroom.errors import ModelError
from darkroom.library.kinds import identify
from darkroom.library.locate import locate
from darkroom.library.records import Library, changing
from darkroom.library.scan import scan, usual_places
from darkroom.networks import VAE

LORA = {
    "lora_unet_mid.lora_down.weight": torch.ones(4, 8),
    "lora_unet_mid.lora_up.weight": torch.ones(8, 4),
    "lora_unet_mid.alpha": torch.tensor(4.0),
}
PARTS = {
    "lora": LORA,
    "vae": ours(VAE(AUTOENCODER)),
    "controlnet": {"control_model.input_blocks.0.0.weight": torch.ones(2, 2)},
    "embedding": {"emb_params": torch.ones(2, 768)},
    "upscaler": {"model.1.sub.0.RDB1.conv1.0.weight": torch.ones(2, 2)},
    "ip-adapter": {"image_proj.proj.weight": torch.ones(2, 2), "ip_adapter.1.to_k_ip.weight": torch.ones(2)},
    "t2i-adapter": {"adapter.body.0.in_conv.weight": torch.ones(2, 2)},
}


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "sd1.safetensors"
    save_file(single_file("Stable Diffusion 1"), path)
    return path


def put(path, tensors=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(LORA if tensors is None else tensors, path)
    return path


def copy(source, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)
    return path


def found(*folders, **settings):
    """What a scan records, by kind and name, and what it skips."""
    skipped: list[str] = []
    recorded = scan(folders, skipped.append, **settings)
    return {(each.entry.kind, each.entry.name): each.version.path for each in recorded}, skipped


def files_of(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", PARTS)
def test_files_are_told_by_their_headers(kind, tmp_path):
    path = put(tmp_path / "misleading-name.safetensors", PARTS[kind])
    assert identify(path).kind == kind


def test_what_no_header_tells_the_folder_or_the_user_does(tmp_path):
    path = put(tmp_path / "ESRGAN/odd.safetensors", {"strange.weight": torch.ones(2)})
    with pytest.raises(ModelError, match="another kind of file"):
        identify(path)
    assert identify(path, "upscaler").kind == "upscaler"
    assert found(tmp_path)[0] == {("upscaler", "odd"): path}


def test_a1111(sd1, tmp_path):
    webui = tmp_path / "stable-diffusion-webui"
    model = copy(sd1, webui / "models/Stable-diffusion/anime/dream.safetensors")
    lora = put(webui / "models/Lora/style.safetensors")
    vae = put(webui / "models/VAE/ft.safetensors", PARTS["vae"])
    control = put(webui / "extensions/sd-webui-controlnet/models/canny.safetensors", PARTS["controlnet"])
    (webui / "embeddings").mkdir()
    hands = webui / "embeddings/hands.pt"
    torch.save({"string_to_param": {"*": torch.ones(2, 768)}, "name": "hands"}, hands)
    (webui / "models/Stable-diffusion/Put Stable Diffusion checkpoints here.txt").touch()
    copy(sd1, webui / "venv/lib/not-this.safetensors")
    copy(sd1, webui / "outputs/nor-this.safetensors")
    before = files_of(webui)
    assert found(webui) == (
        {
            ("model", "dream"): model,
            ("lora", "style"): lora,
            ("vae", "ft"): vae,
            ("controlnet", "canny"): control,
            ("embedding", "hands"): hands,
        },
        [],
    )
    assert files_of(webui) == before
    assert locate("dream") == model
    assert locate("style", "lora") == lora


def test_comfyui_and_its_other_paths(sd1, tmp_path):
    comfy, disk = tmp_path / "ComfyUI", tmp_path / "disk"
    model = copy(sd1, comfy / "models/checkpoints/dream.safetensors")
    far = copy(sd1, disk / "ckpts/far.safetensors")
    other = put(disk / "l2/other.safetensors")
    (comfy / "custom_nodes/x").mkdir(parents=True)
    put(comfy / "custom_nodes/x/not-this.safetensors")
    (comfy / "extra_model_paths.yaml").write_text(
        f"mine:\n  base_path: {disk}\n  is_default: true\n  checkpoints: ckpts\n"
        "  loras: |\n    l1/\n    l2/\nnothing:\n"
    )
    assert found(comfy)[0] == {("model", "dream"): model, ("model", "far"): far, ("lora", "other"): other}
    (comfy / "extra_model_paths.yaml").write_text("mine: [")
    recorded, skipped = found(comfy)
    assert ("model", "dream") in recorded
    assert len(skipped) == 1
    assert "extra_model_paths.yaml cannot be read" in skipped[0]
    assert "\n" not in skipped[0]


def test_invokeai(sd1, toy_folder, tmp_path):
    root = tmp_path / "invokeai"
    copy(sd1, root / "models/1a2b/model.safetensors")
    shutil.copytree(toy_folder, root / "models/3c4d")
    far = put(tmp_path / "far/x.safetensors", PARTS["vae"])
    orphan = put(root / "models/5e6f/orphan.safetensors")
    (root / "databases").mkdir()
    database = sqlite3.connect(root / "databases/invokeai.db")
    database.execute(
        "CREATE TABLE models (id TEXT PRIMARY KEY, config TEXT NOT NULL, "
        "path TEXT GENERATED ALWAYS AS (json_extract(config, '$.path')) VIRTUAL NOT NULL)"
    )
    for key, name, path, source in (
        ("1a2b", "Dreamy / Model", "1a2b/model.safetensors", "https://civitai.com/x"),
        ("3c4d", "Toy", "3c4d", "acme/toy-model"),
        ("7a8b", "Far", str(far), "x"),
        ("9c0d", "Gone", "gone.safetensors", "x"),
    ):
        config = json.dumps({"name": name, "path": path, "source": source})
        database.execute("INSERT INTO models (id, config) VALUES (?, ?)", (key, config))
    database.commit()
    database.close()
    before = files_of(root)
    recorded, skipped = found(root)
    assert recorded == {
        ("model", "Dreamy - Model"): root / "models/1a2b/model.safetensors",
        ("model", "Toy"): root / "models/3c4d",
        ("vae", "Far"): far,
        ("lora", "orphan"): orphan,
    }
    assert skipped == []
    assert files_of(root) == before
    assert locate("acme/toy-model") == root / "models/3c4d"
    (root / "databases/invokeai.db").write_bytes(b"SQLite format 3\0 and nothing more")
    recorded, skipped = found(root)
    assert len(recorded) == 3
    assert "invokeai.db cannot be read" in skipped[0]


def hub_snapshot(repository, commit, files):
    """A snapshot as the hub's library lays it out: links to blobs."""
    for name, data in files.items():
        blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = repository / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs/main").write_text(commit)
    return repository / "snapshots" / commit


def test_a_hugging_face_cache(sd1, toy_folder, tmp_path):
    hub = tmp_path / "huggingface/hub"
    toy = {
        path.relative_to(toy_folder).as_posix(): path.read_bytes()
        for path in toy_folder.rglob("*")
        if path.is_file()
    }
    first = hub_snapshot(hub / "models--acme--toy-sd", "a" * 40, toy)
    weights = hub_snapshot(hub / "models--acme--one", "b" * 40, {"xl.safetensors": sd1.read_bytes()})
    plain = put(tmp_path / "p.safetensors", PARTS["vae"]).read_bytes()
    config = json.dumps(components.AUTOENCODER.to_json(AUTOENCODER)).encode()
    component = hub_snapshot(
        hub / "models--acme--vae-fix",
        "c" * 40,
        {"config.json": config, "diffusion_pytorch_model.safetensors": plain},
    )
    hub_snapshot(
        hub / "models--acme--lora",
        "d" * 40,
        {"pytorch_lora_weights.safetensors": put(tmp_path / "l").read_bytes()},
    )
    put(tmp_path / "llm.safetensors", {"model.layers.0.weight": torch.ones(2)})
    llm = (tmp_path / "llm.safetensors").read_bytes()
    hub_snapshot(hub / "models--big--llm", "e" * 40, {"config.json": b"{}", "model.safetensors": llm})
    (hub / "version.txt").write_text("1")
    recorded, skipped = found(hub)
    assert recorded == {
        ("model", "toy-sd"): first,
        ("model", "xl"): weights / "xl.safetensors",
        ("vae", "vae-fix"): component,
        ("lora", "lora"): hub
        / "models--acme--lora/snapshots"
        / ("d" * 40)
        / "pytorch_lora_weights.safetensors",
    }
    assert len(skipped) == 1
    assert "another kind of file" in skipped[0]
    assert locate("acme/toy-sd") == first
    assert Library.read().find("xl").version.origin == f"hf://acme/one@{'b' * 40}/xl.safetensors"
    # A newer snapshot is a newer version.
    second = hub_snapshot(
        hub / "models--acme--toy-sd", "f" * 40, toy | {"scheduler/scheduler_config.json": b"{}"}
    )
    found(hub)
    assert [version.path for version in Library.read().find("toy-sd").versions] == [first, second]
    assert locate("acme/toy-sd") == second


def test_scanning_twice_and_through_links_records_once(sd1, tmp_path):
    copy(sd1, tmp_path / "a/dream.safetensors")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/linked.safetensors").symlink_to(tmp_path / "a/dream.safetensors")
    assert len(found(tmp_path)[0]) == 1
    assert len(found(tmp_path / "b", tmp_path / "a")[0]) == 1
    assert len(Library.read().entries) == 1


def test_files_of_one_name_are_told_apart(sd1, tmp_path):
    one = copy(sd1, tmp_path / "one/model.safetensors")
    two = copy(sd1, tmp_path / "two/model.safetensors")
    a, b, c = (put(tmp_path / f"{name}/style.safetensors") for name in "abc")
    assert found(tmp_path)[0] == {
        ("model", "one"): one,
        ("model", "two"): two,
        ("lora", "style"): a,
        ("lora", "b-style"): b,
        ("lora", "c-style"): c,
    }


def test_with_hashes_the_same_bytes_of_one_name_are_one(sd1, tmp_path):
    done: list[tuple[int, int]] = []
    for name in "ab":
        put(tmp_path / f"{name}/style.safetensors")
    recorded, _ = found(tmp_path, hashes=True, progress=lambda *each: done.append(each))
    assert recorded == {("lora", "style"): tmp_path / "a/style.safetensors"}
    assert done[-1][0] == done[-1][1] > 0
    assert Library.read().find("style").version.digest


def test_what_moved_is_found_again_and_what_changed_is_left(sd1, tmp_path):
    path = copy(sd1, tmp_path / "a/dream.safetensors")
    found(tmp_path / "a", hashes=True)
    digest = Library.read().find("dream").version.digest
    with changing() as library:
        library.alias(library.find("dream"), "ds")
    (tmp_path / "a").rename(tmp_path / "b")
    recorded = scan([tmp_path / "b"], lambda words: None)
    assert [each.news for each in recorded] == ["moved"]
    assert locate("ds") == tmp_path / "b/dream.safetensors"
    assert Library.read().find("dream").version.digest == digest
    put(tmp_path / "b/dream.safetensors")
    assert [each.news for each in scan([tmp_path / "b"], lambda words: None)] == ["changed"]
    assert Library.read().find("dream").version.digest == digest
    assert not path.exists()


def test_damaged_and_malicious_files_are_lines(sd1, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/canary",)

    models = tmp_path / "models"
    good = copy(sd1, models / "good.safetensors")
    (models / "cut.safetensors").write_bytes(sd1.read_bytes()[:3000])
    (models / "empty.ckpt").touch()
    (models / "page.safetensors").write_text("<!doctype html>")
    torch.save({"state_dict": {}, "x": Evil()}, models / "evil.ckpt")
    (models / "broken-link.safetensors").symlink_to(tmp_path / "nowhere")
    (models / "folder").mkdir()
    (models / "folder/model_index.json").write_text("{}")
    recorded, skipped = found(models)
    assert recorded == {("model", "good"): good}
    assert len(skipped) == 6
    assert all("\n" not in words and str(models) in words for words in skipped)
    assert not (tmp_path / "canary").exists()
    with pytest.raises(ModelError, match="no folder"):
        found(tmp_path / "nowhere")


def test_the_usual_places(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "INVOKEAI_ROOT"):
        monkeypatch.delenv(name, raising=False)
    assert usual_places() == []
    for name in (".cache/huggingface/hub", "ComfyUI", "hf/hub", "inv"):
        (tmp_path / name).mkdir(parents=True)
    assert usual_places() == [tmp_path / ".cache/huggingface/hub", tmp_path / "ComfyUI"]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("INVOKEAI_ROOT", str(tmp_path / "inv"))
    assert usual_places() == [tmp_path / "hf/hub", tmp_path / "ComfyUI", tmp_path / "inv"]


def test_a_base_path_that_is_not_there_is_said(tmp_path):
    (tmp_path / "extra_model_paths.yaml").write_text(
        f"other:\n  base_path: {tmp_path / 'gone'}\n  loras: loras\n"
    )
    skipped = []
    scan([tmp_path], skipped.append)
    assert len(skipped) == 1
    assert "base_path" in skipped[0]
    assert "gone" in skipped[0]


def test_the_hub_s_cache_of_a_single_file(tmp_path, sd1):
    """Who fetched one file of a repository has its configurations beside it."""
    snapshot = tmp_path / "models--acme--toy/snapshots/aaaa"
    copy(sd1, snapshot / "toy_1.0.safetensors")
    (snapshot / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    (snapshot / "unet").mkdir()
    (snapshot / "unet/config.json").write_text("{}")
    kinds, skipped = found(tmp_path)
    assert [*kinds] == [("model", "toy_1.0")]
    assert "no weights of unet" in skipped[0]


def test_files_beside_a_model_s_folder_are_found(tmp_path, toy_folder, sd1):
    folder = shutil.copytree(toy_folder, tmp_path / "toy")
    copy(sd1, folder / "pruned-emaonly.safetensors")
    put(folder / "style.safetensors")
    kinds, skipped = found(tmp_path)
    assert {*kinds} == {("model", "toy"), ("model", "pruned-emaonly"), ("lora", "style")}
    assert not skipped
