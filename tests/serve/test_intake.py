"""What comes in: everything is checked before it is kept, and no path is looked at."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import subprocess
import sys
import zlib
from typing import ClassVar

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation import Request
from darkroom.serve.catalogue import Catalogue
from darkroom.serve.intake import Intake


def png(width: int = 32, height: int = 32, mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.new(mode, (width, height), "#33669980" if mode == "RGBA" else "#336699").save(content, "PNG")
    return content.getvalue()


class Desk:
    """An intake with what was uploaded and kept."""

    def __init__(self) -> None:
        self.catalogue = Catalogue("toy")
        self.intake, self.uploads, self.kept = Intake(self.catalogue), dict[str, bytes](), list[bytes]()

    def upload(self, sha256: str) -> bytes:
        if sha256 not in self.uploads:
            raise InvalidRequest("there is no upload")
        return self.uploads[sha256]

    def __call__(self, **body):
        return self.intake.job("local", body, self.upload, self.kept.append)


@pytest.fixture
def desk(serving, monkeypatch):
    # As `names_only` has it, for this test alone.
    monkeypatch.setattr("darkroom.library.locate._paths", {"toy"})
    found = Desk()
    yield found
    found.catalogue.close()


def test_a_job_is_settled_as_the_library_does(desk):
    from darkroom.model import load

    job = desk(prompt="a boat", seed=3, steps=4, count=2, priority="batch", format="jpg")
    asked = Request("a boat", seed=3, steps=4, count=2)
    assert Request.from_dict(job.request) == load("toy").settle(asked)
    assert Request.from_dict(job.asked) == asked.checked()
    assert (job.kind, job.model, job.count, job.priority, job.format) == (
        "generate",
        "toy",
        2,
        "batch",
        "jpeg",
    )
    # Two pictures of four steps, each of two rows, at the model's own size.
    assert job.work == 16


def test_a_seed_is_drawn_when_it_comes_in(desk):
    first, second = (Request.from_dict(desk(prompt="a boat").request).seed for _ in range(2))
    assert first is not None
    assert first != second


def test_pictures_come_as_base64_or_as_uploads(desk):
    content = png()
    sha256 = hashlib.sha256(content).hexdigest()
    plain = base64.b64encode(content).decode()
    for given in (
        plain,
        f"data:image/png;base64,{plain}",
        "\n".join(plain[i : i + 76] for i in range(0, 999, 76)),
    ):
        job = desk(prompt="a boat", image=given)
        assert job.request["edit"]["image"] == {"sha256": sha256}
    assert desk.kept == [content] * 3
    desk.uploads[sha256] = content
    job = desk(prompt="a boat", edit={"image": {"sha256": sha256}}, mask={"sha256": sha256})
    assert job.request["inpaint"]["mask"] == {"sha256": sha256}
    assert len(desk.kept) == 3


def test_masks_may_be_words(desk):
    image = base64.b64encode(png(mode="RGBA")).decode()
    for mask, said in (
        ("alpha", "alpha"),
        ("the boat", {"thing": "the boat"}),
        ({"thing": "x"}, {"thing": "x"}),
    ):
        assert desk(prompt="a boat", image=image, mask=mask).request["inpaint"]["mask"] == said
    # Nor is this a file.
    assert desk(prompt="a boat", image=image, mask="/etc/passwd").request["inpaint"]["mask"] == {
        "thing": "/etc/passwd"
    }


def test_edits_begin_with_their_pictures_recipe(desk):
    from darkroom.model import load

    picture = load("toy").generate("a house", seed=1, steps=3)[0].encoded()
    job = desk(kind="edit", image=base64.b64encode(picture).decode(), strength=0.5)
    request = Request.from_dict(job.request)
    assert (request.prompt, request.sampling.steps, request.edit.strength) == ("a house", 3, 0.5)
    assert (
        desk(kind="edit", image=base64.b64encode(picture).decode(), prompt="a boat").asked["prompt"]
        == "a boat"
    )


def test_upscalings(desk):
    image = base64.b64encode(png()).decode()
    job = desk(kind="upscale", image=image, by=2)
    sha256 = hashlib.sha256(png()).hexdigest()
    assert job.request == {
        "upscaler": "lanczos",
        "by": 2,
        "width": None,
        "height": None,
        "image": {"sha256": sha256},
    }
    assert (job.kind, job.model, job.count) == ("upscale", None, 1)


def huge() -> bytes:
    """A PNG file that says it is of 60000x60000."""
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    crc = zlib.crc32(header).to_bytes(4, "big")
    return png().replace(png()[8:33], (13).to_bytes(4, "big") + header + crc)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "x", "steps": 0}, "steps is 0"),
        ({"prompt": "x", "steps": "many"}, "steps"),
        ({"prompt": "x", "width": 100}, "multiple"),
        ({"prompt": "x", "wdth": 64}, "did you mean 'width'"),
        ({"prompt": "x", "cfg_scale": 7}, "guidance"),
        ({"prompt": "x", "model": "nonesuch"}, "no model"),
        ({"prompt": "x", "model": 3}, "model is 3"),
        ({"prompt": "x", "kind": "dream"}, "kind"),
        ({"prompt": "x", "priority": "first"}, "priority"),
        ({"prompt": "x", "format": "gif"}, "format"),
        ({"prompt": "x", "image": "/etc/passwd"}, "not base64"),
        ({"prompt": "x", "image": {"path": "/etc/passwd"}}, "no picture"),
        ({"prompt": "x", "image": {"sha256": "0" * 64}}, "no upload"),
        ({"prompt": "x", "image": {"sha256": "../" * 21 + "x"}}, "no picture"),
        ({"prompt": "x", "image": base64.b64encode(b"no picture").decode()}, "picture"),
        ({"prompt": "x", "image": base64.b64encode(huge()).decode()}, "60000|60,000"),
        ({"prompt": "x", "mask_box": "0,0,8,8"}, "no picture"),
        ({"prompt": "x", "latents": "AAAA"}, "latents"),
        ({"prompt": "x", "version": 99}, "version"),
        ({"kind": "upscale"}, "image"),
        ({"kind": "upscale", "image": base64.b64encode(png()).decode(), "by": 2, "width": 64}, "leave one"),
        ({"kind": "upscale", "image": base64.b64encode(png()).decode(), "by": 99}, "by is 99"),
        ({"kind": "upscale", "image": base64.b64encode(png()).decode(), "steps": 9}, "unknown setting 'steps'"),
        ({"kind": "edit", "prompt": "x"}, "image"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(desk, body, words):
    with pytest.raises((InvalidRequest, ModelError), match=words):
        desk(**body)
    assert desk.kept == []


@pytest.mark.parametrize("mask", [{"thing": "\ud800"}, {"thing": "x" * 30_000}, {"thing": 3}, "a \0 boat"])
def test_things_are_texts(desk, mask):
    with pytest.raises(InvalidRequest, match="mask"):
        desk(prompt="x", image=base64.b64encode(png()).decode(), mask=mask)


def test_formats_that_no_photo_has_are_not_even_opened(desk):
    header = b"DDS " + struct.pack("<7I", 124, 0x1007, 32, 32, 0, 0, 0) + bytes(44)
    dds = header + struct.pack("<2I4s5I", 32, 4, b"XXXX", 0, 0, 0, 0, 0) + bytes(20)
    with pytest.raises(InvalidRequest, match="no picture"):
        desk(prompt="x", image=base64.b64encode(dds).decode())
    with pytest.raises(InvalidRequest, match="no picture"):
        desk(kind="edit", image=base64.b64encode(dds).decode())


def test_a_recipe_names_no_file(desk, tmp_path, monkeypatch):
    (tmp_path / "secret").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    picture = Image.new("RGB", (32, 32))
    texts = PngInfo()
    said = {"version": 2, "prompt": "x", "inpaint": {"mask": "secret"}}
    texts.add_itxt("darkroom", json.dumps({"request": said}))
    content = io.BytesIO()
    picture.save(content, "PNG", pnginfo=texts)
    job = desk(kind="edit", image=base64.b64encode(content.getvalue()).decode())
    assert job.asked.get("inpaint", {}).get("mask") in (None, {"thing": "secret"})


def test_pictures_have_a_limit(desk, monkeypatch):
    monkeypatch.setattr("darkroom.serve.intake._MOST_PIXELS", 1 << 10)
    desk(prompt="x", image=base64.b64encode(png(32, 32)).decode())
    with pytest.raises(InvalidRequest, match="33x32"):
        desk(prompt="x", image=base64.b64encode(png(33, 32)).decode())
    with pytest.raises(InvalidRequest, match="33x32"):
        desk.intake.look(png(33, 32))


NAMES = [
    "../../etc/passwd", "/etc/passwd", "~/x.safetensors", "..%2f..%2fetc", "\\\\host\\share\\x", "C:\\x.safetensors",
    "a/../../b.safetensors", "file:///etc/passwd", "https://example.org/x.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "<lora:{}:1>"},
        {"prompt": "x", "negative": "<lora:{}:1>"},
        {"prompt": "x", "adapters": ["{}:1"]},
        {"prompt": "<hypernet:{}:1>"},
        {"prompt": "x", "second_prompt": "<lora:{}:1>"},
        {"prompt": "{{<lora:{}:1>}}", "dynamic": "random"},
        {"prompt": "x", "upscaler": "{}"},
        {"prompt": "x", "embeddings": ["x={}"]},
        {"prompt": "x", "details": ["{}.onnx"]},
        {"prompt": "x", "model": "{}"},
    ],
    ids=lambda body: (
        next(name for name in body if name != "prompt") if len(body) > 1 else body["prompt"][1:5]
    ),
)
def test_no_path_is_looked_at(desk, body, name, tmp_path, monkeypatch):
    desk(prompt="x")  # The model itself is opened with the first job.
    body = {key: _with(value, name) for key, value in body.items()}
    with looked_at() as paths, pytest.raises((InvalidRequest, ModelError)):
        desk(**body)
    assert [each for each in paths if "passwd" in each or "share" in each or each.startswith("/etc")] == []


def _with(value, name):
    return [_with(each, name) for each in value] if isinstance(value, list) else value.replace("{}", name)


class looked_at:  # noqa: N801
    """The paths that are opened or listed within a block."""

    hooked: ClassVar[list[list[str]]] = []
    on = False

    def __enter__(self):
        cls = type(self)
        if not cls.on:
            cls.on = True
            sys.addaudithook(cls.hear)
        self.paths: list[str] = []
        cls.hooked.append(self.paths)
        return self.paths

    def __exit__(self, *_):
        type(self).hooked.remove(self.paths)

    @classmethod
    def hear(cls, event, given):
        if cls.hooked and event in ("open", "os.listdir", "os.scandir"):
            cls.hooked[-1].append(str(given[0]))


def test_a_path_of_somebody_elses_is_not_even_looked_for(tmp_path, monkeypatch):
    from darkroom.library import locate

    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"x")
    assert locate.locate(str(secret), kind="lora") == secret
    monkeypatch.setattr(locate, "_paths", set())
    for text in (str(secret), str(tmp_path)):
        with pytest.raises(ModelError, match="there is no lora"):
            locate.locate(text, kind="lora")
    assert locate.anchored(f"x={secret}") == f"x={secret}"
    assert locate.locate(secret, kind="lora") == secret
    monkeypatch.setattr(locate, "_paths", {str(secret)})
    assert locate.locate(str(secret), kind="lora") == secret


def test_torch_is_not_imported_to_take_jobs_in():
    code = """if True:
        import sys
        import darkroom.serve.api.server
        from darkroom.serve.catalogue import Catalogue
        from darkroom.serve.intake import Intake
        job = Intake(Catalogue("pocket")).job("local", {"prompt": "a boat", "sampler": "euler_a"}, None, None)
        assert job.request["sampling"]["steps"] == 20, job
        print("torch" in sys.modules)
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_words_that_stand_twice_for_torchs_sake():
    from darkroom.engine.memory import MODES
    from darkroom.loading import MEMORY

    assert (*MODES,) == MEMORY


def test_what_networks_need_can_be_given():
    from darkroom.checkpoint.family import GIVEN
    from darkroom.generation.shown import KINDS

    assert KINDS.keys() == GIVEN
