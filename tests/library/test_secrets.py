"""Addresses that choose a file and bring secrets: the one is heard, the others are used and neither kept nor shown."""

from __future__ import annotations

import base64
import json

import pytest
from tests.library.test_pull import naps, sd1, service, tensors  # noqa: F401 (fixtures)

from darkroom.cli import main
from darkroom.errors import DarkroomError, InvalidRequest, ModelError
from darkroom.library.fetch.origin import parse
from darkroom.library.fetch.pull import pull
from darkroom.library.lock import lock_of, read_lock, write_lock
from darkroom.library.records import Library, home
from darkroom.library.secrets import is_marked, kept, token_in, without_secrets

SECRETS = (
    "token=MYSECRET",
    "X-Amz-Signature=MYSECRET&X-Amz-Credential=MYSECRET",
    "sig=MYSECRET&se=2026",
    "api_key=MYSECRET",
    "download=ab12MYSECRET34567890abcdef",
)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_used_and_nowhere_kept_or_shown(service, tmp_path, capsys, secret):  # noqa: F811
    path = f"/vae.safetensors?id=7&{secret}"
    service.files[path] = tensors()
    assert main(["models", "pull", f"{service.url}{path}"]) == 0
    assert service.asked[-1][0] == path
    assert main(["models", "list", "vae"]) == 0
    assert main(["models", "lock", "vae", "--file", str(tmp_path / "models.lock")]) == 0
    assert "SECRET" not in "".join(capsys.readouterr())
    for file in (*home().rglob("*"), tmp_path / "models.lock"):
        assert not file.is_file() or b"SECRET" not in file.read_bytes()
    origin = Library.read().entries[0].version.origin
    assert origin.partition("#")[0] == f"{service.url}/vae.safetensors?id=7"
    # What may have chosen the file, for all its looks, leaves a mark.
    assert is_marked(origin) == secret.startswith("download=")
    # What goes wrong is told without it, too.
    del service.files[path]
    service.json.clear()
    assert main(["models", "pull", f"{service.url}/other{path}"]) == 1
    assert main(["models", "pull", f"http://example.com{path}"]) == 2
    err = capsys.readouterr().err
    assert "SECRET" not in err
    assert "id=7" in err


def test_a_password_is_a_login(service):  # noqa: F811
    service.files["/vae.safetensors"] = tensors()
    url = service.url.replace("http://", "http://me:MY%20SECRET@")
    recorded = pull(f"{url}/vae.safetensors")
    expected = base64.b64encode(b"me:MY SECRET").decode()
    assert service.asked[-1][1]["authorization"] == f"Basic {expected}"
    assert recorded.version.origin == f"{service.url}/vae.safetensors"


def test_tokens_of_addresses_go_to_their_service(service, sd1):  # noqa: F811
    service.add_civitai(1, 2, "Dream", {"dream.safetensors": sd1})
    service.token = "MYSECRET"
    recorded = pull(f"{service.url}/api/download/models/2?token=MYSECRET")
    assert recorded.version.origin == "civitai:1@2"
    assert token_in("https://me:pass@huggingface.co/a/b") == "pass"
    assert token_in("acme/toy") == ""


def test_an_address_chooses_its_file(service, sd1):  # noqa: F811
    files = {"full.safetensors": tensors(), "pruned.safetensors": sd1}
    service.add_civitai(1, 2, "Dream", files)
    for record, size in zip(
        service.json["/api/v1/model-versions/2"]["files"], ("full", "pruned"), strict=True
    ):
        record["metadata"] |= {"size": size, "fp": "fp16"}
        record["type"] = "Pruned Model" if size == "pruned" else "Model"
    address = f"{service.url}/api/download/models/2"
    recorded = pull(f"{address}?type=Pruned%20Model&format=SafeTensor&size=pruned&fp=fp16")
    assert recorded.version.path.read_bytes() == sd1
    assert pull(f"{address}?size=full", name="other").version.path.name == "full.safetensors"
    # What is recorded chooses the same again.
    assert parse(recorded.version.origin).choice[2] == ("size", "pruned")
    assert pull(recorded.version.origin).news == "known"
    with pytest.raises(
        InvalidRequest, match=r"fp=fp8.*pruned\.safetensors \(Pruned Model, SafeTensor, pruned, fp16\)"
    ):
        pull(f"{address}?fp=fp8")


def test_secrets_of_before_are_taken_out(service, tmp_path, caplog):  # noqa: F811
    service.files["/vae.safetensors"] = tensors()
    pull(f"{service.url}/vae.safetensors")
    record, lock = home() / "library.json", tmp_path / "models.lock"
    write_lock(lock, [lock_of(Library.read().entries[0], lock)])
    origin = f"{service.url}/vae.safetensors"
    for file in (record, lock):
        file.write_text(file.read_text().replace(origin, f"{origin}?token=MYSECRET"))
        assert "MYSECRET" in file.read_text()
    assert Library.read().entries[0].version.origin == origin
    assert read_lock(lock)[0].origin == origin
    for file in (record, lock):
        assert "MYSECRET" not in file.read_text()
        json.loads(file.read_text())
    assert "withdraw it" in caplog.text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://a.b/c?x=1&token=t#f", "https://a.b/c?x=1"),
        ("https://a.b/c?file=model%20v2.safetensors&size=full", None),
        ("see https://u:p@a.b/c and https://a.b/d?key=1.", "see https://a.b/c and https://a.b/d."),
        ("hf://acme/toy@main/a.safetensors", None),
        ("civitai:1@2?size=pruned", None),
        ("https://[broken?token=t", "https://[broken"),
        ("HTTPS://civitai.com/models/1?token=t", "https://civitai.com/models/1"),
        ("civitai.com/models/1?token=t", "civitai.com/models/1"),
        ("acme/toy?token=t", "acme/toy"),
        ("ftp://me:s@a.b/c", "ftp://a.b/c"),
        ("s3://k:s@b/c", "s3://b/c"),
        ("https://me:s/et@a.b/c", "https://a.b/c"),
        ("https://a.b/pkg@1.0/c", None),
        ("'https://a.b/c?x=1&token=t'", "'https://a.b/c?x=1'"),
        ("https://a.b/c?x=1'&token=t", "https://a.b/c?x=1%27"),
        ("https://a.b/c?a=1;token=t", "https://a.b/c?a=1"),
        ("https://drive/uc?export=download&id=1AbCdEfGhIjKlMnOpQrStUvWxYz012345", None),
        ("https://a.b/dl?file=dreamshaper_8_pruned_fp16_v2", None),
        ("is it a?b=c", "is it a?b=c"),
        (
            '{"a":"https://a.b/c","b":"#1","c":"https://d/e?token=t"}',
            '{"a":"https://a.b/c","b":"#1","c":"https://d/e"}',
        ),
    ],
)
def test_addresses_as_they_may_be_kept(text, clean):
    assert without_secrets(text) == (text if clean is None else clean)


SERVICES_WORDS = (
    *(
        "pass",
        "pw",
        "passphrase",
        "access_key",
        "accesskey",
        "rlkey",
        "private_key",
        "md5",
        "ak",
        "sk",
        "q-ak",
        "upsig",
    ),
    *("OSSAccessKeyId", "ticket", "sid", "otp", "hm", "resourcekey", "X-Goog-Signature", "Expires"),
)


@pytest.mark.parametrize("name", SERVICES_WORDS)
def test_what_services_call_secrets(name):
    assert without_secrets(f"https://a.b/c?x=1&{name}=SECRET") == "https://a.b/c?x=1"


def test_two_addresses_that_differ_in_what_is_not_kept(service):  # noqa: F811
    first, second = tensors(), tensors(2)
    paths = [f"/dl?blob={letter}1ZyXwVuTsRqPoNmLkJiHgFeDcBa543210" for letter in "ab"]
    for path, data in zip(paths, (first, second), strict=True):
        service.files[path] = data
    made = [pull(f"{service.url}{path}", name=path[-40:-33]) for path in paths]
    assert [each.version.path.read_bytes() for each in made] == [first, second]
    assert pull(f"{service.url}{paths[0]}").news == "known"
    assert kept(f"{service.url}{paths[0]}") == made[0].version.origin
    with pytest.raises(ModelError, match="cannot be fetched again"):
        pull(made[0].version.origin, name="again")


def test_records_do_not_print_them():
    origin = parse("https://a.b/c?token=MYSECRET")
    assert "MYSECRET" not in f"{origin} {origin!r}"
    with pytest.raises(DarkroomError) as raised:
        parse("https://huggingface.co/?token=MYSECRET")
    assert "MYSECRET" not in str(raised.value)
