"""Fetching models from the hub, from Civitai and from any address, by way of a server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save
from tests.checkpoint.test_source import AUTOENCODER, ours, single_file
from tests.library.services import COMMIT, serving

import darkroom
from darkroom.errors import InvalidRequest, ModelError
from darkroom.library.about import About, about
from darkroom.library.fetch import download, hub, remote
from darkroom.library.fetch.origin import Address, Civitai, Hub, parse
from darkroom.library.fetch.pull import pull, pull_locked, remove
from darkroom.library.locate import locate
from darkroom.library.lock import LOCK, lock_of
from darkroom.library.records import Library, changing, home
from darkroom.networks import VAE


@pytest.fixture(autouse=True)
def naps(tmp_path, monkeypatch):
    """No tokens of anybody's, and no waiting: the seconds that would have been waited."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CIVITAI_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    waited: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    return waited


@pytest.fixture
def service(monkeypatch):
    with serving() as service:
        monkeypatch.setenv("HF_ENDPOINT", service.url)
        monkeypatch.setenv("CIVITAI_ENDPOINT", service.url)
        yield service


@pytest.fixture
def elsewhere():
    with serving() as other:
        yield other


@pytest.fixture(scope="session")
def sd1() -> bytes:
    return save(single_file("Stable Diffusion 1"))


def tensors(seed=0, size=1 << 16):
    """An autoencoder's file, quickly made, and as long as is asked for."""
    pad = {"betas": torch.rand(size // 4, generator=torch.Generator().manual_seed(seed))}
    return save(ours(VAE(AUTOENCODER), seed) | pad)


def folder(path):
    return {
        file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def blobs():
    return sorted(file.name for file in (home() / "models/blobs").iterdir())


def unfinished():
    return sorted(file.suffix for file in (home() / "models/partial").iterdir() if file.suffix != ".lock")


# What people write


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("acme/toy", Hub("acme/toy")),
        ("acme/toy@v1.0", Hub("acme/toy", "v1.0")),
        ("acme/toy@refs/pr/3", Hub("acme/toy", "refs/pr/3")),
        ("hf://acme/toy", Hub("acme/toy")),
        ("hf://acme/toy@refs%2Fpr%2F3/unet/a.bin", Hub("acme/toy", "refs/pr/3", "unet/a.bin")),
        ("https://huggingface.co/acme/toy", Hub("acme/toy")),
        ("https://huggingface.co/acme/toy/tree/dev", Hub("acme/toy", "dev")),
        (
            "https://huggingface.co/acme/toy/resolve/main/a%20b.ckpt?download=true",
            Hub("acme/toy", "main", "a b.ckpt"),
        ),
        ("https://huggingface.co/acme/toy/blob/refs/pr/3/x/y.ckpt", Hub("acme/toy", "refs/pr/3", "x/y.ckpt")),
        ("civitai:12", Civitai(12)),
        ("civitai:12@34", Civitai(12, 34)),
        ("civitai:@34", Civitai(None, 34)),
        ("urn:air:sdxl:checkpoint:civitai:12@34", Civitai(12, 34)),
        ("https://civitai.com/models/12/some-name", Civitai(12)),
        ("https://civitai.com/models/12?modelVersionId=34", Civitai(12, 34)),
        ("https://civitai.com/api/download/models/34", Civitai(None, 34)),
        (
            "https://civitai.com/api/download/models/34?type=Pruned%20Model&size=pruned&token=x",
            Civitai(None, 34, (("type", "Pruned Model"), ("size", "pruned"))),
        ),
        ("https://example.com/a.safetensors", Address("https://example.com/a.safetensors")),
        ("dreamshaper", None),
        ("huggingface.co/acme/toy", Hub("acme/toy")),
        ("https://WWW.HuggingFace.co:443/acme/toy/tree/main", Hub("acme/toy", "main")),
        ("civitai.com/models/12?modelVersionId=34", Civitai(12, 34)),
        ("https://Civitai.green/models/12", Civitai(12)),
        ("https://civitai.com/api/v1/models/12", Civitai(12)),
    ],
)
def test_origins_are_read_as_people_write_them(text, meant):
    assert parse(text) == meant
    if meant is not None:
        assert parse(str(meant)) == meant


@pytest.mark.parametrize(
    "text",
    ["civitai:", "hf://acme", "https://huggingface.co/datasets/acme/x", "https://civitai.com/images/3"],
)
def test_addresses_that_lead_nowhere_are_refused(text):
    with pytest.raises(InvalidRequest, match="give"):
        parse(text)


def test_names_from_servers_cannot_leave_their_folder():
    for text in (
        "../../etc/passwd",
        "..\\..\\x.ckpt",
        "%2e%2e%2fx.ckpt",
        "/a/b/x.ckpt",
        "a\nb\0.ckpt",
        "..",
        "",
    ):
        name = remote.safe_name(text)
        assert name not in ("", ".", "..")
        assert not set(name) & set("/\\\n\0")
    assert remote.safe_name("x" * 300 + ".safetensors").endswith(".safetensors")
    for path in ("../x", "a/../../x", "/x", "a//b", "a\\b", "C:/x", "a/\0"):
        with pytest.raises(ModelError, match="malicious"):
            remote.check_path(path)


# The hub


FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
    "unet/diffusion_flax_model.msgpack",
    "vae/config.json",
    "vae/diffusion_pytorch_model.bin",
    "safety_checker/model.safetensors",
    "vae_decoder/model.onnx",
    "v1-5-pruned.safetensors",
    "README.md",
]


def test_only_what_is_needed_is_chosen_of_a_folder():
    plain = hub.needed(FILES)
    assert [name for name in plain if name.endswith((".safetensors", ".bin"))] == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ]
    assert {"model_index.json", "tokenizer/merges.txt", "unet/config.json"} <= set(plain)
    assert "unet/diffusion_pytorch_model.safetensors.index.json" in plain
    half = hub.needed(FILES, "fp16")
    assert [name for name in half if name.endswith((".safetensors", ".bin"))] == [
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ]
    assert "unet/diffusion_pytorch_model.safetensors.index.fp16.json" in half
    assert not [name for name in plain + half if "safety" in name or "pruned" in name or "onnx" in name]


def test_a_folder_of_the_hub(service, elsewhere, toy_folder):
    files = folder(toy_folder)
    extra = {"v1.ckpt": b"x" * 99, "safety_checker/model.safetensors": b"y", "README.md": b"# Toy"}
    service.add_repository("acme/toy", files | extra, cdn=elsewhere)
    told = []
    recorded = pull("acme/toy", progress=lambda *each: told.append(each))
    assert recorded.news == "new"
    assert recorded.version.origin == f"hf://acme/toy@{COMMIT}"
    assert folder(recorded.version.path) == files
    assert (
        "unet/diffusion_pytorch_model.safetensors",
        *2 * (len(files["unet/diffusion_pytorch_model.safetensors"]),),
    ) in told
    assert locate("acme/toy") == locate("toy", "model") == recorded.version.path
    model = darkroom.load("acme/toy", device="cpu")
    assert model.name == "toy"
    model.generate("a", steps=1)
    # Nothing is fetched twice.
    before = len(service.bodies() + elsewhere.bodies())
    assert pull("acme/toy").news == "known"
    assert len(service.bodies() + elsewhere.bodies()) == before
    assert unfinished() == []
    # What is lost is fetched again.
    (recorded.version.path / "unet/diffusion_pytorch_model.safetensors").unlink()
    (
        home() / "models/blobs" / recorded.version.files["vae/diffusion_pytorch_model.safetensors"].sha256
    ).unlink()
    assert pull("acme/toy").version.path == recorded.version.path
    assert folder(recorded.version.path) == files


def test_a_newer_revision_shares_what_has_not_changed(service, toy_folder):
    files = folder(toy_folder)
    service.add_repository("acme/toy", files)
    pull("acme/toy", name="mine")
    newer = files | {"scheduler/scheduler_config.json": files["scheduler/scheduler_config.json"] + b"\n"}
    service.add_repository("acme/toy", newer, commit="d" * 40)
    asked = len(service.asked)
    recorded = pull("mine")
    assert recorded.news == "version"
    assert recorded.number == recorded.entry.current == 1
    assert not [path for path, _ in service.asked[asked:] if path.endswith(".safetensors")]
    assert len(blobs()) == len({*files.values()}) + 1
    assert pull(f"acme/toy@{COMMIT}").number == 0
    with changing() as library:
        entry = library.find("mine")
        remove(entry, [1], library)
    assert len(blobs()) == len({*files.values()})
    with changing() as library:
        remove(library.find("mine"), [0], library)
    assert blobs() == []
    assert not (home() / "models/model").exists()


def test_an_update_keeps_to_its_variant(service, toy_folder):
    files = folder(toy_folder)
    weights = {name for name in files if name.endswith(".safetensors")}
    files |= {name.replace(".safetensors", ".fp16.safetensors"): files[name] + b"" for name in weights}
    service.add_repository("acme/toy", files)
    first = pull("acme/toy", variant="fp16")
    assert {name for name in first.version.files if name.endswith("safetensors")}.isdisjoint(weights)
    service.add_repository("acme/toy", files | {"scheduler/scheduler_config.json": b"{}"}, commit="d" * 40)
    second = pull("toy")
    assert second.number == 1
    assert second.version.files.keys() == first.version.files.keys()


def test_names_of_embedded_models_are_refused_before_anything_is_fetched(service, toy_folder):
    service.add_repository("acme/pocket", folder(toy_folder))
    with pytest.raises(InvalidRequest, match="`name=`"):
        pull("acme/pocket")
    assert service.bodies() == []
    assert pull("acme/pocket", name="other").entry.name == "other"


def test_a_single_file_of_the_hub(service, elsewhere, sd1):
    twin = io.BytesIO()
    torch.save({"state_dict": {}}, twin)
    service.add_repository("acme/file", {"xl.safetensors": sd1, "xl.ckpt": twin.getvalue()}, cdn=elsewhere)
    recorded = pull("acme/file")
    assert recorded.entry.name == "file"
    assert recorded.version.path.name == "xl.safetensors"
    assert recorded.version.digest == hashlib.sha256(sd1).hexdigest() == blobs()[0]
    assert locate(recorded.version.digest[:10]) == recorded.version.path
    service.add_repository("acme/two", {"a.safetensors": sd1, "b/c.safetensors": tensors(), "d.ckpt": b"x"})
    with pytest.raises(InvalidRequest, match=r"`file=`: a\.safetensors, d\.ckpt"):
        pull("acme/two")
    assert pull("acme/two", file="c.safetensors").entry.kind == "vae"
    with pytest.raises(InvalidRequest, match=r"did you mean 'a\.safetensors'"):
        pull("acme/two", file="aa.safetensors")


def test_a_folder_in_a_repository(service, toy_folder, monkeypatch, tmp_path):
    files = folder(toy_folder)
    vae = {name: content for name, content in files.items() if name.startswith("vae/")}
    alone = {"weights/only.safetensors": tensors(), "weights/README.md": b"# Only"}
    service.add_repository("acme/toy", files | alone)
    recorded = pull(f"{service.url}/acme/toy/tree/main/vae")
    assert (recorded.entry.name, recorded.entry.kind) == ("toy-vae", "vae")
    assert folder(recorded.version.path) == {
        name.removeprefix("vae/"): content for name, content in vae.items()
    }
    assert recorded.version.origin == f"hf://acme/toy@{COMMIT}/vae"
    assert pull("hf://acme/toy/vae/").news == "known"
    assert darkroom.load(toy_folder, device="cpu", vae="toy-vae").generate("a", steps=1)
    wanted = lock_of(recorded.entry, tmp_path / LOCK)
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "new"))
    fetched = pull_locked(wanted)
    assert folder(fetched.version.path) == folder(recorded.version.path)
    recorded = pull("hf://acme/toy/weights")
    assert recorded.version.origin == f"hf://acme/toy@{COMMIT}/weights/only.safetensors"
    assert recorded.entry.kind == "vae"
    with pytest.raises(ModelError, match="holds no model and no weights"):
        pull("hf://acme/toy/scheduler")


def test_the_hub_says_no(service, toy_folder, monkeypatch):
    with pytest.raises(ModelError, match="no model acme/none"):
        pull("acme/none")
    service.add_repository("acme/gated", folder(toy_folder))
    service.token = "secret"
    with pytest.raises(ModelError, match=r"accept its terms at .*/acme/gated.*HF_TOKEN"):
        pull("acme/gated")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert pull("acme/gated").news == "new"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be reached"):
        pull("acme/other")
    monkeypatch.setenv("HF_ENDPOINT", "http://example.com")
    with pytest.raises(InvalidRequest, match="not encrypted"):
        pull("acme/other")


def test_a_token_goes_to_nobody_else(service, elsewhere, toy_folder, sd1):
    service.add_repository("acme/toy", folder(toy_folder), cdn=elsewhere)
    service.add_civitai(1, 2, "Dream", {"dream.safetensors": sd1})
    place = "/api/download/models/2?file=0"
    elsewhere.files["/signed"] = service.files.pop(place)
    service.redirects[place] = f"{elsewhere.url}/signed"
    service.token = "secret"
    pull("acme/toy", token="secret")
    pull("civitai:1@2", token="secret")
    assert all(headers["authorization"] == "Bearer secret" for _, headers in service.asked)
    assert elsewhere.bodies()
    assert not any("authorization" in headers for _, headers in elsewhere.asked)


def test_without_the_library_of_the_hub_it_is_said_how_to_get_it(service, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"pip install 'darkroom\[hub\]'"):
        pull("acme/toy")


# Civitai


def test_a_model_of_civitai(service, sd1):
    pickled = io.BytesIO()
    torch.save({"state_dict": {}}, pickled)
    said = {"trainedWords": ["dreamy"], "baseModel": "SD 1.5"}
    files = {"d.ckpt": pickled.getvalue(), "../../d.safetensors": sd1}
    service.add_civitai(12, 34, "Dream / Shaper", files, **said)
    recorded = pull("civitai:12")
    assert about(recorded.version.path) == About("Dream / Shaper", "SD 1.5", ("dreamy",))
    assert recorded.entry.name == "Dream - Shaper"
    assert recorded.version.origin == "civitai:12@34"
    assert recorded.version.path == home() / f"models/model/Dream - Shaper/{blobs()[0][:10]}/d.safetensors"
    assert recorded.version.path.read_bytes() == sd1
    for again in (
        "civitai:@34",
        "https://civitai.com/models/12?modelVersionId=34",
        "civitai:34",
        "Dream - Shaper",
    ):
        assert pull(again).news == "known"
    assert len(service.bodies()) == 1


def test_newer_versions_and_pins(service, sd1):
    newer = save(single_file("Stable Diffusion 1") | {"betas": torch.zeros(1000)})
    service.add_civitai(12, 34, "Dream", {"dream_8.safetensors": sd1})
    pull("civitai:12")
    service.add_civitai(12, 35, "Dream", {"dream_9.safetensors": newer})
    assert pull("dream").entry.current == 1
    with changing() as library:
        library.find("dream").pinned = True
        library.find("dream").current = 0
    service.add_civitai(12, 36, "Dream", {"dream_10.safetensors": newer[:-1] + b"\1"})
    recorded = pull("dream")
    assert (recorded.number, recorded.entry.current) == (2, 0)
    assert locate("dream").name == "dream_8.safetensors"


def test_a_file_with_another_hash_is_refused(service, sd1):
    service.add_civitai(12, 34, "Dream", {"dream.safetensors": sd1})
    service.files["/api/download/models/34?file=0"] = sd1[:-1] + b"\1"
    with pytest.raises(ModelError, match="is not what the service says"):
        pull("civitai:12")
    assert unfinished() == []
    assert Library.read().entries == []


def test_what_is_no_model_is_not_kept(service, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/canary",)

    evil = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Evil()}, evil)
    service.add_civitai(12, 34, "Evil", {"evil.ckpt": evil.getvalue()})
    with pytest.raises(ModelError, match=r"civitai:12@34: evil\.ckpt: is refused.*deleted"):
        pull("civitai:12")
    assert not (tmp_path / "canary").exists()
    assert (blobs(), unfinished(), Library.read().entries) == ([], [], [])


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "CIVITAI_TOKEN"), (403, "CIVITAI_TOKEN"), (404, "nothing at"), (418, "418")],
)
def test_refusals_say_what_to_do(service, status, words):
    service.statuses = [(status, {})] * 2
    with pytest.raises(ModelError, match=words):
        pull("civitai:12")


def test_a_page_that_asks_to_log_in_is_no_file(service, sd1):
    service.add_civitai(12, 34, "Dream", {"dream.safetensors": sd1})
    service.headers["/api/download/models/34?file=0"] = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(ModelError, match=r"web page instead of dream.*CIVITAI_TOKEN"):
        pull("civitai:12")


# Any address, and the ways of the network


def test_a_plain_address(service):
    data = tensors()
    service.files["/get?id=3"] = data
    service.headers["/get?id=3"] = {"Content-Disposition": 'attachment; filename="../my vae.safetensors"'}
    recorded = pull(f"{service.url}/get?id=3")
    assert (recorded.entry.name, recorded.entry.kind) == ("my vae", "vae")
    assert recorded.version.path.read_bytes() == data


def test_the_same_file_is_stored_once_and_found_wherever_it_is(service, tmp_path):
    data = tensors()
    service.files |= {"/a.safetensors": data, "/b.safetensors": data}
    first, second = (pull(f"{service.url}/{name}.safetensors") for name in "ab")
    assert second.news == "new"
    assert os.path.samefile(first.version.path, second.version.path)
    assert blobs() == [hashlib.sha256(data).hexdigest()]
    with changing() as library:
        assert remove(library.find("a"), [0], library) == 0
    assert second.version.path.read_bytes() == data
    with changing() as library:
        assert remove(library.find("b"), [0], library) == len(data)
    assert blobs() == []


@pytest.mark.parametrize("etags", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(service, naps, etags):
    data = tensors(size=1 << 18)
    service.etags = etags
    service.add_civitai(12, 34, "V", {"v.safetensors": data})
    service.drop = [1000, 100_000]
    recorded = pull("civitai:12")
    assert recorded.version.path.read_bytes() == data
    assert [asked for _, asked in service.bodies()] == ["", "bytes=1000-", "bytes=101000-"]
    assert naps == [1.0, 1.0]


def test_a_download_that_was_given_up_goes_on_later(service, naps):
    data = tensors()
    service.files["/v.safetensors"] = data
    service.drop = [1000, 0, 0, 0, 0]
    with pytest.raises(ModelError, match="run it again to go on"):
        pull(f"{service.url}/v.safetensors")
    assert naps == [1.0, 2.0, 4.0, 8.0]
    assert unfinished() == [".json", ".part"]
    assert pull(f"{service.url}/v.safetensors").version.path.read_bytes() == data
    assert service.bodies()[-1][1] == "bytes=1000-"
    assert unfinished() == []


def test_a_file_that_changed_meanwhile_is_fetched_anew(service):
    service.files["/v.safetensors"] = tensors(1)
    service.drop = [5000, 0, 0, 0, 0]
    with pytest.raises(ModelError):
        pull(f"{service.url}/v.safetensors")
    service.files["/v.safetensors"] = data = tensors(2)
    assert pull(f"{service.url}/v.safetensors").version.path.read_bytes() == data


@pytest.mark.parametrize(
    ("lacking", "ranges"),
    [("ranges", ["", "bytes=5000-"]), ("etags", ["", ""])],
    ids=["a server without ranges", "no mark to recognise the file by"],
)
def test_what_cannot_be_resumed_begins_anew(service, lacking, ranges):
    data = tensors()
    service.files["/v.safetensors"] = data
    setattr(service, lacking, False)
    service.drop = [5000]
    assert pull(f"{service.url}/v.safetensors").version.path.read_bytes() == data
    assert [asked for _, asked in service.bodies()] == ranges


def test_a_wrong_beginning_is_thrown_away_once(service):
    data = tensors()
    service.add_civitai(12, 34, "V", {"v.safetensors": data})
    digest = hashlib.sha256(data).hexdigest()
    (home() / "models/partial").mkdir(parents=True)
    (home() / f"models/partial/{digest}.part").write_bytes(b"\0" * 5000)
    assert pull("civitai:12").version.path.read_bytes() == data
    assert [asked for _, asked in service.bodies()] == ["bytes=5000-", ""]


def test_a_busy_server_is_given_time(service, naps):
    service.add_civitai(12, 34, "V", {"v.safetensors": tensors()})
    service.statuses = [(429, {"Retry-After": "7"}), (503, {}), (500, {})]
    pull("civitai:12")
    assert naps == [7.0, 2.0, 4.0]
    service.statuses = [(503, {"Retry-After": "4000"})]
    with pytest.raises(ModelError, match="asks to wait 4000 s"):
        pull("civitai:13")
    service.statuses = [(502, {})] * 9
    with pytest.raises(ModelError, match=r"502.*gave up after 5 tries"):
        pull("civitai:13")


def test_an_interrupted_download_keeps_what_it_has(service):
    data = tensors(size=1 << 22)
    service.files["/v.safetensors"] = data

    def stop(name, done, total):
        if done > 2 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(f"{service.url}/v.safetensors", progress=stop)
    assert unfinished() == [".json", ".part"]
    seen = []
    recorded = pull(f"{service.url}/v.safetensors", progress=lambda _, done, total: seen.append(done))
    assert recorded.version.path.read_bytes() == data
    assert seen[0] > 2 << 20


def test_a_full_disk_is_noticed_before(service, monkeypatch):
    data = tensors()
    service.add_civitai(12, 34, "V", {"v.safetensors": data})
    service.files["/v.safetensors"] = data
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _: usage)
    for what in ("civitai:12", f"{service.url}/v.safetensors"):
        with pytest.raises(ModelError, match="too full"):
            pull(what)
    assert not list((home() / "models/partial").glob("*.part"))


def test_addresses_must_be_safe(service, elsewhere):
    with pytest.raises(InvalidRequest, match="not encrypted"):
        pull("http://example.com/x.safetensors")
    service.redirects["/x.safetensors"] = "http://example.com/x.safetensors"
    with pytest.raises(InvalidRequest, match="not encrypted"):
        pull(f"{service.url}/x.safetensors")
    service.redirects["/y.safetensors"] = "file:///etc/passwd"
    with pytest.raises((InvalidRequest, ModelError)):
        pull(f"{service.url}/y.safetensors")
    with pytest.raises(InvalidRequest, match="no id, no address"):
        pull("nobody")
    with pytest.raises(ModelError, match="connection refused"):
        pull("http://127.0.0.1:9/x.safetensors")


def test_a_repository_with_a_malicious_path_is_refused(service, toy_folder, tmp_path):
    files = folder(toy_folder) | {"unet/../../../../escaped.json": b"{}"}
    service.add_repository("acme/evil", files)
    with pytest.raises(ModelError, match="malicious"):
        pull("acme/evil", file="unet/../../../../escaped.json")
    pull("acme/evil")
    assert not list(tmp_path.rglob("escaped.json"))


def test_the_record_is_readable_json(service):
    service.files["/v.safetensors"] = tensors()
    pull(f"{service.url}/v.safetensors")
    record = json.loads((home() / "library.json").read_text())
    assert record["entries"][0]["versions"][0]["path"].startswith("models/vae/v/")
