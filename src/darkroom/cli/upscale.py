"""`darkroom upscale`: pictures made larger."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cli.arguments import SAVING, a_number, a_whole, add_pictures, add_settings, pictures_named
from darkroom.cli.asked import each, layered
from darkroom.cli.parser import Parser
from darkroom.cli.settings import add_settings_file
from darkroom.cli.words import aside
from darkroom.errors import InvalidRequest
from darkroom.files import as_json
from darkroom.generation.parts import LATENT
from darkroom.generation.request import SETTINGS
from darkroom.generation.sources import a_source
from darkroom.loading import LOADING

if TYPE_CHECKING:
    from darkroom.upscaling.upscaler import Told, Upscaler

_EXAMPLES = """\
examples:
  darkroom upscale boat.png --by 4
  darkroom upscale photos/ --by 2 --upscaler RealESRGAN_x2plus.pth -o larger/
  darkroom upscale sprite.png --by 8 --upscaler nearest
  darkroom upscale photo.jpg --width 3840 --upscaler RealESRGAN_x4plus

Upscalers are found by name once they are in the library: darkroom models add RealESRGAN_x4plus.pth
"""
_EMBEDDED = "pocket-x4"


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "upscale",
        help="make pictures larger",
        description="Make a picture larger, or each in a folder, and write it beside nothing that is there: by a "
        "network (ESRGAN, Real-ESRGAN and their kin), or by a filter. What is transparent stays so, and what the file "
        "says of how the picture was made is kept.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_pictures(command)
    size = command.add_argument_group("the size")
    size.add_argument(
        "--by",
        type=a_number,
        metavar="X",
        help="how many times larger, 1 to 16 (default: as the upscaler makes it, 2 for a filter)",
    )
    size.add_argument("--width", "-W", type=a_whole, metavar="N", help="its width, in place of --by")
    size.add_argument(
        "--height",
        "-H",
        type=a_whole,
        metavar="N",
        help="its height, in place of --by; with --width what has no room is cut off",
    )
    how = command.add_argument_group("how")
    how.add_argument(
        "--upscaler",
        metavar="NAME",
        help="lanczos, nearest, or a network by its name in the library (see 'darkroom models list --kind upscaler') "
        f"or its file (default: {_EMBEDDED} for what the pocket model drew, else lanczos)",
    )
    how.add_argument(
        "--tile",
        type=a_whole,
        metavar="N",
        help="side of the parts that a network is given, in pixels; 0: the picture whole (default: 256)",
    )
    how.add_argument("--frame", type=a_whole, metavar="N", help=SETTINGS["frame"].metadata["help"])
    add_settings(how, [LOADING[name] for name in ("device", "precision")])
    add_settings(
        command.add_argument_group("the files"), [SAVING[name] for name in ("output", "format", "metadata")]
    )
    add_settings_file(command)
    command.add_argument(
        "--json", action="store_true", help="print JSON, an object a file: its path and metadata"
    )
    command.add_argument("--quiet", action="store_true", help="no progress bar, only the names of the files")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    pictures = pictures_named(args)
    loading, saving, settings = layered(args).over({})
    from PIL import Image

    from darkroom.cli.files import Files, picture_file
    from darkroom.generation.picture import made_from
    from darkroom.upscaling.upscaler import TILE, load_upscaler

    files, named = Files.of(saving, "{image}"), picture_file(saving.output)
    loaded: dict[str, Upscaler] = {}
    asked = settings.get("upscaler")
    if args.upscaler is None and asked in LATENT:
        asked = None  # For pictures that are being drawn.

    def looked(where: str, path: Path) -> tuple[Path, Upscaler, tuple[int, int]]:
        """A picture, its upscaler and the size that it had: all mistakes are told before anything is made."""
        name = asked or _usual(path)
        if name not in loaded:
            tile = TILE if args.tile is None else args.tile
            loaded[name] = load_upscaler(name, device=loading.device, precision=loading.precision, tile=tile)
        photo = a_source("image", path).found("image", args.frame)[1]
        if photo.alpha is not None and files.format == "jpeg":
            raise InvalidRequest(
                f"{path} is transparent in places, which JPEG files cannot be: write PNG or WebP"
            )
        loaded[name].size(photo.size, args.by, args.width, args.height)
        if files.limited:
            likely = made_from(path, Image.fromarray(photo.pixels[:8, :8]), loaded[name].facts, "")
            files.check(likely.metadata, likely.parameters)
        return path, loaded[name], photo.size

    whole = len(pictures) == 1
    for path, upscaler, size in each(looked, [("" if whole else str(one), one) for one in pictures]):
        notes: list[str] = []
        with _bar(path.name, args.quiet) as told:
            made = upscaler.upscale(
                path,
                args.by,
                width=args.width,
                height=args.height,
                frame=args.frame,
                progress=told,
                note=notes.append,
            )
        name = named.stem if named else f"{path.stem}-x{made.image.width / size[0]:.3g}"
        written = files.write(made, name)
        print(
            as_json({"path": str(written), "metadata": made.metadata}) if args.json else written, flush=True
        )
        if not args.quiet:
            for note in notes:
                aside("note", note)
            was, now = (f"{each[0]}x{each[1]}" for each in (size, made.image.size))
            print(f"{was} to {now} by {upscaler.name}: {upscaler.described}", file=sys.stderr)
    return 0


def _usual(path: Path) -> str:
    """The upscaler of a picture for which none is named."""
    from darkroom.generation.picture import metadata_of
    from darkroom.library.installed import installed

    with suppress(InvalidRequest):
        model = metadata_of(path).get("model")
        drawn = isinstance(model, dict) and model.get("name") == "pocket"
        if drawn and _EMBEDDED in installed("upscaler"):
            return _EMBEDDED
    return "lanczos"


@contextmanager
def _bar(name: str, quiet: bool) -> Iterator[Told]:
    from tqdm import tqdm

    with tqdm(unit="part", disable=quiet or None, dynamic_ncols=True, leave=False, delay=0.5) as bar:
        bar.set_description(name, refresh=False)

        def told(done: int, total: int) -> Any:
            bar.total = total
            bar.update(done - bar.n)

        yield told
