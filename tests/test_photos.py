"""Pictures that people have: each kind of file as what it shows."""

import contextlib
import io
import struct
import sys
import types
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from darkroom.errors import InvalidRequest
from darkroom.photos import LONGEST_SIDE, photo_of, read_file, read_photo

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 9, 3), np.uint8)
SMOOTH = np.stack(np.meshgrid(np.linspace(40, 200, 32), np.linspace(60, 220, 24)), -1).mean(-1)


def written(image: Image.Image, format: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, rows: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*each) for each in chunks)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "TGA", "GIF"])
def test_lossless_files_come_in_to_the_byte(format):
    if format == "GIF":
        image = Image.fromarray(COLOURS).quantize(256)
        expected, content = np.array(image.convert("RGB")), written(image, "GIF")
    else:
        expected = COLOURS
        content = written(
            Image.fromarray(COLOURS), format, **({"lossless": True} if format == "WEBP" else {})
        )
    photo = read_photo(content)
    assert (photo.pixels == expected).all()
    assert photo.alpha is None
    assert not photo.notes
    assert photo.pixels.flags.writeable
    assert photo.pixels.dtype == np.uint8
    assert photo.size == (9, 6)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_not_cut_off(format):
    deep = (np.arange(48, dtype=np.uint16) * 1300).reshape(6, 8)
    photo = read_photo(written(Image.fromarray(deep), format))
    assert np.abs(photo.pixels.astype(float) - deep[..., None] / 257).max() <= 0.5


def test_colours_of_16_bits():
    deep = RNG.integers(0, 65536, (4, 5, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    photo = read_photo(png_of(5, 4, rows, depth=16))
    assert np.abs(photo.pixels.astype(float) - deep / 257).max() <= 1


def test_floats():
    real = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)
    assert (read_photo(written(Image.fromarray(real), "TIFF")).pixels[..., 0] == (real * 255).round()).all()
    assert (
        read_photo(written(Image.fromarray(real * 255), "TIFF")).pixels[..., 0] == (real * 255).round()
    ).all()


def test_one_bit_and_palettes():
    bits = RNG.integers(0, 2, (5, 7)).astype(bool)
    assert (read_photo(written(Image.fromarray(bits))).pixels == bits[..., None] * np.uint8(255)).all()
    palette = Image.fromarray(COLOURS).quantize(16)
    assert (read_photo(written(palette)).pixels == np.array(palette.convert("RGB"))).all()


def test_print_colours():
    cmyk = Image.fromarray(SMOOTH.astype(np.uint8)).convert("RGB").convert("CMYK")
    for format in ("TIFF", "JPEG"):
        photo = read_photo(written(cmyk, format))
        assert np.abs(photo.pixels.astype(float) - SMOOTH[..., None]).mean() < 3, format


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB with a colour", "P", "I;16"])
def test_what_is_transparent(mode):
    alpha = np.full((6, 9), 255, np.uint8)
    alpha[:, :4] = 0
    options, colours = {}, COLOURS
    if mode == "RGBA":
        image = Image.fromarray(np.dstack([COLOURS, alpha]))
    elif mode == "LA":
        colours = np.repeat(COLOURS[..., :1], 3, axis=2)
        image = Image.fromarray(np.dstack([COLOURS[..., 0], alpha]), "LA")
    elif mode == "I;16":
        deep = np.full((6, 9), 40_000, np.uint16)
        deep[:, :4] = 257 * 7
        colours, image, options = np.repeat((deep // 257).astype(np.uint8)[..., None], 3, 2), None, {}
        content = written(Image.fromarray(deep))
        at = content.index(b"IDAT") - 4
        content = content[:at] + png_chunk(b"tRNS", struct.pack(">H", 257 * 7)) + content[at:]
    else:
        colours = np.where(alpha[..., None] > 0, np.uint8(90), np.uint8(7)) * np.ones(3, np.uint8)
        image, options = Image.fromarray(colours), {"transparency": (7, 7, 7)}
        if mode == "P":
            image = image.quantize(2)
            options = {"transparency": image.getpixel((0, 0))}
    photo = read_photo(written(image, **options) if image else content)
    assert (photo.alpha == alpha).all()
    assert np.abs(photo.pixels.astype(int) - colours).max() <= 1  # As they are under alpha, too.
    laid = photo.over()
    assert (laid[:, :4] == 255).all()
    assert (laid[:, 4:] == photo.pixels[:, 4:]).all()
    assert (photo.over(0)[:, :4] == 0).all()


def test_half_transparent_over_white():
    alpha = np.full((6, 9), 128, np.uint8)
    photo = read_photo(written(Image.fromarray(np.dstack([COLOURS, alpha]))))
    assert np.abs(photo.over() - (COLOURS * (128 / 255) + 255 * (127 / 255))).max() <= 0.51


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_photographs_stand_upright(orientation, format):
    """Against where the standard has the first row and column."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16, 0] = 255  # Red at the top left.
    upright[8:, 16:, 2] = 255  # Blue at the bottom right.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = written(
        Image.fromarray(np.ascontiguousarray(stored)),
        format,
        exif=exif,
        **({"quality": 95} if format != "PNG" else {}),
    )
    photo = read_photo(content)
    assert photo.pixels.shape == upright.shape
    assert np.abs(photo.pixels.astype(int) - upright).mean() < 12
    # So they are from memory.
    assert (photo_of(Image.open(io.BytesIO(content))).pixels == photo.pixels).all()


def test_profiles_become_srgb():
    """A profile that takes red and blue for each other stands for all that are not sRGB."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    content = bytearray(plain.tobytes())
    tags = {}
    for number in range(struct.unpack(">I", content[128:132])[0]):
        at = 132 + 12 * number
        tags[bytes(content[at : at + 4])] = at
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    content[red + 4 : red + 12], content[blue + 4 : blue + 12] = (
        content[blue + 4 : blue + 12],
        content[red + 4 : red + 12],
    )
    name = ImageCms.getProfileDescription(plain).strip().split()[0]
    swapped = bytes(content).replace(
        name.encode("utf-16-be"), "x".join([""] * (len(name) + 1)).encode("utf-16-be")
    )
    image = Image.fromarray(np.full((4, 4, 3), (200, 90, 30), np.uint8))
    photo = read_photo(written(image, icc_profile=swapped))
    assert not photo.notes
    assert np.abs(photo.pixels[0, 0].astype(int) - (30, 90, 200)).max() <= 6
    # What says that it is sRGB comes in to the byte.
    assert (
        read_photo(written(Image.fromarray(COLOURS), icc_profile=plain.tobytes())).pixels == COLOURS
    ).all()
    # Alpha keeps out of it.
    clear = Image.fromarray(np.full((4, 4, 4), (200, 90, 30, 40), np.uint8))
    photo = read_photo(written(clear, icc_profile=swapped))
    assert (photo.alpha == 40).all()
    assert np.abs(photo.pixels[0, 0].astype(int) - (30, 90, 200)).max() <= 6


@pytest.mark.parametrize("profile", [b"no profile", b"\0" * 400])
def test_a_damaged_profile_is_told(profile):
    photo = read_photo(written(Image.fromarray(COLOURS), icc_profile=profile))
    assert (photo.pixels == COLOURS).all()
    assert "profile" in photo.notes[0]


def test_a_profile_of_other_colours_is_told():
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    photo = read_photo(written(Image.fromarray(COLOURS), icc_profile=plain))
    assert (photo.pixels == COLOURS).all()
    assert photo.notes


def test_lab():
    lab = Image.fromarray(np.dstack([np.full((4, 4), 128, np.uint8), np.zeros((4, 4, 2), np.uint8)]), "LAB")
    photo = read_photo(written(lab, "TIFF"))
    assert np.ptp(photo.pixels.astype(int)[0, 0]) <= 4
    assert abs(int(photo.pixels[0, 0, 0]) - 119) < 6


@pytest.mark.parametrize(
    ("format", "what"), [("GIF", "frames"), ("WEBP", "frames"), ("PNG", "frames"), ("TIFF", "pages")]
)
def test_animated_ones_say_which_frame(format, what):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (10, 120, 240)]
    lossless = {"lossless": True} if format == "WEBP" else {}
    content = written(frames[0], format, save_all=True, append_images=frames[1:], **lossless)
    with pytest.raises(InvalidRequest, match=rf"boat.x has 3 {what}.*`frame=1`"):
        read_photo(content, "boat.x")
    for number, level in enumerate((10, 120, 240), 1):
        assert (read_photo(content, frame=number).pixels == level).all()
    with pytest.raises(InvalidRequest, match=r"frame is 4: .* has 3"):
        read_photo(content, frame=4)
    assert (read_photo(written(frames[1]), frame=1).pixels == 120).all()


def test_what_is_no_picture():
    for content, said in (
        (b"", "empty"),
        (b"hello", "no picture that is read"),
        (written(Image.fromarray(COLOURS))[:60], "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture that is read"),
        (png_of(60_000, 1), f"60,000x1 pixels: up to {LONGEST_SIDE:,}"),
        (png_of(30_000, 30_000), "178 million"),
        (png_of(0, 8), "cannot be read|0x8|no picture"),
    ):
        with pytest.raises(InvalidRequest, match=said) as error:
            read_photo(content, "boat.png")
        assert "boat.png" in str(error.value)
        assert "\n" not in str(error.value)


def test_every_cut_and_damage_is_one_error():
    whole = [
        written(Image.fromarray(COLOURS), "PNG"),
        written(Image.fromarray(COLOURS), "JPEG", exif=Image.Exif()),
        written(Image.fromarray(COLOURS), "WEBP"),
        written(Image.fromarray(COLOURS), "TIFF"),
    ]
    for content in whole:
        for seed in range(60):
            rng = np.random.default_rng(seed)
            damaged = bytearray(content[: rng.integers(1, len(content) + 1)])
            damaged[rng.integers(len(damaged))] ^= int(rng.integers(1, 256))
            with contextlib.suppress(InvalidRequest):
                assert read_photo(bytes(damaged)).pixels.ndim == 3


def test_heic_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InvalidRequest, match="HEIC file, which needs pillow-heif"):
        read_photo(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a.heic")
    called = []
    plugin = types.SimpleNamespace(register_heif_opener=lambda: called.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    with pytest.raises(InvalidRequest):
        read_photo(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a.heic")
    assert called


def test_pictures_in_memory():
    for given in (
        Image.fromarray(COLOURS),
        COLOURS,
        (COLOURS.astype(np.uint16) * 257),
        COLOURS.astype(np.float32) / 255,
        torch.from_numpy(COLOURS).permute(2, 0, 1) / 255,
        torch.from_numpy(COLOURS).permute(2, 0, 1)[None] / 127.5 - 1,
    ):
        assert (photo_of(given).pixels == COLOURS).all()
    alpha = np.full((6, 9, 1), 9, np.uint8)
    assert (photo_of(np.dstack([COLOURS, alpha])).alpha == 9).all()
    assert (photo_of(COLOURS[..., 0]).pixels == COLOURS[..., :1]).all()


def test_what_is_no_picture_in_memory():
    for given, said in (
        (3, "is a int"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), "8x0"),
        (np.full((8, 8, 3), 2.0), "outside 0 to 1"),
        (np.full((8, 8, 3), np.nan), "outside 0 to 1"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((8, 8, 3), complex), "complex"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            photo_of(given)


def test_files_are_read_whole(tmp_path, monkeypatch):
    path = tmp_path / "boat.png"
    with pytest.raises(InvalidRequest, match="no file"):
        read_file(path)
    with pytest.raises(InvalidRequest, match="cannot read"):
        read_file(tmp_path)
    path.write_bytes(b"12345")
    assert read_file(path) == b"12345"
    monkeypatch.setattr("darkroom.photos.LARGEST_FILE", 4)
    with pytest.raises(InvalidRequest, match="larger than"):
        read_file(path)


def test_a_file_that_grows_while_it_is_read(tmp_path):
    path = tmp_path / "boat.png"
    path.write_bytes(b"12345")

    class Growing:
        def __init__(self, file):
            self.file = file

        def read(self, most):
            found = self.file.read(most)
            path.write_bytes(b"1234567")
            return found

        def __getattr__(self, name):
            return getattr(self.file, name)

    from darkroom.photos import _whole

    with path.open("rb") as file, pytest.raises(InvalidRequest, match="changes while"):
        _whole(Growing(file), path)


def test_what_a_picture_says_is_looked_for_by_its_header_first(monkeypatch, tmp_path):
    """Texts may stand behind the pixels of a PNG file: of one that is too large to be unpacked they are not looked
    for."""
    from PIL import PngImagePlugin

    from darkroom.generation.picture import made_by, made_from, open_picture, pixels_of, texts_of

    def unpacked(self):
        raise AssertionError("it is unpacked")

    bomb = png_of(30_000, 30_000, b"\0" * 90_000)
    (tmp_path / "bomb.png").write_bytes(bomb)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", unpacked)
    for given in (bomb, tmp_path / "bomb.png"):
        assert made_by(given) is None
        assert made_from(given, Image.new("RGB", (8, 8)), {}, "").parameters == ""
    assert texts_of(tmp_path / "bomb.png", ("parameters",))[0] == (30_000, 30_000)
    with pytest.raises(InvalidRequest, match="178 million"):
        pixels_of(tmp_path / "bomb.png")
    said = png_chunk(b"tEXt", b'darkroom\0{"request": {"prompt": "a boat"}}')
    (tmp_path / "said.png").write_bytes(bomb[:33] + said + bomb[33:])
    with pytest.raises(InvalidRequest, match="178 million"):
        open_picture(tmp_path / "said.png")


def test_truths_are_black_and_white():
    mask = np.arange(12).reshape(3, 4) % 3 == 0
    for given in (mask, torch.from_numpy(mask)[None]):
        photo = photo_of(given)
        assert (photo.pixels == np.where(mask, 255, 0)[..., None]).all()


def test_deep_greys_have_profiles_too():
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = Image.fromarray(np.full((4, 4), 30_000, np.uint16))
    photo = read_photo(written(deep, icc_profile=b"no profile"))
    assert (photo.pixels == 117).all()
    assert "profile" in photo.notes[0]
    assert not read_photo(written(deep, icc_profile=plain)).notes


def test_a_file_that_is_written_anew_meanwhile(tmp_path, monkeypatch):
    path = tmp_path / "boat.png"
    path.write_bytes(b"0" * 100)
    whole = type(path).stat
    times = iter((1, 2))

    def stat(self, **how):
        found = whole(self, **how)
        return types.SimpleNamespace(st_size=found.st_size, st_mtime_ns=next(times))

    monkeypatch.setattr(type(path), "stat", stat)
    with pytest.raises(InvalidRequest, match="changes while it is read"):
        read_file(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(InvalidRequest, match="larger than 1,024 MiB"):
        read_file(path)
